"""CUB-200-2011: birds with 15 parts. The data set has no pairs: they are drawn with a seed among the images of a class.

    images/<class>/<image>.jpg
    images.txt (id, path), image_class_labels.txt (id, class), train_test_split.txt (id, 1 for training)
    bounding_boxes.txt (id, x, y, width, height), parts/parts.txt (part, name), parts/part_locs.txt (id, part, x, y, visible)

Points are the parts that are visible in both images. Coordinates are counted from 1: the data set does not say it, but the annotations of
CMR and ACSM, which hold the same numbers, do.
Source: Wah et al. 2011, README; CMR, doc/train.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Float

from fewmatch.errors import InputError
from fewmatch.labels.cells import number
from fewmatch.matching.benchmarks.left_right import twins_of
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair, Box
from fewmatch.matching.benchmarks.records import corners, finished, require_folder, text_of

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 1, 0.0

SPLITS = ("train", "test", "all")
#: How many pairs of each class are drawn unless told.
PAIRS = 10


def read_cub(folder: Path, split: str = "test", *, pairs: int = PAIRS, seed: int = 0) -> Benchmark:
    """Pairs of two images of one class, drawn: each ordered pair is as likely as any other, and none is drawn twice.

    Args:
        folder: CUB_200_2011, in which images.txt lies.
        split: one of `SPLITS`.
        pairs: how many of each class; all where a class has fewer (n images make n·(n − 1)).
        seed: of the drawing.

    Raises:
        InputError: a missing or damaged file, or numbers out of range.
    """
    if pairs < 1 or seed < 0:
        raise InputError(f"expected 1 or more pairs a class and a seed of 0 or more, got {pairs} and {seed}")
    require_folder(folder, "CUB_200_2011")
    paths = {image: path for image, (path,) in _lines(folder, "images.txt", 1)}
    classes = {image: _whole(cells[0], where) for image, cells, where in _located(folder, "image_class_labels.txt", 1)}
    training = {image: _flag(cells[0], where) for image, cells, where in _located(folder, "train_test_split.txt", 1)}
    boxes = {image: _box(cells, where) for image, cells, where in _located(folder, "bounding_boxes.txt", 4)}
    names = _part_names(folder)
    xy, visible = _parts(folder, names)
    chosen = [image for image in paths if split == "all" or training.get(image) == (split == "train")]
    for file, known in (
        ("image_class_labels.txt", classes),
        ("train_test_split.txt", training),
        ("bounding_boxes.txt", boxes),
        ("parts/part_locs.txt", xy),
    ):
        missing = [image for image in paths if image not in known]
        if missing:
            raise InputError(
                f"{folder / file} has no line for {len(missing):,} of {len(paths):,} images, the first is image "
                f"{missing[0]} ({paths[missing[0]]}): the file may be cut off, copy it again"
            )
    of_class: dict[int, list[int]] = {}
    for image in chosen:
        of_class.setdefault(classes[image], []).append(image)
    rng = np.random.default_rng(seed)
    rows = []
    for index in sorted(of_class):
        images = of_class[index]
        for a, b in _drawn(images, pairs, rng):
            path_a, path_b = PurePosixPath(paths[a]), PurePosixPath(paths[b])
            both = np.flatnonzero(visible[a] & visible[b])
            rows.append(
                BenchmarkPair(
                    name=f"{path_a.stem}-{path_b.stem}",
                    category=path_a.parent.name or str(index),
                    path_a=folder / "images" / path_a,
                    path_b=folder / "images" / path_b,
                    points_a=xy[a][both] - ORIGIN - CENTRE,
                    points_b=xy[b][both] - ORIGIN - CENTRE,
                    points=tuple(names[k] for k in both),
                    twins=twins_of([names[k] for k in both]),
                    box_a=boxes[a],
                    box_b=boxes[b],
                )
            )
    return finished(
        "cub",
        split,
        rows,
        folder,
        choices={"pairs_per_class": pairs, "seed": seed},
        images=f"expected them in {folder / 'images'}",
    )


def _drawn(images: list[int], pairs: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Ordered pairs of two of the images: number p is image p // (n − 1) and the (p % (n − 1))-th of the others."""
    others = len(images) - 1
    for p in rng.permutation(len(images) * others)[:pairs].tolist():
        a, b = divmod(p, others)
        yield images[a], images[b + (b >= a)]


