"""Which patches of an image may match: its foreground, found from the features of all images of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.nearest.nearest import as_tensor
from fewmatch.matching.pca.pca import PatchPCA
from fewmatch.matching.pca.principal import border, otsu_threshold

#: How the foreground is told. pca: one side of a principal component of the patches of all images. cls: the cosine of a patch with its
#: image's global vector (the CLS token, where there is one).
ForegroundKind = Literal["pca", "cls"]
FOREGROUNDS: tuple[ForegroundKind, ...] = get_args(ForegroundKind)

_Maps = Sequence[Any] | Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class Foreground:
    """The foreground of every image of a call.

    kind: one of `FOREGROUNDS`. masks: for each image (h, w), which patches are foreground; padding never is.
    saliency: for each image (h, w) from 0 to 1, how far on the foreground's side a patch lies, 0 and 1 being the image's extremes; 0 for
        padding and where an image's patches do not differ.
    above: whether the foreground lies above the threshold or thresholds, in the sign of the component or of the cosine.
    """

    kind: ForegroundKind
    masks: list[Bool[np.ndarray, "_h _w"]]
    saliency: list[Float[np.ndarray, "_h _w"]]
    above: bool


def foreground_masks(
    maps: _Maps,
    frames: Sequence[Frame],
    *,
    kind: ForegroundKind = "pca",
    vectors: Float[np.ndarray, "n D"] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Foreground:
    """Foreground and background of images of the same kind of subject.

    pca: the rule of `PatchPCA.fit`: Otsu's threshold on one of the first three principal components of all patches of all images, the one
    whose split tells most about which patches lie at the borders of images. cls: Otsu's threshold on the cosines of an image's patches with
    its global vector, for each image its own, because the level of these cosines differs from image to image. In both the foreground is
    the side of which a smaller share lies at a border, over all images (which side that is depends on the encoder), and the
    upper side where the shares are equal. Where the values of an image (pca: of all) do not differ, everything is foreground.

    Args:
        maps: (h, w, D) feature maps, NumPy or torch; or a function that gives the i-th.
        frames: the geometry of each.
        kind: one of `FOREGROUNDS`.
        vectors: (n, D) the global vectors, for `cls`.
        progress: called with (maps done, maps in all), several times over the maps.

    Raises:
        InputError: no maps, maps that do not fit together or their frames, features that are not finite, an unknown kind, or `cls` without
            a vector of the same dimension for each map.

    Source: Otsu (1979); the two steps of DINOv2 (Oquab et al. 2024); docs/matching.md.
    """
    if kind not in FOREGROUNDS:
        raise InputError(f"no foreground called {kind}: expected one of {', '.join(FOREGROUNDS)}")
    get = maps if callable(maps) else maps.__getitem__
    if not callable(maps) and len(maps) != len(frames):
        raise InputError(f"expected as many frames as maps, got {len(frames)} and {len(maps)}")
    if kind == "pca":
        basis = PatchPCA.fit(maps, frames, foreground=True, progress=progress)
        rule = basis.foreground_rule
        assert rule is not None
        values = [_array(get(i)) @ rule.direction for i in range(len(frames))]
        masks = [basis.foreground(get(i), frame) for i, frame in enumerate(frames)]
        above = rule.above
    else:
        values = _cosines(get, frames, vectors, progress or (lambda *_: None))
        masks, above = _split(values, frames)
    saliency = [_saliency(value if above else -value, frame.real) for value, frame in zip(values, frames, strict=True)]
    return Foreground(kind, masks, saliency, above)


def _cosines(
    get: Callable[[int], Any],
    frames: Sequence[Frame],
    vectors: Any,
    progress: Callable[[int, int], None],
) -> list[Float[np.ndarray, "_h _w"]]:
    """The cosine of every patch with its image's vector; 0 where one of them is zero."""
    if not frames:
        raise InputError("expected one feature map or more, got none")
    if vectors is None:
        raise InputError("expected the images' global vectors with the foreground cls, got none")
    v = _array(vectors)
    if v.ndim != 2 or len(v) != len(frames):
        raise InputError(f"expected {len(frames)} global vectors, one for each map, got an array of shape {v.shape}")
    out = []
    for i, frame in enumerate(frames):
        x = _array(get(i))
        if x.ndim != 3 or x.shape[:2] != frame.grid or x.shape[2] != v.shape[1]:
            raise InputError(
                f"expected map {i} of shape {(*frame.grid, v.shape[1])} as its frame and vector say, got {x.shape}"
            )
        x = np.where(frame.real[..., None], x, 0)
        lengths = np.linalg.norm(x, axis=2) * np.linalg.norm(v[i])
        if not np.isfinite(lengths).all():
            raise InputError(f"the features of map {i} or its vector are not finite")
        out.append((x @ v[i]) / np.where(lengths > 0, lengths, 1))
        progress(i + 1, len(frames))
    return out


def _split(
    values: Sequence[Float[np.ndarray, "_h _w"]], frames: Sequence[Frame]
) -> tuple[list[Bool[np.ndarray, "_h _w"]], bool]:
    """The foreground by a threshold for each image, and whether it lies above them: the side that is less at the borders."""
    thresholds = [otsu_threshold(value[frame.real]) for value, frame in zip(values, frames, strict=True)]
    upper, edge = [], []
    for value, threshold, frame in zip(values, thresholds, frames, strict=True):
        if threshold is not None:
            upper.append((value > threshold)[frame.real])
            edge.append(border(frame.real)[frame.real])
    above = True
    if upper:
        up, at_edge = np.concatenate(upper), np.concatenate(edge)
        above = bool(at_edge[up].mean() <= at_edge[~up].mean())
    masks = [
        frame.real if threshold is None else frame.real & ((value > threshold) == above)
        for value, threshold, frame in zip(values, thresholds, frames, strict=True)
    ]
    return masks, above


def _saliency(value: Float[np.ndarray, "h w"], real: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    low, high = (value[real].min(), value[real].max()) if real.any() else (0.0, 0.0)
    return np.asarray(np.where(real, (value - low) / (high - low if high > low else 1.0), 0.0))


def _array(x: Any) -> Float[np.ndarray, "..."]:
    return np.asarray(as_tensor(x).cpu().double().numpy())
