"""Few-shot keypoints: parts marked in a few images, found in every other one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.maps import CosineField, PixelGrid, View, pixel_grid
from fewmatch.matching.keypoints.options import KeypointOptions
from fewmatch.matching.keypoints.peaks import contrasted, paired_peaks, peaks, soft_argmax
from fewmatch.matching.keypoints.priors import log_density
from fewmatch.matching.keypoints.prototypes import Prototypes, part_prototypes
from fewmatch.matching.keypoints.visibility import visibility_thresholds

#: Of the grid's rows and columns so many are passed over at first: what is searched whole has two places from one patch to the next.
COARSE = 4
#: Cosines nearer to 1 than this count as this near: it keeps the temperature above 0.
_ALIKE = 1e-6


@dataclass(frozen=True, eq=False)
class FoundParts:
    """The P parts in one image.

    xy: (P, 2) pixels of the original image, x then y, pixel centres at integers; NaN for a part that no labelled image shows, and for all in
        an image without a descriptor (of one colour, say).
    score: (P,) cosine of the part's prototype with the descriptor at the best place, the mean over the views; NaN where xy is.
    visible: (P,) whether the score reaches the part's threshold.
    """

    xy: Float[np.ndarray, "P 2"]
    score: Float[np.ndarray, "P"]
    visible: Bool[np.ndarray, "P"]


@dataclass(frozen=True, eq=False)
class KeypointFinder:
    """What labelled images taught: see `fit`.

    parts: (P,) names. skeleton: pairs of indices into them. options: as given to `fit`.
    scales: the prototypes of each encoding. positions: (N, P, 2) the labelled points as shares of the width and the height of their images; NaN
    where there is none. threshold: (P,) scores from which on a part counts as visible; −∞ for one that is never called absent.
    left_out: what each labelled image gives when its own labels are left out: see `leave_one_out`.
    """

    parts: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    options: KeypointOptions
    scales: tuple[Prototypes, ...]
    positions: Float[np.ndarray, "N P 2"]
    threshold: Float[np.ndarray, "P"]
    left_out: Keypoints

    @classmethod
    def fit(
        cls, images: Sequence[Sequence[View]], labels: Keypoints, options: KeypointOptions | None = None
    ) -> KeypointFinder:
        """Learn parts from labelled images.

        Args:
            images: for each labelled image its views, the map and the frame of each encoding; the same encodings in the same order for
                all. They are read several times, one image after the other; nothing of them is kept but descriptors of the points.
            labels: where the parts are in these images, in the same order. Parts that are not visible are taken as absent.
            options: see `KeypointOptions`; None for the defaults.

        Raises:
            InputError: no labelled image or point, maps that do not fit together, a point outside its image or where the encoder did not
                look, or pairs of parts that are not there.
        """
        options = options or KeypointOptions()
        options.check_parts(len(labels.parts))
        if len(images) != len(labels) or not len(labels):
            raise InputError(
                f"expected views of each labelled image, got those of {len(images)} for {len(labels)} images"
            )
        if not labels.visible.any():
            raise InputError("no part is visible in any labelled image: mark at least one point")
        counts = {len(views) for views in images}
        if len(counts) > 1 or 0 in counts:
            raise InputError(
                f"expected the same number of views of every image, one or more, got {', '.join(map(str, sorted(counts)))}"
            )
        xy = np.where(labels.visible[:, :, None], labels.xy, np.nan).astype(np.float64)
        sizes = np.array([(views[0][1].width, views[0][1].height) for views in images], np.float64)
        _check_inside(xy, sizes, labels)
        scales = tuple(
            part_prototypes(
                [views[i] for views in images],
                xy,
                center=options.center,
                whitening=options.whitening,
                names=labels.paths,
            )
            for i in range(counts.pop())
        )
        positions = (xy + 0.5) / sizes[:, None, :]
        finder = cls(
            labels.parts,
            labels.skeleton,
            options,
            scales,
            positions,
            np.full(len(labels.parts), -np.inf),
            dataclasses.replace(labels, score=np.full(labels.score.shape, np.nan)),
        )
        found = [finder.find(views, leave_out=i) for i, views in enumerate(images)]
        score = np.stack([f.score for f in found])
        threshold = visibility_thresholds(score, labels.visible)
        left_out = Keypoints(
            labels.paths,
            labels.parts,
            np.stack([f.xy for f in found]),
            score >= threshold,
            score,
            labels.skeleton,
        )
        return dataclasses.replace(finder, threshold=threshold, left_out=left_out)

    def find(
        self, views: Sequence[View], *, previous: FoundParts | None = None, leave_out: int | None = None
    ) -> FoundParts:
        """Find the parts in one image.

        Args:
            views: the map and the frame of each encoding, as `fit` had them.
            previous: what was found in the frame before, in a video; a part that was visible there is looked for near that place.
            leave_out: the labelled image whose points are not used (its patches stay in the mean and the covariance).

        Raises:
            InputError: views that do not fit those of `fit`.
        """
        if len(views) != len(self.scales):
            raise InputError(f"expected {len(self.scales)} views of an image as in the labelled ones, got {len(views)}")
        used = np.ones(len(self.positions), bool)
        if leave_out is not None:
            used[leave_out] = False
        known = np.flatnonzero(np.isfinite(self.positions[used]).all(axis=2).any(axis=0))
        xy, score = np.full((len(self.parts), 2), np.nan), np.full(len(self.parts), np.nan)
        if not len(known):
            return FoundParts(xy, score, np.zeros(len(self.parts), bool))
        field, owners = self._field(views, used)
        grid = pixel_grid(field.frames)
        priors = self._priors(grid, used, previous)
        centre = self._centres(field, owners, grid, priors, known)
        twin = {a: b for pair in self.options.left_right for a, b in (pair, pair[::-1])}
        for part in known.tolist():
            other = centre[twin[part]] if twin.get(part) in known else None
            xy[part], score[part] = self._place(field, owners[part], grid, priors, part, centre[part], other)
        return FoundParts(xy, score, np.asarray(score >= self.threshold))

    def _field(
        self, views: Sequence[View], used: Bool[np.ndarray, "N"]
    ) -> tuple[CosineField, list[Int[np.ndarray, "_"]]]:
        """The cosines with all prototypes, and which of these are each part's."""
        vectors: list[Float[Tensor, "V D"]] = []
        descriptors = []
        there = np.isfinite(self.positions[used]).all(axis=2)
        if self.options.prototypes == "mean":
            there = there.any(axis=0, keepdims=True)
        for number, (view, prototypes) in enumerate(zip(views, self.scales, strict=True), start=1):
            vectors.append(prototypes.vectors(self.options.prototypes, used)[torch.from_numpy(there)])
            descriptors.append(prototypes.descriptors(view, f"view {number}"))
        parts = np.nonzero(there)[1]
        field = CosineField.of(vectors, descriptors, tuple(frame for _, frame in views))
        return field, [np.flatnonzero(parts == part) for part in range(len(self.parts))]

    def _priors(
        self, grid: PixelGrid, used: Bool[np.ndarray, "N"], previous: FoundParts | None
    ) -> list[tuple[float, Float[np.ndarray, "_ P 2"], float]]:
        """Weight, places in pixels and σ in pixels of each of the priors in use."""
        side, options = max(grid.width, grid.height), self.options
        priors = []
        if options.position_prior:
            places = self.positions[used] * np.array([grid.width, grid.height]) - 0.5
            priors.append((options.position_weight, places, options.position_spread * side))
        if previous is not None:
            if previous.xy.shape != (len(self.parts), 2):
                raise InputError(
                    f"expected {len(self.parts)} parts in the frame before, got places of shape {previous.xy.shape}"
                )
            places = np.where(previous.visible[:, None], previous.xy, np.nan)[None]
            priors.append((options.video_weight, places, options.video_spread * side))
        return priors

    def _centres(
        self,
        field: CosineField,
        owners: Sequence[Int[np.ndarray, "_"]],
        grid: PixelGrid,
        priors: Sequence[tuple[float, Float[np.ndarray, "_ P 2"], float]],
        known: Int[np.ndarray, "k"],
    ) -> Int[np.ndarray, "all 2"]:
        """Row and column of the grid of each known part's best place, among every fourth row and column."""
        every = slice(None, None, COARSE)
        x, y = grid.x[every], grid.y[every]
        cosines = field.at(every, every, slice(None))
        guided = contrasted(np.stack([cosines[owners[part]].max(axis=0) for part in known]), self.options.contrast)
        for weight, places, sigma in priors:
            guided = guided + weight * log_density(places[:, known], x, y, sigma)
        at = np.zeros((len(self.parts), 2), np.int64)
        at[known] = peaks(guided)
        number = {part: i for i, part in enumerate(known.tolist())}
        apart = self.options.pair_distance * max(grid.patch)
        for left, right in self.options.left_right:
            if left in number and right in number:
                at[[left, right]] = paired_peaks(guided[number[left]], guided[number[right]], x, y, apart)
        return at * COARSE

    def _place(
        self,
        field: CosineField,
        owned: Int[np.ndarray, "v"],
        grid: PixelGrid,
        priors: Sequence[tuple[float, Float[np.ndarray, "_ P 2"], float]],
        part: int,
        centre: Int[np.ndarray, "2"],
        other: Int[np.ndarray, "2"] | None,
    ) -> tuple[Float[np.ndarray, "2"], float]:
        """The place of a part near its best place on the grid, and its cosine."""
        coarsest = max(frame.stride / min(frame.scale) for frame in field.frames)
        # Rounding must not lose the last place.
        reach = [int(self.options.half_width * coarsest / step + 1e-9) for step in grid.step[::-1]]
        rows, columns = (slice(max(0, c - r), c + r + 1) for c, r in zip(centre, reach, strict=True))
        x, y = grid.x[columns], grid.y[rows]
        cosines = field.at(rows, columns, owned).max(axis=0)
        guided = cosines.astype(np.float64)
        for weight, places, sigma in priors:
            guided += weight * log_density(places[:, [part]], x, y, sigma)[0]
        if other is not None and (other != centre).any():
            mine, its = (np.hypot(x - grid.x[c[1]], (y - grid.y[c[0]])[:, None]) for c in (centre, other))
            guided[its < mine] = -np.inf
        best = np.unravel_index(int(guided.argmax()), guided.shape)
        score = float(cosines[best])
        if not np.isfinite(guided[best]):  # the image has no descriptor at all
            return np.full(2, np.nan), float("nan")
        # Of a place that could not be more alike, its neighbours say nothing; of one that is little alike, they do.
        return soft_argmax(guided, x, y, self.options.temperature * max(1 - score, _ALIKE)), score


