"""Given points of one image found in another: each by the descriptor at its place, with the way back as a hint at trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.ambiguity import in_patches, in_steps, ratios
from fewmatch.matching.matches import Matches, unit_descriptors
from fewmatch.matching.nearest.nearest import nearest_both_ways
from fewmatch.matching.refinement import HALF_WIDTH, TEMPERATURE, window_soft_argmax
from fewmatch.matching.windows import nearest_within, windows_between

#: A feature map and its geometry; underscores, since several of one call have different sizes.
MapFrame = tuple[Float[np.ndarray, "_h _w _d"] | Float[Tensor, "_h _w _d"], Frame]
#: How a transferred point gets finer than a patch.
Refinement = Literal["none", "soft-argmax"]
REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)
#: So many products are held at a time where a point is compared with patches one by one.
_PRODUCTS = 2**22


@dataclass(frozen=True, eq=False)
class Transferred:
    """Points of A and where they are in B, in the order in which they were given.

    xy_a, xy_b: (K, 2) pixels of the original images, x then y, pixel centres at integers.
    score: (K,) cosine of the descriptor at the point and that of its patch in B.
    patch_b: (K, 2) row and column of that patch.
    cycle: (K,) pixels of A between the point and the centre of the patch of A that is nearest to its patch in B. For a point that is found
        again this is at most the distance to the centre of its own patch; a long way means that the point was not recognised.
    patch_a: (K, 2) row and column of the patch of A whose centre lies nearest to the point.
    size_a, size_b: width and height of the original images in pixels.
    returned: (K,) patches between `patch_a` and the patch at which the way back ends; 0 where they are the same.
    ratio: (K,) (1 - s) / (1 - t) of the score s and the largest cosine t of the point with a patch of B that lies more than the exclusion
        radius from its own, 0 where none lies there; above 1 where the point was looked for in a part of B that t is not in. None where it
        was not asked for.
    """

    xy_a: Float[np.ndarray, "K 2"]
    xy_b: Float[np.ndarray, "K 2"]
    score: Float[np.ndarray, "K"]
    patch_b: Int[np.ndarray, "K 2"]
    cycle: Float[np.ndarray, "K"]
    patch_a: Int[np.ndarray, "K 2"]
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    returned: Float[np.ndarray, "K"]
    ratio: Float[np.ndarray, "K"] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def to_json(self) -> list[dict[str, float]]:
        """One entry per point, in the order given: xa, ya, xb, yb in pixels, the score, and the cycle in pixels of A."""
        columns = np.column_stack([self.xy_a, self.xy_b, self.score, self.cycle]).tolist()
        return [dict(zip(("xa", "ya", "xb", "yb", "score", "cycle"), row, strict=True)) for row in columns]

    def to_matches(self) -> Matches:
        """The same as matches, best first (of equal scores the first given), for figures and exports.

        They need not be mutual. The confidence is the points' mean cosine, negative ones as 0; 0 where there is no point. The cycle is left
        out, which in `Matches` counts patches.
        """
        order = np.argsort(-self.score, kind="stable")
        return Matches(
            xy_a=self.xy_a[order],
            xy_b=self.xy_b[order],
            score=self.score[order],
            patch_a=self.patch_a[order],
            patch_b=self.patch_b[order],
            confidence=float(np.maximum(self.score, 0).mean(dtype=np.float64)) if len(self) else 0.0,
            size_a=self.size_a,
            size_b=self.size_b,
        )


def transfer_points(
    points: Any,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    refine: Refinement = "none",
    half_width: int = HALF_WIDTH,
    temperature: float = TEMPERATURE,
    exclusion: float | None = None,
    near: Float[np.ndarray, "K 2"] | None = None,
    reach: tuple[float, float] = (0.0, 0.0),
) -> Transferred:
    """Find points of A in B: for each the patch of B whose descriptor is most like the one at the point.

    The descriptor at a point is the bilinear mixture of the unit descriptors of the four patches whose centres surround it, made a unit
    vector again; at a patch's centre it is that patch's. Beyond the outermost centres the point is moved onto the line of centres, and
    padding and descriptors of zeros have no part in the mixture (the weights of the others then count for all). Its nearest patch in
    B is that of largest cosine, of equal ones the first, row by row. Of K points only K · M products are computed, block by
    block, and as many with A for the way back.

    Args:
        points: (K, 2) pixels of A, x then y, pixel centres at integers; anything that NumPy makes such an array of.
        map_a, map_b: feature maps of the two images, by the same encoder. frame_a, frame_b: their geometry.
        valid_b: patches of B where a point may be found. None is all.
        refine: `none` ends at the centre of a patch of B; `soft-argmax` at the expected place in a window around it, see `refine`.
        half_width, temperature: of the soft-argmax; see `refine`.
        exclusion: the radius of the ratio in patches; None computes no ratio.
        near: (K, 2) pixels of B: each point is looked for only among the patches with a centre at most `reach` pixels (across, down) from
            there, or among all where none of these may be matched. The way back and the ratio are of all patches.

    Raises:
        InputError: a point that is not in A or in a part of A that the encoder did not see, options out of range, maps that do not fit, or no
            patch in B where a point could be found.

    Source: keypoint transfer by nearest neighbours as DIFT (Tang et al. 2023) does it on maps enlarged to pixels; here nothing is enlarged.
    """
    xy = checked_points(points, frame_a)
    if refine not in REFINEMENTS:
        raise InputError(f"expected refine to be one of {', '.join(REFINEMENTS)}, got {refine!r}")
    a, real_a = unit_descriptors(map_a, frame_a, None, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    if not real_b.any():
        raise InputError("no patch of B may be matched: every one is padding, masked out or without a direction")
    a = a.to(b.device, torch.promote_types(a.dtype, b.dtype))
    b = b.to(a.dtype)
    if near is not None and (np.shape(near) != xy.shape or not np.isfinite(near).all()):
        raise InputError(
            f"expected a finite place near which to look for each of {len(xy)} points, got {np.shape(near)}"
        )
    place = grid_places(xy, frame_a)
    queries = mixed_descriptors(place, xy, a, real_a.reshape(frame_a.grid))
    forth = nearest_both_ways(queries, b, valid_b=real_b, metric="dot")[0]
    nearest, score = forth.index, forth.score
    if near is not None:
        nearest, score = nearest_within(queries, b, _windows(near, reach, frame_b, real_b), nearest, score)
    patch_b = np.stack(np.divmod(nearest, frame_b.grid[1]), axis=1)
    there, which = np.unique(nearest, return_inverse=True)
    back = nearest_both_ways(b[torch.from_numpy(there).to(b.device)], a, valid_b=real_a, metric="dot")[0]
    patch_home = np.stack(np.divmod(back.index[which.reshape(-1)], frame_a.grid[1]), axis=1)
    home = np.stack(frame_a.to_pixels(*patch_home.T), axis=1)
    patch_a = np.rint(place).astype(np.int64)
    found: Float[np.ndarray, "K 2"] = patch_b.astype(np.float64)
    if refine == "soft-argmax":
        found = window_soft_argmax(
            queries,
            np.arange(len(xy)),
            patch_b,
            b,
            real_b.reshape(frame_b.grid),
            half_width=half_width,
            temperature=temperature,
        )
    ratio = None
    if exclusion is not None:
        rival = _rivals(queries, b, real_b, patch_b, exclusion, frame_b)
        # Without windows no product is above the largest, nor does rounding make one so.
        ratio = ratios(score, rival if near is not None else np.minimum(rival, score))
    return Transferred(
        xy_a=xy,
        xy_b=np.stack(frame_b.to_pixels(found[:, 0], found[:, 1]), axis=1),
        score=np.clip(score, -1, 1),
        patch_b=patch_b,
        cycle=np.hypot(*(home - xy).T),
        patch_a=patch_a,
        size_a=(frame_a.width, frame_a.height),
        size_b=(frame_b.width, frame_b.height),
        returned=in_patches(patch_a, patch_home, frame_a),
        ratio=ratio,
    )


def _windows(
    near: Float[np.ndarray, "K 2"], reach: tuple[float, float], frame: Frame, usable: Bool[np.ndarray, "n"]
) -> tuple[Int[np.ndarray, "K s"], Bool[np.ndarray, "K s"]]:
    """The patches around each place, in ascending order, and which of the entries are there and may match."""
    lowest, highest = (np.stack(frame.to_grid(*(near + sign * np.array(reach)).T)) for sign in (-1, 1))
    return windows_between(lowest, highest, frame.grid, usable)


def _rivals(
    queries: Float[Tensor, "K D"],
    b: Float[Tensor, "M D"],
    usable: Bool[np.ndarray, "M"],
    patch: Int[np.ndarray, "K 2"],
    exclusion: float,
    frame: Frame,
) -> Float[np.ndarray, "K"]:
    """The largest cosine of each query with a patch more than `exclusion` patches from its own; -inf where there is none."""
    if not exclusion >= 0:
        raise InputError(f"expected an exclusion of 0 patches or more, got {exclusion}")
    row, column = np.divmod(np.arange(len(b)), frame.grid[1])
    limit = in_steps(exclusion, frame) ** 2
    best = np.full(len(patch), -np.inf)
    step = max(1, _PRODUCTS // len(b))
    for start in range(0, len(patch), step):
        part = slice(start, start + step)
        s = (queries[part] @ b.T).double().cpu().numpy()
        near = (row - patch[part, :1]) ** 2 + (column - patch[part, 1:]) ** 2 <= limit
        s[near | ~usable] = -np.inf
        best[part] = s.max(axis=1)
    return best


def held_inside(xy: Float[np.ndarray, "K 2"], frame: Frame) -> Float[np.ndarray, "K 2"]:
    """The points, those outside the image or what the encoder saw of it moved to its border."""
    left, top, right, bottom = seen(frame)
    low = np.maximum([left, top], 0) - 0.5
    high = np.minimum([right, bottom], [frame.width, frame.height]) - 0.5
    inside: Float[np.ndarray, "K 2"] = xy.clip(low, high)
    return inside


def seen(frame: Frame) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part of the image whose points have a descriptor, as `Frame.box` counts.

    A stride that does not divide the patch can leave less than a stride unseen at the right (of an image encoded mirrored, at the left) and
    at the bottom; the last patches stand for it.
    """
    left, top, right, bottom = frame.box
    rest = frame.stride if frame.patch % frame.stride else 0
    across, down = rest / frame.scale[0], rest / frame.scale[1]
    return left - across, top, right + across, bottom + down


