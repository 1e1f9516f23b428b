"""What readers of benchmarks share: JSON records, CSV rows, points and boxes, each checked and refused with its place."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError
from fewmatch.labels.cells import number, rows_of
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair, Box
from fewmatch.names import DiskNames, same_name

#: Why a pair of the list does not count.
NO_COMMON_POINT = "no point is known in both images"


def text_of(path: Path, what: str) -> str:
    """The text of a file, which is UTF-8.

    Raises:
        InputError: it cannot be read or is no text; `what` says what it should be.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: expected {what}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): expected {what}") from error


def json_record(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: no such file, no whole JSON, or no object.
    """
    try:
        record = json.loads(text_of(path, what))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no whole JSON ({error}): the file may be cut off, copy it again") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: expected a JSON object, {what}, got a {type(record).__name__}")
    return record


def entry(record: Mapping[str, Any], key: str, where: Path | str) -> Any:
    """A record's entry.

    Raises:
        InputError: it has none.
    """
    if key not in record:
        raise InputError(f"{where}: the entry {key} is missing: the file may be of another benchmark")
    return record[key]


def words(record: Mapping[str, Any], key: str, where: Path | str) -> str:
    """A record's entry, which must be a text that is not empty."""
    value = entry(record, key, where)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: expected a text in {key}, got {value!r:.60}")
    return value


def numbers(values: Any, what: str, where: Path | str, count: int | None = None) -> list[float]:
    """A list of finite numbers, of a given length where `count` says so."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        got = f"{len(values)} of them" if isinstance(values, list) else repr(values)[:60]
        raise InputError(f"{where}: expected {'' if count is None else f'{count} '}numbers in {what}, got {got}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _finite(value):
            raise InputError(f"{where}: expected numbers in {what}, got {value!r:.60}")
    return [float(value) for value in values]


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def point_list(values: Any, what: str, where: Path | str) -> Float[np.ndarray, "K 2"]:
    """A list of [x, y] as (K, 2) float64; K may be 0."""
    if not isinstance(values, list):
        raise InputError(f"{where}: expected a list of points in {what}, got {values!r:.60}")
    points = [numbers(point, f"{what}, point {i}", where, 2) for i, point in enumerate(values)]
    return np.array(points, np.float64).reshape(-1, 2)


def same_count(points_a: Float[np.ndarray, "Ka 2"], points_b: Float[np.ndarray, "Kb 2"], where: Path | str) -> None:
    """Refuse a pair whose two lists of points differ in length."""
    if len(points_a) != len(points_b):
        raise InputError(
            f"{where}: expected as many points in the source as in the target, got {len(points_a)} and {len(points_b)}"
        )


def corners(values: Sequence[float], what: str, where: Path | str) -> Box:
    """A box of left, top, right, bottom."""
    left, top, right, bottom = values
    if not (left < right and top < bottom):
        raise InputError(f"{where}: expected a box with an extent in {what}, got {[left, top, right, bottom]}")
    return left, top, right, bottom


def size_of(record: Mapping[str, Any], key: str, where: Path | str) -> tuple[int, int] | None:
    """Width and height from a list that begins with them; None where the record has no such entry."""
    if record.get(key) is None:
        return None
    values = numbers(record[key], key, where)
    if len(values) < 2:
        raise InputError(f"{where}: expected width and height in {key}, got {len(values)} numbers")
    return checked_size(values[0], values[1], key, where)


def checked_size(width: float, height: float, what: str, where: Path | str) -> tuple[int, int]:
    """Width and height, which must be whole and positive."""
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise InputError(f"{where}: expected whole pixels in {what}, got {width:g} and {height:g}")
    return int(width), int(height)


def cell_numbers(cell: str, what: str, where: str) -> list[float]:
    """The numbers of a cell, with ";" between them; NaN where one is missing."""
    try:
        return [number(part) for part in cell.split(";")] if cell.strip() else []
    except ValueError as error:
        raise InputError(f"{where}: {what}: {error}") from error


def cell_index(cell: str, what: str, where: str) -> int:
    """The whole number of 0 or more in a cell; 3.0 counts as one, as spreadsheets write it."""
    try:
        value = number(cell)
    except ValueError as error:
        raise InputError(f"{where}: {what}: {error}") from error
    if not value >= 0 or value != int(value):
        raise InputError(f"{where}: expected a whole number in {what}, got {cell[:40]!r}")
    return int(value)


def csv_table(path: Path, what: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header and rows of a CSV, each row with its place in words; rows have as many cells as the header.

    Raises:
        InputError: no such file, no CSV, no row below the header, or a row with another number of cells.
    """
    rows = list(rows_of(path, text_of(path, what)))
    if len(rows) < 2:
        raise InputError(f"{path}: expected a header and a row for each pair, got {len(rows)} rows")
    header = [cell.strip() for cell in rows[0][1]]
    table = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: expected {len(header)} values as in the header, got {len(row)}: "
                "the file may be cut off"
            )
        table.append((f"{path}, line {line}", [cell.strip() for cell in row]))
    return header, table


