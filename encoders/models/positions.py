"""Where a patch lies, as vision transformers are told: tables resized to the grid, rotary angles, and relative biases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

#: How the patches' positions come into the network, each family its own way; all resizing is bicubic and in float32.
#: `scale-factor`: a table resized by the factor (h + 0.1) / side, as the official DINO, iBOT, Mugs and DINOv2 code does.
#: `size`: a table resized to (h, w) with antialiasing (DINOv2 with registers, open_clip; CLIP and EVA-CLIP, whose code has one size).
#: `size-plain`: the same without antialiasing (MAE, MSN, data2vec 2.0).
#: `align-corners`: the same, the corner patches staying where they are (SWAG).
#: `rope`: no table; queries and keys of patches are rotated (DINOv3).
#: `relative`: no table; attention gets a bias by displacement (BEiT).
#: They give different features at the same size (reference/encoders.md 2).
PositionRule = Literal["scale-factor", "size", "size-plain", "align-corners", "rope", "relative"]


class PerGrid:
    """What was made from the weights for a grid, by device and dtype; kept, because a run sees few grids."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: dict[tuple[tuple[int, int], torch.device, torch.dtype], Tensor] = {}

    def get(
        self, grid: tuple[int, int], device: torch.device, dtype: torch.dtype, make: Callable[[], Tensor]
    ) -> Tensor:
        key = (grid, device, dtype)
        found = self.kept.get(key)
        if found is None:
            found = make().to(device, dtype)
            if len(self.kept) >= self.most:
                self.kept.clear()
            self.kept[key] = found
        return found


def resized_table(table: Float[Tensor, "1 n d"], grid: tuple[int, int], rule: PositionRule) -> Float[Tensor, "1 m d"]:
    """A position table (CLS first, then a square grid row by row) for another grid, in float32."""
    table = table.detach().float()
    side = math.isqrt(table.shape[1] - 1)
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    match rule:
        case "size":
            resized = F.interpolate(patches, size=grid, mode="bicubic", antialias=True)
        case "size-plain":
            resized = F.interpolate(patches, size=grid, mode="bicubic")
        case "align-corners":
            resized = F.interpolate(patches, size=grid, mode="bicubic", align_corners=True)
        case "scale-factor":
            # The official code passes a factor and leaves recompute_scale_factor unset, so the sampler works with the
            # inexact factor itself; size=grid would sample other places (reference/encoders.md 2).
            factor = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            resized = F.interpolate(patches, scale_factor=factor, mode="bicubic")
        case _:
            raise ValueError(f"no position table to resize with positions {rule}")
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


def sincos_table(dim: int, side: int) -> Float[Tensor, "1 n d"]:
    """The fixed table of MAE (He et al. 2021): zeros for CLS; of each patch first its column, then its row, as sines and cosines."""
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, d / 2)
    table = torch.cat([waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table])[None].float()


def relative_bias(table: Float[Tensor, "r heads"], grid: tuple[int, int]) -> Float[Tensor, "heads n n"]:
    """What BEiT (Bao et al. 2021) adds to attention before the softmax, for CLS and the patches of a grid, in float32.

    The table has a row per displacement (query minus key) within a square window, row by row, and three more: from CLS to a patch,
    from a patch to CLS, from CLS to itself. BEiT has one grid; for others the displacements are resized (bicubic), so that a
    displacement keeps its bias when it is the same part of the image.
    """
    table = table.detach().float()
    span = math.isqrt(len(table) - 3)  # 2 · side − 1
    within = table[:-3].T.reshape(1, -1, span, span)
    h, w = grid
    if (2 * h - 1, 2 * w - 1) != (span, span):
        within = F.interpolate(within, size=(2 * h - 1, 2 * w - 1), mode="bicubic")
    rows, columns = (
        torch.arange(n, device=table.device)[:, None] - torch.arange(n, device=table.device) + n - 1 for n in grid
    )
    bias = table.new_empty(table.shape[1], 1 + h * w, 1 + h * w)
    bias[:, 1:, 1:] = within[0][:, rows[:, None, :, None], columns[None, :, None, :]].flatten(3).flatten(1, 2)
    from_cls, to_cls, own = table[-3:, :, None]
    bias[:, 0, :], bias[:, :, 0] = from_cls, to_cls
    bias[:, 0, 0] = own[:, 0]
    return bias


class RotaryPositions(nn.Module):
    """The rotary embedding of DINOv3: patches at (row, column) in [−1, 1], other tokens not rotated.

    The periods of the file are used as they are; where it has none (Hugging Face), they are 100^(2j / (width of a head / 2)).
    They and the angles are float32 whatever the dtype of the network.
    """

    periods: Tensor | None

    def __init__(self, head_width: int, stored: bool) -> None:
        super().__init__()
        self.head_width = head_width
        self.register_buffer("periods", torch.ones(head_width // 4) if stored else None)
        self._kept = PerGrid(32)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> RotaryPositions:
        exact = self.periods
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if exact is not None and self.periods is not None:
            self.periods = exact.to(self.periods.device)  # moved, but never rounded to the dtype of the network
        return self

    def at(self, grid: tuple[int, int], others: int, device: torch.device) -> Float[Tensor, "2 n 1 1 e"]:
        """Cosines and signed sines for `rotated`, for `others` tokens that stay as they are and then the patches of a grid."""
        return self._kept.get(grid, device, torch.float32, lambda: self._waves(grid, others))

    def _waves(self, grid: tuple[int, int], others: int) -> Float[Tensor, "2 n 1 1 e"]:
        quarter = self.head_width // 4
        periods = self.periods
        if periods is None:
            periods = 100.0 ** (2 * torch.arange(quarter, dtype=torch.float32) / (self.head_width // 2))
        row, column = (2 * (torch.arange(n, device=periods.device) + 0.5) / n - 1 for n in grid)
        places = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).reshape(-1, 2, 1)
        angles = (2 * math.pi * places / periods).flatten(1)  # (h · w, e / 2): of the row, then of the column
        cosines, sines = angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], dim=1)
        waves = torch.stack([F.pad(cosines, (0, 0, others, 0), value=1.0), F.pad(sines, (0, 0, others, 0))])
        return waves[:, :, None, None]


def rotated(qk: Float[Tensor, "b n 2 heads e"], waves: Float[Tensor, "2 n 1 1 e"]) -> Float[Tensor, "b n 2 heads e"]:
    """Queries and keys, each channel turned with the one half a head further on; computed in float32."""
    cosines, sines = waves
    turned: Tensor = qk * cosines + qk.roll(qk.shape[-1] // 2, -1) * sines
    return turned.to(qk.dtype)


class RelativePositions(nn.Module):
    """The relative position bias that all blocks of a BEiT share."""

    def __init__(self, heads: int, side: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2 + 3, heads))
        self._kept = PerGrid(4)  # they are large: heads · (h · w)² numbers

    def at(self, grid: tuple[int, int]) -> Float[Tensor, "heads n n"]:
        """The bias for a grid, in the dtype of the network."""
        table = self.relative_position_bias_table
        return self._kept.get(grid, table.device, table.dtype, lambda: relative_bias(table, grid))
