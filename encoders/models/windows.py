"""Square windows of a token map, in which windowed attention works, and the way back."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def into_windows(x: Float[Tensor, "b h w d"], side: int) -> Float[Tensor, "b n s d"]:
    """The windows of a map, row by row, and the tokens of each, row by row.

    Zeros are added below and at the right where the side does not divide the map: N = ⌈h/side⌉·⌈w/side⌉ windows of S = side² tokens.
    """
    b, h, w, d = x.shape
    x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
    rows, columns = x.shape[1] // side, x.shape[2] // side
    return x.view(b, rows, side, columns, side, d).transpose(2, 3).reshape(b, rows * columns, side * side, d)


def from_windows(x: Float[Tensor, "b n s d"], side: int, grid: tuple[int, int]) -> Float[Tensor, "b h w d"]:
    """The map of `grid` rows and columns that these windows were cut from, without what was added to it."""
    b, d = x.shape[0], x.shape[-1]
    rows, columns = (-(-length // side) for length in grid)
    x = x.view(b, rows, columns, side, side, d).transpose(2, 3).reshape(b, rows * side, columns * side, d)
    return x[:, : grid[0], : grid[1]]
