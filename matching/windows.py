"""Windows of a grid of patches: which patches lie in each, and the one in it that is nearest to a descriptor."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

#: So many numbers of gathered descriptors are held at a time.
_GATHERED = 2**22
#: A patch's centre on the very edge of a window is in it, whatever the rounding.
_EDGE = 1e-6


def windows_between(
    lowest: Float[np.ndarray, "2 K"],
    highest: Float[np.ndarray, "2 K"],
    grid: tuple[int, int],
    usable: Bool[np.ndarray, "n"],
) -> tuple[Int[np.ndarray, "K s"], Bool[np.ndarray, "K s"]]:
    """The patches from one fractional row and column to another, in ascending order, and which of the entries are there and usable."""
    axes = []
    for low, high, length in zip(lowest, highest, grid, strict=True):
        first = np.ceil(low - _EDGE).astype(np.int64).clip(min=0)[:, None]
        last = np.floor(high + _EDGE).astype(np.int64).clip(max=length - 1)[:, None]
        index = first + np.arange(max(1, int((last - first).max(initial=0)) + 1))
        axes.append((index.clip(max=length - 1), index <= last))
    (rows, row_in), (columns, column_in) = axes
    index = (rows[:, :, None] * grid[1] + columns[:, None, :]).reshape(len(rows), rows.shape[1] * columns.shape[1])
    inside = (row_in[:, :, None] & column_in[:, None, :]).reshape(index.shape)
    return index, inside & usable[index]


def nearest_within(
    queries: Float[Tensor, "K D"],
    b: Float[Tensor, "M D"],
    windows: tuple[Int[np.ndarray, "K s"], Bool[np.ndarray, "K s"]],
    nearest: Int[np.ndarray, "K"],
    score: Float[np.ndarray, "K"],
) -> tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """The patch of each window with the largest product, of equal ones the first, and that product.

    Args:
        windows: of `windows_between`. nearest, score: what is returned for a window without a usable patch.
    """
    index, inside = windows
    nearest, score = nearest.copy(), score.copy()
    step = max(1, _GATHERED // (index.shape[1] * b.shape[1]))
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        there = b[torch.from_numpy(index[part]).to(b.device)]
        s = torch.bmm(there, queries[part, :, None])[..., 0].cpu().numpy()
        s[~inside[part]] = -np.inf
        best = s.argmax(axis=1)
        some = np.flatnonzero(inside[part].any(axis=1))
        nearest[start + some] = index[part][some, best[some]]
        score[start + some] = s[some, best[some]]
    return nearest, score
