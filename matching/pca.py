"""Feature maps as colours: one principal component analysis over the patches of all images, kept and used again."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from encoders.errors import InputError
from encoders.frame import Frame
from encoders.writing import write_atomically
from matching.principal import (
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

SCHEMA = 1

#: What is subtracted from patches before their principal components are sought:
#: all: one mean over all patches. image: each image's own mean, so that colours say how a patch differs from its image.
#: position: a mean that depends on the place in the grid, fitted as a quadratic surface. image+position: both.
PCACenter = Literal["all", "image", "position", "image+position"]
PCA_CENTERS: tuple[PCACenter, ...] = get_args(PCACenter)

#: Percentiles of the fitted scores that become 0 and 1 of a colour.
LOW, HIGH = 1.0, 99.0

_Maps = Sequence[Any] | Callable[[int], Any]
_Facts = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ForegroundRule:
    """Which patches are foreground: those whose score is on one side of a threshold.

    direction: (D,) one of the first three principal components of all patches, the one whose split tells most about which patches lie
        at the borders of images. threshold: on the centred patches' product with it (Otsu 1979).
    above: whether the foreground lies above the threshold. share: of the fitted patches, how many are foreground.
    """

    direction: Float[np.ndarray, "D"]
    threshold: float
    above: bool
    share: float


@dataclass(frozen=True, eq=False)
class PatchPCA:
    """Three principal components of the patches of many images, as red, green and blue with one range for all of them.

    A patch x at place p of its grid gets the scores components · (x − place(p) − own − mean), where place(p) is a quadratic surface
    (zero unless the centre is `position`) and own is its image's mean (zero unless the centre is `image`). An image's colours depend on
    that image and on this basis, so they are the same whatever other images are shown. Everything is float64.

    The sign of each component is fixed: its scores over the fitted patches have a skewness of 0 or more (the rule of CAPI); where they
    are not skewed, its largest loading is positive. So the order of the images does not turn colours over, nor (where scores are skewed,
    as they are in practice) does a rotation of feature space.

    center: one of `PCA_CENTERS`. place: (5, D) the surface's coefficients of x, y, x², xy and y², from −1 to 1 over the grid.
    mean: (D,). components: (3, D) unit rows, zero where the patches do not vary in so many directions.
    explained: (3,) shares of the fitted patches' variance about their centre.
    low, high: (3,) scores that become 0 and 1 of a colour: percentiles 1 and 99 of the fitted patches.
    foreground_rule: None, or what tells foreground; then all else was fitted on the foreground alone.
    images, patches: how many were fitted (patches: foreground only, where there is a rule).
    encoder: what made the maps (`name`, `digest`, `dtype`, `layer`, `size`, `resize`), or None.

    Source: DINOv2 (Oquab et al. 2024) for the two steps with a foreground, CAPI (Darcet et al. 2025) for the sign; docs/feature-maps.md.
    """

    center: PCACenter
    place: Float[np.ndarray, "5 D"]
    mean: Float[np.ndarray, "D"]
    components: Float[np.ndarray, "3 D"]
    explained: Float[np.ndarray, "3"]
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    foreground_rule: ForegroundRule | None
    images: int
    patches: int
    encoder: _Facts | None = None

    @classmethod
    def fit(
        cls,
        maps: _Maps,
        frames: Sequence[Frame] | None = None,
        *,
        center: PCACenter = "all",
        foreground: bool = False,
        encoder: _Facts | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> PatchPCA:
        """The principal components of all patches of all maps; patches of padding are left out.

        The covariance is summed up in float64, image by image, so no more than one map is held at a time (and three numbers per patch).
        Maps are gone through twice, with a foreground four times.

        Args:
            maps: (h, w, D) feature maps of any sizes, NumPy or torch; or a function that gives the i-th, which needs `frames`.
            frames: the geometry of each; None means that no patch is padding.
            center: one of `PCA_CENTERS`.
            foreground: fit the colours on the foreground alone. Foreground is one side of Otsu's threshold on one of the first
                three components of all patches: the component whose split has the most mutual information with lying at a border, and the
                side of which a smaller share lies there; the earlier component and the upper side where these are equal. Where the
                patches do not vary, everything is foreground.
            encoder: facts to keep with the basis.
            progress: called with (maps done, maps in all).

        Raises:
            InputError: no maps, maps that do not fit together or their frames, features that are not finite, or an unknown centre.
        """
        if center not in PCA_CENTERS:
            raise InputError(f"no centre called {center}: expected one of {', '.join(PCA_CENTERS)}")
        source = _Source(maps, frames, center, progress, passes=4 if foreground else 2)
        place, mean, found, count = source.all_patches()
        rule = None
        if foreground:
            rule = source.foreground(place, mean, found)
            mean, found, count = source.foreground_patches(place, rule)
        components = found.directions
        scores = np.concatenate([(z - mean) @ components.T for z in source.centred(place, rule)])
        signs = np.array([sign_of(*pair) for pair in zip(scores.T, components, strict=True)])
        low, high = np.percentile(scores * signs, [LOW, HIGH], axis=0)
        return cls(
            center=center,
            place=place,
            mean=mean,
            components=components * signs[:, None],
            explained=found.ratios,
            low=low,
            high=high,
            foreground_rule=rule,
            images=source.count,
            patches=count,
            encoder=encoder,
        )

    @property
    def embed_dim(self) -> int:
        return len(self.mean)

    def transform(self, feature_map: Any, frame: Frame | None = None) -> Float[np.ndarray, "h w 3"]:
        """The scores of the patches of one (h, w, D) map, NumPy or torch.

        Args:
            frame: tells which patches are padding, which must not count in the image's own mean; None is none.

        Raises:
            InputError: a map of another dimension, or one that does not fit its frame.
        """
        return self._scores(self._centred(feature_map, frame))

    def colours(self, feature_map: Any, frame: Frame | None = None) -> Float[np.ndarray, "h w 3"]:
        """RGB from 0 to 1: components 1 to 3 as red, green and blue, cut off at `low` and `high`; 0.5 for one that does not vary.

        Padding, and what is not foreground where there is a rule, is black.

        Raises:
            InputError: as `transform`.
        """
        centred = self._centred(feature_map, frame)
        span = self.high - self.low
        share = np.clip((self._scores(centred) - self.low) / np.where(span > 0, span, 1), 0, 1)
        shown = self._shown(centred, frame)[..., None]
        return np.asarray(np.where(shown, np.where(span > 0, share, 0.5), 0.0))

    def foreground(self, feature_map: Any, frame: Frame | None = None) -> Bool[np.ndarray, "h w"]:
        """Which patches are foreground; without a rule, all that are not padding.

        Raises:
            InputError: as `transform`.
        """
        return self._shown(self._centred(feature_map, frame), frame)

    def _centred(self, feature_map: Any, frame: Frame | None) -> Float[np.ndarray, "h w D"]:
        x = _as_map(feature_map, frame, "the map")
        if x.shape[2] != self.embed_dim:
            raise InputError(f"expected a map of {self.embed_dim} dimensions as the basis has, got {x.shape[2]}")
        return _centred(x, frame, self.center, self.place)

    def _scores(self, centred: Float[np.ndarray, "h w D"]) -> Float[np.ndarray, "h w 3"]:
        return np.asarray((centred - self.mean) @ self.components.T)

    def _shown(self, centred: Float[np.ndarray, "h w D"], frame: Frame | None) -> Bool[np.ndarray, "h w"]:
        real = np.ones(centred.shape[:2], bool) if frame is None else frame.real
        return real if self.foreground_rule is None else real & _is_foreground(centred, self.foreground_rule)

    def check_encoder(self, encoder: _Facts, name: str = "the basis") -> None:
        """Refuse maps of another encoder than the basis was fitted on; another size, dtype or resize rule is allowed.

        The digests of the weights decide; the names, where one of them has no digest.

        Raises:
            InputError: another encoder, other weights or another layer.
        """
        if self.encoder is None:
            return
        by = "digest" if self.encoder.get("digest") and encoder.get("digest") else "name"
        for key in (by, "layer"):
            if self.encoder.get(key) != encoder.get(key):
                was, got = ({k: facts.get(k) for k in ("name", key)} for facts in (self.encoder, encoder))
                raise InputError(
                    f"{name} belongs to another encoder: expected {_words(was)} as it was fitted on, got {_words(got)}"
                )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the basis as an .npz of plain arrays; the same basis gives the same bytes. Returns the path."""
        rule = self.foreground_rule
        file = io.BytesIO()
        np.savez(
            file,
            schema=np.int64(SCHEMA),
            center=np.str_(self.center),
            place=self.place,
            mean=self.mean,
            components=self.components,
            explained=self.explained,
            low=self.low,
            high=self.high,
            foreground_direction=np.zeros(0) if rule is None else rule.direction,
            foreground_threshold=np.float64(0 if rule is None else rule.threshold),
            foreground_above=np.bool_(rule is not None and rule.above),
            foreground_share=np.float64(1 if rule is None else rule.share),
            images=np.int64(self.images),
            patches=np.int64(self.patches),
            encoder=np.str_(json.dumps(self.encoder, sort_keys=True)),
        )
        return write_atomically(Path(path), file.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PatchPCA:
        """Read what `save` wrote; nothing in the file is run.

        Raises:
            InputError: no such file, or not a basis that this fewmatch reads.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path} does not exist: expected a basis that `fewmatch pca --save-basis` wrote")
        try:
            # From memory: NumPy leaves files open that turn out to be no archive.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                schema = int(file["schema"])
                if schema == SCHEMA:
                    return cls._from_arrays({name: file[name] for name in file.files})
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error).split("\n")[0]
            raise InputError(f"{path} is not a basis that `fewmatch pca --save-basis` wrote: {what}") from error
        raise InputError(f"{path} has schema {schema}, this fewmatch reads schema {SCHEMA}: make the basis again")

    @classmethod
    def _from_arrays(cls, arrays: dict[str, Any]) -> PatchPCA:
        dimension = len(arrays["mean"])
        shapes = {"place": (TERMS, dimension), "mean": (dimension,), "components": (3, dimension)}
        shapes |= dict.fromkeys(("explained", "low", "high"), (3,))
        direction = arrays["foreground_direction"]
        shapes["foreground_direction"] = (dimension if len(direction) else 0,)
        for name, shape in shapes.items():
            array = arrays[name]
            if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"expected {name} of shape {shape}, finite, got {array.shape} of {array.dtype}")
        center = str(arrays["center"])
        if center not in PCA_CENTERS:
            raise ValueError(f"its centre is {center!r}")
        threshold, share = float(arrays["foreground_threshold"]), float(arrays["foreground_share"])
        encoder = json.loads(str(arrays["encoder"]))
        if not isinstance(encoder, dict | None):
            raise ValueError("its encoder is no record")
        return cls(
            center=center,
            **{name: arrays[name] for name in shapes if name != "foreground_direction"},
            foreground_rule=ForegroundRule(direction, threshold, bool(arrays["foreground_above"]), share)
            if len(direction)
            else None,
            images=int(arrays["images"]),
            patches=int(arrays["patches"]),
            encoder=encoder,
        )


class _Source:
    """Maps one at a time, and the passes over them that a fit needs."""

    def __init__(
        self,
        maps: _Maps,
        frames: Sequence[Frame] | None,
        center: PCACenter,
        progress: Callable[[int, int], None] | None,
        passes: int,
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
        self._done, self._total = 0, passes * self.count
        self._dimension: int | None = None

    def _maps(self) -> Iterator[tuple[Float[np.ndarray, "h w D"], Frame | None, Bool[np.ndarray, "h w"]]]:
        for i in range(self.count):
            frame = None if self._frames is None else self._frames[i]
            x = _as_map(self._get(i), frame, f"map {i}")
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
        found = principal_components(spread / moments.count, self._square)
        return place, mean, found, moments.count

    def foreground(
        self, place: Float[np.ndarray, "5 D"], mean: Float[np.ndarray, "D"], found: Principal
    ) -> ForegroundRule:
        """The second of four passes: of Otsu's splits of the three components the one that tells most about borders.

        The first component alone would not do: in some encoders it tells top from bottom, and its split cuts subjects in two.
        """
        parts, edges = [], []
        for x, frame, real in self._maps():
            parts.append((_centred(x, frame, self._center, place) @ found.directions.T)[real])
            edges.append(border(real)[real])
        edge = np.concatenate(edges)
        best: tuple[float, ForegroundRule] | None = None
        for direction, scores in zip(found.directions, np.concatenate(parts).T, strict=True):
            sign = sign_of(scores - mean @ direction, direction)
            direction, scores = sign * direction, sign * scores
            threshold = otsu_threshold(scores)
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
        for centred in self.centred(place, rule):
            moments.add(centred)
        return (
            moments.mean,
            principal_components(moments.total / moments.count, self._square),
            moments.count,
        )

    def centred(
        self, place: Float[np.ndarray, "5 D"], rule: ForegroundRule | None
    ) -> Iterator[Float[np.ndarray, "n D"]]:
        """The last pass, and the third: of each image the patches to fit, less their image's mean and the surface."""
        for x, frame, real in self._maps():
            centred = _centred(x, frame, self._center, place)
            yield centred[real if rule is None else real & _is_foreground(centred, rule)]


def _is_foreground(centred: Float[np.ndarray, "h w D"], rule: ForegroundRule) -> Bool[np.ndarray, "h w"]:
    return np.asarray((centred @ rule.direction > rule.threshold) == rule.above)


def _centred(
    x: Float[np.ndarray, "h w D"], frame: Frame | None, center: PCACenter, place: Float[np.ndarray, "5 D"]
) -> Float[np.ndarray, "h w D"]:
    """A map less the surface and, where the centre says so, less its own mean, padding not counted."""
    if "position" in center:
        x = x - terms(*x.shape[:2]) @ place
    if "image" in center:
        x = x - (x.mean(axis=(0, 1)) if frame is None else x[frame.real].mean(axis=0))
    return x


def _as_map(feature_map: Any, frame: Frame | None, name: str) -> Float[np.ndarray, "h w D"]:
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


def _words(facts: _Facts) -> str:
    return ", ".join(f"{key} {value}" if key != "name" else str(value) for key, value in facts.items())
