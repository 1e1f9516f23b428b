"""Nearest class mean over episodes against its definition, and against theory."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import naive

from fewmatch.errors import InputError
from fewmatch.fewshot import CENTERS, Episodes, evaluate, sample_episodes
from fewmatch.fewshot.centering import TRANSDUCTIVE, ZeroVectorError
from fewmatch.fewshot.methods.ncm import METRICS
from fewmatch.fewshot.methods.ncm_raw import RawNearestMean
from fewmatch.fewshot.report import mean_and_interval


def data(
    seed: int, classes: int = 6, images: int = 25, dims: int = 13, offset: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), images))
    means = rng.normal(size=(classes, dims))
    return (means[labels] + rng.normal(size=(len(labels), dims)) + offset).astype(np.float32), labels


def naive_accuracies(
    x: np.ndarray, episodes: Episodes, center: str, metric: str, base: np.ndarray | None, prenormalize: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Per episode: the naive accuracy, and how many queries have a margin too small to bind float32."""
    accuracies, close = [], []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        ways, shots = support.shape
        s, q = naive.centered(x[support.reshape(-1)], x[query.reshape(-1)], center, base, prenormalize)
        distances = naive.squared_distances(s, np.repeat(np.arange(ways), shots), q, ways, metric)
        truth = np.repeat(np.arange(ways), query.shape[1])
        ordered = np.sort(distances, axis=1)
        accuracies.append((distances.argmin(axis=1) == truth).mean())
        close.append((ordered[:, 1] - ordered[:, 0] < 1e-6).sum())
    return np.array(accuracies), np.array(close)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("prenormalize", [False, True])
@pytest.mark.parametrize(("ways", "shots", "queries"), [(2, 1, 2), (5, 5, 4), (3, 2, 15), (6, 1, 1)])
def test_every_centring_equals_the_naive_definition(
    center: str, metric: str, prenormalize: bool, ways: int, shots: int, queries: int
) -> None:
    x, labels = data(seed=ways * 100 + shots)
    base = data(seed=99)[0] if center == "base" else None
    episodes = sample_episodes(labels, ways=ways, shots=shots, queries=queries, episodes=6, seed=5)
    report = evaluate(x, labels, episodes, center=center, metric=metric, base=base, prenormalize=prenormalize)
    wanted, close = naive_accuracies(x, episodes, center, metric, base, prenormalize)
    assert (np.abs(report.per_episode - wanted) * ways * queries <= close + 1e-9).all()
    assert report.accuracy == pytest.approx(report.per_episode.mean())
    assert report.transductive == (center in TRANSDUCTIVE)


@pytest.mark.parametrize("center", ["none", "support", "separate", "support+query", "feature"])
def test_a_large_common_offset_costs_no_digits(center: str) -> None:
    x, labels = data(seed=1, offset=3000.0)
    episodes = sample_episodes(labels, ways=5, shots=3, queries=4, episodes=20, seed=0)
    report = evaluate(x, labels, episodes, center=center)
    wanted, close = naive_accuracies(x, episodes, center, "euclidean", None, False)
    assert (np.abs(report.per_episode - wanted) * 20 <= close + 1e-9).all()


