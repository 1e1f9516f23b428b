"""Files and folders of splits to splits: lists as CSV or text, and folders of class folders; JSON by `split_json`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewmatch.encoders.listing import EXTENSIONS, list_images
from fewmatch.errors import InputError
from fewmatch.fewshot.splits import known
from fewmatch.fewshot.splits.json_files import splits_of_json
from fewmatch.fewshot.splits.known import EXPECTED, Published, part_of
from fewmatch.fewshot.splits.path_index import plain_path
from fewmatch.fewshot.splits.splits import Split, named_split, with_overlaps
from fewmatch.names import distinct_names, same_name

_LABEL_HEADINGS = ("label", "class", "class_name", "classname", "category", "target", "wnid")
_PICKLE_STARTS = (b"(dp", b"(lp", b"(i", b"ccopy_reg", b"cnumpy", b"c__builtin__")


def read_split(path: str | os.PathLike[str], part: str | None = None) -> Split:
    """The one split of a file or folder, or the one called `part` (train, val, test) of several.

    Raises:
        InputError: as `read_splits`; or there are several and none is asked for, or none of that name.
    """
    splits = read_splits(path)
    if part is None and len(splits) == 1:
        return splits[0]
    wanted = part if part is None else part_of(part) or part
    found = [split for split in splits if wanted is not None and split.part == wanted]
    if len(found) == 1:
        return found[0]
    parts = ", ".join(split.part or "one split without a part" for split in splits)
    raise InputError(f"{path} holds {parts}: " + ("say which" if part is None else f"expected one part {part}"))


def read_splits(path: str | os.PathLike[str]) -> list[Split]:
    """Every split that a file or folder holds, recognised by what is in it, not by its name.

    docs/splits.md lists what is read. Nothing is ever unpickled. A file that holds one part is called train, val or test by its own
    name or, where that says nothing, by its counts.

    Raises:
        InputError: it cannot be read, is a pickle, or is none of the known kinds.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    if content[:1] == b"\x80" or content.startswith(_PICKLE_STARTS) or path.suffix.lower() in (".pkl", ".pickle"):
        raise InputError(
            f"{path} is a pickle, which can run code when it is opened, so it is not read: expected {EXPECTED}"
        )
    if b"\0" in content[:1024]:
        raise InputError(f"{path} is no text: expected {EXPECTED}")
    text = content.decode("utf-8-sig", "surrogateescape")
    if text.lstrip()[:1] in ("{", "["):
        return splits_of_json(path, text)
    return [_of_list(path, text)]


# Folders


def _of_folder(path: Path) -> list[Split]:
    """train, val, test (base, novel, meta-train…) with class folders in them; or class folders alone."""
    parts = {entry.name: part for entry in sorted(path.iterdir()) if entry.is_dir() and (part := part_of(entry.name))}
    classes_inside = [name for name in parts if any(entry.is_dir() for entry in (path / name).iterdir())]
    if not classes_inside:
        images = [(image.name, image.label) for image in list_images([path])]
        return [_images(path, None, images, None)]
    splits, published = [], _published_folder(path, parts)
    flat = [
        f"{path.name}/{name} has no class folders, so it is left out" for name in parts if name not in classes_inside
    ]
    for name in classes_inside:
        images = [(f"{name}/{image.name}", image.label) for image in list_images([path / name])]
        split = _images(path, parts[name], images, published)
        splits.append(replace(split, warnings=(*split.warnings, *flat)))
    return with_overlaps(splits)


def _published_folder(path: Path, parts: dict[str, str]) -> Published | None:
    """CIFAR-FS or FC100, told apart by how many classes each part has; CUB's and tiered's versions are not told apart by folders."""
    counts = {part: {c.name for c in (path / name).iterdir() if c.is_dir()} for name, part in parts.items()}
    if not set().union(*counts.values()) <= known.CIFAR_100:
        return None
    sizes = {part: len(classes) for part, classes in counts.items()}
    return known.FC100 if known.FC100.classes == sizes else known.CIFAR_FS


def _images(
    path: Path, part: str | None, images: Sequence[tuple[str, str | None]], published: Published | None
) -> Split:
    without = [name for name, label in images if label is None]
    if without:
        raise InputError(f"{path}: {without[0]} lies in no class folder: expected {path.name}/<class>/<image>")
    pairs = tuple((name, str(label)) for name, label in images)
    return named_split(path, part, published, tuple(distinct_names([label for _, label in pairs])[0]), pairs)


