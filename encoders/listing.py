"""Folders, list files and single files to one ordered list of images with names and class labels."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewmatch.errors import InputError
from fewmatch.names import DiskNames, same_name

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
    `path` ends with `name`, which may begin with `..` where a list names what lies outside its folder.
    """

    path: Path
    name: str
    label: str | None = None

    @property
    def root(self) -> str:
        """The folder that `name` is relative to."""
        full = self.path.as_posix()
        if not full.endswith("/" + self.name):
            return os.path.dirname(full)
        return full[: -len(self.name)].rstrip("/") or "/"


def list_images(inputs: Iterable[str | os.PathLike[str]]) -> list[ListedImage]:
    """Every image below the inputs, in the order of their names' bytes within each input.

    An input is a folder (searched to any depth; the first level of folders below it gives the label), an image file, or a list:
    `.txt` or `.lst` with a path a line, `.csv` with the columns `path` and, if wanted, `label`; paths in a list are relative to
    its folder.
    Hidden files and folders are left out, links to folders are followed but never in a circle, a file listed twice counts once.
    With several inputs, names start with the name of the folder they are relative to where they would clash otherwise.

    Raises:
        InputError: an input does not exist, a list cannot be read or contradicts itself, or there is no image at all.
    """
    sources = [Path(os.path.abspath(source)) for source in inputs]
    found: dict[str, ListedImage] = {}
    for source in sources:
        for image in _list_one(source):
            found.setdefault(os.path.normpath(image.path), image)
    images = list(found.values())
    if not images:
        raise InputError("no images in " + ", ".join(map(str, sources)) + ": expected files such as .jpg or .png")
    if _first_twice(images):
        images = [_with_folder(image) for image in images]
    twice = _first_twice(images)
    if twice:
        raise InputError(f"two different images would both be called {twice}: give their common parent folder instead")
    return images


def _first_twice(images: Sequence[ListedImage]) -> str | None:
    count = Counter(image.name for image in images)
    return next((name for name, times in count.items() if times > 1), None)


def _with_folder(image: ListedImage) -> ListedImage:
    """The same image under a name that starts with the folder it was relative to."""
    folder = os.path.basename(image.root)
    return ListedImage(image.path, f"{folder}/{image.name}", image.label) if folder else image


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
    except OSError as error:  # not passed over: a class would be missing without a word
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error
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
        text = source.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except (OSError, ValueError) as error:  # the latter for a name with a NUL
        raise InputError(f"the list {source} cannot be read: {getattr(error, 'strerror', error)}") from error
    wanted = _csv_rows(source, text) if source.suffix.lower() == ".csv" else _lines(text)
    if not wanted:
        raise InputError(f"the list {source} names no image")
    labels: dict[str, str] = {}
    images = []
    disk = DiskNames()
    for entry, label in wanted:
        image = _relative_to(source.parent, entry, label, disk)
        if label is not None and same_name(labels.setdefault(image.name, label)) != same_name(label):
            raise InputError(f"the list {source} gives {entry} two labels: {labels[image.name]} and {label}")
        images.append(image)
    return images


def _lines(text: str) -> list[tuple[str, str | None]]:
    # Not splitlines(), which also splits at characters that a name may hold.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(line.strip(), None) for line in lines if line.strip()]


def _csv_rows(source: Path, text: str) -> list[tuple[str, str | None]]:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"the list {source} cannot be read as CSV: {error}") from error
    columns = [name.strip() for name in rows[0]] if rows else []
    if "path" not in columns:
        got = ", ".join(columns) or "nothing"
        raise InputError(f"the list {source} has no column path: expected the header path or path,label, got {got}")
    cells = [dict(zip(columns, row, strict=False)) for row in rows[1:]]
    return [(row["path"], row.get("label", "").strip() or None) for row in cells if row.get("path")]


def _relative_to(folder: Path, entry: str, label: str | None, disk: DiskNames) -> ListedImage:
    """A list's entry with its name relative to the list's folder, spelled as on the disk where the list spells it differently."""
    name = os.path.relpath(folder / entry, folder)
    if name.split(os.sep)[0] == os.pardir:
        folder = Path(os.path.realpath(folder))  # from a link to a folder, ".." leads elsewhere
        name = os.path.relpath(folder / entry, folder)
    found = disk.find(folder / name)
    if found is not None:
        name = os.path.relpath(found, folder)
    return ListedImage(folder / name, name.replace(os.sep, "/"), label)
