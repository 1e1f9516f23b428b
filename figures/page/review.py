"""The page on which people look through found keypoints, the least sure images first, and correct them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.colors import to_hex

from fewmatch.errors import InputError
from fewmatch.figures.keypoints import confidence_text, review_order
from fewmatch.figures.page.document import html_document
from fewmatch.figures.page.thumbnails import Thumbnail, thumbnail
from fewmatch.figures.style.palette import class_colours
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.suggest import image_confidence

#: All pictures together take so many bytes of the page, but each may take so many, and no more than the other.
_BYTES, _LEAST_BYTES, _MOST_BYTES = 9_000_000, 30_000, 400_000
#: The short side of a picture in pixels, at least (but for bytes) and at most.
_LEAST_SIDE, _MOST_SIDE = 160, 900
#: Bytes of the page that a pixel is first thought to take.
_PIXEL = 0.2


def review_page(
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    keypoints: Keypoints,
    *,
    title: str,
    note: str = "",
    most: int = 100,
    file_name: str = "corrections.csv",
) -> str:
    """One HTML document in which people correct keypoints; it needs no network and no server.

    A contact sheet, the least sure images first (see `fewmatch.figures.keypoints.review_order`); each opens large. Points are dragged, or
    moved by the arrow keys; a part can be said to be absent, or visible; all can be undone. A button saves a CSV that
    `fewmatch.read_labels` reads: `image,part,x,y,visible,score`, with every part of every image that was
    changed or marked as reviewed. What a person moved, switched or marked as reviewed has no score, as labels have none; what is
    not visible has a place only where a person gave it. All numbers are pixels of the originals, whole as float64, even where the
    page shows reduced pictures.

    Args:
        pictures: (h, w, 3) uint8 RGB originals, one for each image of `keypoints`; only those that the page shows are asked for, each once.
        title: the heading. note: said below. most: images on the page at most; it says how many are not there.
        file_name: what the browser is told to call the saved file.

    Returns:
        The document; the same text for the same arguments. In UTF-8 it has as many bytes as it says: with up to 100 pictures
        about 10 MB at most.

    Raises:
        InputError: no images or no parts, not as many pictures as images, or `most` below 1.
    """
    if not keypoints.paths or not keypoints.parts:
        raise InputError("nothing to review: expected at least one image and one part")
    if len(pictures) != len(keypoints):
        raise InputError(f"expected a picture for each of {len(keypoints)} images, got {len(pictures)}")
    if most < 1:
        raise InputError(f"expected at least one image on the page, got {most}")
    order = review_order(keypoints)[:most]
    limit = min(_MOST_BYTES, max(_LEAST_BYTES, _BYTES // len(order)))
    confidence = image_confidence(keypoints)
    known = np.isfinite(keypoints.score)
    usual = [float(np.median(s[k])) if k.any() else None for s, k in zip(keypoints.score.T, known.T, strict=True)]
    images = [_image(pictures[n], keypoints, n, float(confidence[n]), limit) for n in order]
    reduced = max(image["width"] / image["shown"] for image in images)
    data = {
        "parts": [
            {"name": name, "colour": to_hex(colour), "usual": middle}
            for name, colour, middle in zip(keypoints.parts, class_colours(len(keypoints.parts)), usual, strict=True)
        ],
        "skeleton": [list(edge) for edge in keypoints.skeleton],
        "images": images,
        "file": file_name,
    }
    size = ""
    while True:
        page = html_document(
            "review.html.j2",
            title=title,
            styles=["document.css", "review.css"],
            script=["review_model.js", "review.js"],
            data=data,
            note=note,
            count=len(order),
            left_out=len(keypoints) - len(order),
            scored=bool(known.any()),
            reduced="" if reduced <= 1 else f"{math.ceil(10 * reduced) / 10:g}",
            file_name=file_name,
            size=size,
        )
        measured = f"{len(page.encode()) / 1e6:.2f} MB"
        if size == measured:
            return page
        size = measured


def _image(picture: np.ndarray, keypoints: Keypoints, n: int, confidence: float, limit: int) -> dict[str, Any]:
    """What the page knows of an image: its size, its points [x, y, visible, score] in pixels of the original, and the picture."""
    small = _reduced(picture, limit)
    return {
        "name": keypoints.paths[n],
        "index": n,
        "width": picture.shape[1],
        "height": picture.shape[0],
        "shown": small.width,
        "picture": small.uri,
        "confidence": confidence_text(confidence),
        "points": [
            [_number(x), _number(y), bool(visible), _number(score)]
            for (x, y), visible, score in zip(keypoints.xy[n], keypoints.visible[n], keypoints.score[n], strict=True)
        ],
    }


def _reduced(picture: np.ndarray, limit: int) -> Thumbnail:
    """The picture, as large as so many bytes of the page allow."""
    side = min(
        _MOST_SIDE, max(_LEAST_SIDE, round(math.sqrt(limit / _PIXEL * min(picture.shape[:2]) / max(picture.shape[:2]))))
    )
    while True:
        small = thumbnail(picture, side)
        if len(small.uri) <= limit or side <= _LEAST_SIDE:
            return small
        short = min(small.width, small.height)
        side = max(_LEAST_SIDE, min(side - 1, int(0.97 * short * math.sqrt(limit / len(small.uri)))))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
