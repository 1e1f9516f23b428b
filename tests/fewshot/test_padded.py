"""Episodes with padding: classes, supports and queries may differ in number, and what is not there changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import fewmatch.fewshot.evaluation
from fewmatch.errors import InputError
from fewmatch.fewshot import METHODS, Episodes, evaluate
from fewmatch.fewshot.centering import CENTERS
from tests.fewshot.naive import centered, squared_distances

OWN_MEANS = tuple(center for center in CENTERS if center != "base")


def ragged(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray, Episodes]:
    """Features of 7 classes, and episodes of 2 to 5 of them with 1 to 4 supports and 1 to 6 queries each, padded at random places."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(7), 12)
    x = (rng.standard_normal((7, 9))[labels] + rng.standard_normal((84, 9)) + 1).astype(np.float32)
    classes = np.full((count, 5), -1, np.int32)
    support, query = np.full((count, 5, 4), -1, np.int32), np.full((count, 5, 6), -1, np.int32)
    for e in range(count):
        ways = rng.integers(2, 6)
        places = np.sort(rng.permutation(5)[:ways])
        classes[e, places] = np.sort(rng.permutation(7)[:ways])
        for w in places:
            rows = rng.permutation(12) + 12 * classes[e, w]
            k, q = rng.integers(1, 5), rng.integers(0 if w != places[0] else 1, 7)
            support[e, w, np.sort(rng.permutation(4)[:k])] = rows[:k]
            query[e, w, np.sort(rng.permutation(6)[:q])] = rows[k : k + q]
    return x, labels, Episodes(classes, support, query)


def alone(episodes: Episodes, e: int) -> tuple[Episodes, np.ndarray]:
    """Episode e one class at a time: its own support and query rows, and the places of its classes."""
    return Episodes(
        *(part[e : e + 1] for part in (episodes.classes, episodes.support, episodes.query))
    ), np.flatnonzero(episodes.classes[e] >= 0)


@pytest.mark.parametrize("center", OWN_MEANS)
@pytest.mark.parametrize("seed", range(3))
def test_padded_episodes_equal_the_naive_definition(center: str, seed: int) -> None:
    x, labels, episodes = ragged(seed)
    report = evaluate(x, labels, episodes, center=center, keep_scores=True)
    assert report.scores is not None
    for e in range(len(episodes)):
        places = np.flatnonzero(episodes.classes[e] >= 0)
        support, query = (rows[e][places] for rows in (episodes.support, episodes.query))
        s, q = support[support >= 0], query[query >= 0]
        owner = np.repeat(np.arange(len(places)), (support >= 0).sum(axis=1))
        zs, zq = centered(x[s], x[q], center)
        wanted = -squared_distances(zs, owner, zq, len(places), "euclidean")
        asked = (episodes.query[e] >= 0).reshape(-1)
        np.testing.assert_allclose(report.scores[e][asked][:, places], wanted, atol=1e-5)
        missing = np.setdiff1d(np.arange(5), places)
        assert np.isneginf(report.scores[e][:, missing]).all()
        assert (report.predictions[e][~asked] == -1).all()
        chosen = places[wanted.argmax(axis=1)]
        truth = np.repeat(np.arange(5), 6)[asked]
        assert (report.predictions[e][asked] == chosen).all()
        assert report.per_episode[e] == pytest.approx((chosen == truth).mean())
    assert report.accuracy == pytest.approx(report.per_episode.mean())


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_chunks_change_nothing_for_any_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how = METHODS[method]
    x, labels, episodes = ragged(11)
    base = x[:30] if how.center == "base" else None
    steps = {"iterations": 40} if "learning_rate" in how.options else {}  # padding shows at once, if it does
    if how.center == "separate":  # needs two queries in an episode
        full = (episodes.query >= 0).sum(axis=(1, 2)) > 1
        episodes = Episodes(episodes.classes[full], episodes.support[full], episodes.query[full])
    whole = evaluate(x, labels, episodes, method=method, options=steps, base=base, keep_scores=True)
    monkeypatch.setattr(fewmatch.fewshot.evaluation, "_CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(fewmatch.fewshot.evaluation, "_GRAM_BYTES", {"cpu": 1})
    single = evaluate(x, labels, episodes, method=method, options=steps, base=base, keep_scores=True)
    assert whole.scores is not None and single.scores is not None
    asked = (episodes.query >= 0).reshape(len(episodes), -1)
    np.testing.assert_allclose(single.scores[asked], whole.scores[asked], atol=1e-4)
    for e in range(len(episodes)):
        part, places = alone(episodes, e)
        support, query = part.support[:, places], part.query[:, places]
        widest = [int((rows >= 0).sum(axis=2).max()) for rows in (support, query)]
        packed = [
            np.stack([np.pad(r[r >= 0], (0, n - (r >= 0).sum()), constant_values=-1) for r in rows[0]])[None]
            for rows, n in zip((support, query), widest, strict=True)
        ]
        tight = Episodes(part.classes[:, places], packed[0].astype(np.int32), packed[1].astype(np.int32))
        got = evaluate(x, labels, tight, method=method, options=steps, base=base, keep_scores=True)
        assert got.scores is not None
        np.testing.assert_allclose(
            got.scores[0][(tight.query[0] >= 0).reshape(-1)],
            whole.scores[e][asked[e]][:, places],
            atol=1e-4,
            rtol=1e-4,
        )


def test_the_report_says_what_varies() -> None:
    x, labels, episodes = ragged(5)
    report = evaluate(x, labels, episodes)
    ways = (episodes.classes >= 0).sum(axis=1)
    assert report.ways == (ways.min(), ways.max())
    assert report.shots == (1, 4) and report.to_json()["shots"] == [1, 4]
    assert report.queries == (0, 6)


def test_holes_in_episodes_are_named() -> None:
    x, labels, episodes = ragged(3)
    bare = episodes.support.copy()
    bare[0, np.flatnonzero(episodes.classes[0] >= 0)[0]] = -1
    with pytest.raises(InputError, match="expected a support at least for every class"):
        evaluate(x, labels, Episodes(episodes.classes, bare, episodes.query))
    silent = episodes.query.copy()
    silent[2] = -1
    with pytest.raises(InputError, match="expected a query at least in every episode"):
        evaluate(x, labels, Episodes(episodes.classes, episodes.support, silent))


@pytest.mark.parametrize("center", ["support", "support+query", "separate"])
def test_a_direction_is_needed_with_padding_too(center: str) -> None:
    x, labels, episodes = ragged(1)
    same = np.ones_like(x)
    with pytest.raises(InputError, match="is zero, so it has no direction"):
        evaluate(same, labels, episodes, center=center)
