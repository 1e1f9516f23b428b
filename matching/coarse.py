"""From coarse to fine: matches of small maps tell where to look in large ones, so that few of their products are computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import Matches, unit_descriptors
from fewmatch.matching.refinement import HALF_WIDTH, TEMPERATURE
from fewmatch.matching.transfer import MapFrame, Refinement, Transferred, held_inside, transfer_points
from fewmatch.matching.windows import windows_between

#: How far from a coarse match fine ones are looked for, in coarse patches.
RADIUS = 1.0
#: So many products are held at a time, at most (unless the windows of one match have more).
_PRODUCTS = 2**21


def coarse_to_fine(
    matches: Matches,
    coarse_frame_a: Frame,
    coarse_frame_b: Frame,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    radius: float = RADIUS,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
) -> Matches:
    """Mutual nearest patches of two fine maps among the pairs that lie near a coarse match.

    Fine patches i of A and j of B are a candidate pair if there is a coarse match with the centre of i at most `radius` coarse patches
    (in rows and in columns) from its point in A, and that of j from its point in B. With f(i) the candidate j of largest
    cosine and g(j) the candidate i, the matches are the pairs with j = f(i) and i = g(j): those of `match` with all other cosines taken
    as −∞. So where the partners that `match` finds on the fine maps are candidates, they are found here too; nothing beyond the
    windows can win, which removes many wrong ones. Of equal cosines the patch that comes first counts as the nearest. It is symmetric in the
    two images, and the order of the coarse matches does not count.

    A fine map is another encoding of the same image, larger or with a smaller stride, each with its own frame; `pooled` makes a
    coarse map of a fine one instead. Of K coarse matches and windows of n and m fine patches, K·n·m products are computed
    in place of all N·M.

    Args:
        matches: of the coarse maps; their points may have been refined or chosen.
        coarse_frame_a, coarse_frame_b: the geometry that their patches have.
        map_a, map_b, frame_a, frame_b: the fine maps of the same two images. Of `mirrored` matches, map_a is of A encoded as its mirror image.
        radius: half the side of a window, in coarse patches; 0.5 is the coarse patch alone.
        valid_a, valid_b: fine patches that may match, as for `match`.

    Returns:
        Matches of the fine maps, best first; their scores and confidence are those of the fine descriptors, as `match` defines them.

    Raises:
        InputError: frames of images of another size, a radius that is not above 0, or maps that do not fit.
    """
    for name, frame, size in (
        ("coarse_frame_a", coarse_frame_a, matches.size_a),
        ("frame_a", frame_a, matches.size_a),
        ("coarse_frame_b", coarse_frame_b, matches.size_b),
        ("frame_b", frame_b, matches.size_b),
    ):
        if (frame.width, frame.height) != size:
            raise InputError(
                f"expected {name} of the image of {size[0]}×{size[1]} px that was matched, got one of {frame.width}×{frame.height} px"
            )
    if not 0 < radius < np.inf:
        raise InputError(f"expected a radius above 0, got {radius:g}")
    a, real_a = unit_descriptors(map_a, frame_a, valid_a, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    a = a.to(b.device, torch.promote_types(a.dtype, b.dtype))
    b = b.to(a.dtype)
    windows_a = _windows(matches.xy_a, coarse_frame_a, frame_a, real_a, radius)
    windows_b = _windows(matches.xy_b, coarse_frame_b, frame_b, real_b, radius)
    best_a, best_b = _Best(len(a)), _Best(len(b))
    step = max(1, _PRODUCTS // max(1, windows_a[0].shape[1] * windows_b[0].shape[1]))
    for start in range(0, len(matches), step):
        (i, in_a), (j, in_b) = ((x[start : start + step] for x in w) for w in (windows_a, windows_b))
        rows, columns = (torch.from_numpy(index).to(a.device) for index in (i, j))
        s = torch.bmm(a[rows], b[columns].transpose(1, 2)).cpu().numpy()
        s[~(in_a[:, :, None] & in_b[:, None, :])] = -np.inf
        # Windows list their patches in ascending order, so that the first of equal maxima is the lowest index.
        best_a.improve(i, s.max(axis=2), np.take_along_axis(j, s.argmax(axis=2), axis=1))
        best_b.improve(j, s.max(axis=1), np.take_along_axis(i, s.argmax(axis=1), axis=1))
    index_a = np.flatnonzero(best_a.value > -np.inf)
    index_b = best_a.index[index_a]
    mutual = best_b.index[index_b] == index_a
    index_a, index_b = index_a[mutual], index_b[mutual]
    score = np.clip(best_a.value[index_a], -1, 1)
    order = np.argsort(-score, kind="stable")
    patches = [np.stack(np.divmod(i[order], f.grid[1]), axis=1) for i, f in ((index_a, frame_a), (index_b, frame_b))]
    points = [np.stack(f.to_pixels(*p.T), axis=1) for f, p in zip((frame_a, frame_b), patches, strict=True)]
    fewer = min(int(real_a.sum()), int(real_b.sum()))
    return Matches(
        xy_a=points[0],
        xy_b=points[1],
        score=score[order].astype(np.float64 if a.dtype == torch.float64 else np.float32),
        patch_a=patches[0],
        patch_b=patches[1],
        confidence=float(np.maximum(score, 0).sum() / fewer) if fewer else 0.0,
        size_a=matches.size_a,
        size_b=matches.size_b,
        mirrored=matches.mirrored,
    )


def finer_points(
    points: Any,
    xy_b: Float[np.ndarray, "K 2"],
    coarse_frame_b: Frame,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    radius: float = RADIUS,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    refine: Refinement = "none",
    half_width: int = HALF_WIDTH,
    temperature: float = TEMPERATURE,
    exclusion: float | None = None,
) -> Transferred:
    """Look for points again in fine maps, each only near the place where coarse maps have it.

    A point's candidates are the fine patches with centres at most `radius` coarse patches (in rows and in columns) from its place; where
    none of them may be matched, all are. Otherwise it is `transfer_points` on the fine maps: score, cycle and ratio are those of the
    fine descriptors, the last two against all patches.

    Args:
        points: (K, 2) pixels of A. xy_b: where they were found in B, by `transfer_points` on the coarse maps. coarse_frame_b: the geometry
            of the coarse map of B.
        map_a, map_b, frame_a, frame_b: the fine maps of the same two images. radius: half the side of a window, in coarse patches.
        valid_b, refine, half_width, temperature, exclusion: as in `transfer_points`.

    Raises:
        InputError: a frame of another image, a radius that is not above 0, another number of places than points, or what
            `transfer_points` raises.
    """
    if (coarse_frame_b.width, coarse_frame_b.height) != (frame_b.width, frame_b.height):
        raise InputError(
            f"expected coarse_frame_b of the image of {frame_b.width}×{frame_b.height} px, got one of "
            f"{coarse_frame_b.width}×{coarse_frame_b.height} px"
        )
    if not 0 < radius < np.inf:
        raise InputError(f"expected a radius above 0, got {radius:g}")
    across, down = (radius * coarse_frame_b.stride / scale for scale in coarse_frame_b.scale)
    return transfer_points(
        points,
        map_a,
        frame_a,
        map_b,
        frame_b,
        valid_b=valid_b,
        refine=refine,
        half_width=half_width,
        temperature=temperature,
        exclusion=exclusion,
        near=xy_b,
        reach=(across, down),
    )


def transfer_coarse_to_fine(
    points: Any,
    coarse_a: MapFrame,
    coarse_b: MapFrame,
    fine_a: MapFrame,
    fine_b: MapFrame,
    *,
    coarse_valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    valid_b: Bool[np.ndarray, "Hb Wb"] | None = None,
    **options: Any,
) -> Transferred:
    """Find points of A in coarse maps of B by `transfer_points`, then near there in fine ones by `finer_points`, to which `options` go.

    A point beyond the border of what an encoding saw is looked up at that border: pooled maps need not reach that of the image.
    """
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    first = transfer_points(held_inside(xy, coarse_a[1]), *coarse_a, *coarse_b, valid_b=coarse_valid_b)
    held = held_inside(xy, fine_a[1])
    return finer_points(held, first.xy_b, coarse_b[1], *fine_a, *fine_b, valid_b=valid_b, **options)


def pooled(
    feature_map: Float[np.ndarray, "h w D"] | Float[Tensor, "h w D"],
    frame: Frame,
    factor: int,
    *,
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[Float[np.ndarray, "H W D"], Frame]:
    """A coarse map made of a fine one, without another encoding: the mean unit descriptor of each factor × factor patches.

    Padding, descriptors of zeros and patches that `valid` leaves out are not in the mean; where nothing is left it is zero, which never
    matches. Rows and columns left over at the bottom and at the right, fewer than the factor, are not seen.

    Returns:
        The (h // factor, w // factor, D) map and its frame, whose patches are as large as what they are the mean of.

    Raises:
        InputError: a factor below 1 or above a side of the grid, or a map and a mask that do not fit.
    """
    rows, columns = frame.grid[0] // factor if factor > 0 else 0, frame.grid[1] // factor if factor > 0 else 0
    if not rows or not columns:
        raise InputError(
            f"expected a factor from 1 to {min(frame.grid)}, a side of the grid of {frame.grid[0]} × {frame.grid[1]} patches, got {factor}"
        )
    x, usable = unit_descriptors(feature_map, frame, valid, "a")
    x[torch.from_numpy(~usable).to(x.device)] = 0.0
    blocks = x.reshape(*frame.grid, -1)[: rows * factor, : columns * factor]
    total = blocks.reshape(rows, factor, columns, factor, -1).sum(dim=(1, 3)).cpu().numpy()
    count = usable.reshape(frame.grid)[: rows * factor, : columns * factor]
    count = count.reshape(rows, factor, columns, factor).sum(axis=(1, 3)).clip(1)[..., None]
    stride = factor * frame.stride
    coarse = dataclasses.replace(frame, grid=(rows, columns), patch=stride - frame.stride + frame.patch, stride=stride)
    return (total / count).astype(total.dtype), coarse


class _Best:
    """For each patch of one image the largest cosine so far, and the lowest patch of the other image that has it."""

    def __init__(self, count: int) -> None:
        self.value = np.full(count, -np.inf)
        self.index = np.zeros(count, np.int64)

    def improve(
        self, patch: Int[np.ndarray, "m k"], value: Float[np.ndarray, "m k"], other: Int[np.ndarray, "m k"]
    ) -> None:
        before = self.value.copy()
        np.maximum.at(self.value, patch, value)
        self.index[self.value > before] = np.iinfo(np.int64).max
        won = value == self.value[patch]
        np.minimum.at(self.index, patch[won], other[won])


def _windows(
    xy: Float[np.ndarray, "K 2"], coarse: Frame, fine: Frame, usable: Bool[np.ndarray, "n"], radius: float
) -> tuple[Int[np.ndarray, "K s"], Bool[np.ndarray, "K s"]]:
    """The fine patches around each point, in ascending order, and which of the entries are there and may match."""
    middle = np.stack(coarse.to_grid(xy[:, 0], xy[:, 1]))
    lowest, highest = (np.stack(fine.to_grid(*coarse.to_pixels(*(middle + sign * radius)))) for sign in (-1, 1))
    return windows_between(lowest, highest, fine.grid, usable)
