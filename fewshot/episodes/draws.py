"""Random draws behind episodes: distinct numbers for many rows at once, classes, images, and how many queries each class gets."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

#: Rows of a ragged draw that are worked on at a time. Part of what a seed means: another number would give other episodes.
_ROWS_AT_ONCE = 4096
#: Up to this many draws of a row, arrays are not written out; and never above this many numbers in all.
_SWAPS_UNWRITTEN = 16
_NUMBERS_WRITTEN = 2**25


def draw_distinct(rng: np.random.Generator, population: Int[np.ndarray, "r"], draws: int) -> Int[np.ndarray, "r m"]:
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


def draw_ragged(
    rng: np.random.Generator, population: Int[np.ndarray, "r"], draws: Int[np.ndarray, "r"]
) -> Int32[np.ndarray, "r m"]:
    """For each row r, `draws[r]` distinct numbers below `population[r]` in random order, then -1 up to the largest draw.

    The same steps as `draw_distinct`, but each row takes part only as long as it has something to draw: rows are taken in the order
    of their draws, so that those still drawing are always the first ones.
    """
    out = np.full((len(draws), int(draws.max(initial=0))), -1, np.int32)
    order = np.argsort(-draws, kind="stable")
    for first in range(0, len(order), _ROWS_AT_ONCE):
        rows = order[first : first + _ROWS_AT_ONCE]
        wanted, below = draws[rows], population[rows]
        places = np.full((int(wanted[0]), len(rows)), -1, np.int64)
        active = np.searchsorted(-wanted, -np.arange(len(places)), side="left")  # how many have more than t draws
        for t, among in enumerate(active):
            places[t, :among] = rng.integers(t, below[:among])
        # Writing the arrays out costs as much as they are large, doing without costs the square of the draws.
        largest = int(below.max())
        written = len(places) > _SWAPS_UNWRITTEN and largest * len(rows) <= _NUMBERS_WRITTEN
        out[rows, : len(places)] = (_swap_written(places, active, largest) if written else _swap(places, active)).T
    return out


def _swap(places: Int[np.ndarray, "m r"], active: Int[np.ndarray, "m"]) -> Int[np.ndarray, "m r"]:
    """What Fisher–Yates draws when step t swaps places t and `places[t]` in the first `active[t]` rows; -1 elsewhere."""
    left, drawn = np.full_like(places, -1), np.full_like(places, -1)
    for t, among in enumerate(active):
        drawn[t, :among] = places[t, :among]
        left[t, :among] = t
        for s in range(t):
            at = places[s, :among]
            np.copyto(drawn[t, :among], left[s, :among], where=at == places[t, :among])
            np.copyto(left[t, :among], left[s, :among], where=at == t)
    return drawn


def _swap_written(
    places: Int[np.ndarray, "m r"], active: Int[np.ndarray, "m"], population: int
) -> Int[np.ndarray, "m r"]:
    """The same on arrays of `population` numbers that are written out."""
    numbers = np.tile(np.arange(population, dtype=np.int32), (places.shape[1], 1))
    drawn = np.full_like(places, -1)
    for t, among in enumerate(active):
        rows, at = np.arange(among), places[t, :among]
        drawn[t, :among] = numbers[rows, at]
        numbers[rows, at] = numbers[:among, t]
    return drawn


def draw_classes(rng: np.random.Generator, population: int, used: Bool[np.ndarray, "E W"]) -> Int[np.ndarray, "E W"]:
    """As many distinct classes as each episode uses, ascending, then -1."""
    drawn = draw_ragged(rng, np.full(len(used), population), used.sum(axis=1))
    drawn = np.sort(np.where(drawn < 0, population, drawn), axis=1)
    out = np.full(used.shape, -1, np.int64)
    out[:, : drawn.shape[1]] = np.where(drawn == population, -1, drawn)
    return out


def rows_of_picks(
    index: Int[np.ndarray, "N"],
    counts: Int[np.ndarray, "C"],
    classes: Int[np.ndarray, "E W"],
    picks: Int[np.ndarray, "E W M"],
) -> Int32[np.ndarray, "E W M"]:
    """The table's rows of "the j-th image of class c", -1 where the pick is -1."""
    # Rows of each class side by side, so that it is one look-up.
    by_class = np.argsort(index, kind="stable").astype(np.int32)
    first_of_class = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
    places = picks.astype(np.int32) + first_of_class[classes][:, :, None]
    used = picks >= 0
    if used.all():
        return np.asarray(by_class[places])
    rows = np.full(picks.shape, -1, np.int32)
    rows[used] = by_class[places[used]]
    return rows


