"""Meta-Dataset's sampler: its rule step by step, in plain Python on the same random numbers, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.errors import InputError
from fewmatch.fewshot import Episodes, sample_variable_episodes
from fewmatch.fewshot.episodes.draws import draw_classes


def by_the_rule(
    sizes: np.ndarray, episodes: int, seed: int, limits: dict[str, int]
) -> list[tuple[list[int], int, list[int]]]:
    """(classes, queries per class, shots of each class) for each episode."""
    rng = np.random.Generator(np.random.PCG64(seed))
    most = min(limits["max_ways"], len(sizes))
    ways = rng.integers(limits["min_ways"], most + 1, (episodes, 1))[:, 0]
    classes = draw_classes(rng, len(sizes), np.arange(most) < ways[:, None])
    betas = 1 - rng.random((episodes, 1))
    alphas = rng.uniform(math.log(0.5), math.log(2), (episodes, most))
    drawn = []
    for e in range(episodes):
        chosen = [int(c) for c in classes[e, : ways[e]]]
        images = [int(sizes[c]) for c in chosen]
        queries = min(limits["max_queries"], min(n // 2 for n in images))
        supports = sum(math.ceil(betas[e, 0] * min(limits["max_contribution"], n - queries)) for n in images)
        supports = min(limits["max_support"], supports)
        weights = [math.exp(alphas[e, i]) * n for i, n in enumerate(images)]
        shots = [
            min(math.floor(w / sum(weights) * (supports - len(images))) + 1, n - queries)
            for w, n in zip(weights, images, strict=True)
        ]
        drawn.append((chosen, queries, shots))
    return drawn


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(2, 30), st.integers(2, 700)), min_size=3, max_size=14),
    st.integers(2, 3),
    st.integers(3, 20),
    st.integers(1, 12),
    st.integers(20, 500),
    st.integers(1, 120),
    st.integers(0, 2**63),
)
def test_the_rule(
    sizes: list[int], least: int, most: int, queries: int, support: int, contribution: int, seed: int
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 2 + 1, sizes))
    limits = {
        "min_ways": least,
        "max_ways": most,
        "max_queries": queries,
        "max_support": support,
        "max_contribution": contribution,
    }
    episodes = sample_variable_episodes(labels, episodes=12, seed=seed, **limits)
    for e, (classes, q, shots) in enumerate(by_the_rule(np.array(sizes), 12, seed, limits)):
        w = len(classes)
        assert episodes.classes[e].tolist() == classes + [-1] * (episodes.ways - w)
        assert (episodes.support[e] >= 0).sum(axis=1).tolist() == shots + [0] * (episodes.ways - w)
        assert (episodes.query[e] >= 0).sum(axis=1).tolist() == [q] * w + [0] * (episodes.ways - w)
        assert sum(shots) <= support and min(shots) >= 1 and least <= w <= min(most, len(sizes))
        used = np.concatenate([episodes.support[e], episodes.query[e]], axis=1)
        assert len(np.unique(used[used >= 0])) == (used >= 0).sum()
        for c, row in zip(classes, used, strict=False):
            assert (labels[row[row >= 0]] == 2 * c + 1).all()
        for part in (episodes.support[e], episodes.query[e]):
            assert all((row[: (row >= 0).sum()] >= 0).all() for row in part)


def drawn(**change: object) -> Episodes:
    labels = np.repeat(np.arange(60), np.random.default_rng(0).integers(30, 200, 60))
    return sample_variable_episodes(labels, **{"episodes": 400, "seed": 0, **change})


def test_the_paper_s_limits_are_the_defaults() -> None:
    episodes = drawn()
    ways = (episodes.classes >= 0).sum(axis=1)
    assert (ways.min(), ways.max(), episodes.queries) == (5, 50, 10)
    assert abs(ways.mean() - 27.5) < 5 * math.sqrt((46**2 - 1) / 12 / 400)
    supports = (episodes.support >= 0).sum(axis=(1, 2))
    assert 480 < supports.max() <= 500
    assert episodes.ragged and episodes.seed == 0
    assert episodes.sampler == {
        "kind": "variable",
        "min_ways": 5,
        "max_ways": 50,
        "max_queries": 10,
        "max_support": 500,
        "max_contribution": 100,
        "queries": "balanced",
        "replacement": True,
        "episodes": 400,
    }


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others() -> None:
    one, same, other = (drawn(seed=seed, episodes=20) for seed in (1, 1, 2))
    assert np.array_equal(one.support, same.support) and np.array_equal(one.query, same.query)
    assert not np.array_equal(one.classes, other.classes)


def test_a_class_may_have_more_shots_than_it_adds_to_the_support_set() -> None:
    """The limit of 100 is about the size of the whole set, as in the paper; a large class among small ones gets more."""
    labels = np.repeat(np.arange(5), [5000, 20, 20, 20, 20])
    episodes = sample_variable_episodes(labels, episodes=200, seed=0)
    assert (episodes.support >= 0).sum(axis=2).max() > 100


def test_classes_of_two_images_make_one_shot_and_one_query() -> None:
    episodes = sample_variable_episodes(np.repeat(np.arange(5), 2), episodes=50, seed=0)
    assert (episodes.shots, episodes.queries, episodes.ways, episodes.ragged) == (1, 1, 5, False)


def test_pinned_draw() -> None:
    episodes = sample_variable_episodes(np.repeat(np.arange(5), 4), episodes=1, seed=0, min_ways=2)
    assert [episodes.classes.tolist(), episodes.support.tolist(), episodes.query.tolist()] == PINNED


PINNED = [
    [[0, 1, 2, 3, 4]],
    [[[0, 3], [6, 5], [11, -1], [13, -1], [19, -1]]],
    [[[2, 1], [7, 4], [10, 8], [15, 12], [18, 17]]],
]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_ways": 1}, "expected min_ways of 2 or more, got 1"),
        ({"max_ways": 4}, "expected max_ways of 5 or more, got 4"),
        ({"max_queries": 0}, "expected max_queries of 1 or more"),
        ({"max_contribution": 0}, "expected max_contribution of 1 or more"),
        ({"max_support": 5}, "expected max_support of 6 or more, one for each way, got 5"),
        ({"min_ways": 7, "max_ways": 9}, "expected at least 7 classes for 7 ways, got 6"),
        ({"episodes": 0}, "expected episodes of 1 or more"),
        ({"seed": -1}, "expected seed of 0 or more"),
        ({"labels": [0, 0, 1, 2, 2, 3, 3, 4, 4, 5]}, r"class 1 has 1 image, .* need 2 \(and 1 more classes\)"),
        ({"labels": [0] * 9 + [1], "min_ways": 2, "class_names": ["a", "Hund"]}, "class Hund has 1 image"),
    ],
)
def test_impossible_requests_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_variable_episodes(**{"labels": np.repeat(np.arange(6), 5), "episodes": 1, "seed": 0, **change})
