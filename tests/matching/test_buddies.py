"""Best buddies: of each cluster of matches that look alike, the one with the largest weight."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from fewmatch.encoders import Frame
from fewmatch.errors import InputError
from fewmatch.matching.buddies import best_buddies
from fewmatch.matching.matches import Matches, match

PROPERTY = settings(deadline=None, database=None, max_examples=20)


def plain(rows: int, columns: int) -> Frame:
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def pair(seed: int, rows: int = 6, columns: int = 7, dims: int = 8) -> tuple[np.ndarray, Frame, np.ndarray, Frame]:
    """A map and a noisy copy of it, so that most patches match."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(rows, columns, dims))
    return a, plain(rows, columns), a + rng.normal(scale=0.3, size=a.shape), plain(rows, columns)


def same(one: Matches, other: Matches) -> bool:
    return np.array_equal(one.patch_a, other.patch_a) and np.array_equal(one.patch_b, other.patch_b)


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans(), st.integers(0, 5))
def test_the_definition(seed: int, count: int, weighted: bool, start: int) -> None:
    a, frame_a, b, frame_b = pair(seed)
    matches = match(a, frame_a, b, frame_b)
    weights = np.random.default_rng(seed).random(len(matches)) if weighted else None
    found = best_buddies(matches, a, frame_a, b, frame_b, count, weights=weights, seed=start)
    worth = matches.score if weights is None else weights

    places = [(*matches.patch_a[k], *matches.patch_b[k]) for k in range(len(matches))]
    order = sorted(range(len(matches)), key=lambda k: tuple(map(int, places[k])))
    rows = []
    for k in order:
        i, j = matches.patch_a[k], matches.patch_b[k]
        x, y = a[i[0], i[1]], b[j[0], j[1]]
        v = np.concatenate([x / np.linalg.norm(x), y / np.linalg.norm(y)])
        rows.append(v / np.linalg.norm(v))
    labels = KMeans(min(count, len(rows)), n_init=10, random_state=start).fit_predict(np.array(rows))
    kept = []
    for label in set(labels):
        members = [k for k, mine in zip(order, labels, strict=True) if mine == label]
        kept.append(max(members, key=lambda k: worth[k]))
    wanted = sorted(kept, key=lambda k: -matches.score[k])
    assert same(found, matches.take(np.array(wanted)))
    assert len(found) == min(count, len(matches)) and (np.diff(found.score) <= 0).all()
    assert found.confidence == matches.confidence


def test_the_order_of_the_matches_does_not_matter() -> None:
    a, frame_a, b, frame_b = pair(1)
    matches = match(a, frame_a, b, frame_b)
    wanted = best_buddies(matches, a, frame_a, b, frame_b, 5)
    for seed in range(5):
        shuffled = matches.take(np.random.default_rng(seed).permutation(len(matches)))
        assert same(best_buddies(shuffled, a, frame_a, b, frame_b, 5), wanted)


def test_weights_choose_within_a_cluster_and_clusters_stay() -> None:
    """Two kinds of things, three matches each: the heaviest of each kind stays, first the one with the better score."""
    rng = np.random.default_rng(2)
    kinds = np.repeat(np.eye(6)[:2], 3, axis=0).reshape(1, 6, 6)
    a = kinds + 0.05 * rng.normal(size=kinds.shape)
    matches = match(a, plain(1, 6), a, plain(1, 6))
    assert len(matches) == 6
    column = matches.patch_a[:, 1]
    for heavy in ((0, 3), (1, 5), (2, 4)):
        found = best_buddies(matches, a, plain(1, 6), a, plain(1, 6), 2, weights=np.isin(column, heavy).astype(float))
        assert sorted(found.patch_a[:, 1].tolist()) == list(heavy)
    # Equal weights: the earlier patch of A.
    found = best_buddies(matches, a, plain(1, 6), a, plain(1, 6), 2, weights=np.ones(6))
    assert sorted(found.patch_a[:, 1].tolist()) == [0, 3]


