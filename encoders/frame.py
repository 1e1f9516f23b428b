"""The geometry of one image on its way to the encoder, and the only conversion between patches and pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from encoders.errors import ImageError

#: More patches than this for one image means a degenerate aspect ratio, and attention over them would not end.
MAX_PATCHES = 65_536


@dataclass(frozen=True)
class Frame:
    """How one image's pixels became the encoder's grid of patches.

    Coordinates are pixels of the original image as displayed (after EXIF rotation), x to the right and y down, pixel centres at
    integers: the image covers [-0.5, width - 0.5] × [-0.5, height - 0.5].

    width, height: original size in pixels.
    grid: rows and columns of patches.
    patch, stride: side of a patch and step from one to the next, in encoder pixels.
    scale: encoder pixels per original pixel, (x, y).
    offset: left and top edge of the encoder's input, in pixels of the resized image, (x, y); positive where the image was cropped.
    """

    width: int
    height: int
    grid: tuple[int, int]
    patch: int
    stride: int
    scale: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the encoder's input in pixels."""
        rows, columns = self.grid
        return (rows - 1) * self.stride + self.patch, (columns - 1) * self.stride + self.patch

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the part of the original that the encoder sees, as distances from its left and top edge."""
        height, width = self.input_size
        (sx, sy), (ox, oy) = self.scale, self.offset
        return ox / sx, oy / sy, (ox + width) / sx, (oy + height) / sy

    def to_pixels(self, row: Any, col: Any) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """The centre of patch (row, col), in original pixels (x, y). Fractions of a patch are welcome."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        row, col = _points(row, col)
        x = (col * self.stride + self.patch / 2 + ox) / sx - 0.5
        y = (row * self.stride + self.patch / 2 + oy) / sy - 0.5
        return np.asarray(x), np.asarray(y)

    def to_grid(self, x: Any, y: Any) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """The fractional (row, col) whose centre is the original pixel (x, y): the inverse of `to_pixels`."""
        (sx, sy), (ox, oy) = self.scale, self.offset
        x, y = _points(x, y)
        col = ((x + 0.5) * sx - ox - self.patch / 2) / self.stride
        row = ((y + 0.5) * sy - oy - self.patch / 2) / self.stride
        return np.asarray(row), np.asarray(col)

    @property
    def real(self) -> Bool[np.ndarray, "h w"]:
        """Which patches have their centre on the image; the others are padding."""
        x, y = self.to_pixels(*np.indices(self.grid))
        inside = (x > -0.5) & (x < self.width - 0.5) & (y > -0.5) & (y < self.height - 0.5)
        return np.asarray(inside)

    def to_json(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "height": self.height,
            "grid": list(self.grid),
            "patch": self.patch,
            "stride": self.stride,
            "scale": list(self.scale),
            "offset": list(self.offset),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Frame:
        return cls(
            width=data["width"],
            height=data["height"],
            grid=(data["grid"][0], data["grid"][1]),
            patch=data["patch"],
            stride=data["stride"],
            scale=(data["scale"][0], data["scale"][1]),
            offset=(data["offset"][0], data["offset"][1]),
        )


def _points(first: Any, second: Any) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
    """Two coordinates of the same points, brought to one shape."""
    one, other = np.broadcast_arrays(np.asarray(first, np.float64), np.asarray(second, np.float64))
    return one, other


def crop_frame(width: int, height: int, *, resize: int, crop: int, patch: int) -> Frame:
    """Short side to `resize`, then the central square of side `crop`: the classification rule.

    Rounding is torchvision's, which the published evaluations used: the long side is truncated to whole pixels, the crop's
    corner rounded half to even.
    """
    short = min(width, height)
    new_width = resize if width == short else int(resize * width / short)
    new_height = resize if height == short else int(resize * height / short)
    return Frame(
        width=width,
        height=height,
        grid=(crop // patch, crop // patch),
        patch=patch,
        stride=patch,
        scale=(new_width / width, new_height / height),
        offset=(float(round((new_width - crop) / 2)), float(round((new_height - crop) / 2))),
    )


def dense_frame(width: int, height: int, *, size: int, patch: int) -> Frame:
    """Short side to `size`, each side rounded to whole patches, nothing cut off: the rule for dense features.

    Raises:
        ImageError: reason `too-elongated`, where that makes more than `MAX_PATCHES` patches.
    """
    factor = size / min(width, height)
    rows = max(1, math.floor(height * factor / patch + 0.5))
    columns = max(1, math.floor(width * factor / patch + 0.5))
    if rows * columns > MAX_PATCHES:
        raise ImageError(
            "too-elongated", f"{width}×{height} px would make {rows * columns:,} patches (at most {MAX_PATCHES:,})"
        )
    return Frame(
        width=width,
        height=height,
        grid=(rows, columns),
        patch=patch,
        stride=patch,
        scale=(columns * patch / width, rows * patch / height),
    )


def resample(image: UInt8[np.ndarray, "H W 3"], frame: Frame) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels that the encoder gets: Pillow's antialiased bicubic, computed for the part inside the frame only.

    Resizing the box alone equals resizing everything and cropping, because Pillow's filter reads the pixels outside the box
    too; it costs less, and a 1×5000 image does not become 128×640000 on the way. (Pillow keeps the box in single precision:
    of pure noise, one value in 3000 comes out a level off.) Rows come first, then columns, in two calls: with 8 bits in
    between the order matters, and given a box Pillow 13 takes the columns of tall images first where Pillow 12 did not.

    Raises:
        ValueError: the image has another size than the frame says, or the frame reaches beyond the image.
    """
    if (image.shape[1], image.shape[0]) != (frame.width, frame.height):
        raise ValueError(
            f"expected an image of {frame.width}×{frame.height} px as in its frame, got {image.shape[1]}×{image.shape[0]}"
        )
    height, width = frame.input_size
    left, top, right, bottom = frame.box
    if min(left, top) < 0 or right > frame.width * (1 + 1e-9) or bottom > frame.height * (1 + 1e-9):
        raise ValueError(
            f"expected a frame within the {frame.width}×{frame.height} px of its image, got {frame.box}: nothing is padded here"
        )
    # The division in `box` can overshoot the border by one rounding error, which Pillow refuses.
    right, bottom = min(right, float(frame.width)), min(bottom, float(frame.height))
    reach = 2 * max(1.0, (bottom - top) / height) + 1  # the bicubic filter's half-width, and a pixel for rounding
    first, last = max(0, math.floor(top - reach)), min(frame.height, math.ceil(bottom + reach))
    wide = Image.fromarray(image[first:last]).resize((width, last - first), _BICUBIC, (left, 0, right, last - first))
    return np.asarray(wide.resize((width, height), _BICUBIC, (0, top - first, width, bottom - first)))


_BICUBIC = Image.Resampling.BICUBIC
