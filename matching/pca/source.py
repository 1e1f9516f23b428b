"""Maps one at a time, and the passes over them that a principal component analysis of all their patches needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.pca.principal import (
    TERMS,
    Moments,
    Principal,
    border,
    mutual_information,
    otsu_threshold,
    principal_components,
    sign_of,
    terms,
)

#: What is subtracted from patches before their principal components are sought:
#: all: one mean over all patches. image: each image's own mean, so that colours say how a patch differs from its image.
#: position: a mean that depends on the place in the grid, fitted as a quadratic surface. image+position: both.
PCACenter = Literal["all", "image", "position", "image+position"]
PCA_CENTERS: tuple[PCACenter, ...] = get_args(PCACenter)

#: Where foreground is split from background; see `PatchSource.foreground`.
ForegroundSplit = Literal["otsu", "first"]

Maps = Sequence[Any] | Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class ForegroundRule:
    """Which patches are foreground: those whose score is on one side of a threshold.

    direction: (D,) a principal component of all patches. threshold: on the centred patches' product with it.
    above: whether the foreground lies above the threshold. share: of the fitted patches, how many are foreground.
    """

    direction: Float[np.ndarray, "D"]
    threshold: float
    above: bool
    share: float


class PatchSource:
    """Maps one at a time, and the passes over them that a fit needs."""

    def __init__(
        self,
        maps: Maps,
        frames: Sequence[Frame] | None,
        center: PCACenter,
        progress: Callable[[int, int], None] | None,
        passes: int,
        count: int,
    ) -> None:
        if callable(maps):
            if frames is None:
                raise InputError("expected frames with a function that gives maps, got none")
            self._get = maps
            self.count = len(frames)
        else:
            self._get = maps.__getitem__
            self.count = len(maps)
        if self.count == 0:
            raise InputError("expected one feature map or more, got none")
        if frames is not None and len(frames) != self.count:
            raise InputError(f"expected as many frames as maps, got {len(frames)} and {self.count}")
        self._frames = frames
        self._center = center
        self._progress = progress or (lambda *_: None)
        self._components = count
        self._done, self._total = 0, passes * self.count
        self._dimension: int | None = None

    def _maps(self) -> Iterator[tuple[Float[np.ndarray, "h w D"], Frame | None, Bool[np.ndarray, "h w"]]]:
        for i in range(self.count):
            frame = None if self._frames is None else self._frames[i]
            x = as_map(self._get(i), frame, f"map {i}")
            if self._dimension not in (None, x.shape[2]):
                raise InputError(f"expected maps of one dimension, got {self._dimension} and {x.shape[2]} (map {i})")
            self._dimension = x.shape[2]
            yield x, frame, np.ones(x.shape[:2], bool) if frame is None else frame.real
            self._done += 1
            self._progress(self._done, self._total)

    def all_patches(
        self,
    ) -> tuple[Float[np.ndarray, "5 D"], Float[np.ndarray, "D"], Principal, int]:
        """The first pass: surface, mean and principal components of all patches, and how many there are."""
        moments = Moments()
        for x, _, real in self._maps():
            # The terms of the surface ride along as five more dimensions, so that one pass is enough to fit it.
            moments.add(np.concatenate([x, terms(*x.shape[:2])], axis=2)[real])
        scatter = moments.within if "image" in self._center else moments.total
        d = len(scatter) - TERMS
        place = np.zeros((TERMS, d))
        spread = scatter[:d, :d]
        if "position" in self._center:
            # Hermitian, with a floor for grids of one row or one column, whose terms are not independent.
            place = np.linalg.pinv(scatter[d:, d:], rcond=1e-10, hermitian=True) @ scatter[d:, :d]
            spread = spread - scatter[:d, d:] @ place
        mean = np.zeros(d) if "image" in self._center else moments.mean[:d] - moments.mean[d:] @ place
        self._square = float(moments.square[:d].sum()) / moments.count
        found = principal_components(spread / moments.count, self._square, self._components)
        return place, mean, found, moments.count

    def foreground(
        self, place: Float[np.ndarray, "5 D"], mean: Float[np.ndarray, "D"], found: Principal, split: ForegroundSplit
    ) -> ForegroundRule:
        """The second of four passes: of the splits of the components that are asked the one that tells most about borders.

        otsu: Otsu's splits of the first three. The first component alone would not do: in some encoders it tells top from bottom, and its
        split cuts subjects in two. first: the first one's, at the mean of all patches, as the DINOv2 paper does it.
        """
        directions = found.directions[: 3 if split == "otsu" else 1]
        parts, edges = [], []
        for x, frame, real in self._maps():
            parts.append((centred_map(x, frame, self._center, place) @ directions.T)[real])
            edges.append(border(real)[real])
        edge = np.concatenate(edges)
        best: tuple[float, ForegroundRule] | None = None
        for direction, scores in zip(directions, np.concatenate(parts).T, strict=True):
            middle = float(mean @ direction)
            sign = sign_of(scores - middle, direction)
            direction, scores = sign * direction, sign * scores
            threshold = otsu_threshold(scores) if split == "otsu" else sign * middle
            if threshold is None or not direction.any():
                continue
            upper = scores > threshold
            above = bool(edge[upper].mean() <= edge[~upper].mean())
            told = mutual_information(upper, edge)
            if best is None or told > best[0]:
                best = told, ForegroundRule(direction, threshold, above, float((upper == above).mean()))
        # Patches that are all alike have no background.
        return best[1] if best else ForegroundRule(np.zeros_like(found.directions[0]), -1.0, True, 1.0)

    def foreground_patches(
        self, place: Float[np.ndarray, "5 D"], rule: ForegroundRule
    ) -> tuple[Float[np.ndarray, "D"], Principal, int]:
        """The third pass: mean and principal components of the foreground, and how many patches it has."""
        moments = Moments()
        for patches, front in self.centred(place, rule):
            moments.add(patches[front])
        return (
            moments.mean,
            principal_components(moments.total / moments.count, self._square, self._components),
            moments.count,
        )

    def centred(
        self, place: Float[np.ndarray, "5 D"], rule: ForegroundRule | None
    ) -> Iterator[tuple[Float[np.ndarray, "n D"], Bool[np.ndarray, "n"]]]:
        """The last pass, and the third: an image's patches, less their image's mean and the surface, and which of them are fitted."""
        for x, frame, real in self._maps():
            centred = centred_map(x, frame, self._center, place)
            yield centred[real], np.ones(real.sum(), bool) if rule is None else is_foreground(centred, rule)[real]


def is_foreground(centred: Float[np.ndarray, "h w D"], rule: ForegroundRule) -> Bool[np.ndarray, "h w"]:
    return np.asarray((centred @ rule.direction > rule.threshold) == rule.above)


def centred_map(
    x: Float[np.ndarray, "h w D"], frame: Frame | None, center: PCACenter, place: Float[np.ndarray, "5 D"]
) -> Float[np.ndarray, "h w D"]:
    """A map less the surface and, where the centre says so, less its own mean, padding not counted."""
    if "position" in center:
        x = x - terms(*x.shape[:2]) @ place
    if "image" in center:
        x = x - (x.mean(axis=(0, 1)) if frame is None else x[frame.real].mean(axis=0))
    return x


def as_map(feature_map: Any, frame: Frame | None, name: str) -> Float[np.ndarray, "h w D"]:
    x = feature_map.detach().cpu().to(torch.float64).numpy() if isinstance(feature_map, Tensor) else feature_map
    x = np.asarray(x, np.float64)
    if x.ndim != 3 or 0 in x.shape:
        raise InputError(f"expected {name} of shape (h, w, D), got {x.shape}")
    if frame is not None and x.shape[:2] != frame.grid:
        raise InputError(
            f"expected {name} of {frame.grid[0]} × {frame.grid[1]} patches as in its frame, got {x.shape[0]} × {x.shape[1]}"
        )
    if frame is not None and not frame.real.any():
        raise InputError(f"{name} is all padding: expected a frame that shows some of its image")
    if not np.isfinite(x).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(x))[0][:2])
        raise InputError(f"the features of patch ({row}, {column}) of {name} are not finite")
    return x
