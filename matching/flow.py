"""Dense correspondence: for every pixel of one image the place in the other, how sure that is, and pictures carried along."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import unit_descriptors
from fewmatch.matching.nearest.nearest import nearest_both_ways
from fewmatch.matching.refinement import HALF_WIDTH, TEMPERATURE, window_soft_argmax
from fewmatch.matching.transfer import REFINEMENTS, Refinement, seen

#: A patch is confirmed if the way to B and back ends no further from it than this, in patches: on itself or on one of its eight neighbours.
RETURN = 1.5
#: Patches side by side are one surface if they go to places no further apart than this, in x and in y, in patches of B. (Not whole, so
#: that rounding decides nothing.)
AGREEING = 2.5
#: So many pixels are interpolated at a time.
_PIXELS = 2**18
#: OpenCV's remapping takes pictures with sides below this.
_LONGEST = 2**15 - 1


@dataclass(frozen=True, eq=False)
class Flow:
    """Where the pixels of image A are in image B.

    flow: (H, W, 2) pixels of B minus pixels of A, x then y, for every pixel of A; NaN where unknown (cut off before encoding, masked out,
        or without a direction). Pixel (x, y) of A is at (x, y) + flow[y, x] of B.
    confidence: (H, W) from 0 to 1; 0 where the flow is unknown.
    patch_flow: (h, w, 2) the same at the centres of A's patches, before interpolation; NaN where unknown.
    patch_score: (h, w) cosine of each patch with its nearest in B; NaN where unknown.
    patch_cycle: (h, w) patches between a patch and the one that its nearest in B leads back to; NaN where unknown.
    size_a, size_b: width and height of the original images in pixels.
    """

    flow: Float[np.ndarray, "H W 2"]
    confidence: Float[np.ndarray, "H W"]
    patch_flow: Float[np.ndarray, "h w 2"]
    patch_score: Float[np.ndarray, "h w"]
    patch_cycle: Float[np.ndarray, "h w"]
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    @property
    def known(self) -> Bool[np.ndarray, "H W"]:
        """The pixels of A whose place in B is known."""
        return np.asarray(np.isfinite(self.flow[..., 0]))


def dense_flow(
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    refine: Refinement = "none",
    half_width: int = HALF_WIDTH,
    temperature: float = TEMPERATURE,
) -> Flow:
    """The place in B of every pixel of A: nearest patches, interpolated between their centres.

    A patch of A goes to the patch of B with the largest cosine, of equal ones the first. A pixel's own patch is the one with the nearest
    centre; the flow is known where that patch's is. It is the bilinear mixture of the flows of the four patches whose centres surround the
    pixel, without those that are unknown or go to a place more than 2.5 patches of B, in x or in y, from that of its own patch: there the
    flow jumps, and nothing is mixed that does not belong together. Beyond the outermost centres the pixel is moved onto the line of centres.

    The confidence of a patch is its cosine (negative ones as 0) if it is confirmed, else 0. It is confirmed if the patch of B leads back to
    it or to one of its eight neighbours (the nearest patch in A is at most 1.5 patches away). Between centres it is mixed like the flow.

    Args:
        map_a, map_b: feature maps of the two images, by the same encoder. frame_a, frame_b: their geometry.
        valid_a, valid_b: patches that take part (a foreground, say), besides those of the frame. None is all.
        refine: `none` goes to centres of patches of B; `soft-argmax` to the expected place in a window around them, see `refine`.
        half_width, temperature: of the soft-argmax; see `refine`.

    Raises:
        InputError: options out of range, or maps, frames and masks that do not fit together.

    Source: forward and backward consistency as in RoMa (Edstedt et al. 2024); the products are computed once for both ways, and never held.
    """
    if refine not in REFINEMENTS:
        raise InputError(f"expected refine to be one of {', '.join(REFINEMENTS)}, got {refine!r}")
    a, real_a = unit_descriptors(map_a, frame_a, valid_a, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    a = a.to(b.device, torch.promote_types(a.dtype, b.dtype))
    b = b.to(a.dtype)
    flow, score, cycle = (np.full((len(a), *more), np.nan) for more in ((2,), (), ()))
    forth, back = nearest_both_ways(a, b, valid_a=real_a, valid_b=real_b, metric="dot")
    rows = np.flatnonzero(forth.index >= 0)
    if len(rows):
        start, end = (
            np.stack(np.divmod(index, frame.grid[1]), axis=1)
            for index, frame in ((rows, frame_a), (forth.index[rows], frame_b))
        )
        home = np.stack(np.divmod(back.index[forth.index[rows]], frame_a.grid[1]), axis=1)
        cycle[rows] = np.hypot(*(home - start).T)
        score[rows] = np.clip(forth.score[rows], -1, 1)
        place: Float[np.ndarray, "n 2"] = end.astype(np.float64)
        if refine == "soft-argmax":
            usable = real_b.reshape(frame_b.grid)
            place = window_soft_argmax(a, rows, end, b, usable, half_width=half_width, temperature=temperature)
        there, here = frame_b.to_pixels(*place.T), frame_a.to_pixels(*start.T)
        flow[rows] = np.stack(there, axis=1) - np.stack(here, axis=1)
    patch_flow, patch_score, patch_cycle = (z.reshape(*frame_a.grid, *z.shape[1:]) for z in (flow, score, cycle))
    trust = np.where(patch_cycle <= RETURN, np.maximum(patch_score, 0), 0.0)
    step = [AGREEING * frame_b.stride / scale for scale in frame_b.scale]
    ends = patch_flow + np.stack(frame_a.to_pixels(*np.indices(frame_a.grid)), axis=2)
    whole = _between(np.dstack([patch_flow, trust]), frame_a, ends, (step[0], step[1]))
    return Flow(
        flow=whole[..., :2],
        confidence=np.nan_to_num(whole[..., 2]),
        patch_flow=patch_flow,
        patch_score=patch_score,
        patch_cycle=patch_cycle,
        size_a=(frame_a.width, frame_a.height),
        size_b=(frame_b.width, frame_b.height),
    )


def warp(
    image: UInt8[np.ndarray, "H W 3"], flow: Flow, *, fill: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of an image carried to the shape of another: each pixel of the other gets the colour of its place in this one.

    So to carry the colours of A to B give the flow from B to A, `dense_flow(map_b, frame_b, map_a, frame_a)`: no pixel of B is
    left empty or painted twice, as it would be if A's pixels were thrown into B. Colours are interpolated bilinearly.

    Args:
        image: (H, W, 3) uint8 RGB of the image that the flow goes to.
        flow: of the image that is painted.
        fill: the colour where the flow is unknown.

    Returns:
        (h, w, 3) uint8 RGB of the size of the image that the flow is of.

    Raises:
        InputError: an image of another size than the flow goes to, or one too long for OpenCV (32,766 px).
    """
    if (image.shape[1], image.shape[0]) != flow.size_b:
        raise InputError(
            f"expected an image of {flow.size_b[0]}×{flow.size_b[1]} px as the flow goes to, got {image.shape[1]}×{image.shape[0]}"
        )
    if max(*flow.size_a, *flow.size_b) >= _LONGEST:
        raise InputError(
            f"expected images with sides below {_LONGEST:,} px, got one of {max(*flow.size_a, *flow.size_b):,}"
        )
    width, height = flow.size_a
    there = np.nan_to_num(flow.flow) + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2)
    there = there.astype(np.float32)
    painted = cv2.remap(
        np.ascontiguousarray(image), there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    painted[~flow.known] = fill
    return np.asarray(painted)


def _between(
    values: Float[np.ndarray, "h w C"], frame: Frame, ends: Float[np.ndarray, "h w 2"], reach: tuple[float, float]
) -> Float[np.ndarray, "H W C"]:
    """What is known at the centres of patches, at all pixels, NaN elsewhere.

    ends: where the patches go; NaN where unknown. reach: how far from that of a pixel's own patch, in x and in y, those may be that are mixed.
    """
    height, width = frame.height, frame.width
    place = frame.to_grid(0.0, np.arange(height))[0], frame.to_grid(np.arange(width), 0.0)[1]
    bounds = [np.flatnonzero(frame.real.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    (low_row, high_row, down), (low_column, high_column, right) = (
        _neighbours(p.clip(*end), int(end[1])) for p, end in zip(place, bounds, strict=True)
    )
    left, top, right_edge, bottom_edge = seen(frame)
    seen_x = (np.arange(width) + 0.5 >= left) & (np.arange(width) + 0.5 <= right_edge)
    seen_y = (np.arange(height) + 0.5 >= top) & (np.arange(height) + 0.5 <= bottom_edge)
    out = np.full((height, width, values.shape[2]), np.nan, np.float32)
    step = max(1, _PIXELS // width)
    for start in range(0, height, step):
        part = slice(start, start + step)
        own_row, own_column = np.where(down < 0.5, low_row, high_row), np.where(right < 0.5, low_column, high_column)
        own = ends[own_row[part]][:, own_column]
        total, whole = np.zeros((*own.shape[:2], values.shape[2])), np.zeros((*own.shape[:2], 1))
        for row, share_y in ((low_row[part], 1 - down[part]), (high_row[part], down[part])):
            for column, share_x in ((low_column, 1 - right), (high_column, right)):
                alike = (np.abs(ends[row][:, column] - own) <= reach).all(axis=2, keepdims=True)
                weight = (share_y[:, None] * share_x)[..., None] * alike
                total += weight * np.where(alike, values[row][:, column], 0.0)
                whole += weight
        inside = (whole[..., 0] > 0) & seen_y[part, None] & seen_x
        out[part][inside] = (total[inside] / whole[inside]).astype(np.float32)
    return out


def _neighbours(
    place: Float[np.ndarray, "n"], last: int
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """The patches before and after each place on a line, and how far it is from the first towards the second."""
    low = np.floor(place).astype(np.int64)
    return low, np.minimum(low + 1, last), place - low
