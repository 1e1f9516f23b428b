"""Given points looked for in another image under a convention: the exact rules, and those of papers with their offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.left_right import ABSENT
from fewmatch.matching.benchmarks.pck.convention import Convention, SourceRule
from fewmatch.matching.benchmarks.pck.pixels import best_pixels
from fewmatch.matching.coarse import pooled, transfer_coarse_to_fine
from fewmatch.matching.matches import unit_descriptors
from fewmatch.matching.mirror import MirrorChoice, choose_mirror
from fewmatch.matching.nearest.nearest import as_tensor
from fewmatch.matching.refinement import window_soft_argmax
from fewmatch.matching.transfer import MapFrame, Transferred, held_inside, transfer_points

#: Similarities of points and patches that are held at once.
_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class Located:
    """Where points of A were found in B.

    xy_b: (K, 2) pixels of the original, x then y, pixel centres at integers; rules that are not exact can lead outside the image.
    moved: (K,) points that were given outside A and were looked up at its border. kept: (K,) points that the convention's filters let
        through. choice: of the mirror image, None where none was asked for.
    """

    xy_b: Float[np.ndarray, "K 2"]
    moved: Bool[np.ndarray, "K"]
    kept: Bool[np.ndarray, "K"]
    choice: MirrorChoice | None = None


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """One image as a convention has it encoded.

    map: (h, w, D). frame: its geometry. valid: (h, w) patches that take part, besides those on the image; None for all.
    mirrored: map and frame of the image encoded as its mirror image (`encode_images` with `mirror`), which a source needs under `flip`.
    fine: the same image at the convention's `fine_size`.
    """

    map: Float[np.ndarray, "h w D"] | Float[Tensor, "h w D"]
    frame: Frame
    valid: Bool[np.ndarray, "h w"] | None = None
    mirrored: MapFrame | None = None
    fine: EncodedImage | None = None


def locate(
    points: Float[np.ndarray, "K 2"],
    a: EncodedImage,
    b: EncodedImage,
    convention: Convention,
    *,
    twins: Sequence[int] | None = None,
) -> Located:
    """Find points of A in B as a convention has it: the direction is the caller's, everything else about places is the convention's.

    The descriptor of a point, by `source`:
    - bilinear: as `transfer_points` has it, exactly.
    - patch: that of the patch floor(u·n/size), where u = x·scale − offset on the encoder's input of `size` pixels and `n` patches.
    - align-corners: the bilinear mixture of unit descriptors at u/size·(n − 1).
    - pixel: the bilinear mixture of raw descriptors at the centre of the pixel that contains the point.
    - covering: those of all patches with u in them, edges included, each by itself.

    Its place in B, by `target`, from the patch whose cosine is largest (of equal ones the first), or from the fraction of a patch
    where the window's soft-argmax ends:
    - centre: exactly, by `Frame.to_pixels`.
    - offset: v = index·stride + share·patch + pixels on the encoder's input, brought back by (v + offset)/scale without the half pixels
      that belong there, as the papers do.
    - pixel: the pixel of the original whose bilinear mixture of raw descriptors has the largest cosine, of equal ones the first;
      beyond the outermost centres of patches descriptors go on unchanged.
    - displacement: of each covering patch, the corner of the patch found + u − the corner of the covering one; the mean of these,
      brought back as with offset.

    With a window, `outside` -inf leaves out what lies beyond it; zero counts the similarity of every other patch as 0, which has a
    weight in the softmax.

    Exact places (bilinear to centre, no padding, nothing outside the window) can be looked for in two steps, `fine_size` or `coarse_to_fine`
    (see `finer_points`), and filtered by score, ratio and cycle.

    With a `flip`, A is looked up in its mirror image where that is nearer to B, each point at the place of its twin there: the mirror image
    of a right paw looks like a left one. A point whose twin is not among the points is looked up in A as it is (as GeoAware-SC does).

    Args:
        points: pixels of A. a, b: the images. A's `valid` patches count in the choice of the mirror image, B's in everything.
        twins: for each point the index of its mirror image, its own index where it is its own mirror image, −1 where its mirror image is not
            among the points; None takes every point for its own mirror image.

    Raises:
        InputError: maps, frames, masks, points or twins that do not fit, features that are not finite, a mirror image or a fine map too many
            or missing, a point without a descriptor, or no patch in B where it could be found.
    """
    xy = np.asarray(points, np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise InputError(f"expected finite points of shape (K, 2), x then y, got {points!r}")
    rule = convention.flip_rule
    if (rule is None) != (a.mirrored is None):
        raise InputError(
            f"expected the map of A's mirror image with a flip and with no other convention, got flip {convention.flip} and "
            f"{'none' if a.mirrored is None else 'one'}"
        )
    if not (convention.fine_size is None) == (a.fine is None) == (b.fine is None):
        raise InputError("expected fine maps of both images with a fine size and with no other convention")
    choice = None
    if rule is not None and a.mirrored is not None:
        choice = choose_mirror(a.map, a.frame, *a.mirrored, b.map, b.frame, valid_a=a.valid, valid_b=b.valid, by=rule)
        if choice.mirrored:
            return _located_mirrored(xy, a, b, convention, choice, twins)
    return _located(xy, a, b, convention, choice)


def _located_mirrored(
    xy: Float[np.ndarray, "K 2"],
    a: EncodedImage,
    b: EncodedImage,
    convention: Convention,
    choice: MirrorChoice,
    twins: Sequence[int] | None,
) -> Located:
    """Points with a twin by the mirror image of A, the others by A as it is."""
    twin = np.arange(len(xy)) if twins is None else np.asarray(twins, np.int64)
    if twin.shape != (len(xy),) or not ((twin >= ABSENT) & (twin < len(xy))).all():
        raise InputError(
            f"expected a twin from 0 to {len(xy) - 1}, or {ABSENT}, for each of {len(xy)} points, got {twins}"
        )
    seen = twin != ABSENT
    places, moved, kept = np.zeros((len(xy), 2)), np.zeros(len(xy), bool), np.zeros(len(xy), bool)
    for some, image, at in ((seen, _turned(a), xy[twin[seen]]), (~seen, a, xy[~seen])):
        part = _located(at, image, b, convention, choice)
        places[some], moved[some], kept[some] = part.xy_b, part.moved, part.kept
    return Located(places, moved, kept, choice)


def _located(
    xy: Float[np.ndarray, "K 2"], a: EncodedImage, b: EncodedImage, convention: Convention, choice: MirrorChoice | None
) -> Located:
    """Every point at its own place in A."""
    held = held_inside(xy, a.frame)
    moved = np.abs(held - xy).max(axis=1, initial=0) > 1e-6  # farther than rounding takes them
    if len(xy) == 0:
        return Located(np.zeros((0, 2)), moved, moved, choice)
    if convention.exact_places:
        found = _transferred(held, a, b, convention)
        return Located(found.xy_b, moved, _kept(found, convention), choice)
    places = _found(held, a.map, a.frame, b.map, b.frame, convention, b.valid)
    return Located(places, moved, np.ones(len(xy), bool), choice)


def _turned(image: EncodedImage) -> EncodedImage:
    """The image as its mirror image has it, the fine map too."""
    if image.mirrored is None:
        raise InputError("expected the map of A's mirror image at the fine size too")
    return EncodedImage(*image.mirrored, fine=None if image.fine is None else _turned(image.fine))


def _transferred(xy: Float[np.ndarray, "K 2"], a: EncodedImage, b: EncodedImage, convention: Convention) -> Transferred:
    """Exact places, of the finest maps that the convention has."""
    options: dict[str, Any] = {
        "refine": "none" if convention.window is None else "soft-argmax",
        "half_width": convention.window or 0,
        "temperature": convention.temperature,
        "exclusion": None if convention.max_ratio is None else convention.exclusion,
    }
    if a.fine is not None and b.fine is not None:
        coarse, fine_a, fine_b = [(a.map, a.frame), (b.map, b.frame)], a.fine, b.fine
        coarse_valid = b.valid
    elif convention.coarse_to_fine is not None:
        factor, fine_a, fine_b, coarse_valid = convention.coarse_to_fine, a, b, None
        coarse = [pooled(a.map, a.frame, factor), pooled(b.map, b.frame, factor, valid=b.valid)]
    else:
        return transfer_points(xy, a.map, a.frame, b.map, b.frame, valid_b=b.valid, **options)
    return transfer_coarse_to_fine(
        xy,
        coarse[0],
        coarse[1],
        (fine_a.map, fine_a.frame),
        (fine_b.map, fine_b.frame),
        coarse_valid_b=coarse_valid,
        valid_b=fine_b.valid,
        **options,
    )


def _kept(found: Transferred, convention: Convention) -> Bool[np.ndarray, "K"]:
    """Which points the filters let through."""
    kept = np.ones(len(found), bool)
    for value, least, most in (
        (found.score, convention.min_score, None),
        (found.ratio, None, convention.max_ratio),
        (found.returned, None, convention.max_cycle),
    ):
        if value is not None:
            kept &= (-np.inf if least is None else least) <= value
            kept &= value <= (np.inf if most is None else most)
    return kept


def _found(
    xy: Float[np.ndarray, "K 2"],
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    convention: Convention,
    valid_b: Bool[np.ndarray, "hb wb"] | None,
) -> Float[np.ndarray, "K 2"]:
    a, real_a = unit_descriptors(map_a, frame_a, None, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    if not convention.exclude_padding:
        real_b = _with_padding(b, frame_b, valid_b)
    if not real_b.any():
        raise InputError("no patch of B may be matched: every one is padding, masked out or without a direction")
    if convention.target == "displacement":
        return _displaced(xy, a, real_a.reshape(frame_a.grid), frame_a, b, real_b.reshape(frame_b.grid), frame_b)
    mixed = _raw(map_a) if convention.source == "pixel" else a.double().cpu().numpy()
    place = _source_place(xy, frame_a, convention.source)
    queries = _mixture(place, mixed, frame_a.grid)
    norm = np.linalg.norm(queries, axis=1, keepdims=True)
    if not (norm > 1e-6).all():
        k = int(np.argmin(norm[:, 0]))
        raise InputError(
            f"the features of A around point {k + 1}, ({xy[k, 0]:g}, {xy[k, 1]:g}), are zero or cancel out: it cannot be looked for"
        )
    queries = queries / norm
    usable = real_b.reshape(frame_b.grid)
    if convention.target == "pixel":
        ends = _ends(frame_b, padding=not convention.exclude_padding)
        return best_pixels(queries, _raw(map_b), usable, frame_b, ends)
    index = np.zeros((len(xy), 2))
    for part in _parts(len(xy), len(b)):
        index[part] = _grid_place(torch.from_numpy(queries[part]).to(b), b, usable, convention)
    if convention.target == "centre":
        return np.stack(frame_b.to_pixels(index[:, 0], index[:, 1]), axis=1)
    share, pixels = convention.offset
    on_input = index[:, ::-1] * frame_b.stride + share * frame_b.patch + pixels
    return np.asarray((on_input + frame_b.offset) / frame_b.scale)


def _grid_place(
    queries: Float[Tensor, "K D"], b: Float[Tensor, "M D"], usable: Bool[np.ndarray, "h w"], convention: Convention
) -> Float[np.ndarray, "K 2"]:
    """Row and column of the best patch, or of where the window's soft-argmax ends."""
    scores = _scores(queries, b, usable)
    patch = np.stack(np.divmod(scores.argmax(axis=1), usable.shape[1]), axis=1)
    if convention.window is None:
        return patch.astype(np.float64)
    if convention.outside == "zero":
        return _leaking_window(scores, patch, usable.shape, convention.window, convention.temperature)
    return window_soft_argmax(
        queries,
        np.arange(len(queries)),
        patch,
        b,
        usable,
        half_width=convention.window,
        temperature=convention.temperature,
    )


