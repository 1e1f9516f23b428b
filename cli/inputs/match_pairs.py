"""Which images `fewmatch match` compares, and the points that it is to find: from the command line or from CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path


def chosen_pairs(pairs: Path | None, names: Sequence[str]) -> list[tuple[int, int]]:
    """Indices into the images: the first with each of the others, or what the CSV file says.

    names: the images' paths as the user wrote them.
    """
    if pairs is None:
        return [(0, b) for b in range(1, len(names))]
    return read_pairs(pairs, names)


def read_pairs(path: Path, names: Sequence[str]) -> list[tuple[int, int]]:
    """The rows of a CSV with the columns `a` and `b`, each the path of an image or the end of one path alone.

    Raises:
        InputError: the file cannot be read or names no pair, or a row names an image that is not there, several, or one twice.
    """
    from fewmatch.errors import InputError

    found: list[tuple[int, int]] = []
    for line, row in _rows(path, ("a", "b")):
        a, b = (_image(name, names, path, line) for name in row)
        if a == b:
            raise InputError(f"{path}, line {line}: {names[a]} is there twice: expected two images")
        if (a, b) not in found:
            found.append((a, b))
    if not found:
        raise InputError(f"{path} names no pair of images: expected a CSV with columns a,b")
    return found


def read_points(given: Sequence[str]) -> list[tuple[float, float]]:
    """Points (x, y) as `120,80.5`, or from CSV files with the columns `x` and `y`, in the order given.

    Raises:
        InputError: what is neither, or a file without points.
    """
    from fewmatch.errors import InputError

    points = []
    for text in given:
        pair = _numbers(text.split(","))
        if pair is not None:
            points.append(pair)
            continue
        path = Path(text)
        if not path.is_file():
            raise InputError(f"expected a point X,Y in pixels or a CSV file with columns x,y, got {text}")
        before = len(points)
        for line, row in _rows(path, ("x", "y")):
            pair = _numbers(row)
            if pair is None:
                raise InputError(f"{path}, line {line}: expected two numbers, got {','.join(row)}")
            points.append(pair)
        if len(points) == before:
            raise InputError(f"{path} holds no points: expected a CSV with columns x,y")
    return points


def _numbers(texts: Sequence[str]) -> tuple[float, float] | None:
    import math

    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(map(math.isfinite, numbers)) else None


def _image(name: str, names: Sequence[str], path: Path, line: int) -> int:
    """The one image of that path, or whose path ends in it."""
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    exact = [i for i, known in enumerate(names) if Path(known) == Path(name)]
    ends = exact or [i for i, known in enumerate(names) if ("/" + known).endswith("/" + name)]
    if not ends:
        ends = [i for i, known in enumerate(names) if ("/" + same_name(known)).endswith("/" + same_name(name))]
    if len(ends) != 1 and not exact:
        what = "none of the images given" if not ends else f"{len(ends)} of the images given: write more of its path"
        raise InputError(f"{path}, line {line}: {name or 'an empty name'} is {what}")
    return ends[0]


def _rows(path: Path, columns: tuple[str, str]) -> list[tuple[int, list[str]]]:
    """The two columns of a CSV with a header, with the number of each line; empty lines are left out."""
    from fewmatch.errors import InputError

    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        places = [header.index(column) for column in columns]
    except ValueError:
        raise InputError(
            f"{path}: expected a first line with the columns {','.join(columns)}, got {','.join(header) or 'nothing'}"
        ) from None
    rows = []
    for row in reader:
        if not any(map(str.strip, row)):
            continue
        if len(row) <= max(places):
            raise InputError(f"{path}, line {reader.line_num}: expected {len(header)} columns, got {len(row)}")
        rows.append((reader.line_num, [row[place].strip() for place in places]))
    return rows
