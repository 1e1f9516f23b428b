"""Masks of images as masks of patches: from PNG files, and from one frame of an image to another."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.labels.image_sizes import size_difference
from fewmatch.names import DiskNames

#: A share that is off the limit by less than this is at the limit: the edges of patches are rounded.
_ROUNDING = 1e-9
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def find_masks(
    sources: Sequence[str | os.PathLike[str]], images: Sequence[str | os.PathLike[str]]
) -> list[Path | None]:
    """The mask file of each image.

    Args:
        sources: one folder that has a mask for every image, `<the image's folder>/<its stem>.png` or else `<its stem>.png`, names
            compared by `fewmatch.names.same_name`; or mask files, the i-th for the i-th image, images beyond the last of them having none.
        images: the image files.

    Raises:
        InputError: no source, folders together with anything else, more files than images, a missing mask, or one mask for two images.
    """
    paths, files = [Path(source) for source in sources], [Path(image) for image in images]
    if not paths:
        raise InputError("no masks: expected a folder of masks, or a mask file for each image")
    if not any(path.is_dir() for path in paths):
        if len(paths) > len(files):
            raise InputError(f"expected {len(files)} mask files or fewer, one for each image in turn, got {len(paths)}")
        return [*paths, *[None] * (len(files) - len(paths))]
    if len(paths) > 1:
        raise InputError(f"expected one folder of masks, or mask files alone, got {len(paths)} paths")
    folder, of = paths[0], dict[Path, Path]()
    found: list[Path | None] = []
    disk = DiskNames()
    for file in files:
        name = f"{file.stem}.png"
        near = disk.find(folder / file.absolute().parent.name / name)
        mask = near if near is not None and near.is_file() else disk.find(folder / name) or folder / name
        if not mask.is_file():
            raise InputError(f"no mask for {file}: expected {mask}")
        other = of.setdefault(mask, file.absolute())
        if other != file.absolute():
            raise InputError(
                f"{mask} is the mask of both {other} and {file}: put each into a folder called as the image's"
            )
        found.append(mask)
    return found


def read_mask(path: str | os.PathLike[str], size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    """The foreground that a PNG shows: where it is not black, and not fully transparent.

    Args:
        path: a PNG: grey of any depth, with a palette, or in colour of 8 bits a channel.
        size: width and height that it must have, those of the image as displayed (after EXIF rotation).

    Raises:
        InputError: the file cannot be read, is no PNG, or has another size.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"the mask {path} cannot be read: {error.strerror}") from error
    if not data.startswith(_SIGNATURE) or len(data) < 26:
        raise InputError(f"the mask {path} is no PNG: save it as one (lossy formats blur its edges)")
    width, height = struct.unpack(">II", data[16:24])
    if (width, height) != size:
        difference = size_difference((width, height), size)
        raise InputError(
            f"expected the mask {path} of {size[0]}×{size[1]} px as its image, got {width}×{height}"
            + ("" if difference is None or difference.kind != "swapped" else difference.hint)
        )
    depth, colour_type = data[24], data[25]
    if depth == 16 and colour_type != 0:
        # Pillow keeps the upper 8 bits of colours: a small value would be black.
        raise InputError(f"the mask {path} has colours of 16 bits: save it as grey, or with 8 bits a channel")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the image has this size too
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                return _shown(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"the mask {path} cannot be decoded: {str(error).splitlines()[0]}") from error


def _shown(image: Image.Image) -> Bool[np.ndarray, "H W"]:
    if image.mode in ("1", "L") or image.mode.startswith("I"):
        return np.asarray(np.asarray(image) != 0)
    rgba = np.asarray(image.convert("RGBA"))
    return np.asarray(rgba[..., :3].any(axis=2) & (rgba[..., 3] != 0))


