"""Splits: which classes or images are for training, validation and testing, as published files say it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from fewmatch.errors import InputError
from fewmatch.fewshot.splits.known import Published, count_warnings, part_by_counts, part_of
from fewmatch.fewshot.splits.path_index import PathIndex, plain_path
from fewmatch.fewshot.table import FeatureTable, table_of_images
from fewmatch.names import distinct_names, same_name

#: How many names a message gives before it only counts.
_NAMED = 3


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    name: what it was recognised as, with its part, such as "mini-ImageNet (Ravi), test". kind: "classes" or "images". part: train,
    val, test, trainval, or None. classes: the class names. images: (path, class) pairs, empty for kind "classes".
    folders: where each class's images lie, for lists of class folders; else empty. numbered: whether the classes are mere numbers, which
    mean something within this split only. warnings: what is odd about it, a line each.
    """

    name: str
    kind: str
    part: str | None
    classes: tuple[str, ...]
    images: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    numbered: bool = False
    warnings: tuple[str, ...] = ()

    def describe(self) -> dict[str, object]:
        """The entry `split` of results."""
        return {
            "name": self.name,
            "kind": self.kind,
            "part": self.part,
            "classes": len(self.classes),
            "images": len(self.images) or None,
            "warnings": list(self.warnings),
        }


def check_disjoint(splits: Sequence[Split]) -> list[str]:
    """What splits have in common, a line for each two: images, and classes (unless these are mere numbers).

    Paths and names are compared by `fewmatch.names.same_name`. Few-shot splits share neither; those for other images of the same classes
    share all classes.
    """
    lines = []
    for a, b in combinations(splits, 2):
        images = _shared([plain_path(path) for path, _ in a.images], [plain_path(path) for path, _ in b.images])
        if images:
            lines.append(f"{a.name} and {b.name} share {_some(images, 'image')}")
        classes = [] if a.numbered or b.numbered else _shared(a.classes, b.classes)
        if classes:
            lines.append(f"{a.name} and {b.name} share {_some(classes, 'class')}")
    return lines


