"""The cells of CSV files: rows with the number of their line, and numbers as annotation tools write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from fewmatch.errors import InputError

# Narrower than float(), which takes 1_000 and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_A_NUMBER = ("", "nan", "na", "null", "none")


def rows_of(path: Path, text: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with the number of the line on which it ends, counted from 1.

    Raises:
        InputError: no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: no CSV ({error}): the file may be cut off") from error


def number(cell: str) -> float:
    """The number in a cell; NaN where it is empty or says nan.

    Raises:
        ValueError: it holds something else, or a number beyond float64.
    """
    cell = cell.strip()
    if cell.lower() in _NOT_A_NUMBER:
        return float("nan")
    if not _NUMBER.fullmatch(cell):
        hint = ", with a point instead of the comma" if _NUMBER.fullmatch(cell.replace(",", ".")) else ""
        raise ValueError(f"expected a number{hint}, got {cell[:40]!r}")
    value = float(cell)
    if abs(value) == float("inf"):
        raise ValueError(f"expected a number, got {cell[:40]!r}, which is too large")
    return value


def written(value: float) -> str:
    """The shortest decimal that reads back as the same number; empty for NaN."""
    return "" if value != value else repr(float(value))
