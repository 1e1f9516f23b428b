"""Folders, list files and single files to one ordered list of images with names and class labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.errors import InputError

#: Which files of a folder are images. A file named on its own or in a list is tried whatever its name.
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".avif",
        ".jp2",
    ]
)
_LIST_EXTENSIONS = frozenset((".txt", ".lst", ".csv"))
_IGNORED_FOLDERS = frozenset(("__MACOSX",))


@dataclass(frozen=True)
class ListedImage:
    """One image that was asked for.

    path: where to read it. name: its relative path with forward slashes, unique in the list. label: its class, or None.
    """

    path: Path
    name: str
    label: str | None = None

    @property
    def root(self) -> str:
        """The folder that `name` is relative to."""
        full, name = os.fspath(self.path), self.name
        return full[: -len(name)].rstrip("/") if full.endswith(name) else os.path.dirname(full)


def list_images(inputs: Iterable[str | os.PathLike[str]]) -> list[ListedImage]:
    """Every image below the inputs, in the order of their names' bytes within each input.

    An input is a folder (searched to any depth; the first level of folders below it gives the label), an image file, or a list:
    `.txt` or `.lst` with a path a line, `.csv` with the columns `path` and, if wanted, `label`; paths in a list are relative to
    its folder.
    Hidden files and folders are left out, links to folders are followed but never in a circle, a file listed twice counts once.
    With several inputs, names start with the name of their input where they would clash otherwise.

    Raises:
        InputError: an input does not exist, a list cannot be read, or there is no image at all.
    """
    groups = []
    seen: set[Path] = set()
    for source in (Path(os.path.abspath(source)) for source in inputs):
        new = []
        for image in _list_one(source):
            if image.path not in seen:
                seen.add(image.path)
                new.append(image)
        groups.append((source, new))
    images = [image for _, group in groups for image in group]
    if not images:
        raise InputError(
            "no images in " + ", ".join(str(source) for source, _ in groups) + ": expected files such as .jpg or .png"
        )
    if _first_twice(images):
        images = [image for source, group in groups for image in _with_folder(group, source)]
    twice = _first_twice(images)
    if twice:
        raise InputError(f"two different images would both be called {twice}: give their common parent folder instead")
    return images


def _first_twice(images: Sequence[ListedImage]) -> str | None:
    count = Counter(image.name for image in images)
    return next((name for name, times in count.items() if times > 1), None)


def _with_folder(images: Sequence[ListedImage], source: Path) -> list[ListedImage]:
    """The images of one input under names that start with the input's own."""
    if source.is_dir():
        return [ListedImage(image.path, f"{source.name}/{image.name}", image.label) for image in images]
    return [ListedImage(image.path, f"{image.path.parent.name}/{image.name}", image.label) for image in images]


def _list_one(source: Path) -> list[ListedImage]:
    if source.is_dir():
        found = sorted(_walk(source, ()), key=os.fsencode)
        return [ListedImage(source / name, name, name.split("/")[0] if "/" in name else None) for name in found]
    if source.suffix.lower() in _LIST_EXTENSIONS:
        return _read_list(source)
    if not os.path.lexists(source):
        raise InputError(f"{source} does not exist: give a folder, an image or a list of images")
    return [ListedImage(source, source.name)]


def _walk(folder: Path, above: Sequence[tuple[int, int]], prefix: str = "") -> Iterator[str]:
    """Names of the image files below a folder. `above` holds the folders on the way here, so that a link back ends the search."""
    try:
        information = folder.stat()
        entries = list(os.scandir(folder))
    except OSError as error:
        if not prefix:
            raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
        return  # a folder below that is closed to us holds nothing we can use
    identity = (information.st_dev, information.st_ino)
    if identity in above:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _IGNORED_FOLDERS:
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link that leads round in a circle
            is_folder = False
        if is_folder:
            yield from _walk(folder / entry.name, (*above, identity), f"{prefix}{entry.name}/")
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            yield prefix + entry.name


def _read_list(source: Path) -> list[ListedImage]:
    try:
        text = source.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"the list {source} cannot be read: {error.strerror}") from error
    if source.suffix.lower() == ".csv":
        rows = csv.DictReader(text.splitlines(), skipinitialspace=True)
        if "path" not in (rows.fieldnames or ()):
            got = ", ".join(rows.fieldnames or ()) or "nothing"
            raise InputError(f"the list {source} has no column path: expected the header path or path,label, got {got}")
        wanted = [(row["path"], row.get("label") or None) for row in rows if row["path"]]
    else:
        wanted = [(line.strip(), None) for line in text.splitlines() if line.strip()]
    if not wanted:
        raise InputError(f"the list {source} names no image")
    images = []
    for name, label in wanted:
        path = Path(os.path.abspath(source.parent / name))
        relative = os.path.relpath(path, source.parent).replace(os.sep, "/")
        images.append(ListedImage(path, relative, label))
    return images