def test_torch_and_numpy_float32_and_float64_agree() -> None:
    x, labels = data(seed=2)
    episodes = sample_episodes(labels, ways=4, shots=2, queries=5, episodes=50, seed=1)
    results = [evaluate(f, labels, episodes).per_episode for f in (x, torch.from_numpy(x), x.astype(np.float64))]
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fewmatch.fewshot import evaluate as function
    from fewmatch.fewshot.evaluation import _CHUNK_BYTES

    x, labels = data(seed=3)
    episodes = sample_episodes(labels, ways=4, shots=2, queries=5, episodes=33, seed=1)
    whole = function(x, labels, episodes).per_episode
    monkeypatch.setitem(_CHUNK_BYTES, "cpu", 1)
    seen: list[tuple[int, int]] = []
    single = function(x, labels, episodes, progress=lambda *counts: seen.append(counts)).per_episode
    assert np.array_equal(whole, single) and seen[0] == (1, 33) and seen[-1] == (33, 33)


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["plain", "separated", "far groups", "heavy tails", "offset", "near duplicates"])
def test_the_quick_way_equals_step_by_step_and_float64(
    monkeypatch: pytest.MonkeyPatch, center: str, metric: str, kind: str
) -> None:
    """Whatever the table looks like: where the expansion would lose digits, vectors are centred one by one."""
    x, labels = data(seed=11, dims=40)
    rng = np.random.default_rng(11)
    match kind:
        case "separated":
            x = x + 30 * np.eye(40)[labels].astype(np.float32)
        case "far groups":
            x = x + np.where(labels[:, None] < 5, 0, 500).astype(np.float32)
        case "heavy tails":
            x = rng.standard_t(1.5, size=x.shape).astype(np.float32)
        case "offset":
            x = x + np.float32(1000)
        case "near duplicates":
            x = (rng.normal(size=(1, 40)) + 1e-3 * x).astype(np.float32)
    base = data(seed=12, dims=40)[0] if center == "base" else None
    episodes = sample_episodes(labels, ways=5, shots=3, queries=4, episodes=15, seed=2)
    quick = evaluate(x, labels, episodes, center=center, metric=metric, base=base).per_episode
    wanted, close = naive_accuracies(x, episodes, center, metric, base, False)
    assert (np.abs(quick - wanted) * 20 <= close + 1e-9).all()
    monkeypatch.setattr(RawNearestMean, "predict", lambda *_: None)
    slow = evaluate(x, labels, episodes, center=center, metric=metric, base=base).per_episode
    assert (np.abs(slow - wanted) * 20 <= close + 1e-9).all()


def test_the_quick_way_is_taken_and_left_where_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[bool] = []
    predict = RawNearestMean.predict

    def watched(self: RawNearestMean, support: np.ndarray, query: np.ndarray) -> np.ndarray | None:
        result = predict(self, support, query)
        taken.append(result is not None)
        return result

    monkeypatch.setattr(RawNearestMean, "predict", watched)
    x, labels = data(seed=13)
    episodes = sample_episodes(labels, ways=3, shots=2, queries=4, episodes=5, seed=0)
    evaluate(x, labels, episodes)
    assert taken and all(taken)
    taken.clear()
    far = x + np.where(labels[:, None] < 5, 0, 5000).astype(np.float32)
    within = Episodes(
        *(a[(episodes.classes < 5).all(axis=1)] for a in (episodes.classes, episodes.support, episodes.query))
    )
    assert len(within)
    evaluate(far, labels, within)  # five classes close together, seen from a mean far away
    assert taken and not any(taken)


def test_inputs_are_left_as_they_are() -> None:
    x, labels = data(seed=14)
    episodes = sample_episodes(labels, ways=3, shots=2, queries=4, episodes=5, seed=0)
    for features in (x, x.astype(np.float64)):
        before = features.copy()
        for center in ("none", "support", "support+query", "separate", "feature"):
            evaluate(features, labels, episodes, center=center)
            evaluate(features, labels, episodes, center=center, prenormalize=True)
        assert np.array_equal(features, before)


def test_permuting_the_queries_of_an_episode_changes_nothing() -> None:
    x, labels = data(seed=4)
    episodes = sample_episodes(labels, ways=4, shots=2, queries=7, episodes=30, seed=1)
    turned = Episodes(episodes.classes, episodes.support, episodes.query[:, :, ::-1].copy())
    for center in ("support", "support+query", "separate"):
        assert np.array_equal(
            evaluate(x, labels, episodes, center=center).per_episode,
            evaluate(x, labels, turned, center=center).per_episode,
        )


def test_ties_go_to_the_lowest_class() -> None:
    # Dyadic unit vectors: both classes have the same mean, so every query is a tie and class 0 gets it.
    x = np.eye(4, dtype=np.float32)[[0, 0, 0, 0]]
    labels = np.array([0, 0, 1, 1])
    episodes = Episodes(
        np.array([[0, 1]], np.int32), np.array([[[0], [2]]], np.int32), np.array([[[1], [3]]], np.int32)
    )
    for metric in METRICS:
        assert evaluate(x, labels, episodes, center="none", metric=metric).accuracy == 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 3), st.integers(1, 4))
