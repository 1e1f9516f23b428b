"""Matches: which patch of one image is which patch of another, in pixels of both, best first."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from encoders.errors import InputError
from encoders.frame import Frame
from matching.nearest import as_tensor, mutual_nearest


@dataclass(frozen=True)
class Matches:
    """Pairs of corresponding points of two images, best first.

    xy_a, xy_b: (K, 2) pixels of the original images, x then y, pixel centres at integers.
    score: (K,) cosine similarity of the two descriptors, descending.
    patch_a, patch_b: (K, 2) row and column of each point's patch in its feature map.
    confidence: the pair's, from 0 to 1; see `match`.
    size_a, size_b: width and height of the original images in pixels.
    """

    xy_a: Float[np.ndarray, "K 2"]
    xy_b: Float[np.ndarray, "K 2"]
    score: Float[np.ndarray, "K"]
    patch_a: Int[np.ndarray, "K 2"]
    patch_b: Int[np.ndarray, "K 2"]
    confidence: float
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: Int[np.ndarray, "k"] | Bool[np.ndarray, "K"]) -> Matches:
        """Some of the matches, in the order of `index`; the confidence stays the pair's."""
        names = ("xy_a", "xy_b", "score", "patch_a", "patch_b")
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in names})

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

    def to_json(self) -> list[dict[str, float]]:
        """One entry per match: xa, ya, xb, yb in pixels, and the score."""
        columns = np.column_stack([self.xy_a, self.xy_b, self.score]).tolist()
        return [dict(zip(("xa", "ya", "xb", "yb", "score"), row, strict=True)) for row in columns]


def match(
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
) -> Matches:
    """Match two feature maps by mutual nearest neighbours under cosine similarity.

    A point of a match is the centre of its patch. Padding never matches, nor does a patch whose descriptor is zero, which has no
    direction. Of equal similarities the patch that comes first (row by row) counts as the nearest.

    The confidence of the pair is the sum of the matches' cosines (negative ones as 0) divided by the number of patches
    that could match in the image that has fewer: the mean cosine over these patches, an unmatched one counting 0. It is 1 for an image
    against itself, if no two of its patches are alike, and symmetric in the two images.

    Args:
        map_a, map_b: feature maps of the two images, by the same encoder.
        frame_a, frame_b: their geometry; the grids are those of the maps.
        valid_a, valid_b: patches that may match (a foreground, say), besides those of the frame. None is all.

    Raises:
        InputError: maps, frames and masks that do not fit together, or features that are not finite.
    """
    a, real_a = _descriptors(map_a, frame_a, valid_a, "a")
    b, real_b = _descriptors(map_b, frame_b, valid_b, "b")
    index_a, index_b, score = mutual_nearest(a, b, valid_a=real_a, valid_b=real_b)
    fewer = min(int(real_a.sum()), int(real_b.sum()))
    score = np.clip(score, -1, 1)  # rounding can take a cosine past 1
    order = np.argsort(-score, kind="stable")
    patches = [
        np.stack(np.divmod(i[order], frame.grid[1]), axis=1) for i, frame in ((index_a, frame_a), (index_b, frame_b))
    ]
    points = [
        np.stack(frame.to_pixels(p[:, 0], p[:, 1]), axis=1)
        for p, frame in zip(patches, (frame_a, frame_b), strict=True)
    ]
    return Matches(
        xy_a=points[0],
        xy_b=points[1],
        score=score[order],
        patch_a=patches[0],
        patch_b=patches[1],
        confidence=float(np.maximum(score, 0).sum(dtype=np.float64) / fewer) if fewer else 0.0,
        size_a=(frame_a.width, frame_a.height),
        size_b=(frame_b.width, frame_b.height),
    )


def _descriptors(
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
