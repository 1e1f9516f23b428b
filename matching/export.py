"""Matches for other programs: CSV, NumPy archives that give every number back, and OpenCV's keypoints and matches."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.geometry.geometry import GEOMETRIES, Geometry
from fewmatch.matching.matches import Matches
from fewmatch.writing import write_atomically

#: Of the archives that `save_matches` writes.
SCHEMA = 1
MatchColumn = Literal["xa", "ya", "xb", "yb", "score", "ratio", "cycle", "inlier"]
#: The columns of a CSV, in order; the last three where they are known.
MATCH_COLUMNS: tuple[MatchColumn, ...] = get_args(MatchColumn)


@dataclass(frozen=True)
class ImagePair:
    """The matches of two images, and which images these are."""

    path_a: str
    path_b: str
    matches: Matches


# ----------------------------------------------------------------------------------------------------------------------
# CSV


def to_csv(matches: Matches) -> str:
    """One line per match: xa, ya, xb, yb, score, and ratio, cycle and inlier (0 or 1) where they are known.

    Coordinates are pixels of the originals, pixel centres at integers. Every number reads back as the same float. Lines
    end with a line feed.
    """
    return _csv([matches], [()], ())


def matches_csv(pairs: Sequence[ImagePair]) -> str:
    """The matches of many pairs as `to_csv` writes them, with the paths of the two images as the first two columns, `a` and `b`.

    Columns that only some pairs know are empty for the others. `read_matches_csv` reads it. Written to a file it is UTF-8, with
    `surrogateescape` for paths that are not.
    """
    return _csv([pair.matches for pair in pairs], [(pair.path_a, pair.path_b) for pair in pairs], ("a", "b"))


def _csv(all_matches: Sequence[Matches], first: Sequence[tuple[str, ...]], names: tuple[str, ...]) -> str:
    columns = [_columns(matches) for matches in all_matches]
    header = [
        name
        for i, name in enumerate(MATCH_COLUMNS)
        if i < MATCH_COLUMNS.index("ratio") or any(name in known for known in columns)
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *header])
    for known, matches, paths in zip(columns, all_matches, first, strict=True):
        cells = [known.get(name, [""] * len(matches)) for name in header]
        writer.writerows([*paths, *row] for row in zip(*cells, strict=True))
    return text.getvalue()


def _columns(matches: Matches) -> dict[str, list[Any]]:
    """The columns that these matches know; floats are written by their shortest representation that reads back as the same."""
    known: dict[str, Any] = {
        "xa": matches.xy_a[:, 0],
        "ya": matches.xy_a[:, 1],
        "xb": matches.xy_b[:, 0],
        "yb": matches.xy_b[:, 1],
        "score": matches.score,
        "ratio": matches.ratio,
        "cycle": matches.cycle,
        "inlier": None if matches.geometry is None else matches.geometry.inliers.astype(int),
    }
    return {name: column.tolist() for name, column in known.items() if column is not None}


def read_matches_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV by `to_csv` or `matches_csv`, in the order of the file.

    Returns:
        Arrays by name: `a` and `b` are text, `inlier` booleans (of several pairs, False where it is not known), all others
        float64, NaN where not known.

    Raises:
        InputError: the file cannot be read or is no such CSV.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    required, known = MATCH_COLUMNS[:5], {"a", "b", *MATCH_COLUMNS}
    header = rows[0] if rows else []
    if not set(required) <= set(header) <= known or len(set(header)) < len(header):
        raise InputError(
            f"{path}: expected a CSV with the columns {', '.join(required)}, got {', '.join(header) or 'nothing'}"
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: expected {len(header)} values, got {len(row)}")
    found: dict[str, np.ndarray] = {}
    for i, name in enumerate(header):
        cells = [row[i] for row in rows[1:]]
        if name in ("a", "b"):
            found[name] = np.array(cells, np.str_)
            continue
        try:
            numbers = np.array([float(cell) if cell else np.nan for cell in cells], np.float64)
        except ValueError as error:
            raise InputError(f"{path}: expected numbers in column {name}: {error}") from error
        found[name] = numbers == 1 if name == "inlier" else numbers
    return found


# ----------------------------------------------------------------------------------------------------------------------
# NumPy

#: One entry for each match, over all pairs; the second number is the length of a row, 0 for plain numbers.
_PER_MATCH = {"xy_a": 2, "xy_b": 2, "score": 0, "patch_a": 2, "patch_b": 2}
_PER_MATCH_OPTIONAL = ("ratio", "cycle")
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
_NUMBERS_OF_GEOMETRY = ("threshold", "share", "confidence", "log_false_alarms")


def save_matches(path: Path, pairs: Sequence[ImagePair]) -> Path:
    """Write the matches of pairs to one `.npz`, whole or not at all; returns the path.

    The matches of all pairs come one after the other; `pair` says of which pair each is. So with one pair they are just its arrays.

    - for T matches in all: `pair` (T,); `xy_a`, `xy_b` (T, 2) pixels of the originals; `score` (T,); `patch_a`, `patch_b` (T, 2) row and
      column; and where any pair knows them `ratio`, `cycle` (T,), NaN for pairs that do not, and `inlier` (T,) booleans.
    - for P pairs: `path_a`, `path_b` (P,) text; `size_a`, `size_b` (P, 2) width and height; `confidence` (P,); `mirrored` (P,).
    - for P pairs, where any has a geometry: `geometry_kind`, `geometry_reason` (P,) text, empty where there is none; `geometry_matrix`
      (P, 3, 3), `geometry_threshold`, `geometry_share`, `geometry_confidence`, `geometry_log_false_alarms` (P,), `geometry_coverage`
      (P, 2), NaN where there is none.

    Nothing in it is pickled. `read_matches` gives the same pairs back.
    """
    every = [pair.matches for pair in pairs]
    arrays: dict[str, Any] = {
        "schema": np.int64(SCHEMA),
        "pair": np.repeat(np.arange(len(every)), [len(m) for m in every]),
        "path_a": np.array([pair.path_a for pair in pairs], np.str_),
        "path_b": np.array([pair.path_b for pair in pairs], np.str_),
        "size_a": np.array([m.size_a for m in every], np.int64).reshape(-1, 2),
        "size_b": np.array([m.size_b for m in every], np.int64).reshape(-1, 2),
        "confidence": np.array([m.confidence for m in every], np.float64),
        "mirrored": np.array([m.mirrored for m in every], bool),
    }
    for name, width in _PER_MATCH.items():
        empty = np.zeros((0, width) if width else 0, np.int64 if name.startswith("patch") else np.float64)
        arrays[name] = np.concatenate([getattr(m, name) for m in every]) if every else empty
    for name in _PER_MATCH_OPTIONAL:
        columns = [getattr(m, name) for m in every]
        if any(column is not None for column in columns):
            arrays[name] = np.concatenate(
                [np.full(len(m), np.nan) if c is None else c for m, c in zip(every, columns, strict=True)]
            )
    arrays |= _geometries([m.geometry for m in every], [len(m) for m in every])
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return write_atomically(Path(path), file.getvalue())


def _geometries(found: Sequence[Geometry | None], lengths: Sequence[int]) -> dict[str, Any]:
    if not any(found):
        return {}

    def number(value: float | None) -> float:
        return np.nan if value is None else value

    nothing, unknown = np.full((3, 3), np.nan), (np.nan, np.nan)
    arrays: dict[str, Any] = {
        "inlier": np.concatenate(
            [np.zeros(n, bool) if g is None else g.inliers for g, n in zip(found, lengths, strict=True)]
        ),
        "geometry_kind": np.array(["" if g is None else g.kind for g in found], np.str_),
        "geometry_reason": np.array(["" if g is None else g.reason or "" for g in found], np.str_),
        "geometry_matrix": np.stack([nothing if g is None or g.matrix is None else g.matrix for g in found]),
        "geometry_coverage": np.array([unknown if g is None else g.coverage or unknown for g in found], np.float64),
    }
    for name in _NUMBERS_OF_GEOMETRY:
        values = [np.nan if g is None else number(getattr(g, name)) for g in found]
        arrays[f"geometry_{name}"] = np.array(values, np.float64)
    return arrays


def read_matches(path: Path) -> list[ImagePair]:
    """The pairs that `save_matches` wrote, every number as it was.

    Raises:
        InputError: the file cannot be read or is no such archive.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected an archive of matches (.npz)")
    try:
        # From memory: NumPy leaves files open that turn out to be no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            schema = int(file["schema"])
            if schema == SCHEMA:
                arrays = {name: file[name] for name in file.files}
                _check_lengths(arrays)
                return [_pair(arrays, p) for p in range(len(arrays["path_a"]))]
    except _UNREADABLE as error:
        what = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise InputError(f"{path} is not an archive of matches that fewmatch wrote: {what}") from error
    raise InputError(f"{path} has schema {schema}, this fewmatch reads schema {SCHEMA}: write the matches again")