# Lists


def _of_list(path: Path, text: str) -> Split:
    try:
        rows = _rows_of(text)
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a list ({error}): expected {EXPECTED}") from error
    if not rows:
        raise InputError(f"{path} is empty: expected {EXPECTED}")
    column = _image_column(rows)
    if column is None:
        return _class_list(path, rows)
    # A first row without an image is a header, whatever it says; the second cell alone would not tell a class from a heading.
    header = [] if _is_image(_cell(rows[0], column)) else [cell.lower() for cell in rows[0]]
    rows = rows[1:] if header else rows
    others = [i for i in range(len(rows[0])) if i != column]
    named = [i for i in others if i < len(header) and header[i] in _LABEL_HEADINGS]
    label_column = next(iter(named or others), None)
    images = []
    for number, row in enumerate(rows, 2 if header else 1):
        name = plain_path(_cell(row, column))
        label = _cell(row, label_column) if label_column is not None else name.rpartition("/")[0].rpartition("/")[2]
        if not _is_image(name) or not label:
            raise InputError(f"{path}, row {number}: expected an image and its label, got {','.join(row)[:80]}")
        if "class_name" in header and "/" not in name:
            name = f"{label}/{name}"  # easyfsl's lists: the class is the folder
        images.append((name, label))
    names, labels = [name for name, _ in images], [label for _, label in images]
    published = known.known_image_list(names, labels, header, max(len(rows[0]), len(header)))
    pairs, numbered = _named_by_folder(images)
    classes = tuple(distinct_names([label for _, label in pairs])[0])
    part = known.part_by_names(names) if published is known.TIERED_CSV else None
    return named_split(path, part, published, classes, pairs, numbered=numbered)


def _class_list(path: Path, rows: list[list[str]]) -> Split:
    """A class a line, or tiered-ImageNet's class and superclass."""
    wnids = [known.WNID.fullmatch(row[0]) is not None for row in rows]
    pairs = len(rows[-1]) > 1
    if (pairs and not all(wnids[1:])) or len({len(row) for row in rows}) > 1 or max(map(len, rows)) > 2:
        raise InputError(f"{path} has no column of image names, and is no list of classes: expected {EXPECTED}")
    if not wnids[0] and ((all(wnids[1:]) and len(rows) > 1) or rows[0][0].lower() in _LABEL_HEADINGS):
        rows = rows[1:]
    classes = tuple(row[0] for row in rows)
    if not classes:
        raise InputError(f"{path} holds no class: expected {EXPECTED}")
    published = known.known_class_list(classes, known.CUB_META_DATASET, known.TIERED_LIST if pairs else None)
    return named_split(path, None, published, classes)


def _rows_of(text: str) -> list[list[str]]:
    """Cells of a list: between commas, else tabs, else the last word of "path label"; stripped, without empty lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("," in line for line in lines):
        rows = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), skipinitialspace=True)
        ]
    elif any("\t" in line for line in lines):
        rows = [[cell.strip() for cell in line.split("\t")] for line in lines]
    else:
        rows = [parts if _is_image((parts := line.rsplit(None, 1))[0]) else [line] for line in lines]
    return rows


def _is_image(cell: str) -> bool:
    return os.path.splitext(cell)[1].lower() in EXTENSIONS


def _image_column(rows: list[list[str]]) -> int | None:
    """The column whose cells end like images; the first row may be a header."""
    sample = rows[1:20] or rows
    columns = [i for i in range(len(sample[0])) if all(_is_image(_cell(row, i)) for row in sample)]
    return columns[0] if columns else None


def _cell(row: Sequence[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _named_by_folder(images: Sequence[tuple[str, str]]) -> tuple[tuple[tuple[str, str], ...], bool]:
    """Numbers as labels become the names of the folders where each number has one folder of its own; else they stay numbers."""
    if not all(label.isdigit() for _, label in images):
        return tuple(images), False
    folders = {(label, same_name(name.rpartition("/")[0].rpartition("/")[2])) for name, label in images}
    folder_of = dict(folders)
    if len(folders) == len(folder_of) == len(set(folder_of.values())) and all(folder_of.values()):
        return tuple((name, folder_of[label]) for name, label in images), False
    return tuple(images), True
