"""Annotation files to labels, in whatever format they are."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Literal

from fewmatch.errors import InputError
from fewmatch.labels.cells import rows_of
from fewmatch.labels.coco import read_coco
from fewmatch.labels.deeplabcut import is_deeplabcut, read_deeplabcut
from fewmatch.labels.labels import Labels
from fewmatch.labels.points_csv import delimiter_of, read_points

EXPECTED = (
    "expected DeepLabCut's or Lightning Pose's CSV, COCO keypoints in JSON, or a CSV with the header image,part,x,y"
)


def read_labels(path: str | os.PathLike[str], *, visible: Literal[1, 2] | None = None) -> Labels:
    """The labels of one file, its format recognised by what is in it, not by its name.

    Read are DeepLabCut's CSV (Lightning Pose's is the same; labels and predictions), COCO keypoints (JSON), and a CSV with the columns
    image, part, x, y and, if wanted, score and visible. Text is UTF-8, with or without a mark at its beginning; lines end as on any
    system. What is wrong with the file as a whole is an error; what is wrong with one row of it leaves out that row's image, and is listed in
    `skipped`.

    Args:
        path: the file.
        visible: of COCO, the least v that counts as visible; None is 2, but 1 in a file without any 2.

    Raises:
        InputError: the file cannot be read, is in none of these formats or not as it should be, or nothing in it can be used.
    """
    path = Path(path)
    text = _text(path)
    if text.lstrip()[:1] in ("{", "["):
        return read_coco(path, text, visible)
    first_line = text.replace("\r", "\n").lstrip("\n").partition("\n")[0]
    delimiter = delimiter_of(first_line)
    if delimiter is not None:
        return read_points(path, text, delimiter)
    if is_deeplabcut(next(csv.reader([first_line]), [])):
        return read_deeplabcut(path, list(rows_of(path, text)))
    got = f"a file that begins with {first_line[:60]!r}" if text.strip() else "an empty file"
    raise InputError(f"{path}: {EXPECTED}, got {got}")


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # the latter for a name with a NUL
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if content.startswith(b"\x89HDF"):
        raise InputError(f"{path} is an HDF5 file: give the CSV of the same name beside it")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x}): save it as UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(f"{path} is no text: {EXPECTED}")
    return text