def _shared(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """The different names of the one that the other has too, sorted."""
    known = {same_name(name) for name in theirs}
    return distinct_names([name for name in ours if same_name(name) in known])[0]


def restrict(table: FeatureTable, split: Split, *, allow_missing: bool = False) -> FeatureTable:
    """The rows of a table that are in a split, in the table's order.

    A split of classes keeps the table's labels, a split of images gives its own.

    Args:
        table: with paths, for a split of images.
        split: whose classes or images to keep.
        allow_missing: leave out what the table does not have instead of refusing; `missing_from` names it.

    Raises:
        InputError: classes or images of the split are not in the table (counted, the first few named), an image's path does not decide
            between several, the table has no paths, or nothing is left.
    """
    own = [table.class_names[label] for label in table.labels]
    if split.kind == "images" and table.paths is None:
        raise InputError(f"{split.name} lists images, but {table.name} has no paths: give images or a feature store")
    rows, labels = _rows(table.paths, own, table.class_names, split, table.name, allow_missing)
    name = f"{table.name}, {split.name}"
    if table.paths is not None:
        return table_of_images(table.features[rows], labels, [table.paths[row] for row in rows], name)
    kept, index = np.unique(table.labels[rows], return_inverse=True)
    digest = hashlib.sha256(json.dumps([table.digest, rows]).encode()).hexdigest()
    return FeatureTable(table.features[rows], index, [table.class_names[c] for c in kept], name, digest)


def restrict_images(
    images: Sequence[tuple[str, str]], split: Split, *, allow_missing: bool = False
) -> list[tuple[str, str]]:
    """The (path, label) pairs that are in a split, in their order; else as `restrict`."""
    own = [label for _, label in images]
    paths = [path for path, _ in images]
    rows, labels = _rows(paths, own, distinct_names(own)[0], split, "the list", allow_missing)
    return [(paths[row], label) for row, label in zip(rows, labels, strict=True)]


def missing_from(table: FeatureTable, split: Split) -> list[str]:
    """The classes (of a split of classes) or the images (of one of images) that a table does not have, in the split's order."""
    if split.kind == "classes":
        return [
            name for name, found in zip(split.classes, _classes(table.class_names, split), strict=True) if not found
        ]
    index = PathIndex(table.paths or [])
    return [path for path, _ in split.images if not index.candidates(path)]


def named_split(
    path: Path,
    part: str | None,
    published: Published | None,
    classes: tuple[str, ...],
    images: tuple[tuple[str, str], ...] = (),
    *,
    folders: tuple[str, ...] = (),
    numbered: bool = False,
) -> Split:
    """A split with its name, its part where that is still open, and what is odd about its counts."""
    if not classes:
        raise InputError(f"{path} holds no class{f' for {part}' if part else ''}")
    said = part or part_of(path.stem)
    part = said or part_by_counts(published, len(classes), len(images))
    name = (published.name if published else path.stem) + (f", {part}" if part else "")
    warnings = count_warnings(published, part, len(classes), len(images))
    for what, again in (("images", _twice(i for i, _ in images)), ("classes", _twice(classes))):
        if again:
            warnings.append(f"{name}: {len(again):,} {what} are listed more than once, such as {again[0]}")
    return Split(name, "images" if images else "classes", part, classes, images, folders, numbered, tuple(warnings))


def with_overlaps(splits: list[Split], classes: bool = True) -> list[Split]:
    """The splits of one file, each with the warnings about what it shares with the others."""
    compared = splits if classes else [replace(split, numbered=True) for split in splits]
    lines = {pair: check_disjoint([compared[i] for i in pair]) for pair in combinations(range(len(splits)), 2)}
    return [
        replace(split, warnings=(*split.warnings, *(line for pair in lines if i in pair for line in lines[pair])))
        for i, split in enumerate(splits)
    ]


def _rows(
    paths: Sequence[str] | None,
    own: Sequence[str],
    class_names: Sequence[str],
    split: Split,
    where: str,
    allow_missing: bool,
) -> tuple[list[int], list[str]]:
    """The rows of a split in ascending order, and the label of each."""
    found: dict[int, str] = {}
    missing: list[str] = []
    if split.kind == "classes":
        matched = _classes(class_names, split)
        missing = [name for name, match in zip(split.classes, matched, strict=True) if not match]
        kept = {same_name(name) for name in matched if name is not None}
        found = {row: label for row, label in enumerate(own) if same_name(label) in kept}
    else:
        index = PathIndex(paths or [])
        for path, label in split.images:
            rows = index.candidates(path)
            if len(rows) > 1:
                raise InputError(
                    f"{split.name}: {path} may be {len(rows)} images of {where}, such as {(paths or [])[rows[0]]} and "
                    f"{(paths or [])[rows[1]]}: give the folder that the split's paths begin in"
                )
            if not rows:
                missing.append(path)
            elif same_name(found.setdefault(rows[0], label)) != same_name(label):
                raise InputError(
                    f"{split.name}: {path} is of class {label}, but its image was of {found[rows[0]]} before"
                )
    if missing and not allow_missing:
        what = "class" if split.kind == "classes" else "image"
        raise InputError(f"{split.name}: {where} does not have {_some(missing, what)}")
    if not found:
        raise InputError(f"{split.name}: {where} has nothing of it")
    order = sorted(found)
    return order, [found[row] for row in order]


def _classes(class_names: Iterable[str], split: Split) -> list[str | None]:
    """The table's name for each class of a split: the same, or that of its folder."""
    there = {same_name(name): name for name in class_names}
    folders = [folder.rstrip("/").rsplit("/", 1)[-1] for folder in split.folders] or split.classes
    return [
        there.get(same_name(name)) or there.get(same_name(folder))
        for name, folder in zip(split.classes, folders, strict=True)
    ]


def _twice(paths: Iterable[str]) -> list[str]:
    """What is there more than once."""
    return [path for path, times in Counter(same_name(plain_path(path)) for path in paths).items() if times > 1]


def _some(names: Sequence[str], what: str) -> str:
    """A count and the first few names."""
    plural = {"class": "classes"}.get(what, what + "s") if len(names) > 1 else what
    more = ", …" if len(names) > _NAMED else ""
    return f"{len(names):,} {plural} ({', '.join(names[:_NAMED])}{more})"
