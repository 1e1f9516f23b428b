"""Whether an image fits another better as its mirror image: for encoders that take left for right (GeoAware-SC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.masks import move_mask
from fewmatch.matching.matches import unit_descriptors
from fewmatch.matching.nearest.nearest import mutual_nearest, nearest_both_ways

#: Over what the cosine distances of two images are averaged. nearest: each patch of A and its nearest one of B. mutual: the pairs that are
#: each other's nearest.
MirrorRule = Literal["nearest", "mutual"]
MIRROR_RULES: tuple[MirrorRule, ...] = get_args(MirrorRule)


@dataclass(frozen=True)
class MirrorChoice:
    """Which of an image and its mirror image is nearer to another image.

    mirrored: whether the mirror image is. by: one of `MIRROR_RULES`.
    distance, mirrored_distance: the mean cosine distance (0 to 2) of the image and of its mirror image; None where no patch can match.
    """

    mirrored: bool
    by: MirrorRule
    distance: float | None
    mirrored_distance: float | None

    def to_json(self) -> dict[str, bool | str | float | None]:
        return {
            "mirrored": self.mirrored,
            "by": self.by,
            "distance": self.distance,
            "mirrored_distance": self.mirrored_distance,
        }


def choose_mirror(
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    mirrored_map_a: Float[np.ndarray, "hm wm D"] | Float[Tensor, "hm wm D"],
    mirrored_frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    by: MirrorRule = "nearest",
) -> MirrorChoice:
    """Compare the instance matching distance of A and B with that of A mirrored and B: the smaller wins, A as it is where they are equal.

    With `nearest` the distance is the mean, over the patches of A that may match, of 1 − cosine to the nearest patch of B that may; with
    `mutual` it is the mean of 1 − cosine over the mutual matches. What is chosen is then matched like any other map: its frame
    gives pixels of A as it is.

    Args:
        map_a, frame_a: A. mirrored_map_a, mirrored_frame_a: A as encoded with `mirror` (see `fewmatch.encode_images`), which brings columns
            and coordinates back to those of A.
        map_b, frame_b: B.
        valid_a, valid_b: patches that may match, besides those of the frames; `valid_a` is brought to the mirrored grid (`move_mask`).
        by: one of `MIRROR_RULES`.

    Raises:
        InputError: maps, frames and masks that do not fit together, features that are not finite, or an unknown rule.

    Source: GeoAware-SC (Zhang et al. 2024), adaptive flip; docs/matching.md.
    """
    if by not in MIRROR_RULES:
        raise InputError(f"no mirror rule called {by}: expected one of {', '.join(MIRROR_RULES)}")
    a, real_a = unit_descriptors(map_a, frame_a, valid_a, "a")
    moved = None if valid_a is None else move_mask(valid_a, frame_a, mirrored_frame_a)
    m, real_m = unit_descriptors(mirrored_map_a, mirrored_frame_a, moved, "a (mirrored)")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if not a.shape[1] == m.shape[1] == b.shape[1]:
        raise InputError(
            f"expected maps of one dimension, got {a.shape[1]} (a), {m.shape[1]} (a mirrored) and {b.shape[1]} (b)"
        )
    distance, mirrored_distance = (_distance(x, real, b, real_b, by) for x, real in ((a, real_a), (m, real_m)))
    smaller = distance is not None and mirrored_distance is not None and mirrored_distance < distance
    return MirrorChoice(smaller, by, distance, mirrored_distance)


def _distance(
    x: Float[Tensor, "n d"],
    valid_x: Bool[np.ndarray, "n"],
    y: Float[Tensor, "m d"],
    valid_y: Bool[np.ndarray, "m"],
    by: MirrorRule,
) -> float | None:
    """The mean of 1 − cosine of unit vectors."""
    if not valid_x.any() or not valid_y.any():
        return None
    if by == "mutual":
        cosines = mutual_nearest(x, y, valid_a=valid_x, valid_b=valid_y, metric="dot")[2]
    else:
        cosines = nearest_both_ways(x, y, valid_a=valid_x, valid_b=valid_y, metric="dot")[0].score[valid_x]
    return float(1 - np.clip(cosines, -1, 1).mean(dtype=np.float64))
