"""How pixels of more than 8 bits become 8: which values become black and white, and a note on images that use little of their range."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from fewmatch.errors import ImageError, InputError

#: Which values of an image of more than 8 bits become black and white: 0 and 65,535 (`full`), the image's own 0.1st and 99.9th
#: percentile over all channels (`auto`), or two values that hold for all images. Images of 8 bits or less stay as they are.
ValueRange = Literal["full", "auto"] | tuple[int, int]

#: The percentiles between which the values of an image are taken to lie: hot and dead pixels are rarer.
_PERCENTILES = (0.1, 99.9)

#: An image of more than 8 bits that uses less than this share of its range gets a note: it is nearly black, or nearly of one colour.
_USED_RANGE = 0.1

#: A fixed range that clips more than this share of an image's values is worth a note.
_CLIPPED = 0.01

DEEPEST = 65_535


def read_value_range(text: str) -> ValueRange:
    """The range that a user writes: `full`, `auto`, or `LOW,HIGH`.

    Raises:
        InputError: it is none of these, or LOW is not below HIGH.
    """
    if text == "full":
        return "full"
    if text == "auto":
        return "auto"
    found = re.fullmatch(r"(\d{1,5}),(\d{1,5})", text.replace(" ", ""))
    low, high = (int(found[1]), int(found[2])) if found else (0, 0)
    if not low < high <= DEEPEST:
        raise InputError(
            f"no range {text}: expected full, auto or LOW,HIGH such as 0,4095 (LOW below HIGH, at most {DEEPEST})"
        )
    return low, high


class Levels:
    """How the values of one image become 8 bits, and what is to be said of it.

    values: those that became black and white, where they were chosen. note: that the image uses little of its range, or None.
    """

    def __init__(self, value_range: ValueRange) -> None:
        self._range = value_range
        self.values: tuple[int, int] | None = None
        self.note: str | None = None

    def stretched(self, pixels: np.ndarray) -> np.ndarray:
        """16-bit values over their whole range as `value_range` says; 8-bit ones as they are."""
        if pixels.dtype != np.uint16:
            return pixels
        low, high = self._range if isinstance(self._range, tuple) else _used_values(pixels)
        if self._range == "full":
            if high - low < _USED_RANGE * DEEPEST:
                most = 2 ** int(pixels.max()).bit_length() - 1
                fixed = f"--range 0,{most} or " if 0 < most < DEEPEST else ""
                self.note = f"less than a tenth of its 16-bit range is used, so it is nearly of one colour: use {fixed}--range auto"
            return pixels
        self.values = low, high
        outside = float(((pixels < low) | (pixels > high)).mean())
        if isinstance(self._range, tuple) and outside > _CLIPPED:
            self.note = f"{outside:.0%} of its values lie outside --range {low},{high}: they become black or white"
        clipped = np.clip(pixels, low, high).astype(np.uint32) - np.uint32(low)
        span = max(high - low, 1)
        out: np.ndarray = ((clipped * np.uint32(DEEPEST) + np.uint32(span // 2)) // np.uint32(span)).astype(np.uint16)
        return out

    def to_8_bits(self, pixels: np.ndarray) -> np.ndarray:
        """Grey or colour of 8 or 16 bits as uint8, rounded."""
        if pixels.dtype == np.uint8:
            return pixels
        if pixels.dtype == np.uint16:
            eight: np.ndarray = ((self.stretched(pixels).astype(np.uint32) + 128) // 257).astype(np.uint8)
            return eight
        raise ImageError("unsupported-depth", f"{pixels.dtype} pixels: save the image with 8 or 16 bits per channel")

    def on_white(self, rgba: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
        """(H, W, 4) of 8 or 16 bits on white, as (H, W, 3) uint8, rounded once."""
        if rgba.dtype == np.uint16:
            if premultiplied and self._range != "full":
                colour, alpha = rgba[..., :3].astype(np.float64), np.maximum(rgba[..., 3:], 1)
                straight = np.minimum(np.rint(colour * DEEPEST / alpha), DEEPEST).astype(np.uint16)
                rgba, premultiplied = np.concatenate([straight, rgba[..., 3:]], axis=2), False
            rgba = np.concatenate([self.stretched(rgba[..., :3]), rgba[..., 3:]], axis=2)
        return _on_white(rgba, premultiplied=premultiplied)


def _used_values(pixels: np.ndarray) -> tuple[int, int]:
    """The values of 16-bit pixels at `_PERCENTILES`, over all channels: the smallest that so many values do not exceed."""
    counts = np.cumsum(np.bincount(pixels.reshape(-1), minlength=DEEPEST + 1))
    low, high = (int(np.searchsorted(counts, counts[-1] * percentile / 100)) for percentile in _PERCENTILES)
    return low, high


def _on_white(rgba: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
    """(H, W, 4) of 8 or 16 bits on white, as (H, W, 3) uint8, rounded once."""
    rgb = np.empty((*rgba.shape[:2], 3), np.uint8)
    top = 255 if rgba.dtype == np.uint8 else 65535
    divisor = np.uint32(top * (top // 255))
    for start in range(0, len(rgba), 256):  # a block of rows at a time, for the memory
        block = rgba[start : start + 256].astype(np.uint32)
        colour, alpha = block[..., :3], block[..., 3:]
        colour = np.minimum(colour, alpha) * np.uint32(top) if premultiplied else colour * alpha
        whole, rest = np.divmod(colour + np.uint32(top) * (np.uint32(top) - alpha), divisor)
        rgb[start : start + 256] = whole + (rest > divisor // 2)
    return rgb
