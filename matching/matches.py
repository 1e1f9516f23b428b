"""Matches: which patch of one image is which patch of another, in pixels of both, best first."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.ambiguity import in_patches, in_steps, ratios, rivals
from fewmatch.matching.geometry.geometry import Geometry
from fewmatch.matching.nearest.blocks import both_ways
from fewmatch.matching.nearest.candidates import Precision, check_precision
from fewmatch.matching.nearest.nearest import as_tensor

#: The ratio test looks for rivals farther than this from a match, in patches.
EXCLUSION = 2.0


@dataclass(frozen=True)
class Matches:
    """Pairs of corresponding points of two images, best first.

    xy_a, xy_b: (K, 2) pixels of the original images, x then y, pixel centres at integers.
    score: (K,) cosine similarity of the two descriptors, descending.
    patch_a, patch_b: (K, 2) row and column of each point's patch in its feature map.
    confidence: the pair's, from 0 to 1; see `match`.
    size_a, size_b: width and height of the original images in pixels.
    ratio: (K,) from 0 (no place elsewhere is like it) to 1 (another place is as like); None where no ratio was asked for.
    cycle: (K,) patches between a patch of A and the one that its match leads back to; None where only mutual matches were asked for.
    geometry: the model fitted to the matches, and which agree with it; None where none was asked for.
    mirrored: whether A was matched as its mirror image; the points are those of A as it is.
    """

    xy_a: Float[np.ndarray, "K 2"]
    xy_b: Float[np.ndarray, "K 2"]
    score: Float[np.ndarray, "K"]
    patch_a: Int[np.ndarray, "K 2"]
    patch_b: Int[np.ndarray, "K 2"]
    confidence: float
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    ratio: Float[np.ndarray, "K"] | None = None
    cycle: Float[np.ndarray, "K"] | None = None
    geometry: Geometry | None = None
    mirrored: bool = False

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: Int[np.ndarray, "k"] | Bool[np.ndarray, "K"]) -> Matches:
        """Some of the matches, in the order of `index`; the confidence stays the pair's."""
        names = ("xy_a", "xy_b", "score", "patch_a", "patch_b", "ratio", "cycle")
        some = {name: getattr(self, name)[index] for name in names if getattr(self, name) is not None}
        if self.geometry is not None:
            some["geometry"] = dataclasses.replace(self.geometry, inliers=self.geometry.inliers[index])
        return dataclasses.replace(self, **some)

    def spread(self, count: int) -> Matches:
        """At most `count` matches that lie well apart in both images and are the best around, best first.

        Adaptive non-maximal suppression (Brown, Szeliski and Winder 2005): the radius of a match is its distance to the nearest
        better one, in the image where that is smaller and as a share of its diagonal; those with the largest radii stay. Of
        two matches the one that comes first is the better.

        Raises:
            InputError: `count` is negative.
        """
        if count < 0:
            raise InputError(f"expected a count of 0 or more, got {count}")
        if len(self) <= count:
            return self
        images = [
            (*xy.T, width**2 + height**2)
            for xy, (width, height) in ((self.xy_a, self.size_a), (self.xy_b, self.size_b))
        ]
        radius = np.full(len(self), np.inf)  # squared; the first match has none that is better
        step = max(1, 2**20 // len(self))  # so many rows of distances at a time, for the memory
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            gap = np.minimum(
                *(
                    ((x[start:stop, None] - x[:stop]) ** 2 + (y[start:stop, None] - y[:stop]) ** 2) / diagonal
                    for x, y, diagonal in images
                )
            )
            better = np.arange(stop) < np.arange(start, stop)[:, None]  # they come best first
            radius[start:stop] = np.where(better, gap, np.inf).min(axis=1)
        return self.take(np.sort(np.argsort(-radius, kind="stable")[:count]))

    def to_json(self) -> list[dict[str, float | bool]]:
        """One entry per match: xa, ya, xb, yb in pixels, the score, and the ratio, the cycle and whether it is an inlier where known."""
        columns = {
            "xa": self.xy_a[:, 0],
            "ya": self.xy_a[:, 1],
            "xb": self.xy_b[:, 0],
            "yb": self.xy_b[:, 1],
            "score": self.score,
            "ratio": self.ratio,
            "cycle": self.cycle,
            "inlier": None if self.geometry is None else self.geometry.inliers,
        }
        known = {name: column.tolist() for name, column in columns.items() if column is not None}
        return [dict(zip(known, row, strict=True)) for row in zip(*known.values(), strict=True)]


def match(
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
    min_score: float | None = None,
    max_ratio: float | None = None,
    exclusion: float = EXCLUSION,
    max_cycle: float = 0.0,
    precision: Precision = "auto",
) -> Matches:
    """Match two feature maps by mutual nearest neighbours under cosine similarity.

    A point of a match is the centre of its patch. Padding never matches, nor does a patch whose descriptor is zero, which has no
    direction. Of equal similarities the patch that comes first (row by row) counts as the nearest.

    The confidence of the pair is the sum of the cosines of the mutual matches, before any filter (negative ones as 0), divided by the number
    of patches that could match in the image that has fewer: the mean cosine over these patches, an unmatched one counting 0. It is 1 for
    an image against itself, if no two of its patches are alike, and symmetric in the two images.

    The ratio of a match is (1 - s) / (1 - t), with s its cosine and t the largest of either patch with any other patch of the other image
    that may match and lies more than `exclusion` patches from the match: near it similar descriptors are no sign of doubt. So it is that of
    the direction with more doubt, and symmetric in the two images. It is 0 where no patch lies that far away, and 1 if another place
    is as like. Distances 1 - s count as 1e-6 at least, which float32 cosines do not resolve.

    The cycle of a match is the distance of a patch i of A to the patch that i's nearest patch of B has as its nearest, in patches. It is 0
    for mutual matches and for no others. With a `max_cycle` above 0 the nearest patch of B for every patch of A within it is a match,
    so that several may share a patch of B, and the two images are not alike any more; the ratio can then be above 1.

    Distances are Euclidean, between centres on the encoder's input, in units of a patch's side, whatever the stride.

    Args:
        map_a, map_b: feature maps of the two images, by the same encoder.
        frame_a, frame_b: their geometry; the grids are those of the maps.
        valid_a, valid_b: patches that may match (a foreground, say), besides those of the frame. None is all.
        min_score: matches with a smaller cosine are dropped; None keeps all.
        max_ratio: matches with a larger ratio are dropped, from 0 to 1 (which keeps all that are mutual); None neither computes nor drops.
        exclusion: see the ratio; without `max_ratio` it means nothing.
        max_cycle: matches with a longer cycle are dropped, in patches.
        precision: of the search; see `mutual_nearest`. The answer stays the same.

    Raises:
        InputError: maps, frames and masks that do not fit together, features that are not finite, or thresholds out of range.

    Source of the ratio: Lowe 2004; with an exclusion radius, "first geometrically inconsistent neighbour", Mishkin et al. 2015.
    """
    check_filters(min_score, max_ratio, exclusion, max_cycle)
    check_precision(precision)
    maps = unit_descriptors(map_a, frame_a, valid_a, "a"), unit_descriptors(map_b, frame_b, valid_b, "b")
    (x, rows), (y, columns) = _usable(*maps)
    places = [np.stack(np.divmod(kept, f.grid[1]), axis=1) for kept, f in ((rows, frame_a), (columns, frame_b))]
    if len(x) and len(y):
        forth, back = both_ways(x, y, precision=precision, strips=max_ratio is not None)
        returned = back.index[forth.index]
        mutual = returned == np.arange(len(x))
        score = np.clip(forth.value, -1, 1)  # rounding can take a cosine past 1
        confidence = float(np.maximum(score[mutual], 0).sum(dtype=np.float64) / min(len(x), len(y)))
        cycle = in_patches(places[0], places[0][returned], frame_a)
        i = np.flatnonzero((cycle <= max_cycle) & (score >= (-1 if min_score is None else min_score)))
        i = i[np.argsort(-score[i], kind="stable")]
        j = forth.index[i]
    else:
        i = j = np.zeros(0, np.int64)
        score, cycle, confidence = np.zeros(0, np.float32), np.zeros(0), 0.0
    ratio = None
    if max_ratio is not None:
        ratio = np.zeros(len(i))
        if len(i):
            onward = rivals(x, y, i, j, forth, places[1], in_steps(exclusion, frame_b))
            backward = rivals(y, x, j, i, back, places[0], in_steps(exclusion, frame_a))
            # No product is above the largest, nor does rounding make one so.
            onward = np.minimum(onward, score[i])
            backward = np.where(mutual[i], np.minimum(backward, score[i]), backward)
            ratio = ratios(score[i], np.maximum(onward, backward))
        kept = ratio <= max_ratio
        i, j, ratio = i[kept], j[kept], ratio[kept]
    points = [
        np.stack(frame.to_pixels(*place[k].T), axis=1)
        for place, k, frame in ((places[0], i, frame_a), (places[1], j, frame_b))
    ]
    return Matches(
        xy_a=points[0],
        xy_b=points[1],
        score=score[i],
        patch_a=places[0][i],
        patch_b=places[1][j],
        confidence=confidence,
        size_a=(frame_a.width, frame_a.height),
        size_b=(frame_b.width, frame_b.height),
        ratio=ratio,
        cycle=cycle[i] if max_cycle > 0 else None,
    )


def check_filters(min_score: float | None, max_ratio: float | None, exclusion: float, max_cycle: float) -> None:
    """Refuse thresholds that are out of range."""
    for name, value, least, most in (
        ("min_score", min_score, -1, 1),
        ("max_ratio", max_ratio, 0, 1),
        ("exclusion", exclusion, 0, math.inf),
        ("max_cycle", max_cycle, 0, math.inf),
    ):
        if value is not None and not least <= value <= most:
            span = f"from {least} to {most}" if most < math.inf else f"of {least} patches or more"
            raise InputError(f"expected {name} {span}, got {value}")


def _usable(
    *maps: tuple[Float[Tensor, "_n d"], Bool[np.ndarray, "_n"]],
) -> list[tuple[Float[Tensor, "_v d"], Int[np.ndarray, "_v"]]]:
    """Of each map the descriptors that may match and where they are, all in one precision and on one device."""
    (a, _), (b, _) = maps
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"expected two maps by one encoder, got descriptors of {a.shape[1]} and of {b.shape[1]} numbers"
        )
    dtype = torch.float64 if all(x.dtype == torch.float64 for x, _ in maps) else torch.float32
    out = []
    for x, usable in maps:
        rows = np.flatnonzero(usable)
        x = x.to(maps[0][0].device, dtype)
        out.append((x if len(rows) == len(x) else x[torch.from_numpy(rows).to(x.device)], rows))
    return out


