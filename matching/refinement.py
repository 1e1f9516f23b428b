"""Matches finer than the grid: where in a window around the best patch the similarity has its weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import Matches, unit_descriptors

#: Half the side of the window, in patches, and the softmax's temperature. GeoAware-SC takes 5 and 0.02; with the bundled encoder 5 brings
#: far points nearer and takes near ones away, where 1 is no worse than the patch's centre at any distance (docs/matching.md).
HALF_WIDTH, TEMPERATURE = 1, 0.02
#: Patches of B whose windows are multiplied at once lie in a square of so many times the window's side.
_TILE = 1.0


def refine(
    matches: Matches,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    half_width: int = HALF_WIDTH,
    temperature: float = TEMPERATURE,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
) -> Matches:
    """Move the points in B to fractions of a patch, by a soft-argmax in a window.

    For the match of patch i of A with patch j of B, the window is the square of 2·half_width + 1 patches around j; what lies beyond
    the grid, padding, descriptors of zeros and patches that `valid_b` leaves out are not in it (their similarity is −∞). With
    q = softmax of S_i / temperature over the window, the new point is Σ q · (row, column), in pixels of B. Points in A stay the
    centres of their patches: each asks where in B its own place is. Scores, patches and the order stay; `ratio`, `cycle` and
    `geometry` too, which speak of the patches.

    The point lies among the centres of the window's patches, so always on the image. It interpolates between neighbours and cannot
    mend a match that is wrong. half_width 0 gives the centre of patch j back.

    Args:
        matches: their patches are those of the maps. Of `mirrored` ones, map_a is that of A encoded as its mirror image.
        map_a, map_b: feature maps of the two images. frame_a, frame_b: their geometry.
        half_width: of the window, in patches of B.
        temperature: of the softmax; small ones leave the point at its patch, large ones take it to the middle of the window.
        valid_b: the patches of B that could match, as `match` had it.

    Raises:
        InputError: options out of range, maps and masks that do not fit, or a match with a patch that is not in the grid or may not match.

    Source: GeoAware-SC (Zhang et al. 2024), whose window has zeros outside instead of −∞ and so leaks where similarities are low.
    """
    a, real_a = unit_descriptors(map_a, frame_a, None, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    a = a.to(b.device, torch.promote_types(a.dtype, b.dtype))
    b = b.to(a.dtype)
    for patches, frame, real, name in (
        (matches.patch_a, frame_a, real_a, "a"),
        (matches.patch_b, frame_b, real_b, "b"),
    ):
        _check_patches(patches, frame, real, name)
    index_a = np.ravel_multi_index((matches.patch_a[:, 0], matches.patch_a[:, 1]), frame_a.grid)
    place = window_soft_argmax(
        a, index_a, matches.patch_b, b, real_b.reshape(frame_b.grid), half_width=half_width, temperature=temperature
    )
    xy_b = np.stack(frame_b.to_pixels(place[:, 0], place[:, 1]), axis=1)
    return dataclasses.replace(matches, xy_b=xy_b)


def window_soft_argmax(
    queries: Float[Tensor, "Q D"],
    which: Int[np.ndarray, "K"],
    centre: Int[np.ndarray, "K 2"],
    b: Float[Tensor, "M D"],
    usable: Bool[np.ndarray, "hb wb"],
    *,
    half_width: int = HALF_WIDTH,
    temperature: float = TEMPERATURE,
) -> Float[np.ndarray, "K 2"]:
    """The expected (row, column) in B of query vectors, each in the window around its own patch.

    The windows of patches that are neighbours overlap, so that products are computed for one square of B at a time, with the queries
    that look there: never all Q × M, and no window is copied.

    Args:
        queries: unit vectors. which: the query of each place that is looked for.
        centre: row and column of the window's middle, a usable patch.
        b: unit descriptors, row by row. usable: which of them count.

    Returns:
        (K, 2) fractional rows and columns of B's grid.

    Raises:
        InputError: half_width below 0, or a temperature that is not above 0.
    """
    if half_width < 0:
        raise InputError(f"expected a half-width of 0 patches or more, got {half_width}")
    if not 0 < temperature < np.inf:
        raise InputError(f"expected a temperature above 0, got {temperature:g}")
    rows, columns = usable.shape
    grid = b.reshape(rows, columns, -1)
    reach = np.arange(-half_width, half_width + 1)
    moved = np.zeros((len(which), 2))
    for members, top, left, bottom, right in _tiles(centre, usable.shape, half_width):
        part = grid[top:bottom, left:right].flatten(0, 1)
        s = (queries[which[members]] @ part.T).double().cpu().numpy().reshape(len(members), bottom - top, right - left)
        r = centre[members, :1] + reach
        c = centre[members, 1:] + reach
        inside = ((r >= 0) & (r < rows))[:, :, None] & ((c >= 0) & (c < columns))[:, None, :]
        r, c = r.clip(0, rows - 1), c.clip(0, columns - 1)
        inside &= usable[r[:, :, None], c[:, None, :]]
        window = s[np.arange(len(members))[:, None, None], (r - top)[:, :, None], (c - left)[:, None, :]]
        window = np.where(inside, window, -np.inf)
        weight = np.exp((window - window.max(axis=(1, 2), keepdims=True)) / temperature)
        weight /= weight.sum(axis=(1, 2), keepdims=True)
        moved[members] = np.stack([weight.sum(axis=2) @ reach, weight.sum(axis=1) @ reach], axis=1)
    return centre + moved


def _tiles(
    centre: Int[np.ndarray, "K 2"], grid: tuple[int, int], half_width: int
) -> Iterator[tuple[Int[np.ndarray, "k"], int, int, int, int]]:
    """The places of each square of the grid, and the rows and columns that their windows cover."""
    side = max(4, round(_TILE * (2 * half_width + 1)))
    number = centre[:, 0] // side * (grid[1] // side + 1) + centre[:, 1] // side
    order = np.argsort(number, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        if len(members):
            first, last = centre[members].min(axis=0) - half_width, centre[members].max(axis=0) + half_width + 1
            (top, left), (bottom, right) = np.maximum(first, 0).tolist(), np.minimum(last, grid).tolist()
            yield members, top, left, bottom, right


def _check_patches(patches: Int[np.ndarray, "K 2"], frame: Frame, real: Bool[np.ndarray, "n"], name: str) -> None:
    for row, column in patches[((patches < 0) | (patches >= frame.grid)).any(axis=1)][:1]:
        raise InputError(
            f"expected matches of the {frame.grid[0]} × {frame.grid[1]} patches of map_{name}, got patch ({row}, {column})"
        )
    for row, column in patches[~real[patches @ [frame.grid[1], 1]]][:1]:
        raise InputError(
            f"patch ({row}, {column}) of map_{name} may not match, yet a match has it: give the maps and the mask that it was found with"
        )