def test_unit_descriptors_decide_not_their_lengths() -> None:
    a, frame_a, b, frame_b = pair(3)
    matches = match(a, frame_a, b, frame_b)
    longer = a * np.random.default_rng(4).uniform(0.1, 10, (*frame_a.grid, 1))
    assert same(
        best_buddies(matches, a, frame_a, b, frame_b, 6),
        best_buddies(matches, torch.from_numpy(longer), frame_a, torch.from_numpy(b), frame_b, 6),
    )


def test_the_seed_is_that_of_k_means() -> None:
    a, frame_a, b, frame_b = pair(5, rows=9, columns=9)
    matches = match(a, frame_a, b, frame_b)
    runs = [best_buddies(matches, a, frame_a, b, frame_b, 12, seed=seed).patch_a.tolist() for seed in (0, 0, 1, 2, 3)]
    assert runs[0] == runs[1]
    assert any(run != runs[0] for run in runs[2:])


@pytest.mark.parametrize("count", [0, 1, 2, 40, 42, 50])
def test_counts_from_none_to_all(count: int) -> None:
    a, frame_a, _, _ = pair(6)
    matches = match(a, frame_a, a, frame_a)
    assert len(matches) == 42
    found = best_buddies(matches, a, frame_a, a, frame_a, count)
    assert len(found) == min(count, 42)
    if count >= 42:
        assert sorted(map(tuple, found.patch_a.tolist())) == sorted(map(tuple, matches.patch_a.tolist()))
    if count == 1:
        assert found.score[0] == matches.score.max()


def test_one_match_and_none() -> None:
    one, frame = np.ones((1, 1, 3)), plain(1, 1)
    matches = match(one, frame, one, frame)
    assert len(best_buddies(matches, one, frame, one, frame, 3)) == 1
    nothing = matches.take(np.zeros(0, np.int64))
    for count in (0, 3):
        assert len(best_buddies(nothing, one, frame, one, frame, count)) == 0


def test_matches_that_coincide_make_fewer_clusters_and_no_warning() -> None:
    """Nine matches of two kinds, all alike within a kind, as they come where several patches share their nearest one."""
    a = np.zeros((1, 9, 2))
    a[0, :5, 0] = a[0, 5:, 1] = 1
    k = np.arange(9)
    patch = np.stack([np.zeros(9, np.int64), k], axis=1)
    xy = patch[:, ::-1].astype(float)
    matches = Matches(xy, xy, np.linspace(1, 0.5, 9), patch, patch, 1.0, (9, 1), (9, 1))
    found = best_buddies(matches, a, plain(1, 9), a, plain(1, 9), 4)
    assert found.patch_a[:, 1].tolist() == [0, 5]


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    a, frame_a, b, frame_b = pair(7)
    matches = match(a, frame_a, b, frame_b)
    with pytest.raises(InputError, match="expected a count of 0 or more, got -1"):
        best_buddies(matches, a, frame_a, b, frame_b, -1)
    with pytest.raises(
        InputError, match=rf"expected {len(matches)} finite weights, one for each match, got an array of \(2,\)"
    ):
        best_buddies(matches, a, frame_a, b, frame_b, 3, weights=np.ones(2))
    with pytest.raises(InputError, match="finite weights"):
        best_buddies(matches, a, frame_a, b, frame_b, 3, weights=np.full(len(matches), np.nan))
    with pytest.raises(InputError, match="the matches are not of map_b: expected patches of 2 × 2"):
        best_buddies(matches, a, frame_a, b[:2, :2], plain(2, 2), 3)
    a[tuple(matches.patch_a[0])] = 0
    with pytest.raises(InputError, match="the matches are not of map_a: one of its patches is padding or zero"):
        best_buddies(matches, a, frame_a, b, frame_b, 3)
