"""The plane of an episode decides as all dimensions do, where it says so, and is the same picture every time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import naive

from fewmatch.errors import InputError
from fewmatch.fewshot import CENTERS, EpisodePlane, Episodes, episode_plane, evaluate, sample_episodes
from fewmatch.fewshot.centering import ZeroVectorError
from fewmatch.fewshot.methods.ncm import METRICS
from fewmatch.fewshot.plane import episode_planes


def data(
    rng: np.random.Generator, classes: int, images: int, dims: int, offset: float
) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.repeat(np.arange(classes), images))
    x = rng.normal(size=(classes, dims))[labels] + rng.normal(size=(len(labels), dims)) + offset
    return x.astype(np.float32), labels


def naive_distances(
    x: np.ndarray, episodes: Episodes, index: int, center: str, metric: str, base: np.ndarray | None, prenormalize: bool
) -> np.ndarray:
    """(w, q, w) by the definitions."""
    support, query = episodes.support[index], episodes.query[index]
    ways, shots = support.shape
    s, q = naive.centered(x[support.reshape(-1)], x[query.reshape(-1)], center, base, prenormalize)
    distances = naive.squared_distances(s, np.repeat(np.arange(ways), shots), q, ways, metric)
    return distances.reshape(ways, -1, ways)


def in_the_plane(plane: EpisodePlane) -> np.ndarray:
    """(w, q, w) squared distances between what is drawn."""
    ways, queries = plane.query.shape[:2]
    out = np.empty((ways, queries, ways))
    for w in range(ways):
        for q in range(queries):
            for c in range(ways):
                out[w, q, c] = ((plane.query[w, q] - plane.means[c]) ** 2).sum()
    return out


def relative(distances: np.ndarray) -> np.ndarray:
    """What decides: by how much each class is further away than the first."""
    return np.asarray(distances - distances[..., :1])


@pytest.mark.parametrize("seed", range(5))
def test_three_ways_are_decided_in_the_plane_as_in_all_dimensions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for trial in range(36):  # thrice each centring and metric
        center, metric = CENTERS[trial % len(CENTERS)], METRICS[trial // len(CENTERS) % len(METRICS)]
        dims = int(rng.choice([3, 4, 7, 64, 384]))
        shots, queries, prenormalize = int(rng.integers(1, 6)), int(rng.integers(1, 7)), bool(rng.integers(2))
        x, labels = data(rng, 5, 12, dims, offset=float(rng.choice([0, 3, 300])))
        base = data(rng, 2, 9, dims, offset=1.0)[0] if center == "base" else None
        episodes = sample_episodes(labels, ways=3, shots=shots, queries=queries, episodes=2, seed=trial)
        choice: dict[str, Any] = {"center": center, "metric": metric, "base": base, "prenormalize": prenormalize}
        plane = episode_plane(x, labels, episodes, 1, **choice)
        wanted = naive_distances(x, episodes, 1, **choice)
        assert plane.exact and plane.shown == pytest.approx(1) and plane.dimensions == dims
        assert np.abs(plane.distances - wanted).max() < 1e-10
        assert np.abs(relative(in_the_plane(plane)) - relative(wanted)).max() < 1e-10
        ordered = np.sort(wanted, axis=-1)
        clear = ordered[..., 1] - ordered[..., 0] > 1e-9
        assert clear.mean() > 0.5
        assert (plane.predicted == wanted.argmin(axis=-1))[clear].all()
        assert (plane.nearest(plane.query) == wanted.argmin(axis=-1))[clear].all()
        reported = evaluate(x, labels, episodes, **choice).per_episode[1]
        assert abs(plane.accuracy - reported) * 3 * queries <= (ordered[..., 1] - ordered[..., 0] < 1e-5).sum() + 1e-9


def test_three_ways_of_real_features(shared_pictures: tuple[np.ndarray, np.ndarray]) -> None:
    x, labels = shared_pictures
    episodes = sample_episodes(labels, ways=3, shots=2, queries=4, episodes=8, seed=0)
    for center in ("none", "support", "support+query", "separate", "feature"):
        for metric in METRICS:
            report = evaluate(x, labels, episodes, center=center, metric=metric)
            for index in range(len(episodes)):
                plane = episode_plane(x, labels, episodes, index, center=center, metric=metric)
                wanted = naive_distances(x, episodes, index, center, metric, None, False)
                ordered = np.sort(wanted, axis=-1)
                clear = ordered[..., 1] - ordered[..., 0] > 1e-9
                assert (plane.nearest(plane.query) == wanted.argmin(axis=-1))[clear].all()
                assert (plane.predicted == wanted.argmin(axis=-1))[clear].all()
                if (ordered[..., 1] - ordered[..., 0] > 1e-5).all():
                    assert plane.accuracy == pytest.approx(report.per_episode[index])


@pytest.fixture(scope="session")
def shared_pictures() -> tuple[np.ndarray, np.ndarray]:
    """`mini` features of six crops from each of five pictures."""
    import skimage.data
    import torch

    from fewmatch.encoders import load

    encoder = load("mini", device="cpu")
    crops, labels = [], []
    for label, name in enumerate(("brick", "grass", "gravel", "coffee", "chelsea")):
        picture = getattr(skimage.data, name)()
        picture = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
        for i in range(6):
            crops.append(picture[20 + 30 * i : 84 + 30 * i, 15 * i : 64 + 15 * i])
            labels.append(label)
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return encoder((pixels - 0.45) / 0.25).global_repr.float().numpy(), np.array(labels)


def test_probabilities_are_the_softmax_of_the_squared_distances() -> None:
    x, labels = data(np.random.default_rng(3), 5, 9, 20, 1.0)
    plane = episode_plane(x, labels, sample_episodes(labels, ways=5, shots=3, queries=4, episodes=1, seed=0))
    assert plane.temperature == 10
    powers = np.exp(-10 * plane.distances)
    assert np.allclose(plane.probabilities, powers / powers.sum(axis=-1, keepdims=True), rtol=1e-12)
    assert plane.right.mean() == plane.accuracy
    assert np.array_equal(plane.right, plane.predicted == np.arange(5)[:, None])
    assert (plane.ways, plane.shots, plane.queries) == (5, 3, 4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shots", [1, 4])
def test_two_ways_are_decided_by_x_alone(metric: str, shots: int) -> None:
    x, labels = data(np.random.default_rng(shots), 4, 12, 30, 2.0)
    episodes = sample_episodes(labels, ways=2, shots=shots, queries=6, episodes=1, seed=4)
    plane = episode_plane(x, labels, episodes, metric=metric)
    assert (plane.rank, plane.exact, plane.shown) == (1, True, 1.0)
    assert (plane.means[:, 1] == 0).all() and plane.means[0, 0] > 0
    wanted = naive_distances(x, episodes, 0, "support", metric, None, False)
    along_x = (plane.query[:, :, None, 0] - plane.means[:, 0]) ** 2
    assert np.allclose(relative(along_x), relative(wanted), atol=1e-12)
    # y is the direction, across to x, in which supports and queries spread the most.
    s, q = naive.centered(x[episodes.support[0].reshape(-1)], x[episodes.query[0].reshape(-1)], "support")
    means = s.reshape(2, shots, -1).mean(axis=1)
    if metric == "cosine":
        means /= np.sqrt((means**2).sum(axis=1, keepdims=True))
    direction = (means[0] - means[1]) / np.sqrt(((means[0] - means[1]) ** 2).sum())
    points = np.concatenate([s, q])
    rest = points - (points @ direction)[:, None] * direction
    rest = rest - rest.mean(axis=0)
    y = np.concatenate([plane.support[..., 1].ravel(), plane.query[..., 1].ravel()])
    assert ((y - y.mean()) ** 2).sum() == pytest.approx(np.linalg.eigvalsh(rest @ rest.T).max(), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("ways", [4, 5, 10, 20])
def test_more_ways_show_the_two_directions_in_which_the_means_spread_most(ways: int, metric: str) -> None:
    x, labels = data(np.random.default_rng(ways), 22, 8, 40, 1.0)
    episodes = sample_episodes(labels, ways=ways, shots=3, queries=2, episodes=1, seed=1)
    plane = episode_plane(x, labels, episodes, metric=metric)
    s, _ = naive.centered(x[episodes.support[0].reshape(-1)], x[episodes.query[0].reshape(-1)], "support")
    means = s.reshape(ways, 3, -1).mean(axis=1)
    if metric == "cosine":
        means /= np.sqrt((means**2).sum(axis=1, keepdims=True))
    means -= means.mean(axis=0)
    spread = np.linalg.eigvalsh(means @ means.T)[::-1]
    assert not plane.exact and plane.rank == 2
    assert plane.shown == pytest.approx(spread[:2].sum() / spread.sum(), rel=1e-9)
    assert np.allclose((plane.means**2).sum(axis=0), spread[:2], rtol=1e-9)
    assert np.allclose(plane.means.sum(axis=0), 0, atol=1e-12)


def test_four_means_in_a_plane_are_exact_too() -> None:
    """Two dimensions have no more to show."""
    x, labels = data(np.random.default_rng(8), 4, 12, 2, 0.0)
    episodes = sample_episodes(labels, ways=4, shots=3, queries=5, episodes=1, seed=1)
    plane = episode_plane(x, labels, episodes, center="none")
    assert plane.exact and plane.rank == 2 and plane.shown == 1
    assert np.array_equal(plane.nearest(plane.query), plane.predicted)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([2, 3, 5]), st.sampled_from(["none", "support", "support+query"]))
def test_the_picture_does_not_turn_with_the_features(seed: int, ways: int, center: str) -> None:
    rng = np.random.default_rng(seed)
    x, labels = data(rng, 5, 9, 12, 1.0)
    x = x.astype(np.float64)
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    episodes = sample_episodes(labels, ways=ways, shots=2, queries=3, episodes=1, seed=seed)
    one, two = (episode_plane(features, labels, episodes, center=center) for features in (x, x @ turn))
    gap = one.means.var(axis=0)
    if ways == 2 or abs(gap[0] - gap[1]) > 1e-3 * gap[0]:  # equal spreads have no order
        for a, b in ((one.means, two.means), (one.support, two.support), (one.query, two.query)):
            assert np.allclose(a, b, atol=1e-7)


def test_signs_go_by_the_first_class_that_is_not_at_zero() -> None:
    x, labels = data(np.random.default_rng(5), 4, 9, 10, 1.0)
    for seed in range(20):
        for ways in (3, 4):
            plane = episode_plane(
                x, labels, sample_episodes(labels, ways=ways, shots=2, queries=1, episodes=1, seed=seed)
            )
            assert (plane.means[0] > 0).all()
            assert (plane.means[:, 0] ** 2).sum() >= (plane.means[:, 1] ** 2).sum()
    # Class 0 is halfway between the others, which are far apart: x goes by class 1.
    for sign in (1, -1):
        vectors = np.array([[1, 0, 0], [0.6, 0.8 * sign, 0], [0.6, -0.8 * sign, 0]], np.float64)
        plane = episode_plane(np.repeat(vectors, 2, axis=0), np.repeat([0, 1, 2], 2), PAIRS, center="none")
        assert np.allclose(plane.means, [[0, 0.8 / 3], [0.8, -0.4 / 3], [-0.8, -0.4 / 3]])


#: Rows 0, 2, 4 are the supports and 1, 3, 5 the queries of classes 0, 1, 2.
PAIRS = Episodes(
    np.array([[0, 1, 2]], np.int32), np.array([[[0], [2], [4]]], np.int32), np.array([[[1], [3], [5]]], np.int32)
)


@pytest.mark.parametrize("metric", METRICS)
def test_copies_of_one_image_give_a_picture_without_decisions(metric: str) -> None:
    x = np.tile(np.array([[3.0, 4.0, 0.0]]), (6, 1))
    plane = episode_plane(x, np.repeat([0, 1, 2], 2), PAIRS, center="none", metric=metric)
    assert (plane.rank, plane.exact, plane.shown) == (0, True, 1.0)
    assert not plane.means.any() and not plane.support.any() and not plane.query.any()
    assert not plane.predicted.any() and plane.accuracy == pytest.approx(1 / 3)
    assert np.allclose(plane.probabilities, 1 / 3) and not plane.nearest(plane.query).any()


def test_coinciding_means_show_what_else_there_is() -> None:
    x = np.array([[1, 0, 0], [0.6, 0.8, 0], [1, 0, 0], [0.6, -0.8, 0], [1, 0, 0], [0.8, 0, 0.6]])
    plane = episode_plane(x, np.repeat([0, 1, 2], 2), PAIRS, center="none")
    assert plane.rank == 0 and not plane.means.any() and not plane.predicted.any()
    assert plane.query[0, 0, 0] == pytest.approx(-plane.query[1, 0, 0])
    assert np.abs(plane.query[:, 0, 0]).max() == pytest.approx(0.8)


def test_two_of_three_means_may_coincide() -> None:
    x = np.array([[1, 0, 0], [0.6, 0.8, 0], [1, 0, 0], [0.6, -0.8, 0], [0, 1, 0], [0.8, 0, 0.6]])
    plane = episode_plane(x, np.repeat([0, 1, 2], 2), PAIRS, center="none")
    assert (plane.rank, plane.exact) == (1, True)
    assert np.array_equal(plane.means[0], plane.means[1]) and (plane.means[:, 1] == 0).all()
    assert np.array_equal(plane.predicted[:, 0], [2, 0, 0]) and np.array_equal(
        plane.nearest(plane.query), plane.predicted
    )


@pytest.mark.parametrize("dims", [1, 3])
def test_all_vectors_on_a_line(dims: int) -> None:
    x = np.zeros((6, dims))
    x[:, 0] = [1, 2, -1, 3, -2, -5]
    plane = episode_plane(x, np.repeat([0, 1, 2], 2), PAIRS, center="none")
    assert plane.rank == 1 and plane.exact
    assert not plane.support[..., 1].any() and not plane.query[..., 1].any()
    assert np.array_equal(plane.predicted[:, 0], [0, 0, 1])
    assert np.array_equal(plane.nearest(plane.query), plane.predicted)


@pytest.mark.parametrize(
    ("center", "prenormalize", "message"),
    [
        ("support", False, r"support \(episode, number\) centred by support, 0, 0 is zero"),
        ("none", True, r"episode 1, supports counted first, then queries: feature vector 0 is zero"),
        ("none", False, r"episode 1, supports counted first, then queries: feature vector 0 is zero"),
        ("feature", False, "centred by its own coordinates, 0 is zero"),
    ],
)
def test_vectors_without_direction_are_named(center: str, prenormalize: bool, message: str) -> None:
    x = np.zeros((6, 4))
    twice = Episodes(*(np.repeat(part, 2, axis=0) for part in (PAIRS.classes, PAIRS.support, PAIRS.query)))
    with pytest.raises(ZeroVectorError, match=message.replace("0, 0", "1, 0")):
        episode_plane(x, np.repeat([0, 1, 2], 2), twice, 1, center=center, prenormalize=prenormalize)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 1}, "no episode 1: expected 0 to 0"),
        ({"index": -1}, "no episode -1"),
        ({"center": "median"}, "no centring called median"),
        ({"metric": "city"}, "no metric called city"),
        ({"center": "base"}, "needs that set"),
        ({"base": np.ones((2, 3))}, "with center base only"),
        ({"center": "base", "base": np.ones((2, 4))}, "expected base features of 3 dimensions as the others, got 4"),
        ({"labels": np.array([0, 0, 1, 1, 2])}, "expected one label for each of the 6"),
        ({"labels": np.array([0, 1, 1, 0, 2, 2])}, "disagree about the class"),
        ({"features": np.full((6, 3), np.nan)}, "not finite"),
        ({"episodes": Episodes(PAIRS.classes, PAIRS.support - 1, PAIRS.query)}, "rows -1 to 5"),
        ({"episodes": Episodes(PAIRS.classes, PAIRS.support, PAIRS.query[:, :, :0])}, "one support and one query"),
        ({"episodes": Episodes(PAIRS.classes, PAIRS.support[:, :, :0], PAIRS.query)}, "one support and one query"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    arguments = {"features": np.eye(3).repeat(2, axis=0), "labels": np.repeat([0, 1, 2], 2), "episodes": PAIRS} | change
    with pytest.raises(InputError, match=message):
        episode_plane(**arguments)


def test_inputs_are_left_as_they_are() -> None:
    x, labels = data(np.random.default_rng(2), 3, 6, 8, 1.0)
    x = x.astype(np.float64)
    before = x.copy()
    episodes = sample_episodes(labels, ways=3, shots=2, queries=2, episodes=1, seed=0)
    for center in CENTERS:
        episode_plane(x, labels, episodes, center=center, base=x if center == "base" else None, prenormalize=True)
        assert np.array_equal(x, before)


@pytest.mark.parametrize("seed", range(3))
def test_supports_have_distances_as_queries_have(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for trial in range(12):
        center, metric = CENTERS[trial % len(CENTERS)], METRICS[trial // len(CENTERS)]
        x, labels = data(rng, 5, 12, int(rng.choice([3, 8, 64])), offset=float(rng.choice([0, 30])))
        base = data(rng, 2, 9, x.shape[1], offset=1.0)[0] if center == "base" else None
        ways, shots, prenormalize = int(rng.integers(2, 6)), int(rng.integers(1, 6)), bool(rng.integers(2))
        episodes = sample_episodes(labels, ways=ways, shots=shots, queries=3, episodes=1, seed=trial)
        plane = episode_plane(x, labels, episodes, center=center, base=base, metric=metric, prenormalize=prenormalize)
        support, query = x[episodes.support[0].reshape(-1)], x[episodes.query[0].reshape(-1)]
        s, _ = naive.centered(support, query, center, base, prenormalize)
        of = np.repeat(np.arange(ways), shots)
        wanted = naive.squared_distances(s, of, s, ways, metric).reshape(ways, shots, ways)
        assert np.abs(plane.support_distances - wanted).max() < 1e-10
        weights = np.exp(-10 * wanted)
        assert np.allclose(plane.support_probabilities, weights / weights.sum(axis=2, keepdims=True), rtol=1e-7)


def test_planes_of_many_settings_are_those_of_each() -> None:
    rng = np.random.default_rng(8)
    x, labels = data(rng, 6, 12, 20, offset=5)
    base = data(rng, 2, 9, 20, offset=1.0)[0]
    episodes = sample_episodes(labels, ways=4, shots=5, queries=3, episodes=3, seed=2)
    choice: dict[str, Any] = {"metric": "cosine", "prenormalize": True}
    planes = episode_planes(
        x, labels, episodes, 2, shots=[5, 1, 3], centers=["base", "none", "separate"], base=base, **choice
    )
    assert list(planes) == [(k, center) for center in ("base", "none", "separate") for k in (5, 1, 3)]
    for (k, center), plane in planes.items():
        part = Episodes(episodes.classes, episodes.support[:, :, :k], episodes.query)
        wanted = episode_plane(x, labels, part, 2, center=center, base=base if center == "base" else None, **choice)
        assert isinstance(plane, EpisodePlane) and (plane.shots, plane.center) == (k, center)
        for key, value in wanted.__dict__.items():
            assert np.array_equal(getattr(plane, key), value), key


def test_planes_that_are_not_possible_are_their_errors() -> None:
    x = np.eye(4)[[0, 1, 2, 0, 1, 3]]
    labels = np.repeat([0, 1], 3)
    episodes = Episodes(
        np.array([[0, 1]], np.int32), np.array([[[0, 1], [3, 4]]], np.int32), np.array([[[2], [5]]], np.int32)
    )
    planes = episode_planes(x, labels, episodes, shots=[1, 2], centers=["none", "support"])
    assert isinstance(planes[1, "support"], ZeroVectorError)
    assert all(isinstance(planes[key], EpisodePlane) for key in ((1, "none"), (2, "none"), (2, "support")))
    for change, message in (
        ({"shots": [3]}, "expected 1 to 2 shots"),
        ({"shots": [0]}, "expected 1 to 2 shots"),
        ({"centers": ["base"]}, "needs that set"),
        ({"centers": ["middle"]}, "no centring called middle"),
        ({"index": 1}, "no episode 1"),
    ):
        with pytest.raises(InputError, match=message):
            episode_planes(x, labels, episodes, **({"shots": [1], "centers": ["none"]} | change))


def test_a_plane_is_of_a_full_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    support = PAIRS.support.copy()
    support[0, 0, -1] = -1
    with pytest.raises(InputError, match="expected a full episode"):
        episode_plane(
            np.eye(3).repeat(2, axis=0), np.repeat([0, 1, 2], 2), Episodes(PAIRS.classes, support, PAIRS.query)
        )