def column(header: Sequence[str], name: str, path: Path) -> int:
    """Where a column stands.

    Raises:
        InputError: the header has none of that name.
    """
    if name not in header:
        raise InputError(f"{path}: expected a column {name}, got {', '.join(header)[:120]}")
    return list(header).index(name)


def require_folder(folder: Path, what: str) -> Path:
    """The folder itself.

    Raises:
        InputError: there is none; `what` says what should lie there.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: expected {what}")
    return folder


def require_files(paths: Iterable[Path], what: str, advice: str) -> None:
    """Refuse a benchmark of which files are missing: the first is named, and how many there are.

    Args:
        paths: all files; those that are there twice count once. what: what they are, in the plural. advice: what to do.

    Raises:
        InputError: one is missing.
    """
    files = dict.fromkeys(paths)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{len(missing):,} of {len(files):,} {what} are missing, the first is {missing[0]}: {advice}")


def finished(
    kind: str,
    split: str,
    rows: Sequence[BenchmarkPair],
    folder: Path,
    *,
    choices: Mapping[str, int | float | str | bool],
    expected: int | None = None,
    dropped: Sequence[tuple[str, str]] = (),
    images: str = "copy the images there",
) -> Benchmark:
    """A benchmark of all rows of a list: those without a common point are dropped, and all images must be there.

    Args:
        rows: pairs in the order of the list; here K may be 0. expected: how many pairs the official list has.
        dropped: pairs that the reader had to leave out. images: what to do where images are missing.

    Raises:
        InputError: an image is missing, a pair is there twice, or no pair has a point.
    """
    rows = _as_on_disk(rows)
    require_files((path for row in rows for path in (row.path_a, row.path_b)), "images", images)
    names = [*(row.name for row in rows), *(name for name, _ in dropped)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{folder} lists the pair {twice} twice ({kind}, {split}): delete one of them")
    pairs = [row for row in rows if len(row.points_a)]
    dropped = [*dropped, *((row.name, NO_COMMON_POINT) for row in rows if not len(row.points_a))]
    if not pairs:
        why = f": {dropped[0][0]}: {dropped[0][1]}" if dropped else ""
        raise InputError(f"{folder} has no pair that can count ({kind}, {split}){why}")
    listed = len(pairs) + len(dropped)
    notes = []
    if expected is not None and listed != expected:
        notes.append(f"{listed:,} pairs are listed; the official list ({kind}, {split}) has {expected:,}")
    return Benchmark(kind, split, tuple(pairs), tuple(dropped), dict(choices), tuple(notes))


def _as_on_disk(rows: Sequence[BenchmarkPair]) -> list[BenchmarkPair]:
    """The rows with one spelling of each category, and with images as the disk spells them."""
    disk, categories = DiskNames(), dict[str, str]()

    def found(path: Path) -> Path:
        return path if str(path).isascii() else disk.find(path) or path

    return [
        dataclasses.replace(
            row,
            category=categories.setdefault(same_name(row.category), row.category),
            path_a=found(row.path_a),
            path_b=found(row.path_b),
        )
        for row in rows
    ]
