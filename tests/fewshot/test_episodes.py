"""Episodes: disjoint, uniform, reproducible, and honest about classes that are too small."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fewmatch.fewshot.episodes.draws
from fewmatch.errors import InputError
from fewmatch.fewshot import Episodes, sample_episodes
from fewmatch.fewshot.episodes.draws import draw_distinct, draw_ragged, round_shares


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
    draws = draw_distinct(np.random.default_rng(0), np.full(60_000, 5), 3)
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
        ({"ways": (2, 4)}, "expected at least 4 classes for 2 to 4 ways, got 3"),
        ({"ways": (1, 3)}, "expected ways of 2 or more, got 1"),
        ({"ways": (3, 2)}, "expected ways from a smaller to a larger number, got 3 to 2"),
        ({"shots": (0, 2)}, "expected shots of 1 or more, got 0"),
        ({"shots": (1, 5)}, "class 0 has 5 images, but up to 5 shots and 1 queries need 6"),
        ({"queries": None}, "expected either queries .* or queries_total"),
        ({"queries_total": 4}, "expected either queries .* or queries_total"),
        ({"queries": None, "queries_total": 0}, "expected queries_total of 1 or more, got 0"),
        ({"queries": None, "queries_total": 9}, "class 0 has 5 images, but up to 1 shots and 5 queries need 6"),
        ({"dirichlet": 2.0}, "expected queries_total with it"),
        ({"queries": None, "queries_total": 4, "dirichlet": 0.0}, "expected a dirichlet parameter above 0, got 0"),
        ({"queries": None, "queries_total": 4, "dirichlet": math.nan}, "expected a dirichlet parameter above 0"),
    ],
)
def test_impossible_requests_are_refused(change: dict[str, object], message: str) -> None:
    call = {"ways": 2, "shots": 1, "queries": 1, "episodes": 1, "seed": 0, **change}
    with pytest.raises(InputError, match=message):
        sample_episodes(np.repeat([0, 1, 2], 5), **call)


def used_of(episodes: Episodes) -> np.ndarray:
    return np.concatenate([episodes.support, episodes.query], axis=2)


def check_parts(episodes: Episodes, labels: np.ndarray) -> None:
    """What holds for all episodes: rows of the right classes, none twice in an episode, -1 at the ends only."""
    distinct = np.unique(labels)
    for classes, support, query in zip(episodes.classes, episodes.support, episodes.query, strict=True):
        ways = int((classes >= 0).sum())
        assert (np.diff(classes[:ways]) > 0).all() and (classes[ways:] == -1).all()
        for part in (support, query):
            assert (part[ways:] == -1).all()
            for row in part:
                assert (row[: (row >= 0).sum()] >= 0).all()
        used = np.concatenate([support, query], axis=1)
        assert len(np.unique(used[used >= 0])) == (used >= 0).sum()
        for c, row in zip(classes[:ways], used, strict=False):
            assert (labels[row[row >= 0]] == distinct[c]).all()
    assert episodes.ragged == bool((episodes.classes < 0).any() or (used_of(episodes) < 0).any())
    assert json.loads(json.dumps(episodes.sampler)) == episodes.sampler


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(30, 60), min_size=5, max_size=9),
    st.tuples(st.integers(2, 5), st.integers(2, 5)).map(lambda p: (min(p), max(p))),
    st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda p: (min(p), max(p))),
    st.sampled_from([{"queries": 3}, {"queries_total": 11}, {"queries_total": 20, "dirichlet": 5.0}]),
    st.booleans(),
    st.integers(0, 2**63),
)
def test_ranges_and_totals(
    sizes: list[int],
    ways: tuple[int, int],
    shots: tuple[int, int],
    queries: dict[str, float],
    replacement: bool,
    seed: int,
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3 - 2, sizes))
    episodes = sample_episodes(
        labels, ways=ways, shots=shots, **queries, episodes=25, seed=seed, replacement=replacement
    )
    check_parts(episodes, labels)
    used_ways = (episodes.classes >= 0).sum(axis=1)
    assert set(used_ways) <= set(range(ways[0], ways[1] + 1))
    per_class = (episodes.support >= 0).sum(axis=2)[episodes.classes >= 0]
    assert set(per_class) <= set(range(shots[0], shots[1] + 1))
    asked = (episodes.query >= 0).sum(axis=2)
    if "queries" in queries:
        assert (asked[episodes.classes >= 0] == 3).all()
    else:
        assert (asked.sum(axis=1) == queries["queries_total"]).all()
    if queries == {"queries_total": 11}:
        assert all(set(row[:w]) <= {11 // w, -(-11 // w)} for row, w in zip(asked, used_ways, strict=True))
    kind = "uniform" if ways[0] == ways[1] and shots[0] == shots[1] else "unbalanced"
    assert (episodes.sampler["kind"], episodes.sampler["replacement"]) == (kind, replacement)
    assert episodes.sampler["queries"] == ("dirichlet" if "dirichlet" in queries else "balanced")
    if replacement:
        assert len(episodes) == 25
    else:
        used = used_of(episodes)
        assert len(np.unique(used[used >= 0])) == (used >= 0).sum()
        assert episodes.sampler["exhausted"] == (len(episodes) < 25)


def test_a_pair_of_equal_numbers_is_that_number() -> None:
    labels = np.repeat(np.arange(6), 9)
    call = {"queries": 3, "episodes": 5, "seed": 3}
    pair, number = (sample_episodes(labels, ways=w, shots=k, **call) for w, k in (((4, 4), (2, 2)), (4, 2)))
    assert np.array_equal(used_of(pair), used_of(number)) and pair.sampler == number.sampler


def test_ways_and_shots_of_a_range_are_equally_likely() -> None:
    episodes = sample_episodes(
        np.repeat(np.arange(12), 20), ways=(3, 10), shots=(1, 10), queries=2, episodes=8000, seed=0
    )
    used = episodes.classes >= 0
    ways = np.bincount(used.sum(axis=1), minlength=11)[3:] / 8000
    assert np.abs(ways - 1 / 8).max() < 5 * math.sqrt(1 / 8 * 7 / 8 / 8000)
    shots = np.bincount((episodes.support >= 0).sum(axis=2)[used], minlength=11)[1:] / used.sum()
    assert np.abs(shots - 0.1).max() < 5 * math.sqrt(0.1 * 0.9 / used.sum())
    per_class = np.bincount(episodes.classes[used], minlength=12) / used.sum()
    assert np.abs(per_class - 1 / 12).max() < 5 * math.sqrt(1 / 12 / used.sum())


def test_what_is_left_over_of_an_even_total_goes_to_random_classes() -> None:
    episodes = sample_episodes(np.repeat(np.arange(4), 20), ways=4, shots=1, queries_total=6, episodes=6000, seed=0)
    extra = (episodes.query >= 0).sum(axis=2) - 1
    assert (extra.sum(axis=1) == 2).all() and set(extra.reshape(-1)) == {0, 1}
    assert np.abs(extra.mean(axis=0) - 0.5).max() < 5 * math.sqrt(0.25 / 6000)


def test_dirichlet_queries_have_the_published_statistics() -> None:
    """75 queries of 5 classes, parameter 2: the mean share is 1/5 and some class is empty in about 0.8 % of the episodes.

    Tolerances: five standard errors. A share is Beta(2, 8), variance 0.2·0.8/11; the rounding adds less than (1/75)²/4.
    """
    n = 40_000
    episodes = sample_episodes(
        np.repeat(np.arange(5), 80), ways=5, shots=1, queries_total=75, dirichlet=2.0, episodes=n, seed=0
    )
    counts = (episodes.query >= 0).sum(axis=2)
    assert (counts.sum(axis=1) == 75).all()
    shares = counts / 75
    variance = 0.2 * 0.8 / 11
    assert np.abs(shares.mean(axis=0) - 0.2).max() < 5 * math.sqrt(variance / n)
    assert np.abs(shares.var(axis=0) / variance - 1).max() < 0.05
    empty = (counts == 0).any(axis=1).mean()
    assert abs(empty - 0.008) < 5 * math.sqrt(0.008 * 0.992 / n)
    assert abs(counts.min(axis=1).mean() - 5.3) < 0.1 and abs(counts.max(axis=1).mean() - 28.5) < 0.2


@pytest.mark.parametrize(("parameter", "largest"), [(1e-3, 0.99), (1e4, 0.2)])
def test_the_dirichlet_parameter_says_how_uneven(parameter: float, largest: float) -> None:
    """Near zero one class takes all; for large ones the shares become even."""
    episodes = sample_episodes(
        np.repeat(np.arange(5), 200), ways=5, shots=1, queries_total=100, dirichlet=parameter, episodes=500, seed=1
    )
    counts = (episodes.query >= 0).sum(axis=2)
    assert (counts.sum(axis=1) == 100).all()
    assert (counts.max(axis=1) / 100).mean() == pytest.approx(largest, abs=0.02)
    assert np.abs(counts.mean(axis=0) - 20).max() < 10


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.integers(0, 90))
def test_largest_remainders(weights: list[int], total: int) -> None:
    """By the definition, in exact fractions; ties go to the first."""
    exact = [Fraction(total * w, sum(weights)) for w in weights]
    wanted = [math.floor(x) for x in exact]
    order = sorted(range(len(exact)), key=lambda i: (math.floor(exact[i]) - exact[i], i))
    for i in order[: total - sum(wanted)]:
        wanted[i] += 1
    assert sum(wanted) == total
    # Powers of two make the floats exact, and so the ties.
    scaled = [Fraction(round(x * 2**20), 2**20) for x in exact]
    if scaled == exact:
        assert round_shares(np.array([[float(x) for x in exact]]), total).tolist() == [wanted]
    assert round_shares(np.array([[float(x) for x in exact]]), total).sum() == total


def test_a_class_that_is_too_small_for_its_share_is_named() -> None:
    labels = [0] * 70 + [1] * 70
    with pytest.raises(
        InputError, match=r"class Hund has 70 images, but episode \d+ needs 5 shots and (6[6-9]|7\d) queries of it"
    ):
        sample_episodes(
            labels, ways=2, shots=5, queries_total=75, dirichlet=0.5, episodes=99, seed=0, class_names=["Hund"] * 2
        )


def test_without_replacement_no_image_is_used_twice_and_none_is_held_back() -> None:
    """It ends only when fewer classes than ways have enough images left, and at the number asked for."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(9), rng.integers(8, 120, 9)))
    for seed in range(20):
        call = {"ways": 3, "shots": 2, "queries": 4, "seed": seed, "replacement": False}
        episodes = sample_episodes(labels, episodes=1000, **call)
        check_parts(episodes, labels)
        used = used_of(episodes)
        assert len(np.unique(used)) == used.size and not episodes.ragged
        left = np.bincount(labels, minlength=9) - np.bincount(labels[used.reshape(-1)], minlength=9)
        assert (left >= 6).sum() < 3 and episodes.sampler["exhausted"]
        few = sample_episodes(labels, episodes=5, **call)
        assert len(few) == 5 and few.sampler["exhausted"] is False and np.array_equal(used_of(few), used[:5])


