"""A part of a benchmark, drawn with a seed and said so."""

from __future__ import annotations

import dataclasses

import numpy as np

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pair import Benchmark


def limited(benchmark: Benchmark, n: int, seed: int = 0, *, per_category: bool = False) -> Benchmark:
    """n of the pairs, each as likely as any other and none twice, in the order in which they stood; all where there are fewer.

    With the same seed a smaller limit draws some of the pairs of a larger one. `choices` of the result say what was drawn.

    Args:
        benchmark: to be drawn from; pairs that were dropped are not drawn.
        n: how many pairs, or how many of each category.
        seed: of the drawing, 0 or more.
        per_category: draw n of each category.

    Raises:
        InputError: n below 1 or a negative seed.
    """
    if n < 1 or seed < 0:
        raise InputError(f"expected a limit of 1 or more and a seed of 0 or more, got {n} and {seed}")
    rng = np.random.default_rng(seed)
    categories = np.array([pair.category if per_category else "" for pair in benchmark.pairs])
    chosen: list[int] = []
    for category in sorted(set(categories.tolist())):
        members = np.flatnonzero(categories == category)
        chosen += members[rng.permutation(len(members))[:n]].tolist()
    return dataclasses.replace(
        benchmark,
        pairs=tuple(benchmark.pairs[i] for i in sorted(chosen)),
        choices={
            **benchmark.choices,
            "limit_per_category" if per_category else "limit": n,
            "limit_seed": seed,
            "limit_of": len(benchmark.pairs),
        },
    )