def _check_lengths(arrays: dict[str, np.ndarray]) -> None:
    pairs, matches = len(arrays["path_a"]), len(arrays["pair"])
    of_pairs = ("path_b", "size_a", "size_b", "confidence", "mirrored")
    for name, array in arrays.items():
        if name in _PER_MATCH or name in (*_PER_MATCH_OPTIONAL, "inlier"):
            expected = matches
        elif name in of_pairs or name.startswith("geometry_"):
            expected = pairs
        else:
            continue
        if len(array) != expected:
            raise ValueError(f"expected {expected} entries in {name}, got {len(array)}")
    outside = (arrays["pair"] < 0) | (arrays["pair"] >= pairs)
    if outside.any():
        raise ValueError(f"a match is of pair {arrays['pair'][outside][0]}, and there are {pairs}")


def _pair(arrays: dict[str, np.ndarray], p: int) -> ImagePair:
    rows = arrays["pair"] == p
    columns = {name: arrays[name][rows] for name in _PER_MATCH}
    optional: dict[str, Any] = {}
    for name in _PER_MATCH_OPTIONAL:
        column = arrays[name][rows] if name in arrays else None
        if column is not None and not np.isnan(column).all():  # of a pair without matches nobody can tell
            optional[name] = column
    matches = Matches(
        **columns,
        **optional,
        confidence=float(arrays["confidence"][p]),
        size_a=(int(arrays["size_a"][p, 0]), int(arrays["size_a"][p, 1])),
        size_b=(int(arrays["size_b"][p, 0]), int(arrays["size_b"][p, 1])),
        geometry=_geometry(arrays, p, rows),
        mirrored=bool(arrays["mirrored"][p]),
    )
    return ImagePair(str(arrays["path_a"][p]), str(arrays["path_b"][p]), matches)


