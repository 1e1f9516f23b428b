"""The size that a file says an image has, compared with the size that it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: Width and height in pixels.
Size = tuple[int, int]

#: Sides that differ by at most this many pixels may as well be cropped or padded as scaled: video codecs want even sides.
CROPPED = 2
#: The option of the command line that moves labels to images of another size.
RESCALE_OPTION = "--rescale-labels"


@dataclass(frozen=True)
class SizeDifference:
    """How two sizes differ.

    stated, actual: width and height, the latter as displayed, with EXIF orientation applied.
    kind: `factor`: one factor for both sides, to the rounding of a pixel; `swapped`: the same of the sides the other way round, factor 1
        included; `other`: neither, or so small a difference that it may be a crop. factor: actual by stated, NaN for `other`.
    """

    stated: Size
    actual: Size
    kind: Literal["factor", "swapped", "other"]
    factor: float

    def __str__(self) -> str:
        return f"the size is stated as {_words(self.stated)}, but the image has {_words(self.actual)}{self.hint}"

    @property
    def hint(self) -> str:
        """What the difference looks like, for the end of a message."""
        if self.kind == "swapped":
            scaled = "" if self.factor == 1 else f" (and scaled by {self.factor:.4g})"
            return f": the sides are swapped{scaled}, as where a tool ignores the EXIF orientation; images count as displayed"
        if self.kind == "factor":
            return f": both sides are {self.factor:.4g} times as long as stated"
        return ": that is not one factor for both sides, so the image may be cropped, padded or another one"


def size_difference(stated: Size, actual: Size) -> SizeDifference | None:
    """How a stated size differs from the actual one; None where they are equal.

    >>> size_difference((320, 240), (640, 480)).factor
    2.0
    """
    if stated == actual:
        return None
    factor = _factor(stated, actual)
    if factor is not None:
        return SizeDifference(stated, actual, "factor", factor)
    factor = 1.0 if stated[::-1] == actual else _factor(stated[::-1], actual)
    if factor is not None:
        return SizeDifference(stated, actual, "swapped", factor)
    return SizeDifference(stated, actual, "other", float("nan"))


def _factor(stated: Size, actual: Size) -> float | None:
    """Actual by stated where both sides have one factor: the sides of the smaller image are less than a pixel off the other's, scaled."""
    small, large = sorted((stated, actual))
    least = max(side / (own + 1) for own, side in zip(small, large, strict=True))
    most = min(side / (own - 1) if own > 1 else float("inf") for own, side in zip(small, large, strict=True))
    cropped = max(abs(own - side) for own, side in zip(small, large, strict=True)) <= CROPPED
    if cropped or not least < most:
        return None
    return math.sqrt(actual[0] * actual[1] / (stated[0] * stated[1]))


def _words(size: Size) -> str:
    return f"{size[0]}×{size[1]} px"
