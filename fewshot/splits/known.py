"""The published few-shot splits: how each is recognised by what it holds, and how much it should hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

#: What a message says when something is no split.
EXPECTED = "a CSV or text list of images or classes, JSON with classes or images, or a folder of class folders"
#: Names of parts as the different authors write them, without `meta-` in front, and ours.
PARTS = {
    "train": "train",
    "base": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "novel": "test",
    "trainval": "trainval",
}


@dataclass(frozen=True)
class Published:
    """What a split should hold: classes and images for each part, None where that is not published."""

    name: str
    classes: dict[str, int] | None = None
    images: dict[str, int] | None = None


_MINI_IMAGES = {"train": 38400, "val": 9600, "test": 12000}
_CUB_CLASSES = {"train": 100, "val": 50, "test": 50}
_CUB_IMAGES = {"train": 5885, "val": 2950, "test": 2953}
_TIERED = {"train": 351, "val": 97, "test": 160}

RAVI = Published("mini-ImageNet (Ravi)", {"train": 64, "val": 16, "test": 20}, _MINI_IMAGES)
MINI_EASYFSL = Published("mini-ImageNet (easyfsl)", {"train": 64, "val": 16, "test": 20}, _MINI_IMAGES)
VINYALS = Published("mini-ImageNet (Vinyals)", None, {"train": 36000, "val": 12001, "test": 12001, "trainval": 48002})
TIERED_LIST = Published("tiered-ImageNet (class list)", _TIERED)
TIERED_CSV = Published("tiered-ImageNet (SimpleShot)", _TIERED)
TIERED_EASYFSL = Published("tiered-ImageNet (easyfsl)", _TIERED)
CIFAR_FS = Published("CIFAR-FS", {"train": 64, "val": 16, "test": 20})
FC100 = Published("FC100", {"train": 60, "val": 20, "test": 20})
CUB_CLOSERLOOK = Published("CUB (CloserLook)", _CUB_CLASSES, _CUB_IMAGES)
CUB_TIM = Published("CUB (TIM)", _CUB_CLASSES, _CUB_IMAGES)
CUB_FEAT = Published("CUB (FEAT)", _CUB_CLASSES, {"test": 2965})
CUB_EASYFSL = Published("CUB (easyfsl)", {"train": 140, "val": 30, "test": 30})
CUB_META_DATASET = Published("CUB (Meta-Dataset)", {"train": 140, "val": 30, "test": 30})

WNID = re.compile(r"n\d{8}")
_CUB_CLASS = re.compile(r"\d{3}\.[A-Za-z_]+")
_CUB_IMAGE = re.compile(r"[A-Za-z_]+_\d{4}_\d{3,6}\.jpg")
_RAVI_IMAGE = re.compile(r"n\d{16}\.(jpg|jpeg|png)", re.IGNORECASE)
_IMAGENET_IMAGE = re.compile(r"n\d{8}_\d+\.jpe?g", re.IGNORECASE)
_TIERED_IMAGE = re.compile(r"(train|val|test)_\d+_\d+_\d+\.png")

#: The fine labels of CIFAR-100, which CIFAR-FS and FC100 divide.
_CIFAR_100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm "
)
CIFAR_100 = frozenset(_CIFAR_100.split())


def part_of(name: str) -> str | None:
    """Which part a name of a file, folder or key says: train, val, test or trainval; None where it says none."""
    return PARTS.get(name.lower().removeprefix("meta-").removeprefix("meta_"))


def known_image_list(
    names: Sequence[str], labels: Sequence[str], header: Sequence[str], columns: int
) -> Published | None:
    """The published list that rows of (image name, label) are, by their first row and the whole header; None for others."""
    folder, _, file = names[0].rpartition("/")
    wnid = WNID.fullmatch(labels[0]) is not None
    if wnid and "class_name" in header and _IMAGENET_IMAGE.fullmatch(file):
        return MINI_EASYFSL
    if wnid and _RAVI_IMAGE.fullmatch(file):
        return RAVI
    if wnid and not folder and "label" not in header and _IMAGENET_IMAGE.fullmatch(file):
        return VINYALS
    if labels[0].isdigit() and _TIERED_IMAGE.fullmatch(file):
        return TIERED_CSV
    if labels[0].isdigit() and _CUB_CLASS.fullmatch(folder.rpartition("/")[2]):
        return CUB_TIM
    if columns > 2 and not folder and _CUB_IMAGE.fullmatch(file):
        return CUB_FEAT
    return None


def known_class_list(classes: Collection[str], cub: Published, tiered: Published | None) -> Published | None:
    """The published list that class names are: CIFAR's, CUB's in this author's version, or tiered-ImageNet's."""
    if set(classes) <= CIFAR_100:
        return FC100 if len(classes) == 60 else CIFAR_FS
    if all(_CUB_CLASS.fullmatch(c) for c in classes):
        return cub
    if tiered is not None and all(WNID.fullmatch(c) for c in classes):
        return tiered
    return None


def part_by_counts(published: Published | None, classes: int, images: int) -> str | None:
    """The part whose published counts are these, if there is just one."""
    if published is None:
        return None
    parts = {
        part
        for counts, got in ((published.images, images), (published.classes, classes))
        for part, number in (counts or {}).items()
        if got and number == got
    }
    return parts.pop() if len(parts) == 1 else None


def part_by_names(names: Sequence[str]) -> str | None:
    """The part that tiered-ImageNet's image names begin with, if it is one."""
    found = {match[1] if (match := _TIERED_IMAGE.fullmatch(name)) else None for name in names}
    return found.pop() if len(found) == 1 else None


def count_warnings(published: Published | None, part: str | None, classes: int, images: int) -> list[str]:
    """One line for each count that is not the published one."""
    if published is None or part is None:
        return []
    return [
        f"{published.name}, {part}: expected {counts[part]:,} {what}, got {got:,}"
        for counts, got, what in ((published.classes, classes, "classes"), (published.images, images, "images"))
        if counts and got and part in counts and counts[part] != got
    ]
