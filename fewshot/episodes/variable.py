"""Meta-Dataset's episodes: as many ways, shots and queries as chance and the sizes of the classes give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fewmatch.errors import InputError
from fewmatch.fewshot.episodes.draws import draw_classes, draw_ragged, rows_of_picks
from fewmatch.fewshot.episodes.episodes import Episodes, assemble
from fewmatch.names import distinct_labels

#: The logarithms of the smallest and the largest weight that chance gives a class.
_LOG_WEIGHTS = (math.log(0.5), math.log(2))


def sample_variable_episodes(
    labels: Sequence[object] | np.ndarray,
    *,
    episodes: int,
    seed: int,
    class_names: Sequence[str] | None = None,
    min_ways: int = 5,
    max_ways: int = 50,
    max_queries: int = 10,
    max_support: int = 500,
    max_contribution: int = 100,
) -> Episodes:
    """Draw episodes of varying ways and shots by the rule of Meta-Dataset (Triantafillou et al. 2020, section 3.2 and appendix).

    Without the class hierarchies that Meta-Dataset uses for ImageNet and Omniglot: classes are drawn uniformly. For each episode

    - ways: uniform from `min_ways` to the smaller of `max_ways` and the classes there are;
    - queries, the same for every class: half the smallest class, rounded down, `max_queries` at most;
    - supports in all: with β uniform in (0, 1], the sum over classes of β·min(`max_contribution`, images - queries), each rounded
      up, `max_support` at most. So `max_contribution` bounds what a class adds to the size of the support set, not its shots;
    - shots of a class: one, and of what is left of the supports a share proportional to exp(α)·images, rounded down, with α uniform
      from log 0.5 to log 2 for each class; never more than the class has left beside its queries.

    Supports are unbalanced, and because of the rounding there may be fewer than the size that was drawn. Places that are not used hold
    -1, so the arrays of 10,000 episodes may take a gigabyte; 600 are usual.

    Args:
        labels: (N,) one label per row of the feature table, numbers or names.
        episodes: how many.
        seed: 0 or more.
        class_names: names for messages, by index of the sorted distinct labels.
        min_ways, max_ways, max_queries, max_support, max_contribution: as above; the defaults are the paper's.

    Raises:
        InputError: fewer classes than `min_ways`, a class with a single image (it is named), or numbers that make no episode.
    """
    for name, value, least in (
        ("min_ways", min_ways, 2),
        ("max_ways", max_ways, min_ways),
        ("max_queries", max_queries, 1),
        ("max_contribution", max_contribution, 1),
        ("episodes", episodes, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"expected {name} of {least} or more, got {value}")
    distinct, index = distinct_labels(labels)
    if len(distinct) < min_ways:
        raise InputError(f"expected at least {min_ways} classes for {min_ways} ways, got {len(distinct)}")
    most_ways = min(max_ways, len(distinct))
    if max_support < most_ways:
        raise InputError(f"expected max_support of {most_ways} or more, one for each way, got {max_support}")
    counts = np.bincount(index, minlength=len(distinct))
    short = np.flatnonzero(counts < 2)
    if len(short):
        name = (distinct if class_names is None else class_names)[short[0]]
        others = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
        raise InputError(
            f"class {name} has 1 image, but a support and a query need 2{others}: add images, or leave the class out"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    used = np.arange(most_ways) < rng.integers(min_ways, most_ways + 1, (episodes, 1))
    classes = draw_classes(rng, len(distinct), used)
    images = np.where(used, counts[classes], 0)
    smallest = np.where(used, images, images.max()).min(axis=1, keepdims=True)
    queries = np.where(used, np.minimum(max_queries, smallest // 2), 0)
    beside_queries = images - queries
    beta = 1 - rng.random((episodes, 1))
    in_all = np.ceil(beta * np.minimum(max_contribution, beside_queries)).sum(axis=1, keepdims=True)
    to_share = np.minimum(in_all, max_support) - used.sum(axis=1, keepdims=True)
    weights = images * np.exp(rng.uniform(*_LOG_WEIGHTS, used.shape))
    shared = np.floor(weights / weights.sum(axis=1, keepdims=True) * to_share).astype(np.int64)
    supports = np.where(used, np.minimum(shared + 1, beside_queries), 0)
    picks = draw_ragged(rng, counts[classes].reshape(-1), (supports + queries).reshape(-1))
    rows = rows_of_picks(index, counts, classes, picks.reshape(*used.shape, -1))
    sampler = {
        "kind": "variable",
        "min_ways": min_ways,
        "max_ways": max_ways,
        "max_queries": max_queries,
        "max_support": max_support,
        "max_contribution": max_contribution,
        "queries": "balanced",
        "replacement": True,
        "episodes": episodes,
    }
    return assemble(classes, rows, supports, queries, seed, sampler)
