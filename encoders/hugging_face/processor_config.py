"""A Hugging Face `preprocessor_config.json` as a `Preprocessing`: the model's own sizes, interpolation, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.errors import InputError

#: Pillow's numbers, in which the files name filters.
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

#: Processors for which a `size` that is one number is the short side; for all others it is the side of a square.
_SHORT_SIDE = ("CLIP", "ChineseCLIP", "Bit", "ConvNext", "MobileNet", "MobileViT", "PoolFormer", "Levit")

#: At this size and above, ConvNeXt's processor resizes to a square and cuts nothing off.
_CONVNEXT_SQUARE = 384


def preprocessing_of(
    processor: Mapping[str, Any], where: str, *, patch: int, image_size: int | None = None
) -> Preprocessing:
    """What the file asks for, with the classification crop as its resize and crop, and `image_size` for dense use.

    Missing entries mean what transformers takes them for: resizing, dividing by 255 and normalising are on, and the centre is cropped
    where a `crop_size` is given. Where the short side is resized and nothing cropped, the central square is taken: a batch has one shape.
    `longest_edge` (SAM), which pads, is taken for the short side, as in our own `sam`.

    Args:
        processor: the file's content. where: the file, for messages.
        patch: the network's patch size; the default for dense use is made a multiple of it.
        image_size: side of the images that the network was made for; None is the crop.

    Raises:
        InputError: an entry that is not understood, or that asks for something that `Preprocessing` cannot do.
    """

    def refuse(problem: str) -> InputError:
        return InputError(f"{where}: {problem}: this preparation of pixels is not supported")

    for name in ("do_flip_channel_order", "do_thumbnail", "do_grayscale", "rescale_offset", "include_top"):
        if processor.get(name):
            raise refuse(f"{name} is {processor[name]}")
    if not processor.get("do_resize", True):
        raise refuse("do_resize is off")
    resize, squash, crop = _sizes(processor, refuse)
    number = processor.get("resample")
    if number not in _FILTERS:
        known = ", ".join(f"{key} ({name})" for key, name in _FILTERS.items())
        raise refuse(f"resample is {number}, expected one of {known}")
    mean, std = _normalisation(processor, refuse)
    if crop < patch:
        raise refuse(f"images of {crop} px are smaller than a patch of {patch} px")
    dense = max((image_size or crop) // patch, 1) * patch
    return Preprocessing(resize, crop, dense, mean, std, interpolation=_FILTERS[number], squash=squash)


def _sizes(processor: Mapping[str, Any], refuse: Any) -> tuple[int, bool, int]:
    """The side that is resized to, whether both sides are, and the side of the crop."""
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    size = processor.get("size")
    if isinstance(size, int):
        size = {"shortest_edge": size} if kind.startswith(_SHORT_SIDE) else {"height": size, "width": size}
    given = {key: value for key, value in size.items() if value is not None} if isinstance(size, Mapping) else {}
    if set(given) not in ({"shortest_edge"}, {"longest_edge"}, {"height", "width"}):
        raise refuse(f"size is {size}, expected one number, shortest_edge, longest_edge, or height and width")
    sides = {int(value) for value in given.values()}
    if len(sides) > 1 or min(sides) < 1:
        raise refuse(f"size is {size}, expected a square")
    resize, squash = sides.pop(), "height" in given
    if kind.startswith("ConvNext"):
        # Its `size` is that of the crop, and what is cut off is said as a share.
        if squash or resize >= _CONVNEXT_SQUARE:
            return resize, True, resize
        share = processor.get("crop_pct") or 224 / 256
        return int(resize / share), False, resize
    if processor.get("crop_pct"):
        resize = int(resize / processor["crop_pct"])
    crop = processor.get("crop_size")
    if not processor.get("do_center_crop", crop is not None):
        return resize, squash, resize
    edges = set(crop.values()) - {None} if isinstance(crop, Mapping) else {crop}
    side = edges.pop() if len(edges) == 1 else None
    if not isinstance(side, int | float):
        raise refuse(f"crop_size is {crop}, expected a square")
    side = int(side)
    if not 1 <= side <= resize:
        raise refuse(f"crop_size is {crop}, expected at most the {resize} px that are resized to")
    return resize, squash, side


def _normalisation(
    processor: Mapping[str, Any], refuse: Any
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of values from 0 to 1, whatever the file's factor makes of them."""
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize", True):
        mean, std = (_three(processor.get(name)) for name in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise refuse(
            f"image_mean is {processor.get('image_mean')} and image_std {processor.get('image_std')}, expected three numbers each"
        )
    # Times 255, the file's factor is what it means for values from 0 to 1: one, but for its rounding.
    factor = 255 * float(processor.get("rescale_factor") or 1 / 255) if processor.get("do_rescale", True) else 255.0
    factor = 1.0 if abs(factor - 1) < 1e-6 else factor
    mean, std = [value / factor for value in mean], [value / factor for value in std]
    if not all(0 <= value <= 1 for value in mean):
        raise refuse(f"image_mean is {processor.get('image_mean')}, expected colours")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _three(value: Any) -> list[float]:
    """A list of numbers; one number stands for all three channels, anything else for nothing."""
    if isinstance(value, int | float):
        return [float(value)] * 3
    numbers = value if isinstance(value, list) else []
    return [float(number) for number in numbers if isinstance(number, int | float)]
