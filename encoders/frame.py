"""The geometry of one image on its way to the encoder, and the only conversion between patches and pixels."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from fewmatch.errors import ImageError

#: How an image becomes the encoder's input for dense features, `size` pixels being given:
#: keep: the short side becomes `size`, each side is rounded to whole patches, nothing is cut off. crop: the short side becomes `size`, and
#: the central square is kept. pad: the long side becomes `size`, each side is rounded to whole patches, and whole patches of padding
#: around it make a square. squash: both sides become `size`, whatever the shape.
ResizeRule = Literal["keep", "crop", "pad", "squash"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)

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
    offset: left and top edge of the encoder's input, in pixels of the resized image, (x, y); positive where the image was cropped,
        negative where it was padded.
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

    def mirrored(self) -> Frame:
        """The same patches in the picture with left and right exchanged: patch (row, w − 1 − col) lies where (row, col) did.

        A map made from the mirrored picture, its columns reversed, has this frame of its frame in the picture as it is. What a stride
        leaves over at the right lies at the left then, so the new patches need not be any that the picture itself would have.
        """
        across = self.width * self.scale[0]
        if abs(across - round(across)) < 1e-6:  # every resize rule makes whole pixels; what is off is rounding
            across = float(round(across))
        return dataclasses.replace(self, offset=(across - self.offset[0] - self.input_size[1], self.offset[1]))

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


def crop_frame(
    width: int,
    height: int,
    *,
    resize: int,
    crop: int,
    patch: int,
    squash: bool = False,
    place: tuple[float, float] = (0.5, 0.5),
) -> Frame:
    """Short side (with `squash`: both sides) to `resize`, then the central square of side `crop`: the classification rule.

    `place` puts the square elsewhere: (0, 0) into the corner at the left and top, (1, 1) into that at the right and bottom.

    Rounding is torchvision's, which the published evaluations used: the long side is truncated to whole pixels, the crop's
    corner rounded half to even.
    """
    short = min(width, height)
    new_width = resize if squash or width == short else int(resize * width / short)
    new_height = resize if squash or height == short else int(resize * height / short)
    return Frame(
        width=width,
        height=height,
        grid=(crop // patch, crop // patch),
        patch=patch,
        stride=patch,
        scale=(new_width / width, new_height / height),
        offset=(float(round((new_width - crop) * place[0])), float(round((new_height - crop) * place[1]))),
    )


def dense_frame(width: int, height: int, *, size: int, patch: int) -> Frame:
    """Short side to `size`, each side rounded to whole patches, nothing cut off: the rule for dense features.

    Raises:
        ImageError: reason `too-elongated`, where that makes more than `MAX_PATCHES` patches.
    """
    factor = size / min(width, height)
    rows = max(1, math.floor(height * factor / patch + 0.5))
    columns = max(1, math.floor(width * factor / patch + 0.5))
    _check_patches(width, height, rows, columns)
    return Frame(
        width=width,
        height=height,
        grid=(rows, columns),
        patch=patch,
        stride=patch,
        scale=(columns * patch / width, rows * patch / height),
    )


def padded_frame(width: int, height: int, *, size: int, patch: int) -> Frame:
    """Long side to `size`, each side rounded to whole patches, then whole patches of padding on both sides to a square.

    The image lies in the middle, half a patch off where the number of padding patches is odd. No patch is partly padding.
    """
    factor, across = size / max(width, height), size // patch
    rows = max(1, math.floor(height * factor / patch + 0.5))
    columns = max(1, math.floor(width * factor / patch + 0.5))
    return Frame(
        width=width,
        height=height,
        grid=(across, across),
        patch=patch,
        stride=patch,
        scale=(columns * patch / width, rows * patch / height),
        offset=(float(-((across - columns) // 2) * patch), float(-((across - rows) // 2) * patch)),
    )


def with_stride(frame: Frame, stride: int) -> Frame:
    """The frame of the same pixels with patches that begin every `stride` pixels and so overlap (Amir et al. 2021).

    What is left over at the right and at the bottom, less than a stride, is not seen.

    Raises:
        ImageError: reason `too-elongated`, where that makes more than `MAX_PATCHES` patches.
    """
    if stride == frame.stride:
        return frame
    height, width = frame.input_size
    rows, columns = (height - frame.patch) // stride + 1, (width - frame.patch) // stride + 1
    _check_patches(frame.width, frame.height, rows, columns)
    return dataclasses.replace(frame, grid=(rows, columns), stride=stride)


def _check_patches(width: int, height: int, rows: int, columns: int) -> None:
    if rows * columns > MAX_PATCHES:
        raise ImageError(
            "too-elongated", f"{width}×{height} px would make {rows * columns:,} patches (at most {MAX_PATCHES:,})"
        )


def resized_frame(width: int, height: int, *, size: int, patch: int, rule: ResizeRule) -> Frame:
    """The frame of an image of this size under one of `RESIZE_RULES`; `size` is a multiple of `patch`.

    Raises:
        ImageError: reason `too-elongated`, with `keep`, where that makes more than `MAX_PATCHES` patches.
    """
    if rule == "keep":
        return dense_frame(width, height, size=size, patch=patch)
    if rule == "pad":
        return padded_frame(width, height, size=size, patch=patch)
    if rule == "crop":
        return crop_frame(width, height, resize=size, crop=size, patch=patch)
    across = size // patch
    return Frame(width, height, (across, across), patch, patch, scale=(size / width, size / height))


def resample(
    image: UInt8[np.ndarray, "H W 3"],
    frame: Frame,
    fill: tuple[int, int, int] = (0, 0, 0),
    *,
    reduction: int = 1,
    overhang: tuple[int, int] = (0, 0),
    interpolation: str = "bicubic",
) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels that the encoder gets: the image resized, cropped and padded as its frame says.

    Args:
        image: the original, or the original reduced (see `fewmatch.encoders.images.Decoded`); the frame is the original's in either case.
        fill: the padding's colour.
        reduction: original pixels on a side of one of the image's. overhang: how many of them the image begins left of and above the original.
        interpolation: Pillow's antialiased `bicubic`, `bilinear` or `lanczos`.

    Raises:
        ValueError: the image has another size than the frame says, or padding would begin inside a pixel.
    """
    wide, high = (-(-length // reduction) for length in (frame.width, frame.height))
    if (image.shape[1], image.shape[0]) != (wide, high):
        raise ValueError(
            f"expected an image of {wide}×{high} px as in its frame, got {image.shape[1]}×{image.shape[0]}"
        )
    height, width = frame.input_size
    (sx, sy), (ox, oy) = frame.scale, frame.offset
    # The part of the input that the image covers, in pixels of the input.
    left, right = _covered(-ox, frame.width * sx - ox, width)
    top, bottom = _covered(-oy, frame.height * sy - oy, height)
    edges = ((left + ox) / sx, (top + oy) / sy, (right + ox) / sx, (bottom + oy) / sy)
    x0, y0, x1, y1 = ((edge + before) / reduction for edge, before in zip(edges, 2 * overhang, strict=True))
    box = (x0, y0, x1, y1)
    pixels = _resized(image, box, bottom - top, right - left, interpolation)
    if pixels.shape[:2] == (height, width):
        return pixels
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = fill
    canvas[top:bottom, left:right] = pixels
    return canvas


def _covered(first: float, last: float, length: int) -> tuple[int, int]:
    """The part of [0, length] that lies in [first, last], in whole pixels."""
    edges = (max(0.0, first), min(float(length), last))
    start, stop = round(edges[0]), round(edges[1])
    if max(abs(edges[0] - start), abs(edges[1] - stop)) > 1e-6 * max(1, length):
        raise ValueError(f"expected padding that begins between two pixels, got the image at {first:g} to {last:g} px")
    if start >= stop:
        raise ValueError(f"expected a frame that shows some of its image, got the image at {first:g} to {last:g} px")
    return start, stop


def _resized(
    image: UInt8[np.ndarray, "H W 3"], box: tuple[float, float, float, float], height: int, width: int, rule: str
) -> UInt8[np.ndarray, "h w 3"]:
    """A box of the image at another size: Pillow's antialiased filter, computed for what is in the box only.

    Resizing the box alone equals resizing everything and cropping, because Pillow's filter reads the pixels outside the box
    too; it costs less, and a 1×5000 image does not become 128×640000 on the way. (Pillow keeps the box in single precision:
    of pure noise, one value in 3000 comes out a level off.)

    Pillow resizes one direction after the other and rounds to 8 bits in between, so the order changes pixels. Here it is always width
    first, then height, in two calls: the pixels are the same with every Pillow. One call of Pillow 12 or earlier gives the same. Pillow 13
    resizes the height first where W×H px become w×h with H > h and H − h > 2·(W − w), so its pixels differ there (docs/encoders.md).
    """
    left, top, right, bottom = box
    # The division in the box can overshoot the border by one rounding error, which Pillow refuses.
    left, top = max(left, 0.0), max(top, 0.0)
    right, bottom = min(right, float(image.shape[1])), min(bottom, float(image.shape[0]))
    resampling, half_width = _FILTERS[rule]
    reach = half_width * max(1.0, (bottom - top) / height) + 1  # and a pixel for rounding
    first, last = max(0, math.floor(top - reach)), min(image.shape[0], math.ceil(bottom + reach))
    wide = Image.fromarray(image[first:last]).resize((width, last - first), resampling, (left, 0, right, last - first))
    return np.asarray(wide.resize((width, height), resampling, (0, top - first, width, bottom - first)))


#: Pillow's filters and their half-widths in pixels of the smaller image.
_FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, 1),
    "bicubic": (Image.Resampling.BICUBIC, 2),
    "lanczos": (Image.Resampling.LANCZOS, 3),
}