def patch_mask(mask: Bool[np.ndarray, "H W"], frame: Frame, share: float = 0.5) -> Bool[np.ndarray, "h w"]:
    """Which patches are foreground: those with at least a share of what they cover of the image, in area. Padding never is.

    Pixels are squares of side 1, and areas are exact: a patch may begin and end inside of pixels.

    Args:
        mask: the foreground, of the image's height and width. frame: its geometry.
        share: more than 0, at most 1.

    Raises:
        InputError: a mask of another size than the frame's image, or a share out of range.
    """
    if mask.shape != (frame.height, frame.width):
        raise InputError(
            f"expected a mask of {frame.width}×{frame.height} px as in its frame, got {mask.shape[1]}×{mask.shape[0]}"
        )
    if not 0 < share <= 1:
        raise InputError(f"expected a share of more than 0 and at most 1, got {share}")
    half = frame.patch / frame.stride / 2  # of a patch's side, in steps of the grid
    rows, columns = (np.arange(length) for length in frame.grid)
    xs = np.stack([frame.to_pixels(0, columns + side)[0] for side in (-half, half)]) + 0.5
    ys = np.stack([frame.to_pixels(rows + side, 0)[1] for side in (-half, half)]) + 0.5
    xs, ys = np.clip(xs, 0, frame.width), np.clip(ys, 0, frame.height)
    strips = _between(mask.astype(np.uint8), *ys)
    foreground = _between(strips.T, *xs).T
    area = np.outer(ys[1] - ys[0], xs[1] - xs[0])
    return np.asarray(frame.real & (foreground >= (share - _ROUNDING) * area))


def _between(values: np.ndarray, low: Float[np.ndarray, "e"], high: Float[np.ndarray, "e"]) -> Float[np.ndarray, "e m"]:
    """What lies between two heights, of (n, m) rows that are 1 high and constant in themselves."""
    sums = np.zeros((len(values) + 1, values.shape[1]), np.uint32 if values.dtype == np.uint8 else np.float64)
    np.cumsum(values, axis=0, out=sums[1:])

    def below(edges: Float[np.ndarray, "e"]) -> Float[np.ndarray, "e m"]:
        whole = np.minimum(np.floor(edges).astype(int), len(values) - 1)
        return np.asarray(sums[whole] + (edges - whole)[:, None] * values[whole])

    return np.asarray(below(high) - below(low))


def move_mask(mask: Bool[np.ndarray, "h w"], frame: Frame, to: Frame) -> Bool[np.ndarray, "_h _w"]:
    """A mask for another grid over the same image: each patch there takes what the patch says whose centre is nearest in `frame`.

    The grid of `Frame.mirrored` need not have the same patches as the image's own: where overlapping patches leave a rest at the right,
    the mirrored ones leave it at the left. Of two centres that are equally near the one at the left, or above, counts.

    Raises:
        InputError: a mask that does not fit `frame`, or frames of images of different sizes.
    """
    _check_grid(mask, frame)
    if (frame.width, frame.height) != (to.width, to.height):
        raise InputError(
            f"expected frames of one image, got one of {frame.width}×{frame.height} px and one of {to.width}×{to.height}"
        )
    row, column = frame.to_grid(*to.to_pixels(*np.indices(to.grid)))
    nearest = [_nearest(place, length) for place, length in zip((row, column), frame.grid, strict=True)]
    return np.asarray(mask[nearest[0], nearest[1]] & to.real)


def pixel_mask(mask: Bool[np.ndarray, "h w"], frame: Frame) -> Bool[np.ndarray, "_H _W"]:
    """A mask of patches for every pixel of the image: what the patch says whose centre is nearest; False where no patch is.

    Raises:
        InputError: a mask that does not fit `frame`.
    """
    _check_grid(mask, frame)
    y, x = np.arange(frame.height), np.arange(frame.width)
    row, column = frame.to_grid(0, y)[0], frame.to_grid(x, 0)[1]
    nearest = [_nearest(place, length) for place, length in zip((row, column), frame.grid, strict=True)]
    left, top, right, bottom = frame.box
    seen = ((y + 0.5 > top) & (y + 0.5 < bottom))[:, None] & ((x + 0.5 > left) & (x + 0.5 < right))
    return np.asarray(mask[np.ix_(*nearest)] & seen)


def _check_grid(mask: Bool[np.ndarray, "_h _w"], frame: Frame) -> None:
    if mask.shape != frame.grid:
        raise InputError(
            f"expected a mask of {frame.grid[0]} × {frame.grid[1]} patches as in its frame, got {mask.shape[0]} × {mask.shape[1]}"
        )


def _nearest(place: Float[np.ndarray, "*s"], length: int) -> Int[np.ndarray, "*s"]:
    """The row or column whose centre is nearest to a fractional one; half way between two it is the first."""
    return np.clip(np.ceil(place - 0.5 - _ROUNDING), 0, length - 1).astype(np.int64)
