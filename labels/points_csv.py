"""A CSV with a line for each point: `image,part,x,y`, and if wanted `score` and `visible`.

A line that is missing, or has no x and y, is a part that is not visible. `visible` is 0 or 1; a part with a place and visible 0 is
hidden, and people know where. An image in which no part has a place counts as labelled if some line of it says visible 0: somebody looked
and saw no part. If none does, nobody looked. Columns may stand in any order, between commas, semicolons or tabs; others are passed over.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewmatch.errors import InputError
from fewmatch.labels.cells import number, rows_of, written
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import LabelRow, Labels, SkippedLabel, labels_of_rows, repeated, yielding_note
from fewmatch.labels.layouts import PointsLayout
from fewmatch.names import same_name

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

REQUIRED = ("image", "part", "x", "y")
_DELIMITERS = (",", ";", "\t")
_VISIBLE = {"1": True, "true": True, "0": False, "false": False}


def delimiter_of(first_line: str) -> str | None:
    """What stands between the columns of a file that begins with this line; None where it is no CSV of points."""
    for delimiter in _DELIMITERS:
        if set(REQUIRED) <= set(_columns(next(csv.reader([first_line], delimiter=delimiter), []))):
            return delimiter
    return None


def read_points(path: Path, text: str, delimiter: str) -> Labels:
    """The labels in the text of a file. Images and parts come in the order in which the file first names them.

    Raises:
        InputError: the header has a column twice, the text is no CSV, or nothing in it can be used.
    """
    rows = list(rows_of(path, text, delimiter))
    columns = _columns(rows[0][1])
    for name in (*REQUIRED, "score", "visible"):
        if columns.count(name) > 1:
            raise InputError(f"{path}: the header has the column {name} twice: delete one of them")
    points: list[_Point] = []
    skipped: list[SkippedLabel] = []
    broken: set[str] = set()
    images: dict[str, str] = {}
    for line, row in rows[1:]:
        where = f"{path}, line {line}"
        cells = dict(zip(columns, row, strict=False))
        image = cells.get("image", "")
        if image.strip():
            images.setdefault(image, where)
        try:
            if len(row) != len(columns) and (len(row) < len(columns) or any(map(str.strip, row[len(columns) :]))):
                raise ValueError(f"expected {len(columns)} values as in the header, got {len(row)}")
            points.append(_point(where, cells))
        except ValueError as error:
            skipped.append(SkippedLabel(image if image.strip() else None, where, str(error)))
            broken.add(image)
    places = [point.where for point in points]
    found = repeated(
        [point.key for point in points],
        lambda i, j: points[i].values == points[j].values,
        places,
        lambda i: points[i].empty,
    )
    bad = found.reasons
    skipped += [SkippedLabel(points[i].image, points[i].where, f"{points[i].part} is {why}") for i, why in bad.items()]
    notes = yielding_note(found, [f"{point.part} of {point.image}" for point in points], places)
    left = [point for i, point in enumerate(points) if i not in bad and i not in found.yielding]
    counted = {point.key for point in left}
    broken |= {points[i].image for i in bad if points[i].key not in counted}
    index: dict[str, int] = {}
    parts: list[str] = []
    for point in points:
        if point.key[1] not in index:
            index[point.key[1]] = len(parts)
            parts.append(point.part)
    looked = {point.image for point in left if point.said}
    good = {
        image: _empty(image, where, len(parts), image in looked)
        for image, where in images.items()
        if image not in broken
    }
    for point in left:
        if point.image in good:
            labels, p = good[point.image], index[point.key[1]]
            labels.xy[p], labels.visible[p], labels.score[p] = (point.x, point.y), point.visible, point.score
    return labels_of_rows(path, PointsLayout(delimiter), parts, list(good.values()), skipped, notes=notes)


@dataclass(frozen=True)
class _Point:
    """A line. said: whether it says if the part is visible, and does not leave that to x and y."""

    image: str
    part: str
    x: float
    y: float
    score: float
    visible: bool
    said: bool
    where: str

    @property
    def key(self) -> tuple[str, str]:
        """Lines with the same key are of one point."""
        return self.image, same_name(self.part)

    @property
    def empty(self) -> bool:
        return not self.said and bool(np.isnan(self.x) and np.isnan(self.score))

    @property
    def values(self) -> tuple[str, str, str, bool]:
        """What two lines of the same point must agree on; as text, because NaN equals nothing."""
        return repr(self.x), repr(self.y), repr(self.score), self.visible


def _columns(row: Sequence[str]) -> list[str]:
    return [cell.strip().lower() for cell in row]


def _empty(image: str, where: str, parts: int, examined: bool) -> LabelRow:
    none = np.full((parts, 2), np.nan)
    return LabelRow(image, where, none, np.zeros(parts, bool), np.full(parts, np.nan), examined)


def _point(where: str, cells: dict[str, str]) -> _Point:
    """Raises ValueError for what is wrong with the line."""
    image, part = cells["image"], cells["part"].strip()
    if not image.strip() or not part:
        raise ValueError(f"the line names no {'part' if image.strip() else 'image'}")
    try:
        x, y, score = number(cells["x"]), number(cells["y"]), number(cells.get("score", ""))
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error
    if np.isnan(x) != np.isnan(y):
        has, lacks = ("y", "x") if np.isnan(x) else ("x", "y")
        raise ValueError(f"{part} has {has} but no {lacks}: fill in both, or empty both where it is not visible")
    said = cells.get("visible", "").strip().lower()
    if said and said not in _VISIBLE:
        raise ValueError(f"{part}: expected visible to be 0 or 1, got {said[:40]!r}")
    visible = _VISIBLE[said] if said else not np.isnan(x)
    if visible and np.isnan(x):
        raise ValueError(f"{part} is visible but has no place: fill in x and y, or say visible 0")
    return _Point(image, part, x - ORIGIN - CENTRE, y - ORIGIN - CENTRE, score, visible, bool(said), where)


def points_text(keypoints: Keypoints, layout: PointsLayout | None = None) -> str:
    """Keypoints as a CSV with a line for every image and part: image, part, x, y, score where there is any, visible (empty in images that
    nobody looked at).

    Every number reads back as the same float.
    """
    layout = layout or PointsLayout()
    scored = bool(np.isfinite(keypoints.score).any())
    text = io.StringIO()
    writer = csv.writer(text, delimiter=layout.delimiter, lineterminator="\n")
    writer.writerow([*REQUIRED, *(["score"] if scored else []), "visible"])
    labelled = keypoints.labelled
    places = (np.where(keypoints.placed[:, :, None], keypoints.xy, np.nan) + ORIGIN + CENTRE).tolist()
    for n, path in enumerate(keypoints.paths):
        for p, part in enumerate(keypoints.parts):
            score = [written(keypoints.score[n, p])] if scored else []
            visible = int(keypoints.visible[n, p]) if labelled[n] else ""
            writer.writerow([path, part, *map(written, places[n][p]), *score, visible])
    return text.getvalue()