def _displaced(
    xy: Float[np.ndarray, "K 2"],
    a: Float[Tensor, "N D"],
    usable_a: Bool[np.ndarray, "ha wa"],
    frame_a: Frame,
    b: Float[Tensor, "M D"],
    usable_b: Bool[np.ndarray, "hb wb"],
    frame_b: Frame,
) -> Float[np.ndarray, "K 2"]:
    """The mean over the patches that cover a point of where each takes it along."""
    on_input = (xy * frame_a.scale - frame_a.offset)[:, ::-1]  # row, then column
    # What a stride leaves over at an edge is covered by the last patch, and what the missing half pixels take into padding by the first.
    ends = _ends(frame_a) * frame_a.stride + np.array([0, frame_a.patch])
    held = on_input.clip(ends[:, 0], ends[:, 1])
    corners = [np.arange(cells) * frame_a.stride for cells in frame_a.grid]
    covers = [
        (corner <= at[:, None]) & (at[:, None] <= corner + frame_a.patch)
        for corner, at in zip(corners, held.T, strict=True)
    ]
    point, row, column = np.nonzero(covers[0][:, :, None] & covers[1][:, None, :] & usable_a)
    count = np.bincount(point, minlength=len(xy))
    if not count.all():
        k = int(np.argmin(count))
        raise InputError(
            f"the features of A around point {k + 1}, ({xy[k, 0]:g}, {xy[k, 1]:g}), are zero: it cannot be looked for"
        )
    asked = a[torch.from_numpy(row * frame_a.grid[1] + column).to(a.device)].to(b)
    best = np.zeros(len(asked), np.int64)
    for part in _parts(len(asked), len(b)):
        best[part] = _scores(asked[part], b, usable_b).argmax(axis=1)
    moved = np.stack(np.divmod(best, frame_b.grid[1]), axis=1) * frame_b.stride
    moved = moved + on_input[point] - np.stack([row, column], axis=1) * frame_a.stride
    total = np.zeros((len(xy), 2))
    np.add.at(total, point, moved)
    return np.asarray(((total / count[:, None])[:, ::-1] + frame_b.offset) / frame_b.scale)


