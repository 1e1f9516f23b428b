"""The interval for new images: against closed forms, against its definition, and by how often it covers the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.fewshot import Episodes, evaluate, paired, sample_episodes, sample_open_episodes, sample_variable_episodes
from fewmatch.fewshot.new_images import _Queries, new_images_interval

#: 97.5 % quantiles of Student's t, from tables.
T_4, T_INFINITE = 2.7764, 1.96


def ragged_labels(seed: int, classes: int = 6) -> np.ndarray:
    counts = np.random.default_rng(seed).integers(8, 13, classes)
    return np.repeat(np.arange(classes), counts)


#: What a query's value is made of. f, g: a number for each image. q: (E, W, Q) and s: (E, W, K) rows.
Value = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def as_query(f: np.ndarray, g: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    return f[q]


def as_support(f: np.ndarray, g: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    return np.broadcast_to(g[s].mean(axis=2)[:, :, None], q.shape)


def as_both(f: np.ndarray, g: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    return as_query(f, g, q, s) + as_support(f, g, q, s)


def as_support_of_other_classes(f: np.ndarray, g: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    own = g[s].mean(axis=2)
    others = (own.sum(axis=1, keepdims=True) - own) / (s.shape[1] - 1)
    return as_query(f, g, q, s) + others[:, :, None]


def as_query_beside_others(f: np.ndarray, g: np.ndarray, q: np.ndarray, s: np.ndarray) -> np.ndarray:
    others = (g[q].sum(axis=2, keepdims=True) - g[q]) / (q.shape[2] - 1)
    return as_query(f, g, q, s) + others


@pytest.mark.parametrize(
    ("value", "transductive", "part_of_g"),
    [
        (as_query, False, 0.0),
        (as_support, False, None),
        (as_both, False, 1.0),
        (as_support_of_other_classes, False, 1.0),
        (as_query_beside_others, True, 1.0),
        (as_both, True, 1.0),
    ],
)
def test_where_images_add_up_the_variance_is_that_of_class_means(
    value: Value, transductive: bool, part_of_g: float | None
) -> None:
    """The mean over all episodes is the mean over the classes of the mean over images of f + g, whose variance is Σ s²/n over C²."""
    labels = ragged_labels(seed=2)
    rng = np.random.default_rng(3)
    f, g = rng.normal(size=(2, len(labels)))
    episodes = sample_episodes(labels, ways=3, shots=3, queries=4, episodes=20_000, seed=5)
    values = value(f, g, episodes.query, episodes.support)
    each = g if part_of_g is None else f + part_of_g * g
    per_class = [each[labels == c] for c in range(6)]
    wanted = sum(x.var(ddof=1) / len(x) for x in per_class) / 6**2
    queries = _Queries(episodes, values.reshape(len(episodes), -1), labels)
    variance, noise = queries.variance(transductive=transductive)
    assert variance == pytest.approx(wanted, rel=0.05)
    assert noise < 0.05 * wanted
    found = new_images_interval(values.reshape(len(episodes), -1), episodes, labels, transductive=transductive)
    drawing = values.mean(axis=(1, 2)).var(ddof=1) / len(episodes)
    assert found.ci95 == pytest.approx(T_INFINITE * np.sqrt(wanted + drawing), rel=0.06)


def test_what_an_image_gains_as_query_and_loses_as_support_cancels() -> None:
    labels = ragged_labels(seed=2)
    f = np.random.default_rng(3).normal(size=len(labels))
    episodes = sample_episodes(labels, ways=3, shots=2, queries=4, episodes=20_000, seed=5)
    values = as_both(f, -f, episodes.query, episodes.support).reshape(len(episodes), -1)
    variance, _ = _Queries(episodes, values, labels).variance(transductive=False)
    alone, _ = _Queries(episodes, f[episodes.query].reshape(len(episodes), -1), labels).variance(transductive=False)
    assert abs(variance) < 0.02 * alone


def defined_variance(values: np.ndarray, episodes: Episodes, labels: np.ndarray, transductive: bool) -> float:
    """Σ over classes of n/(n−1)/(E(E−1))·Σ over pairs of different episodes of the products of centred parts, one image at a time."""
    values = values.reshape(episodes.query.shape)
    by_image: dict[int, list[tuple[float, float]]] = {}
    by_class: dict[int, list[tuple[float, float]]] = {}
    for e in range(len(episodes)):
        weight = 1 / (episodes.query[e] >= 0).sum()
        for c, rows, found in zip(episodes.classes[e], episodes.query[e], values[e], strict=True):
            for row, v in zip(rows, found, strict=True):
                if row >= 0:
                    by_image.setdefault(int(row), []).append((weight, v))
                    by_class.setdefault(int(c), []).append((weight, v))
    image, of_class = (
        {key: sum(w * v for w, v in found) / sum(w for w, _ in found) for key, found in by.items()}
        for by in (by_image, by_class)
    )
    parts = np.zeros((len(episodes), len(labels)))
    for e in range(len(episodes)):
        weight = 1 / (episodes.query[e] >= 0).sum()
        rest = np.where(episodes.query[e] >= 0, values[e], 0.0)
        for w, q in np.argwhere(episodes.query[e] >= 0):
            rest[w, q] -= image[int(episodes.query[e, w, q])]
        for w, c in enumerate(episodes.classes[e]):
            if c < 0:
                continue
            n = int((labels == c).sum())
            k, asked = int((episodes.support[e, w] >= 0).sum()), int((episodes.query[e, w] >= 0).sum())
            left = n - k - asked if transductive else n - k
            own = (n - 2) / (left if transductive else left - 1) * n / (n - 1)
            other = (n - 1) / left
            elsewhere = sum(rest[v].sum() for v in range(episodes.ways) if v != w)
            for row in episodes.support[e, w, :k]:
                parts[e, row] += weight * (own * rest[w].sum() + other * elsewhere)
            for q, row in enumerate(episodes.query[e, w, :asked]):
                parts[e, row] += weight * (values[e, w, q] - of_class[int(c)])
                if transductive:
                    parts[e, row] += weight * (own * (rest[w].sum() - rest[w, q]) + other * elsewhere)
    total = 0.0
    for c in np.unique(labels):
        mine = parts[:, labels == c]
        n = mine.shape[1]
        for a in range(len(episodes)):
            for b in range(len(episodes)):
                if a != b:
                    products = (mine[a] * mine[b]).sum() - mine[a].sum() * mine[b].sum() / n
                    total += n / (n - 1) * products / (len(episodes) * (len(episodes) - 1))
    return total


@pytest.mark.parametrize("transductive", [False, True])
def test_equals_the_definition(transductive: bool) -> None:
    labels = np.repeat(np.arange(5), [14, 20, 17, 15, 16])
    drawn = [
        sample_episodes(labels, ways=3, shots=2, queries=3, episodes=25, seed=1),
        sample_episodes(labels, ways=(2, 5), shots=(1, 4), queries_total=9, dirichlet=2.0, episodes=25, seed=1),
    ]
    for episodes in drawn:
        values = np.random.default_rng(0).integers(0, 2, (len(episodes), episodes.query[0].size)).astype(float)
        variance, _ = _Queries(episodes, values, labels).variance(transductive=transductive)
        assert variance == pytest.approx(defined_variance(values, episodes, labels, transductive), rel=1e-9)


def test_covers_the_true_accuracy_where_the_interval_over_episodes_does_not() -> None:
    """20 classes of 30 images, 600 episodes of 5 ways and 5 shots; new images are drawn 200 times, and the true accuracy is known."""
    rng = np.random.default_rng(0)
    means = 0.6 * rng.normal(size=(20, 16))

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(20), images)
        return (means[labels] + rng.normal(size=(len(labels), 16))).astype(np.float32), labels

    def episodes_of(labels: np.ndarray, count: int, seed: int) -> Episodes:
        return sample_episodes(labels, ways=5, shots=5, queries=15, episodes=count, seed=seed)

    x, labels = draw(2_000)
    truth = evaluate(x, labels, episodes_of(labels, 10_000, 0)).accuracy
    accuracies, over_episodes, new_images = np.zeros((3, 200))
    for i in range(200):
        x, labels = draw(30)
        report = evaluate(x, labels, episodes_of(labels, 600, i))
        assert report.ci95 is not None and report.ci95_new_images is not None
        accuracies[i], over_episodes[i], new_images[i] = report.accuracy, report.ci95, report.ci95_new_images
    off = np.abs(accuracies - truth)
    assert (off <= over_episodes).mean() < 0.5
    assert (off <= new_images).mean() >= 0.9
    # And no wider than needed: the spread over redraws is what it should be.
    assert new_images.mean() < 1.3 * 1.96 * accuracies.std(ddof=1)


def blobs(images: int = 20, classes: int = 6, distance: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(classes), images)
    x = distance * rng.normal(size=(classes, 12))[labels] + rng.normal(size=(len(labels), 12))
    return x.astype(np.float32), labels


def test_without_replacement_episodes_are_independent_already() -> None:
    x, labels = blobs()
    episodes = sample_episodes(labels, ways=5, shots=5, queries=15, episodes=99, seed=0, replacement=False)
    episodes_more = sample_episodes(labels, ways=5, shots=1, queries=3, episodes=5, seed=0, replacement=False)
    assert len(episodes) == 1 and len(episodes_more) == 5
    report = evaluate(x, labels, episodes_more)
    assert report.ci95_new_images == pytest.approx(T_4 * report.per_episode.std(ddof=1) / np.sqrt(5), rel=1e-4)
    assert evaluate(x, labels, episodes).ci95_new_images_reason == "one episode has no spread"


def reason(x: np.ndarray, labels: np.ndarray, episodes: Episodes, **more: object) -> str:
    report = evaluate(x, labels, episodes, **more)  # type: ignore[arg-type]
    assert report.ci95_new_images is None and report.accuracy > 0
    assert report.to_json()["ci95_new_images"] is None
    assert report.ci95_new_images_reason == report.to_json()["ci95_new_images_reason"]
    assert report.ci95_new_images_reason is not None
    return report.ci95_new_images_reason


def test_where_there_is_no_interval_the_reason_is_given() -> None:
    x, labels = blobs()
    usual = sample_episodes(labels, ways=3, shots=1, queries=5, episodes=100, seed=0)
    for sampler in ({}, {"kind": "file", "replacement": True}):
        unknown = dataclasses.replace(usual, sampler=sampler)
        assert "not known how the episodes were drawn" in reason(x, labels, unknown)
    easy, _ = blobs(distance=50.0)
    assert "all queries have the same result" in reason(easy, labels, usual)
    few = sample_episodes(labels, ways=3, shots=5, queries=10, episodes=3, seed=0)
    assert reason(x, labels, few, method="bd-cspn") == (
        "3 episodes are too few to tell the influence of single images from chance"
    )
    opened, strangers = sample_open_episodes(
        labels, ways=3, unknown_classes=2, shots=1, queries=5, episodes=100, seed=0
    )
    assert evaluate(x, labels, opened, unknown=strangers).ci95_new_images is not None
    assert "unknown classes" in reason(x, labels, opened, unknown=strangers, method="soft-kmeans")


def test_classes_of_which_all_images_are_used_have_no_interval() -> None:
    x, labels = blobs(images=6)
    all_used = sample_episodes(labels, ways=3, shots=2, queries=4, episodes=500, seed=0)
    assert evaluate(x, labels, all_used).ci95_new_images is not None
    assert "an episode uses all 6 images of a class" in reason(x, labels, all_used, method="soft-kmeans")
    one_query = sample_episodes(labels, ways=3, shots=5, queries=1, episodes=500, seed=0)
    assert "an episode uses 5 of 6 images of a class as supports" in reason(x, labels, one_query)
    report = evaluate(x, labels, one_query)
    assert report.few_images


def test_few_images_are_said_and_many_are_not() -> None:
    x, labels = blobs(images=5)
    report = evaluate(x, labels, sample_episodes(labels, ways=5, shots=1, queries=4, episodes=2_000, seed=0))
    assert report.few_images and report.to_json()["few_images"] is True
    assert report.ci95 is not None and report.ci95_new_images is not None
    assert report.ci95 < 0.01 and report.ci95_new_images > 0.05
    x, labels = blobs(images=400)
    many = evaluate(x, labels, sample_episodes(labels, ways=5, shots=5, queries=15, episodes=500, seed=0))
    assert not many.few_images and many.ci95_new_images is not None and many.ci95_new_images < 0.02
    # A wide interval for want of episodes is another matter.
    x, labels = blobs(images=400, distance=0.3)
    rough = evaluate(x, labels, sample_episodes(labels, ways=2, shots=1, queries=2, episodes=60, seed=0))
    assert rough.ci95_new_images is not None and rough.ci95_new_images > 0.05 and not rough.few_images


def test_meta_dataset_episodes_have_the_interval_too() -> None:
    x, labels = blobs(images=30, distance=0.4)
    report = evaluate(x, labels, sample_variable_episodes(labels, episodes=400, seed=0))
    assert report.ci95 is not None and report.ci95_new_images is not None
    assert report.ci95_new_images > report.ci95


def test_paired_differences_have_the_interval_too() -> None:
    x, labels = blobs(distance=0.5)
    episodes = sample_episodes(labels, ways=5, shots=5, queries=10, episodes=2_000, seed=0)
    ncm, ridge = evaluate(x, labels, episodes), evaluate(x, labels, episodes, method="ridge")
    found = paired(ridge, ncm, episodes, labels)
    assert found.ci95 is not None and found.ci95_new_images is not None and ncm.ci95_new_images is not None
    # Wider than over episodes, narrower than that of either method: the same images are hard for both.
    assert found.ci95 < found.ci95_new_images < ncm.ci95_new_images
    back = paired(ncm, ridge, episodes, labels)
    assert back.mean == pytest.approx(-found.mean)
    assert back.ci95_new_images == pytest.approx(found.ci95_new_images)
    values = (ridge.right(episodes).astype(float) - ncm.right(episodes)).reshape(2_000, -1)
    by_hand = new_images_interval(values, episodes, labels, transductive=False)
    assert found.ci95_new_images == by_hand.ci95
    same = paired(ncm, ncm, episodes, labels)
    assert same.ci95_new_images is None
    assert same.ci95_new_images_reason == "the two methods are right and wrong on the same queries"
    assert paired(ridge, ncm).ci95_new_images_reason == "the episodes and labels were not given"
    with pytest.raises(InputError, match="cannot be paired"):
        paired(ncm, evaluate(x, labels, sample_episodes(labels, ways=5, shots=5, queries=10, episodes=3, seed=0)))
