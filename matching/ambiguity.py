"""How ambiguous a match is: the ratio of its distance to that of the best place elsewhere, and where it leads back to."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.matching.nearest.blocks import BLOCK, Maxima

#: Cosine distances smaller than this are beyond the precision of float32 cosines, and count as this.
RESOLUTION = 1e-6


def ratios(score: Float[np.ndarray, "K"], rival: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """(1 - score) / (1 - rival): cosine distance of the match to that of its rival; 0 where there is no rival (-inf).

    Distances count as `RESOLUTION` at least, so that two matches that are equal but for rounding have a ratio of 1.
    """
    near, far = (np.maximum(1 - s.astype(np.float64), RESOLUTION) for s in (score, rival))
    return np.asarray(near / far)


def rivals(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    i: Int[np.ndarray, "K"],
    j: Int[np.ndarray, "K"],
    maxima: Maxima,
    places: Int[np.ndarray, "m 2"],
    reach: float,
) -> Float[np.ndarray, "K"]:
    """For each pair (x_i, y_j) the largest product of x_i with any y that lies farther than `reach` from y_j; -inf where none does.

    Most of them are known already: strips of y that the disc around y_j does not touch have the maxima that the search kept. Products are
    computed again with the strips that it touches, and of these only with those whose maximum is above that of the others.

    Args:
        x, y: the vectors of the search. i, j: which of them, pair by pair.
        maxima: those of x, with strips. places: row and column of each y on its grid, in steps of it, row by row.
        reach: radius of the disc in steps of the grid.
    """
    row = places[:, 0]
    first, last = np.searchsorted(row, row[j] - reach, "left"), np.searchsorted(row, row[j] + reach, "right")
    touched = (maxima.edges[:-1] < last[:, None]) & (maxima.edges[1:] > first[:, None])
    strips = maxima.strips[i]
    best: np.ndarray = np.where(touched, np.array(-np.inf, strips.dtype), strips).max(axis=1)
    # Squared distances of integers are exact in float32 up to 2²⁴.
    kind = torch.float32 if places.max() < 2048 else torch.float64
    where = torch.from_numpy(places).to(x.device, kind)
    limit = math.floor(min(reach**2, 2.0**40))
    for strip, (start, stop) in enumerate(zip(maxima.edges[:-1], maxima.edges[1:], strict=True)):
        needed = np.flatnonzero(touched[:, strip] & (strips[:, strip] > best))
        step = max(1, BLOCK[0] * BLOCK[1] // int(stop - start))  # rows of products at a time, in the memory of a block
        for some in (needed[k : k + step] for k in range(0, len(needed), step)):
            rows, match = (torch.from_numpy(index[some]).to(x.device) for index in (i, j))
            products = x[rows] @ y[start:stop].T
            gap = (where[match, 0, None] - where[start:stop, 0]).square_()
            gap += (where[match, 1, None] - where[start:stop, 1]).square_()
            found = products.masked_fill_(gap <= limit, -torch.inf).amax(dim=1).cpu().numpy()
            best[some] = np.maximum(best[some], found)
    return best


def in_steps(patches: float, frame: Frame) -> float:
    """A distance in patches as steps of the grid: with a stride of half a patch, 1 patch is 2 steps."""
    return patches * frame.patch / frame.stride


def in_patches(one: Int[np.ndarray, "K 2"], other: Int[np.ndarray, "K 2"], frame: Frame) -> Float[np.ndarray, "K"]:
    """Euclidean distances of places on the grid (row and column), in patches."""
    row, column = (one - other).T
    return np.asarray(np.hypot(row, column) * (frame.stride / frame.patch))
