"""Pictures as part of a page: small, and as data URIs."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

#: Quality of WebP, of 100; what is smaller as PNG (drawings, very small pictures) is PNG, without loss.
_QUALITY = 80
#: What as a quick PNG is so many times as large as WebP is not smaller as a slow one.
_QUICK_PNG = 4
#: So many thumbnails may have the full size; of more, each is smaller, so that a page stays of one size.
_FULL_SIZE = 200
_SIDE, _LEAST_SIDE = 160, 48


@dataclass(frozen=True)
class Thumbnail:
    """A picture as text. uri: `data:image/…;base64,…`. width, height: in pixels."""

    uri: str
    width: int
    height: int


def thumbnail(picture: UInt8[np.ndarray, "_h _w 3"], side: int = _SIDE) -> Thumbnail:
    """A picture shrunk until its short side has `side` pixels and its long side at most twice as many; never enlarged.

    The same picture gives the same bytes.

    Args:
        picture: (h, w, 3) uint8 RGB.
    """
    height, width = picture.shape[:2]
    share = min(1.0, side / min(height, width), 2 * side / max(height, width))
    if share < 1:
        width, height = max(1, round(width * share)), max(1, round(height * share))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    kind, data = "webp", _encoded(bgr, "webp", cv2.IMWRITE_WEBP_QUALITY, _QUALITY)
    # A photo as the smallest PNG takes ten times as long as all else; a quick one tells whether it can win.
    if len(_encoded(bgr, "png", cv2.IMWRITE_PNG_COMPRESSION, 1)) < _QUICK_PNG * len(data):
        lossless = _encoded(bgr, "png", cv2.IMWRITE_PNG_COMPRESSION, 9)
        kind, data = min((kind, data), ("png", lossless), key=lambda one: len(one[1]))
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}", width, height)


def _encoded(bgr: np.ndarray, kind: str, option: int, value: int) -> bytes:
    return bytes(cv2.imencode(f".{kind}", bgr, [option, value])[1])


def thumbnail_side(count: int) -> int:
    """The side for a page of so many thumbnails: 160 pixels up to 200 of them, then smaller, so that their area in all is the same."""
    share = min(1.0, math.sqrt(_FULL_SIZE / max(count, 1)))
    return max(_LEAST_SIDE, round(_SIDE * share))
