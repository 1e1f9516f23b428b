"""Episodes: which images are supports and which are queries, thousands at once, as index arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32

from encoders.errors import InputError


@dataclass(frozen=True)
class Episodes:
    """Few-shot tasks as indices into one table of features.

    classes: (E, W) indices into the sorted distinct labels, ascending within an episode.
    support: (E, W, K) and query: (E, W, Q) rows of the table; no row is twice in one episode. -1 marks a place
    that is not used (`evaluate` takes full episodes only).
    seed: what they were drawn from, or None where they were not drawn here.
    """

    classes: Int32[np.ndarray, "E W"]
    support: Int32[np.ndarray, "E W K"]
    query: Int32[np.ndarray, "E W Q"]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def ways(self) -> int:
        return int(self.support.shape[1])

    @property
    def shots(self) -> int:
        return int(self.support.shape[2])

    @property
    def queries(self) -> int:
        return int(self.query.shape[2])


def sample_episodes(
    labels: Sequence[object] | np.ndarray,
    *,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> Episodes:
    """Draw episodes uniformly: `ways` distinct classes, then `shots + queries` distinct images of each.

    All are drawn at once with NumPy's PCG64 on the CPU, so a seed gives the same episodes whatever the device.

    Args:
        labels: (N,) one label per row of the feature table, numbers or names.
        ways, shots, queries: classes per episode, supports per class, queries per class.
        episodes: how many.
        seed: 0 or more.
        class_names: names for messages, by index of the sorted distinct labels.

    Raises:
        InputError: fewer classes than `ways`, or a class with fewer than `shots + queries` images; it is named with both counts.
    """
    for name, value, least in (
        ("ways", ways, 2),
        ("shots", shots, 1),
        ("queries", queries, 1),
        ("episodes", episodes, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"expected {name} of {least} or more, got {value}")
    distinct, index = np.unique(np.asarray(labels), return_inverse=True)
    if len(distinct) < ways:
        raise InputError(f"expected at least {ways} classes for {ways} ways, got {len(distinct)}")
    counts = np.bincount(index, minlength=len(distinct))
    short = np.flatnonzero(counts < shots + queries)
    if len(short):
        first = int(short[0])
        name = class_names[first] if class_names is not None else distinct[first]
        others = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
        raise InputError(
            f"class {name} has {counts[first]} images, but {shots} shots and {queries} queries need {shots + queries}{others}: "
            "ask for fewer, or leave the class out"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    classes = np.sort(_draw_distinct(rng, np.full(episodes, len(distinct)), ways), axis=1)
    picks = _draw_distinct(rng, counts[classes].reshape(-1), shots + queries).reshape(episodes, ways, shots + queries)
    # Rows of each class side by side, so that "the j-th image of class c" is one look-up.
    by_class = np.argsort(index, kind="stable")
    first_of_class = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = by_class[first_of_class[classes][:, :, None] + picks].astype(np.int32)
    return Episodes(classes.astype(np.int32), rows[:, :, :shots], rows[:, :, shots:], seed)


def _draw_distinct(rng: np.random.Generator, population: Int[np.ndarray, "r"], draws: int) -> Int[np.ndarray, "r m"]:
    """For each row r, `draws` distinct numbers below `population[r]`, in random order, all orders equally likely.

    Fisher–Yates on an array that is never written out: step t swaps places t and J[t], and what lies at a place is found from the
    earlier swaps. Time and memory do not depend on the population, so classes of a million images cost what small ones do.
    """
    rows = len(population)
    places = np.empty((draws, rows), np.int64)  # J: where step t took its number from
    left = np.empty((draws, rows), np.int64)  # what step t put there instead: the number that lay at place t
    drawn = np.empty((draws, rows), np.int64)
    for t in range(draws):
        places[t] = rng.integers(t, population)
        drawn[t] = places[t]
        left[t] = t
        for s in range(t):
            np.copyto(drawn[t], left[s], where=places[s] == places[t])
            np.copyto(left[t], left[s], where=places[s] == t)
    return drawn.T