def checked_points(points: Any, frame: Frame) -> Float[np.ndarray, "K 2"]:
    try:
        xy = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected points as pairs of numbers x, y, got {points!r}") from error
    xy = xy.reshape(0, 2) if xy.size == 0 else xy
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise InputError(f"expected points of shape (K, 2), x then y, got {xy.shape}")
    left, top, right, bottom = seen(frame)
    for k, (x, y) in enumerate(xy.tolist(), start=1):
        if not (-0.5 <= x <= frame.width - 0.5 and -0.5 <= y <= frame.height - 0.5):
            raise InputError(
                f"point {k}, ({x:g}, {y:g}), is not in image A of {frame.width}×{frame.height} px: expected x from -0.5 to "
                f"{frame.width - 0.5:g} and y from -0.5 to {frame.height - 0.5:g}"
            )
        if not (left <= x + 0.5 <= right and top <= y + 0.5 <= bottom):
            raise InputError(
                f"point {k}, ({x:g}, {y:g}), lies in a part of image A that was cut off before encoding: use another resize rule, as keep"
            )
    return xy


def grid_places(xy: Float[np.ndarray, "K 2"], frame: Frame) -> Float[np.ndarray, "K 2"]:
    """Fractional row and column of each point, among the centres of the patches that are on the image."""
    real = frame.real
    ends = [np.flatnonzero(real.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    return np.stack([p.clip(*end) for p, end in zip(frame.to_grid(xy[:, 0], xy[:, 1]), ends, strict=True)], axis=1)


def mixed_descriptors(
    place: Float[np.ndarray, "K 2"],
    xy: Float[np.ndarray, "K 2"],
    x: Float[Tensor, "n D"],
    usable: Bool[np.ndarray, "h w"],
) -> Float[Tensor, "K D"]:
    """The unit descriptor at each place: bilinear, of what is usable."""
    rows, columns = usable.shape
    low = np.floor(place).astype(np.int64)
    share = place - low
    total = torch.zeros(len(place), x.shape[1], dtype=x.dtype, device=x.device)
    for down in (0, 1):
        for right in (0, 1):
            row, column = (low[:, 0] + down).clip(max=rows - 1), (low[:, 1] + right).clip(max=columns - 1)
            weight = np.abs(1 - down - share[:, 0]) * np.abs(1 - right - share[:, 1]) * usable[row, column]
            index = torch.from_numpy(row * columns + column).to(x.device)
            # Where the weight is zero the descriptor may be anything, NaN included.
            kept = torch.from_numpy(weight > 0).to(x.device)
            total[kept] += torch.from_numpy(weight).to(x)[kept, None] * x[index[kept]]
    norm = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    lost = np.flatnonzero((norm[:, 0] <= 1e-6).cpu().numpy())
    if len(lost):
        k = int(lost[0])
        raise InputError(
            f"the features of A around point {k + 1}, ({xy[k, 0]:g}, {xy[k, 1]:g}), are zero or cancel out: it cannot be transferred"
        )
    unit: Tensor = total / norm
    return unit
