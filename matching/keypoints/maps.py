"""How like given descriptors every place of an image is: several encodings of it on one fine grid of original pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import unit_descriptors
from fewmatch.matching.nearest.nearest import as_tensor

#: One encoding of an image: its feature map (h, w, D), NumPy or torch, and its frame. An image seen at several sizes has several.
View = tuple[Any, Frame]

#: Places of the grid from one patch of the finest map to the next.
FINENESS = 8
#: A difference this many rounding errors long, measured against what was subtracted, has no direction.
_ROUNDING_ERRORS = 16
#: A mixture of unit descriptors shorter than this has none either: they are absent, or cancel out.
_SHORTEST = 1e-3


@dataclass(frozen=True, eq=False)
class PixelGrid:
    """The places where parts are looked for: (x[j], y[i]) for every i and j.

    x, y: pixels of the original image, ascending: from the centres of the finest map's first patches to those of its last.
    step, patch: width and height in pixels between neighbours of the grid, and between patches of that map.
    width, height: the image's.
    """

    x: Float[np.ndarray, "w"]
    y: Float[np.ndarray, "h"]
    step: tuple[float, float]
    patch: tuple[float, float]
    width: int
    height: int


@functools.lru_cache(maxsize=16)
def pixel_grid(frames: tuple[Frame, ...]) -> PixelGrid:
    """The grid that the views of one image share: `FINENESS` places from one patch to the next in the view with the densest patches.

    Raises:
        InputError: no frame, frames of images of different sizes, or none of a frame's patches lies on the image.
    """
    if not frames:
        raise InputError("expected one view of an image or more, got none")
    sizes = {(frame.width, frame.height) for frame in frames}
    if len(sizes) > 1:
        raise InputError(f"expected views of one image, got frames of {', '.join(f'{w}×{h}' for w, h in sizes)} px")
    for frame in frames:
        if not frame.real.any():
            raise InputError("none of the patches lies on the image: every one is padding")
    finest = min(frames, key=lambda frame: frame.stride**2 / (frame.scale[0] * frame.scale[1]))
    rows, columns = (np.flatnonzero(finest.real.any(axis=axis)) for axis in (1, 0))
    row, column = (np.linspace(k[0], k[-1], (len(k) - 1) * FINENESS + 1) for k in (rows, columns))
    x, y = finest.to_pixels(0, column)[0], finest.to_pixels(row, 0)[1]
    patch = (finest.stride / finest.scale[0], finest.stride / finest.scale[1])
    return PixelGrid(x, y, (patch[0] / FINENESS, patch[1] / FINENESS), patch, width=finest.width, height=finest.height)


def centred_descriptors(
    view: View,
    mean: Float[Tensor, "D"] | str | None,
    whitening: Float[Tensor, "D D"] | None = None,
    name: str = "the map",
) -> Float[Tensor, "h w D"]:
    """The unit descriptors of a map after a mean of raw descriptors is subtracted; zero at padding and where there is no direction.

    Args:
        mean: what is subtracted; `image` for the mean of this map's own usable descriptors; None for nothing.
        whitening: by which the differences are multiplied before they are made unit vectors.
        name: names the view in errors.

    Raises:
        InputError: a map that does not fit its frame, the mean or the whitening, or with features that are not finite.
    """
    difference, usable, scale = differences(view, mean, name)
    if whitening is not None:
        if len(whitening) != difference.shape[1]:
            raise InputError(
                f"expected descriptors of {len(whitening)} dimensions in {name}, got {difference.shape[1]}"
            )
        difference = difference @ whitening.to(difference)
        scale *= float(torch.linalg.matrix_norm(whitening, torch.inf))  # at least its largest stretch
    norm = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
    there = norm > _ROUNDING_ERRORS * torch.finfo(norm.dtype).eps * scale
    there &= torch.from_numpy(usable).to(norm.device)[:, None]
    return torch.where(there, difference / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0).view(*view[1].grid, -1)


def differences(
    view: View, mean: Float[Tensor, "D"] | str | None, name: str
) -> tuple[Float[Tensor, "n D"], Bool[np.ndarray, "n"], float]:
    """The raw descriptors of a map minus a mean, row by row, which of them take part, and the length of what was subtracted."""
    x = as_tensor(view[0])
    if isinstance(mean, Tensor) and x.shape[-1] != len(mean):
        raise InputError(f"expected descriptors of {len(mean)} dimensions in {name}, got {x.shape[-1]}")
    usable = unit_descriptors(x, view[1], None, name)[1]
    x = x.flatten(0, 1)
    x = x if x.dtype == torch.float64 else x.float()
    if mean is None:
        return x, usable, 0.0
    if isinstance(mean, str):
        mean = x[torch.from_numpy(usable).to(x.device)].double().mean(dim=0)
    # In float64: raw descriptors may share an offset far larger than what tells them apart.
    return (x.double() - mean.to(x.device)).to(x.dtype), usable, float(torch.linalg.vector_norm(mean))


def descriptors_at(
    xy: Float[np.ndarray, "K 2"], descriptors: Float[Tensor, "h w D"], frame: Frame
) -> Float[Tensor, "K D"]:
    """The unit descriptor at each point: the bilinear mixture of the unit descriptors of the patches around it, made a unit vector.

    Beyond the outermost centres the point is moved onto the line of centres. NaN where the point is, where the mixture has no
    direction, and where the encoder did not see the place.

    Args:
        xy: pixels of the original image. descriptors: unit vectors, zero where there is none.
    """
    known = np.isfinite(xy).all(axis=1)
    place = np.where(known[:, None], xy, 0.0)
    (rows, down, seen_y), (columns, right, seen_x) = (
        _between(place[:, 1], frame, vertical=True),
        _between(place[:, 0], frame, vertical=False),
    )
    total = torch.zeros(len(xy), descriptors.shape[2], dtype=descriptors.dtype, device=descriptors.device)
    for i in (0, 1):
        for j in (0, 1):
            weight = torch.from_numpy(np.abs(1 - i - down) * np.abs(1 - j - right)).to(total)
            r, c = np.minimum(rows + i, frame.grid[0] - 1), np.minimum(columns + j, frame.grid[1] - 1)
            total += weight[:, None] * descriptors[torch.from_numpy(r), torch.from_numpy(c)]
    norm = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    there = torch.from_numpy(known & seen_x & seen_y).to(total.device) & (norm[:, 0] > _SHORTEST)
    return torch.where(there[:, None], total / norm.clamp_min(_SHORTEST), torch.nan)


@dataclass(frozen=True, eq=False)
class CosineField:
    """The cosine of vectors with the descriptor at every place of the grid, computed where it is asked for.

    The descriptor at a place is that of `descriptors_at`; it is never made. Kept are the products of a map's own descriptors with
    the vectors and with their neighbours: products are linear in the descriptors, and the length of a mixture follows from those of neighbours.

    views: of each encoding. frames: theirs.
    """

    views: tuple[_ViewProducts, ...]
    frames: tuple[Frame, ...]

    @classmethod
    def of(
        cls,
        vectors: Sequence[Float[Tensor, "V _"]],
        descriptors: Sequence[Float[Tensor, "_ _ _"]],
        frames: tuple[Frame, ...],
    ) -> CosineField:
        """The field of V unit vectors, a set for each view, in the unit descriptors of these (zero where there is none)."""
        views = tuple(_ViewProducts.of(v, u) for v, u in zip(vectors, descriptors, strict=True))
        return cls(views, frames)

    def at(self, rows: slice, columns: slice, which: slice | Int[np.ndarray, "v"]) -> Float[np.ndarray, "v r c"]:
        """The cosines of some of the vectors at some of the grid's rows and columns, the mean over the views that have a descriptor there.

        −∞ where none has.
        """
        total: Tensor | None = None
        count: Tensor | None = None
        for products, frame in zip(self.views, self.frames, strict=True):
            cosines, seen = products.at(_mixing(frame, self.frames, products.itself.dtype), rows, columns, which)
            total = cosines if total is None else total + cosines
            count = seen.to(cosines.dtype) if count is None else count + seen
        if total is None or count is None:
            raise InputError("expected one view of an image or more, got none")
        mean = torch.where(count > 0, total / count.clamp_min(1), -torch.inf)
        return np.asarray(mean.clamp(max=1).cpu().numpy())


@dataclass(frozen=True, eq=False)
class _ViewProducts:
    """Of one view, row by row and column by column: products with the vectors, with itself, and with the neighbours."""

    vectors: Float[Tensor, "V h w"]
    itself: Float[Tensor, "h w"]
    right: Float[Tensor, "h w1"]
    below: Float[Tensor, "h1 w"]
    across: Float[Tensor, "h1 w1"]  # both diagonals together

    @classmethod
    def of(cls, vectors: Float[Tensor, "V D"], u: Float[Tensor, "h w D"]) -> _ViewProducts:
        return cls(
            (u.flatten(0, 1) @ vectors.to(u).T).T.reshape(len(vectors), *u.shape[:2]),
            (u * u).sum(dim=2),
            (u[:, :-1] * u[:, 1:]).sum(dim=2),
            (u[:-1] * u[1:]).sum(dim=2),
            (u[:-1, :-1] * u[1:, 1:]).sum(dim=2) + (u[:-1, 1:] * u[1:, :-1]).sum(dim=2),
        )

    def at(
        self, mixing: _Mixing, rows: slice, columns: slice, which: slice | Int[np.ndarray, "v"]
    ) -> tuple[Float[Tensor, "v r c"], Bool[Tensor, "r c"]]:
        """The cosines, and where there is a descriptor; elsewhere they are 0."""
        down, down2, down_pairs = (
            m[rows].to(self.itself.device) for m in (mixing.down, mixing.down2, mixing.down_pairs)
        )
        right, right2, right_pairs = (
            m[columns].to(self.itself.device).T for m in (mixing.right, mixing.right2, mixing.right_pairs)
        )
        # The squared length of Σ w_i u_i over the four patches around a place is Σ w_i² |u_i|² + 2 Σ w_i w_j u_i·u_j.
        length2 = down2 @ (self.itself @ right2 + 2 * self.right @ right_pairs)
        length2 += 2 * down_pairs @ (self.below @ right2 + self.across @ right_pairs)
        seen = mixing.seen[rows, columns].to(self.itself.device) & (length2 > _SHORTEST**2)
        scale = torch.where(seen, length2.clamp_min(_SHORTEST**2).rsqrt(), 0.0)
        return (down @ self.vectors[which] @ right).mul_(scale), seen


@dataclass(frozen=True, eq=False)
class _Mixing:
    """The weights of a bilinear mixture at every row and column of the grid, as matrices."""

    down: Float[Tensor, "gh h"]
    right: Float[Tensor, "gw w"]
    down2: Float[Tensor, "gh h"]  # the weights squared
    right2: Float[Tensor, "gw w"]
    down_pairs: Float[Tensor, "gh h1"]  # products of the weights of neighbours
    right_pairs: Float[Tensor, "gw w1"]
    seen: Bool[Tensor, "gh gw"]


@functools.lru_cache(maxsize=16)
def _mixing(frame: Frame, frames: tuple[Frame, ...], dtype: torch.dtype) -> _Mixing:
    grid = pixel_grid(frames)
    matrices: dict[str, Tensor] = {}
    seen = []
    for name, positions, length, vertical in (
        ("down", grid.y, frame.grid[0], True),
        ("right", grid.x, frame.grid[1], False),
    ):
        low, share, inside = _between(positions, frame, vertical=vertical)
        weights = np.zeros((len(positions), length + 1))
        k = np.arange(len(positions))
        weights[k, low] = 1 - share
        weights[k, low + 1] = share  # the last column is beyond the map, where the share is 0
        pairs = (weights[:, :-1] * weights[:, 1:])[:, : length - 1]
        for suffix, matrix in (("", weights[:, :length]), ("2", weights[:, :length] ** 2), ("_pairs", pairs)):
            matrices[name + suffix] = torch.from_numpy(np.ascontiguousarray(matrix)).to(dtype)
        seen.append(inside)
    return _Mixing(**matrices, seen=torch.from_numpy(seen[0][:, None] & seen[1]))


def _between(
    positions: Float[np.ndarray, "K"], frame: Frame, *, vertical: bool
) -> tuple[Int[np.ndarray, "K"], Float[np.ndarray, "K"], Bool[np.ndarray, "K"]]:
    """The patch before each position along one axis, how far towards the next it lies, and whether the encoder saw it."""
    zero = np.zeros(len(positions))
    place = frame.to_grid(zero, positions)[0] if vertical else frame.to_grid(positions, zero)[1]
    real = np.flatnonzero(frame.real.any(axis=1 if vertical else 0))
    edge = frame.patch / frame.stride / 2 + 1e-9  # an outermost patch reaches half a patch beyond its centre
    seen = (place >= real[0] - edge) & (place <= real[-1] + edge)
    place = place.clip(real[0], real[-1])
    low = np.floor(place).astype(np.int64)
    return low, place - low, seen
