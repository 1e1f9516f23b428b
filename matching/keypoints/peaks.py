"""Places in maps of similarity: the best one, the best two that lie apart, and the expected one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

#: Of each of two parts so many places are considered, the best local maxima.
CANDIDATES = 16


def contrasted(similarity: Float[np.ndarray, "P h w"], share: float) -> Float[np.ndarray, "P h w"]:
    """Each part's similarity, less a share of the largest of the other parts' at the same place where that is above 0."""
    if share == 0 or len(similarity) < 2:
        return similarity
    second, first = np.partition(similarity, (-2, -1), axis=0)[-2:]
    others = np.where(similarity >= first, second, first)  # the largest one's rival is the second
    return np.asarray(similarity - share * np.maximum(others, 0), similarity.dtype)


def peaks(similarity: Float[np.ndarray, "P h w"]) -> Int[np.ndarray, "P 2"]:
    """Row and column of the largest value of each map; of equal ones the first, row by row."""
    best = similarity.reshape(len(similarity), -1).argmax(axis=1)
    return np.stack(np.divmod(best, similarity.shape[2]), axis=1)


def local_maxima(similarity: Float[np.ndarray, "h w"], count: int = CANDIDATES) -> Int[np.ndarray, "k 2"]:
    """Row and column of the `count` largest values that none of their up to eight neighbours exceeds, largest first.

    Of equal values the first comes first, row by row. −∞ is no maximum.
    """
    rows, columns = similarity.shape
    around = np.pad(similarity, 1, constant_values=-np.inf)
    highest = similarity > -np.inf
    for i in range(3):
        for j in range(3):
            highest &= similarity >= around[i : i + rows, j : j + columns]
    places = np.argwhere(highest)
    order = np.argsort(-similarity[highest], kind="stable")[:count]
    return places[order]


def paired_peaks(
    left: Float[np.ndarray, "h w"],
    right: Float[np.ndarray, "h w"],
    x: Float[np.ndarray, "w"],
    y: Float[np.ndarray, "h"],
    apart: float,
) -> Int[np.ndarray, "2 2"]:
    """Row and column of the best places of two parts that look alike, more than `apart` pixels from each other.

    Of all pairs of a local maximum of `left` with one of `right` (the 16 best of each) whose distance is above `apart`, the one with the
    largest sum of the two values. Of equal sums the pair with the better place of `left` is taken, then that with the better place
    of `right`. Where no pair is so far apart, each gets its best place.

    Args:
        left, right: values at the points (x[j], y[i]), in pixels.
    """
    a, b = local_maxima(left), local_maxima(right)
    gap = np.hypot(x[a[:, 1]][:, None] - x[b[:, 1]], y[a[:, 0]][:, None] - y[b[:, 0]])
    total = left[a[:, 0], a[:, 1]].astype(np.float64)[:, None] + right[b[:, 0], b[:, 1]]
    total[gap <= apart] = -np.inf
    if not total.size or total.max() == -np.inf:
        return peaks(np.stack([left, right]))
    i, j = divmod(int(total.argmax()), len(b))
    return np.stack([a[i], b[j]])


def soft_argmax(
    values: Float[np.ndarray, "h w"],
    x: Float[np.ndarray, "w"],
    y: Float[np.ndarray, "h"],
    temperature: float,
) -> Float[np.ndarray, "2"]:
    """The expected place (x, y) under the softmax of values / temperature; −∞ has no weight. At least one value is finite.

    Args:
        values: at the points (x[j], y[i]), in pixels.
    """
    weight = np.exp((values.astype(np.float64) - values.max()) / temperature)
    weight /= weight.sum()
    return np.array([weight.sum(axis=0) @ x, weight.sum(axis=1) @ y])