def _located(folder: Path, name: str, count: int) -> Iterator[tuple[int, list[str], str]]:
    """Image, the other cells and the place of each line of a list."""
    path = folder / name
    for line, text in enumerate(text_of(path, "a list of CUB-200-2011").splitlines(), start=1):
        if text.strip():
            where = f"{path}, line {line}"
            cells = text.split(maxsplit=count)
            if len(cells) != count + 1 or len(cells[-1].split()) != 1:
                raise InputError(
                    f"{where}: expected {count + 1} values, got {len(text.split())}: the file may be cut off"
                )
            yield _whole(cells[0], where), cells[1:], where


def _lines(folder: Path, name: str, count: int) -> Iterator[tuple[int, list[str]]]:
    for image, cells, _ in _located(folder, name, count):
        yield image, cells


def _part_names(folder: Path) -> list[str]:
    path = folder / "parts" / "parts.txt"
    names: dict[int, str] = {}
    for line, text in enumerate(text_of(path, "the names of the parts").splitlines(), start=1):
        if text.strip():
            part, _, name = text.strip().partition(" ")
            if not name.strip():
                raise InputError(f"{path}, line {line}: expected a number and a name, got {text[:60]!r}")
            names[_whole(part, f"{path}, line {line}")] = name.strip()
    if sorted(names) != list(range(1, len(names) + 1)):
        raise InputError(f"{path}: expected parts numbered from 1 on, got {sorted(names)}")
    return [names[part] for part in sorted(names)]


def _parts(
    folder: Path, names: list[str]
) -> tuple[dict[int, Float[np.ndarray, "P 2"]], dict[int, Bool[np.ndarray, "P"]]]:
    xy: dict[int, np.ndarray] = {}
    visible: dict[int, np.ndarray] = {}
    for image, cells, where in _located(folder, "parts/part_locs.txt", 4):
        part = _whole(cells[0], where)
        if not 1 <= part <= len(names):
            raise InputError(f"{where}: expected a part of 1 to {len(names)}, got {part}")
        if image not in xy:
            xy[image], visible[image] = np.full((len(names), 2), np.nan), np.zeros(len(names), bool)
        xy[image][part - 1] = _number(cells[1], where), _number(cells[2], where)
        visible[image][part - 1] = _flag(cells[3], where)
    for image, places in xy.items():
        if np.isnan(places).any():
            raise InputError(
                f"{folder / 'parts' / 'part_locs.txt'}: expected {len(names)} parts of image {image}, got "
                f"{int(np.isfinite(places[:, 0]).sum())}: the file may be cut off, copy it again"
            )
    return xy, visible


def _box(cells: list[str], where: str) -> Box:
    left, top, width, height = (_number(cell, where) for cell in cells)
    left, top = left - ORIGIN, top - ORIGIN
    return corners((left, top, left + width, top + height), "the box", where)


def _number(cell: str, where: str) -> float:
    try:
        value = number(cell)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    if math.isnan(value):
        raise InputError(f"{where}: expected a number, got {cell!r}")
    return value


def _whole(cell: str, where: str) -> int:
    if not cell.isascii() or not cell.isdigit():
        raise InputError(f"{where}: expected a whole number, got {cell[:40]!r}")
    return int(cell)


def _flag(cell: str, where: str) -> bool:
    if cell not in ("0", "1"):
        raise InputError(f"{where}: expected 0 or 1, got {cell[:40]!r}")
    return cell == "1"