def test_without_replacement_the_first_episode_is_like_any_other_draw() -> None:
    labels = np.repeat(np.arange(4), [5, 10, 20, 5])
    first = [
        sample_episodes(labels, ways=2, shots=1, queries=2, episodes=1, seed=seed, replacement=False)
        for seed in range(1200)
    ]
    classes = np.bincount(np.concatenate([e.classes[0] for e in first]), minlength=4) / 1200
    assert np.abs(classes - 0.5).max() < 5 * math.sqrt(0.25 / 1200)
    images = np.bincount(np.concatenate([e.query.reshape(-1) for e in first]), minlength=40) / 1200
    expected = 0.5 * 2 / np.array([5, 10, 20, 5])[labels]
    assert (np.abs(images - expected) < 5 * np.sqrt(expected / 1200)).all()


def test_without_replacement_an_impossible_first_episode_is_refused() -> None:
    with pytest.raises(InputError, match=r"the first episode needs 2 classes with .* images, got 1 .* 1 with 200"):
        sample_episodes(
            np.repeat([0, 1, 2], [12, 200, 12]),
            ways=2,
            shots=5,
            queries_total=75,
            dirichlet=2.0,
            episodes=1,
            seed=0,
            replacement=False,
        )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=40), st.integers(0, 99))
def test_ragged_draws_do_not_depend_on_how_they_are_swapped(rows: list[tuple[int, int]], seed: int) -> None:
    draws = np.array([n for n, _ in rows])
    population = np.array([n + more for n, more in rows]) + 1
    kept = fewmatch.fewshot.episodes.draws._NUMBERS_WRITTEN, fewmatch.fewshot.episodes.draws._SWAPS_UNWRITTEN
    results = []
    try:
        for fewmatch.fewshot.episodes.draws._NUMBERS_WRITTEN, fewmatch.fewshot.episodes.draws._SWAPS_UNWRITTEN in (
            (0, 0),
            (2**25, 0),
        ):
            results.append(draw_ragged(np.random.default_rng(seed), population, draws))
    finally:
        fewmatch.fewshot.episodes.draws._NUMBERS_WRITTEN, fewmatch.fewshot.episodes.draws._SWAPS_UNWRITTEN = kept
    assert np.array_equal(*results)
    for drawn, n, below in zip(results[0], draws, population, strict=True):
        assert len(set(drawn[:n])) == n and (drawn[n:] == -1).all() and ((drawn[:n] >= 0) & (drawn[:n] < below)).all()


