"""The page of matched images: the similarity of the patch at the pointer over all images, its nearest patches, and the matches."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.colors import to_hex
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.figures.match_lines import position_colours
from fewmatch.figures.page.document import html_document
from fewmatch.figures.page.thumbnails import thumbnail
from fewmatch.matching.matches import Matches, unit_descriptors
from fewmatch.matching.nearest.nearest import Nearest, nearest_both_ways
from fewmatch.matching.quantization import CosineError, QuantizedDescriptors, cosine_error, quantize

#: Dimensions that stand for the descriptors, at most. With 128, maps of two to eight photos were within 0.05 of the cosines, 0.002 on
#: average, with 64 within 0.2; a browser multiplies eight images of 37 × 37 patches in a few milliseconds in either case.
_DIMENSIONS = 128
#: Fewer where the codes of all patches would take more bytes than this, so that a page of eight images stays below 10 MB; but so many.
_CODE_BYTES, _LEAST_DIMENSIONS = 4_000_000, 16
#: The short side of a picture in pixels: so that all together have so many, and within bounds.
_PIXELS, _LEAST_SIDE, _MOST_SIDE = 1_900_000, 140, 640
#: Cosines of nearest patches are kept as multiples of this: finer than any that is shown.
_COSINE_STEP = 1 / 32767
#: Colours of the heat map, and of positions in a picture (so many by so many).
_HEAT, _POSITIONS = 64, 12


@dataclass(frozen=True)
class MatchPageImage:
    """An image of the page.

    name: what the page calls it. picture: (h, w, 3) uint8 RGB, the original, or None where there is none.
    feature_map: (h, w, D). frame: its geometry. valid: patches that take part, besides those of the frame; None is all.
    """

    name: str
    picture: UInt8[np.ndarray, "_H _W 3"] | None
    feature_map: Float[np.ndarray, "_h _w _D"]
    frame: Frame
    valid: Bool[np.ndarray, "_h _w"] | None = None


def match_page(
    images: Sequence[MatchPageImage],
    pairs: Mapping[tuple[int, int], Matches] | None = None,
    *,
    title: str,
    note: str = "",
) -> str:
    """One HTML document in which people look through correspondences; it needs no network and no server.

    Pointing at a patch (or Tab and the arrow keys, or a touch) shows its cosine similarity over all images as heat maps, and marks the
    nearest patch of every other image; a click keeps it. The matches of two images, or of one with all others, are shown on demand, above
    a threshold.

    The nearest patches and the matches are computed here from the descriptors themselves. The heat maps are computed by the page, from
    descriptors in few dimensions and 8 bits (`fewmatch.matching.quantization.quantize`). The page says how far these are from the cosines,
    measured over all pairs of patches, and how large it is. Patches that are padding, not valid, or zero can be neither pointed at nor found.

    Args:
        images: two or more, with feature maps of one encoder.
        pairs: by (a, b), indices of images, their matches. Pairs that are not here have all their mutual nearest patches.
        title: the heading. note: said below.

    Returns:
        The document; the same text for the same arguments. In UTF-8 it has as many bytes as it says.

    Raises:
        InputError: fewer than two images; maps, frames, pictures, masks and matches that do not fit each other; features that are not finite.
    """
    pairs = pairs or {}
    if len(images) < 2:
        raise InputError(f"expected two images or more, got {len(images)}")
    _check_pairs(images, pairs)
    tensors, units, usable = [], [], []
    for i, image in enumerate(images):
        if image.picture is not None and image.picture.shape[:2] != (image.frame.height, image.frame.width):
            height, width = image.picture.shape[:2]
            expected = f"{image.frame.width}×{image.frame.height}"
            raise InputError(f"expected a picture of {expected} px for image {i}, got one of {width}×{height}")
        x, real = unit_descriptors(image.feature_map, image.frame, image.valid, str(i))
        tensors.append(x)
        units.append(np.where(real[:, None], x.cpu().numpy(), 0))  # what takes no part shall not bend the directions
        usable.append(real)
    patches = sum(len(x) for x in units)
    codes = quantize(units, max(_LEAST_DIMENSIONS, min(_DIMENSIONS, _CODE_BYTES // patches)))
    side = round(min(_MOST_SIDE, max(_LEAST_SIDE, math.sqrt(_PIXELS / len(images)))))
    data = {
        "images": [
            _image(image, real, code, side) for image, real, code in zip(images, usable, codes.codes, strict=True)
        ],
        "scale": _text((codes.step.astype(np.float64) ** 2).astype("<f4")),
        "cosineStep": _COSINE_STEP,
        "nearest": _nearest_tables(tensors, usable),
        "pairs": [_pair(a, b, matches) for (a, b), matches in sorted(pairs.items())],
        "heat": _text(
            (matplotlib.colormaps["viridis"](np.linspace(0, 1, _HEAT))[:, :3] * 255).round().astype(np.uint8)
        ),
        "positions": _position_colours(),
    }
    error = cosine_error(units, codes, usable)
    size = ""
    while True:
        page = html_document(
            "correspondence.html.j2",
            title=title,
            styles=["document.css", "correspondence.css"],
            script=["correspondence_model.js", "correspondence.js"],
            data=data,
            note=note,
            count=len(images),
            size=size,
            about=_about(codes, error, any(matches.mirrored for matches in pairs.values())),
        )
        measured = _megabytes(len(page.encode()))
        if size == measured:
            return page
        size = measured


def _check_pairs(images: Sequence[MatchPageImage], pairs: Mapping[tuple[int, int], Matches]) -> None:
    for (a, b), matches in pairs.items():
        if not (0 <= a < len(images) and 0 <= b < len(images)) or a == b or (a < b and (b, a) in pairs):
            raise InputError(f"expected each pair of two of the {len(images)} images once, got ({a}, {b})")
        sizes = [(images[i].frame.width, images[i].frame.height) for i in (a, b)]
        if sizes != [matches.size_a, matches.size_b]:
            raise InputError(f"expected matches of images of {sizes[0]} and {sizes[1]} px for the pair ({a}, {b})")


def _image(image: MatchPageImage, usable: np.ndarray, codes: np.ndarray, side: int) -> dict[str, Any]:
    """What the page knows of an image. All pixels are those of the original; `origin` is the centre of the first patch, `step` from one
    to the next, `reach` half a patch, `box` the part that the encoder sees, by its edges."""
    frame = image.frame
    x, y = frame.to_pixels([0, 1], [0, 1])
    step = float(x[1] - x[0]), float(y[1] - y[0])
    left, top, right, bottom = frame.box
    return {
        "name": image.name,
        "width": frame.width,
        "height": frame.height,
        "grid": list(frame.grid),
        "origin": [float(x[0]), float(y[0])],
        "step": list(step),
        "reach": [s * frame.patch / frame.stride / 2 for s in step],
        "box": [max(0.0, left), max(0.0, top), min(float(frame.width), right), min(float(frame.height), bottom)],
        "usable": None if usable.all() else _text(np.packbits(usable, bitorder="little")),
        "codes": _text(codes),
        "picture": None if image.picture is None else thumbnail(image.picture, side).uri,
    }


def _nearest_tables(units: list[Tensor], usable: list[np.ndarray]) -> list[list[dict[str, str] | None]]:
    """For each image A and B, by patch of A, the nearest patch of B and its cosine; None where B has none, and for A with itself."""
    tables: list[list[dict[str, str] | None]] = [[None] * len(units) for _ in units]
    for a in range(len(units)):
        for b in range(a + 1, len(units)):
            to, back = nearest_both_ways(units[a], units[b], valid_a=usable[a], valid_b=usable[b], metric="dot")
            tables[a][b], tables[b][a] = _table(to, usable[b]), _table(back, usable[a])
    return tables


def _table(nearest: Nearest, usable: np.ndarray) -> dict[str, str] | None:
    """Patches that take no part have the first one as their nearest; nobody asks for it."""
    if not usable.any():
        return None
    steps = np.rint(np.clip(nearest.score, -1, 1) / _COSINE_STEP).astype("<i2")
    index = np.maximum(nearest.index, 0).astype("<u2" if len(usable) <= 2**16 else "<u4")
    return {"index": _text(index), "cosine": _text(steps)}


def _pair(a: int, b: int, matches: Matches) -> dict[str, Any]:
    """The matches of a pair, best first, as rows of xa, ya, xb, yb and score; and which agree with the geometry, where there is one."""
    rows = np.column_stack([matches.xy_a, matches.xy_b, matches.score]).astype("<f4")
    model = matches.geometry if matches.geometry is not None and matches.geometry.matrix is not None else None
    return {
        "a": a,
        "b": b,
        "rows": _text(rows),
        "geometry": None if model is None else model.kind,
        "inliers": None if model is None else np.flatnonzero(model.inliers).tolist(),
    }


def _position_colours() -> list[str]:
    y, x = np.indices((_POSITIONS, _POSITIONS)).reshape(2, -1) / (_POSITIONS - 1)
    return [to_hex(colour) for colour in position_colours(np.stack([x, y], axis=1))]


def _about(codes: QuantizedDescriptors, error: CosineError, mirrored: bool) -> str:
    """The error is rounded up, so that what is said holds."""
    largest = math.ceil(error.largest * 1000) / 1000
    return (
        f"Heat maps: {len(codes.step)} of {codes.dimensions} dimensions, 8 bits; their cosines differ from those of the descriptors by at most "
        f"{largest:.3f}, by {error.mean:.4f} on average (measured over all {error.pairs:,} pairs of patches)."
        + (
            " Some pairs were matched with one image mirrored; marks and heat maps are of the images as they are."
            if mirrored
            else ""
        )
    )


def _text(array: np.ndarray) -> str:
    """Base64 of the array's bytes."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