def test_dyadic_vectors_are_exact(seed: int, ways: int, shots: int, queries: int) -> None:
    """Signed unit axis vectors, and a power of two shots: every distance is exact, ties and all."""
    shots = 2 ** (shots - 1)
    rng = np.random.default_rng(seed)
    per_class = shots + queries
    labels = np.repeat(np.arange(ways), per_class)
    x = (
        np.eye(3, dtype=np.float32)[rng.integers(0, 3, len(labels))] * rng.choice([-1, 1], len(labels))[:, None]
    ).astype(np.float32)
    episodes = sample_episodes(labels, ways=ways, shots=shots, queries=queries, episodes=3, seed=seed)
    got = evaluate(x, labels, episodes, center="none").per_episode
    wanted, _ = naive_accuracies(x, episodes, "none", "euclidean", None, False)
    assert np.array_equal(got, wanted)


def test_euclidean_and_cosine_agree_for_one_shot_and_may_differ_for_more() -> None:
    x, labels = data(seed=5, dims=4)
    one = sample_episodes(labels, ways=5, shots=1, queries=5, episodes=100, seed=0)
    more = sample_episodes(labels, ways=5, shots=5, queries=5, episodes=100, seed=0)
    same, differ = ([evaluate(x, labels, e, metric=m).per_episode for m in METRICS] for e in (one, more))
    assert np.array_equal(*same) and not np.array_equal(*differ)


def test_feature_centring_is_the_projection_along_the_ones() -> None:
    x = data(seed=6)[0].astype(np.float64)
    a = x / np.linalg.norm(x, axis=1, keepdims=True)
    projected = a @ (np.eye(13) - np.full((13, 13), 1 / 13))
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    from fewmatch.fewshot import center_table

    assert np.abs(center_table(torch.from_numpy(x), "feature").numpy() - projected).max() < 1e-12


def test_true_centring_helps_where_features_share_an_offset() -> None:
    x, labels = data(seed=7, classes=10, images=40, dims=64, offset=0.0)
    x = x + 8 * np.random.default_rng(0).normal(size=64).astype(np.float32)
    episodes = sample_episodes(labels, ways=5, shots=1, queries=15, episodes=500, seed=0)
    none, support = (evaluate(x, labels, episodes, center=c) for c in ("none", "support"))
    difference = support.per_episode - none.per_episode
    assert difference.mean() > 2 * 1.96 * difference.std(ddof=1) / math.sqrt(500)


def test_accuracy_on_gaussians_agrees_with_theory() -> None:
    """Two classes at ±a along one axis among many, far from the origin's unit sphere's curvature.

    Vectors are (big, ±a + noise, 0): after dividing by their norm the second coordinate is (±a + noise)/big up to 1e-6, so
    nearest class mean decides by its sign relative to the mid of the two class means. With k supports a class, the mid has the
    variance 1/(2k), so a query is right with probability Φ(a / sqrt(1 + 1/(2k))), if the means are in order, which a=2 makes sure.
    """
    rng = np.random.default_rng(0)
    a, n, k, big = 2.0, 4000, 4, 1e4
    labels = np.repeat([0, 1], n)
    x = np.zeros((2 * n, 3))
    x[:, 0], x[:, 1] = big, np.where(labels == 0, -a, a) + rng.normal(size=2 * n)
    episodes = sample_episodes(labels, ways=2, shots=k, queries=15, episodes=20_000, seed=1)
    report = evaluate(x, labels, episodes, center="none")
    theory = 0.5 * (1 + math.erf(a / math.sqrt(1 + 1 / (2 * k)) / math.sqrt(2)))
    # The table is finite: its own accuracy varies by about sqrt(p(1-p)/8000).
    assert report.ci95 is not None
    assert abs(report.accuracy - theory) < report.ci95 + 3 * math.sqrt(theory * (1 - theory) / (2 * n))


