"""How an encoder's input pixels are prepared: a record that travels with the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fewmatch.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How an encoder's training and evaluation prepare pixels; it travels with the weights.

    Pixels are RGB, divided by 255, minus `mean`, divided by `std`. Resizing is antialiased, as Pillow does it with its `interpolation`:
    `bicubic`, `bilinear` or `lanczos`.
    For classification the short side (with `squash`: both sides, whatever the shape) becomes `resize` and the central square of side
    `crop` is kept; for dense use `dense` is the side that the resize rule speaks of (`fewmatch.encoders.frame.RESIZE_RULES`): the short one,
    unless told otherwise. All sizes in pixels.
    """

    resize: int
    crop: int
    dense: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"
    squash: bool = False

    def at(self, size: int | None, patch: int) -> Preprocessing:
        """The same preparation at another size; the share that the crop cuts off stays as it is.

        Args:
            size: side of the crop, and `dense`, in pixels; None leaves the defaults.
            patch: patch size in pixels, of which `size` must be a multiple, unless it is the default crop.

        Raises:
            InputError: `size` is not a positive multiple of `patch`.
        """
        if size is None:
            return self
        if size == self.crop and size % patch:  # a checkpoint of its own may leave a part of a patch unseen at the edge
            return dataclasses.replace(self, dense=size // patch * patch)
        if size < patch or size % patch:
            below = max(size // patch, 1) * patch
            raise InputError(f"size {size} is not a multiple of the patch size {patch}: try {below} or {below + patch}")
        return dataclasses.replace(self, resize=round(size * self.resize / self.crop), crop=size, dense=size)

    def to_json(self) -> dict[str, Any]:
        """For keys of stores, so without what nearly all encoders have; `squash` is told by the key's rule."""
        facts = dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        del facts["squash"]
        if self.interpolation == "bicubic":
            del facts["interpolation"]
        return facts