def unit_descriptors(
    feature_map: Any, frame: Frame, valid: Any, name: str
) -> tuple[Float[Tensor, "n d"], Bool[np.ndarray, "n"]]:
    """The unit descriptors of a map, row by row, and which of them may match."""
    x = as_tensor(feature_map)
    if x.ndim != 3 or tuple(x.shape[:2]) != frame.grid:
        raise InputError(
            f"expected a map of {frame.grid[0]} × {frame.grid[1]} patches as in frame_{name}, got one of shape {tuple(x.shape)}"
        )
    x = x.flatten(0, 1)
    x = x if x.dtype == torch.float64 else x.float()
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    usable = frame.real
    if valid is not None:
        mask = np.asarray(valid)
        if mask.shape != frame.grid or mask.dtype != np.bool_:
            raise InputError(
                f"expected valid_{name} of {frame.grid[0]} × {frame.grid[1]} booleans, got {mask.shape} of {mask.dtype}"
            )
        usable = usable & mask
    length = norm[:, 0].cpu().numpy()
    usable = usable.reshape(-1) & (length != 0)
    if not np.isfinite(length[usable]).all():
        row, column = divmod(int(np.flatnonzero(usable & ~np.isfinite(length))[0]), frame.grid[1])
        raise InputError(
            f"the features of patch ({row}, {column}) of map_{name} are not finite, or too large for their precision"
        )
    return x / torch.where(norm > 0, norm, 1.0), usable
