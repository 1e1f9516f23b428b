"""Episodes: disjoint, uniform, reproducible, and honest about classes that are too small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders import InputError
from fewshot import sample_episodes
from fewshot.episodes import _draw_distinct


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=8),
    st.integers(2, 8),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(0, 2**63),
)
def test_supports_and_queries_are_distinct_images_of_the_right_class(
    sizes: list[int], ways: int, shots: int, queries: int, seed: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 7 - 3, sizes))
    call = {"ways": ways, "shots": shots, "queries": queries, "episodes": 20, "seed": seed}
    if ways > len(sizes) or min(sizes) < shots + queries:
        with pytest.raises(InputError):
            sample_episodes(labels, **call)
        return
    episodes = sample_episodes(labels, **call)
    assert episodes.support.shape == (20, ways, shots) and episodes.query.shape == (20, ways, queries)
    assert {a.dtype for a in (episodes.classes, episodes.support, episodes.query)} == {np.dtype(np.int32)}
    distinct = np.unique(labels)
    for classes, support, query in zip(episodes.classes, episodes.support, episodes.query, strict=True):
        assert (np.diff(classes) > 0).all()
        used = np.concatenate([support, query], axis=1)
        assert len(np.unique(used)) == used.size
        assert (labels[used] == distinct[classes][:, None]).all()


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others() -> None:
    labels = np.repeat(np.arange(10), 20)
    call = {"ways": 5, "shots": 2, "queries": 3, "episodes": 50}
    one, same, other = (sample_episodes(labels, seed=seed, **call) for seed in (1, 1, 2))
    assert np.array_equal(one.support, same.support) and np.array_equal(one.query, same.query)
    assert not np.array_equal(one.support, other.support)
    assert (one.seed, len(one), one.ways, one.shots, one.queries) == (1, 50, 5, 2, 3)


def test_pinned_draw() -> None:
    """A change of the generator or of the order of its use would make published seeds worthless."""
    episodes = sample_episodes(np.repeat([0, 1, 2], 5), ways=2, shots=1, queries=2, episodes=2, seed=0)
    assert episodes.classes.tolist() == PINNED["classes"]
    assert episodes.support.tolist() == PINNED["support"]
    assert episodes.query.tolist() == PINNED["query"]


PINNED = {
    "classes": [[0, 2], [0, 1]],
    "support": [[[1], [10]], [[0], [5]]],
    "query": [[[0, 3], [14, 13]], [[3, 4], [9, 6]]],
}


def test_all_ordered_draws_are_equally_likely() -> None:
    """All 60 ordered draws of 3 from 5, by a chi-square far in the tail."""
    draws = _draw_distinct(np.random.default_rng(0), np.full(60_000, 5), 3)
    counts = np.unique(draws @ [25, 5, 1], return_counts=True)[1]
    assert len(counts) == 60
    assert ((counts - 1000) ** 2 / 1000).sum() < 110  # 59 degrees of freedom: mean 59, standard deviation 11


def test_every_image_and_class_is_drawn_equally_often() -> None:
    sizes = np.array([10, 20, 40, 10])
    labels = np.repeat(np.arange(4), sizes)
    episodes = sample_episodes(labels, ways=2, shots=3, queries=3, episodes=20_000, seed=0)
    per_class = np.bincount(episodes.classes.reshape(-1), minlength=4) / 20_000
    assert np.abs(per_class - 0.5).max() < 0.02
    for part in (episodes.support, episodes.query):
        per_image = np.bincount(part.reshape(-1), minlength=80) / 20_000
        assert np.abs(per_image / (0.5 * 3 / sizes[labels]) - 1).max() < 0.12


def test_the_whole_class_can_be_used() -> None:
    episodes = sample_episodes(np.repeat([0, 1], 4), ways=2, shots=1, queries=3, episodes=200, seed=0)
    used = np.sort(np.concatenate([episodes.support, episodes.query], axis=2), axis=2)
    assert (used == np.arange(8).reshape(2, 4)).all()


def test_names_as_labels_and_large_populations() -> None:
    labels = np.repeat(np.array(["cat", "dog"]), [1_000_000, 30])
    episodes = sample_episodes(labels, ways=2, shots=5, queries=15, episodes=100, seed=0)
    assert episodes.support[:, 0].max() > 900_000 and episodes.support[:, 1].min() >= 1_000_000


def test_a_class_that_is_too_small_is_named_with_both_counts() -> None:
    labels = ["dog"] * 12 + ["cat"] * 30 + ["emu"] * 3
    with pytest.raises(
        InputError, match=r"class dog has 12 images, but 5 shots and 15 queries need 20 \(and 1 more classes\)"
    ):
        sample_episodes(labels, ways=2, shots=5, queries=15, episodes=1, seed=0)
    with pytest.raises(InputError, match="class Hund has 12"):
        sample_episodes(
            [0] * 12 + [1] * 30, ways=2, shots=5, queries=15, episodes=1, seed=0, class_names=["Hund", "Katze"]
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ways": 4}, "expected at least 4 classes for 4 ways, got 3"),
        ({"ways": 1}, "expected ways of 2 or more, got 1"),
        ({"shots": 0}, "expected shots of 1 or more, got 0"),
        ({"queries": 0}, "expected queries of 1 or more, got 0"),
        ({"episodes": 0}, "expected episodes of 1 or more, got 0"),
        ({"seed": -1}, "expected seed of 0 or more, got -1"),
    ],
)
def test_impossible_requests_are_refused(change: dict[str, int], message: str) -> None:
    call = {"ways": 2, "shots": 1, "queries": 1, "episodes": 1, "seed": 0, **change}
    with pytest.raises(InputError, match=message):
        sample_episodes(np.repeat([0, 1, 2], 5), **call)