def _geometry(arrays: dict[str, np.ndarray], p: int, rows: np.ndarray) -> Geometry | None:
    if "geometry_kind" not in arrays or not arrays["geometry_kind"][p]:
        return None
    kind = str(arrays["geometry_kind"][p])
    if kind not in GEOMETRIES:
        raise ValueError(f"expected a geometry of {', '.join(GEOMETRIES)}, got {kind!r}")
    numbers = {name: float(arrays[f"geometry_{name}"][p]) for name in _NUMBERS_OF_GEOMETRY}
    known = {name: None if np.isnan(value) else value for name, value in numbers.items() if name != "threshold"}
    matrix, covered = arrays["geometry_matrix"][p], arrays["geometry_coverage"][p].tolist()
    return Geometry(
        kind=kind,
        threshold=numbers["threshold"],
        matrix=None if np.isnan(matrix).any() else matrix,
        inliers=arrays["inlier"][rows],
        reason=str(arrays["geometry_reason"][p]) or None,
        coverage=None if np.isnan(covered).any() else (covered[0], covered[1]),
        **known,
    )


# ----------------------------------------------------------------------------------------------------------------------
# OpenCV


def to_opencv(
    matches: Matches, frame_a: Frame, frame_b: Frame
) -> tuple[list[cv2.KeyPoint], list[cv2.KeyPoint], list[cv2.DMatch]]:
    """Keypoints of A and of B and the matches between them, as `cv2.drawMatches` and the like take them.

    Keypoint i of A matches keypoint i of B, best first; whoever has no use for a match leaves its `cv2.DMatch` out. Points are pixels with
    centres at integers, as in OpenCV (in single precision). `size` is the side of a patch in pixels of the original (of one
    that is not square, the root of its area), `response` the cosine, `distance` 1 − cosine: 0 is best.

    Args:
        matches: of the two images. frame_a, frame_b: their geometry, for the size of a patch.
    """
    keypoints = [
        [
            cv2.KeyPoint(x=x, y=y, size=frame.patch / (frame.scale[0] * frame.scale[1]) ** 0.5, response=score)
            for (x, y), score in zip(xy.tolist(), matches.score.tolist(), strict=True)
        ]
        for xy, frame in ((matches.xy_a, frame_a), (matches.xy_b, frame_b))
    ]
    pairs = [cv2.DMatch(i, i, 0, 1 - score) for i, score in enumerate(matches.score.tolist())]
    return keypoints[0], keypoints[1], pairs
