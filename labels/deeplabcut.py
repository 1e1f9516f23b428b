"""DeepLabCut's CSV, which Lightning Pose shares: three header rows, then a row for each image.

`scorer`, `bodyparts` and `coords` head the columns: x and y of each part, and in files of predictions its likelihood. The path of
an image fills one column, or three (since DeepLabCut 2.2): two folders and the name. An empty cell is a part that was not marked.
Points are where people clicked in matplotlib or napari, whose pixels have their centres at integers.
Source: DeepLabCut, docs/standardDeepLabCut_UserGuide.md; Lightning Pose, the user guide's page on directory structure.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fewmatch.errors import InputError
from fewmatch.labels.cells import number, written
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import LabelRow, Labels, SkippedLabel, labels_of_rows
from fewmatch.labels.layouts import DeepLabCutLayout
from fewmatch.names import same_name

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

_HEADINGS = ("scorer", "bodyparts", "coords")
_EXPECTED = "expected three header rows that begin with scorer, bodyparts and coords"


def is_deeplabcut(first_row: Sequence[str]) -> bool:
    """Whether a CSV that begins with this row is one of DeepLabCut's."""
    return bool(first_row) and first_row[0].strip().lower() == "scorer"


def read_deeplabcut(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Labels:
    """The labels in the rows of a file, each with the number of its line.

    A part with a place is visible; likelihoods become scores.

    Raises:
        InputError: the header is not as it should be, the file is of several animals, or no row can be used.
    """
    header = _header(path, [row for _, row in rows[:3]])
    good: list[LabelRow] = []
    skipped: list[SkippedLabel] = []
    for line, row in rows[3:]:
        where = f"{path}, line {line}"
        image = _joined(row[: header.path_columns])
        try:
            good.append(_label_row(image, where, row, header))
        except ValueError as error:
            skipped.append(SkippedLabel(image or None, where, str(error)))
    layout = DeepLabCutLayout(
        header.scorer, header.path_columns, any(part.likelihood is not None for part in header.parts)
    )
    return labels_of_rows(path, layout, [part.name for part in header.parts], good, skipped)


@dataclass(frozen=True)
class _Part:
    """The columns of a part."""

    name: str
    x: int
    y: int
    likelihood: int | None


@dataclass(frozen=True)
class _Header:
    scorer: str
    path_columns: Literal[1, 3]
    parts: list[_Part]
    width: int


def _header(path: Path, rows: Sequence[list[str]]) -> _Header:
    rows = [[cell.strip() for cell in row] for row in rows]
    names = [row[0].lower() for row in rows]
    if "individuals" in names:
        raise InputError(f"{path} is of several animals (it has a row of individuals): give a file of one animal")
    if tuple(names) != _HEADINGS:
        raise InputError(f"{path}: {_EXPECTED}, got {', '.join(names)}")
    width = len(rows[0])
    if any(len(row) != width for row in rows):
        lengths = ", ".join(str(len(row)) for row in rows)
        raise InputError(f"{path}: expected header rows of the same length, got {lengths} cells")
    empty = [not any(row[i] for row in rows) for i in range(width)]
    first = next((i for i in range(1, width) if not empty[i]), width)
    if first == width:
        raise InputError(f"{path}: the header names no part: {_EXPECTED}")
    # Lightning Pose ends its predictions with a column `set` that is of no part.
    columns = [i for i in range(first, width) if rows[1][i] or rows[2][i]]
    scorers = list(dict.fromkeys(rows[0][i] for i in columns))
    if len(scorers) != 1:
        raise InputError(f"{path}: expected the points of one scorer, got {', '.join(scorers) or 'none'}")
    if first not in (1, 3):
        raise InputError(f"{path}: expected the path of an image in one column or in three, got {first}")
    return _Header(scorers[0], 1 if first == 1 else 3, _parts(path, rows, columns), width)


def _parts(path: Path, rows: Sequence[list[str]], columns: Sequence[int]) -> list[_Part]:
    found: dict[str, dict[str, int]] = {}
    spelled: dict[str, str] = {}
    for i in columns:
        part, coordinate = rows[1][i], rows[2][i].lower()
        if not part or coordinate not in ("x", "y", "likelihood"):
            raise InputError(
                f"{path}, column {i + 1}: expected a part and x, y or likelihood in the header, got {part!r} and {coordinate!r}"
            )
        of_part = found.setdefault(spelled.setdefault(same_name(part), part), {})
        if coordinate in of_part:
            raise InputError(f"{path}: the header has {coordinate} of {part} twice: delete one of the columns")
        of_part[coordinate] = i
    for part, of_part in found.items():
        for coordinate in ("x", "y"):
            if coordinate not in of_part:
                raise InputError(f"{path}: the header has no {coordinate} of {part}: expected x and y of every part")
    return [_Part(name, of_part["x"], of_part["y"], of_part.get("likelihood")) for name, of_part in found.items()]


def _label_row(image: str, where: str, row: list[str], header: _Header) -> LabelRow:
    """Raises ValueError for what is wrong with the row."""
    if not image:
        raise ValueError("the row names no image")
    if len(row) != header.width and (len(row) < header.width or any(cell.strip() for cell in row[header.width :])):
        raise ValueError(f"expected {header.width} cells as in the header, got {len(row)}")
    xy = np.full((len(header.parts), 2), np.nan)
    score = np.full(len(header.parts), np.nan)
    for p, part in enumerate(header.parts):
        try:
            x, y = number(row[part.x]), number(row[part.y])
            if part.likelihood is not None:
                score[p] = number(row[part.likelihood])
        except ValueError as error:
            raise ValueError(f"{part.name}: {error}") from error
        if np.isnan(x) != np.isnan(y):
            has, lacks = ("y", "x") if np.isnan(x) else ("x", "y")
            raise ValueError(
                f"{part.name} has {has} but no {lacks}: fill in both, or empty both where it is not visible"
            )
        xy[p] = x - ORIGIN - CENTRE, y - ORIGIN - CENTRE
    return LabelRow(image, where, xy, np.isfinite(xy).all(axis=1), score)


def deeplabcut_text(
    keypoints: Keypoints, layout: DeepLabCutLayout | None = None, *, likelihood: bool | None = None
) -> str:
    """Keypoints as DeepLabCut's CSV. Every number reads back as the same float.

    Args:
        keypoints: to be written.
        layout: scorer, and whether paths fill one column or three (what is above the last two folders goes into the first).
        likelihood: whether to write the scores as likelihood, beside the place of every part that has one: a file of predictions, in
            which tools leave out what is below a likelihood of their own. Without it the file is one of labels: parts that are not
            visible are empty. None: where the layout or any part has one.
    """
    layout = layout or DeepLabCutLayout()
    if likelihood is None:
        likelihood = layout.likelihood or bool(np.isfinite(keypoints.score).any())
    coordinates = ("x", "y", "likelihood") if likelihood else ("x", "y")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    before = [""] * (layout.path_columns - 1)
    columns = [(part, coordinate) for part in keypoints.parts for coordinate in coordinates]
    writer.writerow([_HEADINGS[0], *before, *[layout.scorer] * len(columns)])
    writer.writerow([_HEADINGS[1], *before, *(part for part, _ in columns)])
    writer.writerow([_HEADINGS[2], *before, *(coordinate for _, coordinate in columns)])
    shown = keypoints.placed if likelihood else keypoints.visible
    xy = np.where(shown[:, :, None], keypoints.xy, np.nan) + ORIGIN + CENTRE
    values = np.concatenate([xy, keypoints.score[:, :, None]], axis=2) if likelihood else xy
    for path, row in zip(keypoints.paths, values.reshape(len(keypoints), -1).tolist(), strict=True):
        writer.writerow([*_split(path, layout.path_columns), *map(written, row)])
    return text.getvalue()


def _joined(cells: Sequence[str]) -> str:
    """The path that fills these cells; those before it are empty."""
    first = next((i for i, cell in enumerate(cells) if cell.strip()), len(cells))
    return "/".join(cells[first:])


def _split(path: str, columns: int) -> list[str]:
    """The cells that a path fills: `_joined` gives it back."""
    if columns == 1:
        return [path]
    cells = path.rsplit("/", columns - 1)
    if not cells[0] and len(cells) > 1:  # an absolute path: its first slash would be lost
        cells = [f"/{cells[1]}", *cells[2:]]
    return [""] * (columns - len(cells)) + cells
