"""Images as correspondence needs them: at one size or two, mirrored where that is asked for, with the patches that take part."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fewmatch.cli import output
from fewmatch.cli.inputs.maps import ImageMaps, open_maps

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.encoders import Frame


@dataclass(frozen=True)
class View:
    """One image as the encoder sees it. valid: patches that take part, None for all."""

    map: np.ndarray
    frame: Frame
    valid: np.ndarray | None


@dataclass
class Views:
    """Images at one size, as they are and mirrored. masks: for each image the patches that take part, or None for all.

    place: where an image is among the mirrored ones.
    """

    maps: ImageMaps
    masks: list[np.ndarray | None]
    mirrored: ImageMaps | None = None
    place: dict[int, int] = field(default_factory=dict)

    def view(self, index: int, mirrored: bool = False) -> View:
        from fewmatch.matching.masks import move_mask

        mask = self.masks[index]
        if not mirrored:
            return View(self.maps.map(index), self.maps.frame(index), mask)
        assert self.mirrored is not None
        frame = self.mirrored.frame(self.place[index])
        moved = None if mask is None else move_mask(mask, self.maps.frame(index), frame)
        return View(self.mirrored.map(self.place[index]), frame, moved)


@dataclass(frozen=True)
class ImageMasks:
    """Of each image the patches that take part, and the given masks in pixels; None for all."""

    patches: list[np.ndarray | None]
    pixels: list[np.ndarray | None]


@contextlib.contextmanager
def open_views(
    maps: ImageMaps,
    images: Sequence[Path],
    masks: ImageMasks,
    *,
    mirrored: Sequence[int] = (),
    fine_size: int | None = None,
) -> Iterator[tuple[Views, Views | None]]:
    """The images at the size of `maps` and at the fine size, where there is one. What has to be encoded for that is, here.

    Args:
        images: what the user named. mirrored: those of `maps` that are needed mirrored too.

    Raises:
        InputError: a store where images are needed, or a fine size that is no larger.
    """
    place = {image: i for i, image in enumerate(mirrored)}
    with contextlib.ExitStack() as stack:
        turned = stack.enter_context(maps.mirrored(mirrored)) if mirrored else None
        fine = None
        if fine_size is not None:
            finer = stack.enter_context(_fine_maps(maps, images, fine_size))
            fine_turned = (
                stack.enter_context(finer.mirrored(mirrored, "encoding mirrored, finely")) if mirrored else None
            )
            fine = Views(finer, _fine_masks(maps, finer, masks), fine_turned, place)
        yield Views(maps, masks.patches, turned, place), fine


def masks_of(maps: ImageMaps, files: Sequence[Path], kind: Literal["none", "pca", "cls"]) -> ImageMasks:
    """The given masks, a file for each image or a folder, or the foreground that is found where there are none.

    Raises:
        InputError: masks that do not fit the images.
    """
    from fewmatch.matching import find_masks, foreground_masks, patch_mask, read_mask

    frames = [maps.frame(i) for i in range(len(maps))]
    none: list[np.ndarray | None] = [None] * len(maps)
    if files:
        found = find_masks([str(path) for path in files], [str(file) for file in maps.files])
        pixels = [
            None if file is None else read_mask(file, (f.width, f.height))
            for file, f in zip(found, frames, strict=True)
        ]
        return ImageMasks(
            [None if m is None else patch_mask(m, f) for m, f in zip(pixels, frames, strict=True)], pixels
        )
    if kind == "none":
        return ImageMasks(none, none)
    with output.progress("foreground") as update:
        vectors = maps.vectors() if kind == "cls" else None
        foreground = foreground_masks(maps.map, frames, kind=kind, vectors=vectors, progress=update)
    return ImageMasks(list(foreground.masks), none)


@contextlib.contextmanager
def _fine_maps(maps: ImageMaps, images: Sequence[Path], size: int) -> Iterator[ImageMaps]:
    """The same images, encoded at a larger size."""
    from fewmatch.errors import InputError

    coarse = maps.key["preprocessing"]["dense"]
    if size <= coarse:
        raise InputError(f"expected --fine-size above --size, which is {coarse}, got {size}")
    if len(images) == 1 and (images[0] / "meta.json").is_file():
        raise InputError(f"--fine-size needs the images, not the store {images[0]}")
    with open_maps(images, dataclasses.replace(maps.choice, size=size), "encoding finely") as fine:
        if [row["sha256"] for row in fine.rows] != [row["sha256"] for row in maps.rows]:
            raise InputError(f"the images cannot all be encoded at --fine-size {size}, or changed meanwhile")
        yield fine


def _fine_masks(coarse: ImageMaps, fine: ImageMaps, masks: ImageMasks) -> list[np.ndarray | None]:
    """Given masks are looked at again; a foreground found in the coarse maps is taken over."""
    from fewmatch.matching import patch_mask
    from fewmatch.matching.masks import move_mask

    return [
        None
        if mask is None
        else move_mask(mask, coarse.frame(i), fine.frame(i))
        if pixel is None
        else patch_mask(pixel, fine.frame(i))
        for i, (mask, pixel) in enumerate(zip(masks.patches, masks.pixels, strict=True))
    ]
