"""PSC6K: photos and sketches of the same object, eight points in each, both directions.

    test_pairs_ps.csv    photo, sketch, class, XA, YA, XB, YB: A is the photo, B the sketch, ";" between the numbers
    test_pairs_st.csv    source_image, target_image, class, XA, YA, XB, YB: each pair in both directions

The first list is taken where both are there; each of its pairs counts from photo to sketch, then from sketch to photo. Paths are relative to
the Sketchy data set, whose renderings of 256 × 256 px are the images; it is not part of PSC6K. X is horizontal; pixels are counted from 0,
since the benchmark's score rounds a point to the index of a pixel.
Source: Lu et al. 2023, photo-sketch-correspondence: PSC6K_Benchmark_README.md, utils/pck.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.records import cell_index, cell_numbers, column, csv_table, finished, require_folder

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

#: The lists of the training split have no points.
SPLITS = ("test",)
#: Both directions of 6,250 pairs.
EXPECTED = {"test": 12_500}
POINTS = 8
SIZE = (256, 256)
_FORWARD, _BACK = "photo to sketch", "sketch to photo"


def read_psc6k(folder: Path, split: str = "test", *, images: Path | None = None) -> Benchmark:
    """The pairs in both directions, in the order of the list. The category is the images' folder, such as airplane.

    Args:
        folder: PSC6K, in which the lists lie.
        split: test.
        images: where the list's paths begin, the renderings of Sketchy; by default `folder`.

    Raises:
        InputError: a missing or damaged file.
    """
    require_folder(folder, "PSC6K")
    path = next((folder / name for name in _lists(split) if (folder / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{folder} has neither {' nor '.join(_lists(split))}: give the folder of PSC6K that holds the lists"
        )
    header, table = csv_table(path, "PSC6K's list of pairs")
    both_ways = path.name == _lists(split)[0]
    names = ("photo", "sketch") if both_ways else ("source_image", "target_image")
    image_columns = [column(header, name, path) for name in names]
    class_column, *columns = (column(header, name, path) for name in ("class", "XA", "YA", "XB", "YB"))
    classes = [cell_index(cells[class_column], "class", where) for where, cells in table]
    categories = _categories(classes, [cells[image_columns[0]] for _, cells in table])
    root = folder if images is None else images
    rows = []
    for i, ((where, cells), category) in enumerate(zip(table, categories, strict=True)):
        sides = [_posix(cells[c], where) for c in image_columns]
        points = [_points(cells, header, columns[n : n + 2], where) for n in (0, 2)]
        for a, b in ((0, 1), (1, 0)) if both_ways else ((0, 1),):
            rows.append(
                BenchmarkPair(
                    name=f"{i:05d}-{sides[a].stem}-{sides[b].stem}",
                    category=category,
                    path_a=root / sides[a],
                    path_b=root / sides[b],
                    points_a=points[a] - ORIGIN - CENTRE,
                    points_b=points[b] - ORIGIN - CENTRE,
                    points=tuple(str(k) for k in range(POINTS)),
                    size_a=SIZE,
                    size_b=SIZE,
                    facts=_direction(sides[a], (_FORWARD, _BACK)[a] if both_ways else None),
                )
            )
    return finished(
        "psc6k",
        split,
        rows,
        folder,
        choices={"list": path.name},
        expected=EXPECTED[split],
        images="say where Sketchy's renderings of 256 × 256 px lie with --images",
    )


def _lists(split: str) -> tuple[str, str]:
    return f"{split}_pairs_ps.csv", f"{split}_pairs_st.csv"


def _posix(cell: str, where: str) -> PurePosixPath:
    path = PurePosixPath(cell.replace("\\", "/"))
    if not path.name or path.is_absolute():
        raise InputError(f"{where}: expected the path of an image relative to Sketchy, got {cell[:60]!r}")
    return path


def _points(
    cells: Sequence[str], header: Sequence[str], columns: Sequence[int], where: str
) -> Float[np.ndarray, "8 2"]:
    xy = []
    for c in columns:
        values = cell_numbers(cells[c], header[c], where)
        if len(values) != POINTS or not np.isfinite(values).all():
            raise InputError(f"{where}: expected {POINTS} numbers in {header[c]}, got {cells[c][:60]!r}")
        xy.append(values)
    return np.array(xy, np.float64).T


def _categories(classes: Sequence[int], images: Sequence[str]) -> list[str]:
    """The folders' names where each class has one of its own, else the numbers of the classes."""
    folders = [PurePosixPath(image.replace("\\", "/")).parent.name for image in images]
    distinct = set(zip(classes, folders, strict=True))
    named = len(distinct) == len(set(classes)) == len({folder for _, folder in distinct}) and all(folders)
    return folders if named else [str(index) for index in classes]


def _direction(source: PurePosixPath, direction: str | None) -> dict[str, int | float | str]:
    if direction is None:  # Sketchy keeps photos and sketches in folders of these names
        direction = {"photo": _FORWARD, "sketch": _BACK}.get(source.parts[0])
    return {} if direction is None else {"direction": direction}