def find_keypoints(
    finder: KeypointFinder,
    images: Iterable[tuple[str, Sequence[View]]],
    *,
    video: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Keypoints:
    """Find the parts in many images, one after the other; no image is kept, so that the memory does not grow with them.

    Args:
        images: the name of each image and its views, as `KeypointFinder.find` takes them; read one at a time.
        video: the images are frames in order, and each part is looked for near its place in the frame before if it was visible there.
        progress: called with the number of images done after each.

    Raises:
        InputError: views that do not fit those of the labelled images, or two images of one name.
    """
    paths: list[str] = []
    xy, visible, score = [], [], []
    previous: FoundParts | None = None
    for path, views in images:
        found = finder.find(views, previous=previous if video else None)
        paths.append(path)
        xy.append(found.xy)
        visible.append(found.visible)
        score.append(found.score)
        previous = found
        if progress is not None:
            progress(len(paths))
    shape = (len(paths), len(finder.parts))
    return Keypoints(
        paths=tuple(paths),
        parts=finder.parts,
        xy=np.array(xy, np.float64).reshape(*shape, 2),
        visible=np.array(visible, bool).reshape(shape),
        score=np.array(score, np.float64).reshape(shape),
        skeleton=finder.skeleton,
    )


def _check_inside(xy: Float[np.ndarray, "N P 2"], sizes: Float[np.ndarray, "N 2"], labels: Keypoints) -> None:
    outside = (xy < -0.5) | (xy > sizes[:, None] - 0.5)  # NaN is neither
    if outside.any():
        n, p, _ = np.argwhere(outside)[0]
        x, y = xy[n, p]
        width, height = sizes[n]
        raise InputError(
            f"{labels.parts[p]} in {labels.paths[n]}, ({x:g}, {y:g}), is not in the image of {width:g}×{height:g} px"
        )