def test_all_ordered_ragged_draws_are_equally_likely() -> None:
    draws = draw_ragged(np.random.default_rng(0), np.full(60_000, 5), np.resize([3, 2], 60_000))
    three = np.unique(draws[::2] @ [25, 5, 1], return_counts=True)[1]
    two = np.unique(draws[1::2, :2] @ [5, 1], return_counts=True)[1]
    assert (len(three), len(two)) == (60, 20) and (draws[1::2, 2] == -1).all()
    assert ((three - 500) ** 2 / 500).sum() < 110  # 59 degrees of freedom
    assert ((two - 1500) ** 2 / 1500).sum() < 50  # 19 degrees of freedom


def test_pinned_draws_of_the_other_samplers() -> None:
    """As for the uniform one: a seed must go on meaning the same episodes."""
    labels = np.repeat([0, 1, 2], 9)
    totals = {"queries_total": 4, "dirichlet": 2.0}
    calls = {
        "ranges": {"ways": (2, 3), "shots": (1, 2), "queries": 1},
        "dirichlet": {"ways": 2, "shots": 1, **totals},
        "even": {"ways": 3, "shots": 1, "queries_total": 4},
        "used up": {"ways": 2, "shots": 1, "queries": 1, "replacement": False},
    }
    drawn = {name: sample_episodes(labels, episodes=2, seed=0, **call) for name, call in calls.items()}
    assert {name: used_of(e).tolist() for name, e in drawn.items()} == PINNED_OTHERS


PINNED_OTHERS = {
    "ranges": [[[4, 5, 0], [14, -1, 17], [26, -1, 21]], [[6, -1, 7], [14, -1, 15], [22, -1, 19]]],
    "dirichlet": [[[15, 10, 11, 14], [25, 19, -1, -1]], [[10, 14, -1, -1], [24, 25, 22, 23]]],
    "even": [[[5, 4, -1], [17, 16, -1], [23, 24, 25]], [[4, 1, 7], [11, 14, -1], [25, 19, -1]]],
    "used up": [[[4, 2], [10, 11]], [[16, 12], [19, 26]]],
}