def test_chance_where_there_is_nothing_to_learn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 200)
    report = evaluate(
        rng.normal(size=(4000, 64)), labels, sample_episodes(labels, ways=5, shots=5, queries=15, episodes=5000, seed=0)
    )
    assert report.accuracy == pytest.approx(0.2, abs=0.005)


def test_interval_is_the_hand_formula() -> None:
    values = np.array([0.2, 0.4, 0.9])
    mean, half = mean_and_interval(values)
    assert mean == pytest.approx(0.5)
    assert half == pytest.approx(1.96 * math.sqrt((0.09 + 0.01 + 0.16) / 2) / math.sqrt(3))
    assert mean_and_interval(np.array([0.7])) == (0.7, None)


@pytest.mark.parametrize("center", ["support", "separate", "support+query", "none", "feature"])
def test_vectors_without_direction_are_an_error_not_nan(center: str) -> None:
    labels = np.array([0, 0, 1, 1])
    episodes = Episodes(
        np.array([[0, 1]], np.int32), np.array([[[0], [2]]], np.int32), np.array([[[1], [3]]], np.int32)
    )
    x = {
        "none": np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]]),
        "feature": np.array([[3, 3], [1, 0], [0, 1], [1, 2.0]]),
    }.get(center, np.array([[0.1, 0.7], [0.1, 0.7], [0.1, 0.7], [0.1, 0.7]]))
    with pytest.raises(ZeroVectorError, match="is zero"):
        evaluate(x.astype(np.float32), labels, episodes, center=center)


def test_one_support_in_all_and_one_query_are_refused_by_name() -> None:
    from fewmatch.fewshot import center_episodes

    one, two = torch.randn(1, 1, 4), torch.randn(1, 2, 4)
    with pytest.raises(ZeroVectorError, match="needs two supports"):
        center_episodes(one, two, "support")
    with pytest.raises(ZeroVectorError, match="needs two queries"):
        center_episodes(two, one, "separate")
    center_episodes(one, two, "support+query")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center": "mean"}, "no centring called mean: expected one of none, base, support"),
        ({"metric": "manhattan"}, "no metric called manhattan"),
        ({"method": "svm"}, "no method called svm: expected one of ncm"),
        ({"center": "base"}, "needs that set"),
        ({"base": np.ones((3, 13))}, "with center base only, not with support"),
        ({"center": "base", "base": np.ones((3, 12))}, "expected base features of 13 dimensions"),
        ({"labels": np.zeros(3)}, "expected one label for each of the 150"),
        ({"labels": np.zeros(150)}, "disagree about the class"),
        ({"features": np.full((150, 13), np.nan)}, "feature vector 0 has values that are not finite"),
        ({"features": np.ones(150)}, r"expected features of shape \(N, D\)"),
        ({"features": np.ones((10, 13)), "labels": np.zeros(10)}, "were they drawn from other data"),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, change: dict[str, object], message: str) -> None:
    x, labels = data(seed=8)
    episodes = sample_episodes(labels, ways=3, shots=1, queries=2, episodes=4, seed=0)
    arguments: dict[str, object] = {"features": x, "labels": labels, **change}
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # as users run it: without the shape checks of the tests
    with pytest.raises(InputError, match=message):
        evaluate(arguments.pop("features"), arguments.pop("labels"), episodes, **arguments)  # type: ignore[arg-type]


def test_report_json_has_the_contract_keys() -> None:
    x, labels = data(seed=9)
    report = evaluate(
        x, labels, sample_episodes(labels, ways=3, shots=2, queries=4, episodes=10, seed=0), center="separate"
    )
    wanted = {"method", "center", "transductive", "metric", "ways", "shots", "queries", "accuracy", "ci95", "seconds"}
    got = report.to_json()
    assert wanted <= set(got)
    assert (got["method"], got["center"], got["transductive"], got["ways"], got["shots"], got["queries"]) == (
        "ncm",
        "separate",
        True,
        3,
        2,
        4,
    )
    assert 0 <= got["accuracy"] <= 1 and got["seconds"] > 0