def _parts(queries: int, patches: int) -> Iterator[slice]:
    """The queries, so many at a time that their similarities with all patches fit."""
    step = max(1, _BLOCK // patches)
    yield from (slice(start, start + step) for start in range(0, queries, step))


def _scores(
    queries: Float[Tensor, "K D"], b: Float[Tensor, "M D"], usable: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "K M"]:
    """Cosines, −∞ with what cannot be found."""
    scores: Float[np.ndarray, "K M"] = (queries @ b.T).double().cpu().numpy()
    scores[:, ~usable.reshape(-1)] = -np.inf
    return scores


def _with_padding(
    b: Float[Tensor, "n D"], frame: Frame, valid: Bool[np.ndarray, "h w"] | None
) -> Bool[np.ndarray, "n"]:
    """Patches with a direction, on the image or not; `valid` speaks of those on the image."""
    norm = torch.linalg.vector_norm(b, dim=1).cpu().numpy()
    may = np.ones(frame.grid, bool) if valid is None else valid | ~frame.real
    if not np.isfinite(norm[may.reshape(-1)]).all():
        raise InputError(
            "the features of padding in map_b are not finite, and this convention does not leave padding out"
        )
    return np.asarray(may.reshape(-1) & (norm > 0))


def _raw(feature_map: Float[np.ndarray, "h w D"] | Float[Tensor, "h w D"]) -> Float[np.ndarray, "n D"]:
    """The descriptors row by row, all divided by the length of the longest, so that what counts as zero does not depend on the encoder."""
    x = np.asarray(as_tensor(feature_map).flatten(0, 1).double().cpu().numpy())
    length = np.linalg.norm(x, axis=1)
    longest = length[np.isfinite(length)].max(initial=0.0)
    return x / longest if longest > 0 else x


def _source_place(xy: Float[np.ndarray, "K 2"], frame: Frame, rule: SourceRule) -> Float[np.ndarray, "K 2"]:
    """Row and column of each point in the grid of A, fractions for the rules that mix."""
    ends = _ends(frame)
    if rule in ("bilinear", "pixel"):
        at = xy if rule == "bilinear" else np.floor(xy + 0.5).clip(0, np.array([frame.width, frame.height]) - 1)
        place = np.stack(frame.to_grid(at[:, 0], at[:, 1]), axis=1)
    else:
        share = (xy * frame.scale - frame.offset)[:, ::-1] / frame.input_size
        place = np.floor(share * frame.grid) if rule == "patch" else share * (np.array(frame.grid) - 1)
    return place.clip(ends[:, 0], ends[:, 1])


def _ends(frame: Frame, *, padding: bool = False) -> Int[np.ndarray, "2 2"]:
    """First and last row, first and last column, of the patches on the image (with `padding`, of all)."""
    if padding:
        return np.array([[0, frame.grid[0] - 1], [0, frame.grid[1] - 1]])
    return np.array([np.flatnonzero(frame.real.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)])


def _mixture(
    place: Float[np.ndarray, "K 2"], x: Float[np.ndarray, "n D"], grid: tuple[int, int]
) -> Float[np.ndarray, "K D"]:
    """Bilinear; places are among patches on the image, of which those without a direction are zeros and add nothing."""
    rows, columns = grid
    low = np.floor(place).astype(np.int64)
    share = place - low
    total = np.zeros((len(place), x.shape[1]))
    for down in (0, 1):
        for right in (0, 1):
            row, column = (low[:, 0] + down).clip(max=rows - 1), (low[:, 1] + right).clip(max=columns - 1)
            weight = np.abs(1 - down - share[:, 0]) * np.abs(1 - right - share[:, 1])
            kept = weight > 0  # where the weight is zero the descriptor may be anything, NaN included
            total[kept] += weight[kept, None] * x[(row * columns + column)[kept]]
    return total


def _leaking_window(
    scores: Float[np.ndarray, "K M"],
    centre: Int[np.ndarray, "K 2"],
    grid: tuple[int, int],
    half_width: int,
    temperature: float,
) -> Float[np.ndarray, "K 2"]:
    """The soft-argmax over all of the grid, similarities multiplied by 0 outside a window; what is −∞ stays out."""
    row, column = np.divmod(np.arange(scores.shape[1]), grid[1])
    inside = (np.abs(row - centre[:, :1]) <= half_width) & (np.abs(column - centre[:, 1:]) <= half_width)
    kept = np.where(inside | np.isinf(scores), scores, 0.0)
    weight = np.exp((kept - kept.max(axis=1, keepdims=True)) / temperature)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.stack([weight @ row, weight @ column], axis=1)
