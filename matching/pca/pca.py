"""Feature maps as colours: one principal component analysis over the patches of all images, kept and used again."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fewmatch.encoders.frame import Frame
from fewmatch.encoders.identity import require_known_encoder
from fewmatch.errors import InputError
from fewmatch.matching.pca.principal import TERMS, sign_of
from fewmatch.matching.pca.source import (
    PCA_CENTERS,
    ForegroundRule,
    Maps,
    PatchSource,
    PCACenter,
    as_map,
    centred_map,
    is_foreground,
)
from fewmatch.matching.pca.styles import PCA_STYLES, STYLE_RULES, PCAStyle, colour_ends, colour_shares
from fewmatch.writing import write_atomically

SCHEMA = 2
#: Schema 1 had three components and no style.
READABLE = (1, 2)

_Facts = dict[str, Any]

#: Facts of the encoder that must be those of the basis, and those that need not.
_EXACT = ("digest", "layer", "stride", "dtype")
_ALLOWED = ("size", "resize", "fast_decode")


@dataclass(frozen=True, eq=False)
class PatchPCA:
    """Principal components of the patches of many images, the first three as red, green and blue with one range for all images.

    A patch x at place p of its grid gets the scores components · (x − place(p) − own − mean), where place(p) is a quadratic surface
    (zero unless the centre is `position`) and own is its image's mean (zero unless the centre is `image`). An image's colours depend on
    that image and on this basis, so they are the same whatever other images are shown. Everything is float64.

    The sign of each component is fixed: its scores over the fitted patches have a skewness of 0 or more (the rule of CAPI); where they
    are not skewed, its largest loading is positive. So the order of the images does not turn colours over, nor (where scores are skewed,
    as they are in practice) does a rotation of feature space.

    center: one of `PCA_CENTERS`. place: (5, D) the surface's coefficients of x, y, x², xy and y², from −1 to 1 over the grid.
    mean: (D,). components: (n, D) unit rows, n ≥ 3, zero where the patches do not vary in so many directions.
    explained: (n,) shares of the fitted patches' variance about their centre.
    low, high: (n,) scores that become 0 and 1 of a colour. With the style `fewmatch` percentiles 1 and 99 of the fitted patches, with
        `dinov2` the least and the largest score of all patches, with `capi` ∓2.3 standard deviations; with `dinov3`, whose sigmoid
        never ends, what becomes 0.01 and 0.99.
    foreground_rule: None, or what tells foreground; then components and mean were fitted on the foreground alone.
    images, patches: how many were fitted (patches: foreground only, where there is a rule).
    encoder: what made the maps (`name`, `digest`, `identity`, `dtype`, `layer`, `size`, `resize`, …; see `check_encoder`), or None.
    style: one of `PCA_STYLES`.

    Source: DINOv2 (Oquab et al. 2024) for the two steps with a foreground, CAPI (Darcet et al. 2025) for the sign; docs/feature-maps.md.
    """

    center: PCACenter
    place: Float[np.ndarray, "5 D"]
    mean: Float[np.ndarray, "D"]
    components: Float[np.ndarray, "n D"]
    explained: Float[np.ndarray, "n"]
    low: Float[np.ndarray, "n"]
    high: Float[np.ndarray, "n"]
    foreground_rule: ForegroundRule | None
    images: int
    patches: int
    encoder: _Facts | None = None
    style: PCAStyle = "fewmatch"

    @classmethod
    def fit(
        cls,
        maps: Maps,
        frames: Sequence[Frame] | None = None,
        *,
        center: PCACenter = "all",
        foreground: bool = False,
        style: PCAStyle = "fewmatch",
        components: int = 3,
        encoder: _Facts | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> PatchPCA:
        """The principal components of all patches of all maps; patches of padding are left out.

        The covariance is summed up in float64, image by image, so one map is held at a time (and a number per patch and component).
        Maps are gone through twice, with a foreground four times.

        Args:
            maps: (h, w, D) feature maps of any sizes, NumPy or torch; or a function that gives the i-th, which needs `frames`.
            frames: the geometry of each; None means that no patch is padding.
            center: one of `PCA_CENTERS`.
            foreground: fit the colours on the foreground alone. Foreground is one side of Otsu's threshold on one of the first
                three components of all patches: the component whose split has the most mutual information with lying at a border, and the
                side of which a smaller share lies there; the earlier component and the upper side where these are equal. Where the
                patches do not vary, everything is foreground.
            style: one of `PCA_STYLES`. `dinov2` and `dinov3` always have a foreground (`dinov2`: one side of the mean of the first component
                of all patches, that of which a smaller share lies at borders), `capi` never has.
            components: how many to keep, 3 or more; the first three are the colours.
            encoder: facts to keep with the basis.
            progress: called with (maps done, maps in all).

        Raises:
            InputError: no maps, maps that do not fit together or their frames, features that are not finite, an unknown centre or style,
                a foreground with `capi`, or fewer than three components.
        """
        if center not in PCA_CENTERS:
            raise InputError(f"no centre called {center}: expected one of {', '.join(PCA_CENTERS)}")
        if style not in PCA_STYLES:
            raise InputError(f"no style called {style}: expected one of {', '.join(PCA_STYLES)}")
        if components < 3:
            raise InputError(f"expected three components or more, for three colours, got {components}")
        asked = STYLE_RULES[style]
        if foreground and asked.foreground is False:
            raise InputError(f"the style {style} has no foreground: leave foreground out, or choose another style")
        foreground = foreground or bool(asked.foreground)
        source = PatchSource(maps, frames, center, progress, passes=4 if foreground else 2, count=components)
        place, mean, found, count = source.all_patches()
        rule = None
        if foreground:
            rule = source.foreground(place, mean, found, asked.split)
            mean, found, count = source.foreground_patches(place, rule)
        directions = found.directions
        # Of all patches, with what tells the fitted ones from them: dinov2's range is that of all.
        parts = [((z - mean) @ directions.T, fitted) for z, fitted in source.centred(place, rule)]
        every, fitted = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        scores = every[fitted]
        signs = np.array([sign_of(*pair) for pair in zip(scores.T, directions, strict=True)])
        low, high = colour_ends(style, scores * signs, every * signs)
        return cls(
            center=center,
            place=place,
            mean=mean,
            components=directions * signs[:, None],
            explained=found.ratios,
            low=low,
            high=high,
            foreground_rule=rule,
            images=source.count,
            patches=count,
            encoder=encoder,
            style=style,
        )

    @property
    def embed_dim(self) -> int:
        return len(self.mean)

    @property
    def limit(self) -> Float[np.ndarray, "n"]:
        """The score at which each component's strip ends, on both sides of 0: the larger one of |low| and |high|."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))

    def transform(self, feature_map: Any, frame: Frame | None = None) -> Float[np.ndarray, "h w n"]:
        """The scores of the patches of one (h, w, D) map, NumPy or torch.

        Args:
            frame: tells which patches are padding, which must not count in the image's own mean; None is none.

        Raises:
            InputError: a map of another dimension, or one that does not fit its frame.
        """
        return self._scores(self._centred(feature_map, frame))

    def colours(self, feature_map: Any, frame: Frame | None = None) -> Float[np.ndarray, "h w 3"]:
        """RGB from 0 to 1: components 1 to 3 as red, green and blue, from `low` to `high`; 0.5 for one that does not vary.

        With the style `dinov3` it is sigmoid(2 · score / standard deviation); otherwise a straight line that is cut off at both ends.

        Padding, and what is not foreground where there is a rule, is black.

        Raises:
            InputError: as `transform`.
        """
        centred = self._centred(feature_map, frame)
        share = colour_shares(self.style, self._scores(centred)[..., :3], self.low[:3], self.high[:3])
        return np.asarray(np.where(self._shown(centred, frame)[..., None], share, 0.0))

    def strips(self, feature_map: Any, frame: Frame | None = None) -> Float[np.ndarray, "h w n"]:
        """The scores of every component as shares of its `limit`, cut off at −1 and 1; 0 for one that does not vary.

        NaN for padding, and for what is not foreground where there is a rule.

        Raises:
            InputError: as `transform`.
        """
        centred = self._centred(feature_map, frame)
        share = np.clip(self._scores(centred) / np.where(self.limit > 0, self.limit, 1.0), -1, 1)
        return np.asarray(np.where(self._shown(centred, frame)[..., None], share, np.nan))

    def foreground(self, feature_map: Any, frame: Frame | None = None) -> Bool[np.ndarray, "h w"]:
        """Which patches are foreground; without a rule, all that are not padding.

        Raises:
            InputError: as `transform`.
        """
        return self._shown(self._centred(feature_map, frame), frame)

    def _centred(self, feature_map: Any, frame: Frame | None) -> Float[np.ndarray, "h w D"]:
        x = as_map(feature_map, frame, "the map")
        if x.shape[2] != self.embed_dim:
            raise InputError(f"expected a map of {self.embed_dim} dimensions as the basis has, got {x.shape[2]}")
        return centred_map(x, frame, self.center, self.place)

    def _scores(self, centred: Float[np.ndarray, "h w D"]) -> Float[np.ndarray, "h w n"]:
        return np.asarray((centred - self.mean) @ self.components.T)

    def _shown(self, centred: Float[np.ndarray, "h w D"], frame: Frame | None) -> Bool[np.ndarray, "h w"]:
        real = np.ones(centred.shape[:2], bool) if frame is None else frame.real
        return real if self.foreground_rule is None else real & is_foreground(centred, self.foreground_rule)

    def check_encoder(self, encoder: _Facts, name: str = "the basis") -> dict[str, tuple[Any, Any]]:
        """Refuse maps whose features were not made as those that the basis was fitted on.

        Where both have an `identity`, a digest of all that the features depend on, it must be the same. Where one has none, as in files of
        earlier versions, name and digest of the weights, layer, stride and dtype must be the same, and name and digest those of a checkpoint
        of the catalogue: nothing else tells how the network was built and its images were prepared.
        Another size, resize rule or way of decoding is allowed.

        Returns:
            Of those the ones that differ, with the value of the basis and that of the maps.

        Raises:
            InputError: another encoder, other weights or options, or nothing that tells.
        """
        if self.encoder is None:
            return {}
        was = self.encoder
        known = was.get("identity") and encoder.get("identity")
        same = was["identity"] == encoder["identity"] if known else None
        if not same:
            for key in (*(() if known else ("name",)), *_EXACT, *(("identity",) if known else ())):
                if was.get(key) != encoder.get(key):
                    first, second = ({k: facts.get(k) for k in ("name", key)} for facts in (was, encoder))
                    raise InputError(
                        f"{name} belongs to another encoder: expected {_words(first)} as it was fitted on, got {_words(second)}"
                    )
        if same is None:
            known_by = {key: was.get(key) for key in ("name", "digest")}
            require_known_encoder(known_by, name, "fit it again with --save-basis")
        return {key: (was.get(key), encoder.get(key)) for key in _ALLOWED if was.get(key) != encoder.get(key)}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the basis as an .npz of plain arrays; the same basis gives the same bytes. Returns the path."""
        rule = self.foreground_rule
        file = io.BytesIO()
        np.savez(
            file,
            schema=np.int64(SCHEMA),
            center=np.str_(self.center),
            style=np.str_(self.style),
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
                if schema in READABLE:
                    return cls._from_arrays({name: file[name] for name in file.files})
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error).split("\n")[0]
            raise InputError(f"{path} is not a basis that `fewmatch pca --save-basis` wrote: {what}") from error
        raise InputError(
            f"{path} has schema {schema}, this fewmatch reads schemas {READABLE[0]} and {READABLE[1]}: make the basis again"
        )

    @classmethod
    def _from_arrays(cls, arrays: dict[str, Any]) -> PatchPCA:
        style = str(arrays["style"]) if int(arrays["schema"]) > 1 else PCA_STYLES[0]
        if style not in PCA_STYLES:
            raise ValueError(f"its style is {style!r}")
        dimension, count = len(arrays["mean"]), max(3, len(arrays["components"]))
        shapes = {"place": (TERMS, dimension), "mean": (dimension,), "components": (count, dimension)}
        shapes |= dict.fromkeys(("explained", "low", "high"), (count,))
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
            style=style,
        )


def _words(facts: _Facts) -> str:
    return ", ".join(f"{key} {value}" if key != "name" else str(value) for key, value in facts.items())