def use_up(
    rng: np.random.Generator,
    index: Int[np.ndarray, "N"],
    counts: Int[np.ndarray, "C"],
    used: Bool[np.ndarray, "E W"],
    needed: Int[np.ndarray, "E W"],
) -> tuple[Int[np.ndarray, "F W"], Int32[np.ndarray, "F W M"]]:
    """Classes and rows of the first episodes, no row twice, until the images left cannot fill the next one.

    An image is drawn by shuffling each class once and taking its images from the front: only the classes are drawn one episode after
    the other, because which of them have enough left depends on the earlier ones.
    """
    shuffled = rng.permutation(len(index))
    by_class = shuffled[np.argsort(index[shuffled], kind="stable")]
    first_left = np.concatenate([[0], np.cumsum(counts)[:-1]])
    left = counts.copy()
    classes = np.full(used.shape, -1, np.int64)
    firsts = np.zeros(used.shape, np.int64)
    ways, most = used.sum(axis=1), needed.max(axis=1)
    done = 0
    while done < len(used):
        candidates = np.flatnonzero(left >= most[done])
        w = ways[done]
        if len(candidates) < w:
            break
        chosen = np.sort(candidates[rng.random(len(candidates)).argsort(kind="stable")[:w]])
        classes[done, :w], firsts[done, :w] = chosen, first_left[chosen]
        first_left[chosen] += needed[done, :w]
        left[chosen] -= needed[done, :w]
        done += 1
    places = np.arange(int(most[:done].max(initial=0)))
    wanted = np.minimum(firsts[:done, :, None] + places, len(index) - 1)
    rows = np.where(places < needed[:done, :, None], by_class[wanted], -1)
    return classes[:done], rows.astype(np.int32)


def split_evenly(rng: np.random.Generator, used: Bool[np.ndarray, "E W"], total: int) -> Int[np.ndarray, "E W"]:
    """`total` queries over the used classes of each episode, as even as can be; those left over go to classes drawn at random."""
    ways = used.sum(axis=1, keepdims=True)
    order = np.where(used, rng.random(used.shape), np.inf).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.where(used, total // ways + (order < total % ways), 0)


def split_by_dirichlet(
    rng: np.random.Generator, used: Bool[np.ndarray, "E W"], total: int, concentration: float
) -> Int[np.ndarray, "E W"]:
    """`total` queries over the used classes of each episode, in proportions drawn from a symmetric Dirichlet distribution.

    Proportions times total are rounded down; what is missing goes, one each, to the classes with the largest remainders, ties to the
    first (the method of largest remainders), so every episode has exactly `total` queries. A class may get none.
    """
    # Gamma(a) is Gamma(a + 1)·U^(1/a); in logarithms nothing becomes zero for small a. Normalised gammas are Dirichlet.
    logs = np.log(rng.standard_gamma(concentration + 1, used.shape)) + np.log1p(-rng.random(used.shape)) / concentration
    logs = np.where(used, logs, -np.inf)
    share = np.exp(logs - logs.max(axis=1, keepdims=True))
    return round_shares(total * share / share.sum(axis=1, keepdims=True), total)


def round_shares(shares: Float[np.ndarray, "E W"], total: int) -> Int[np.ndarray, "E W"]:
    """Numbers of 0 or more that sum to `total` in each row, as whole numbers with the same sum: the method of largest remainders."""
    counts = np.floor(shares).astype(np.int64)
    rank = (counts - shares).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.asarray(counts + (rank < total - counts.sum(axis=1, keepdims=True)))
