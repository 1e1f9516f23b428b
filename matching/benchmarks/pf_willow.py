"""PF-WILLOW: one CSV of pairs, with ten points in each image.

    <subclass>/<image>.png    car(G), car(M), …, winebottle(woC)
    test_pairs.csv            or test_pairs_pf.csv: two images, ten x and ten y of the source, ten x and ten y of the target

The CSV writes PF-dataset/ before the images' folder. There are no boxes: the threshold of PCK is the extent of the target's ten points, or
the image. Coordinates are indices of MATLAB, counted from 1.
Source: Proposal Flow (Ham et al. 2016); cnngeometric, data/pf_dataset.py and geotnf/point_tnf.py, which subtracts 1.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from fewmatch.errors import InputError
from fewmatch.labels.cells import number
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.records import csv_table, finished, require_folder

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 1, 0.0

SPLITS = ("test",)
EXPECTED = {"test": 900}
POINTS = 10
LISTS = ("test_pairs.csv", "test_pairs_pf.csv")


def read_pf_willow(folder: Path, split: str = "test") -> Benchmark:
    """All pairs, in the order of the list. The category is the subclass, such as car(G); the fact `class` is car.

    Args:
        folder: PF-dataset, in which the list and the folders of the subclasses lie.
        split: test.

    Raises:
        InputError: a missing or damaged file.
    """
    require_folder(folder, "PF-WILLOW")
    path = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{folder} has neither {' nor '.join(LISTS)}: give the folder of PF-WILLOW that holds the list"
        )
    header, table = csv_table(path, "PF-WILLOW's list of pairs")
    if len(header) != 2 + 4 * POINTS:
        raise InputError(
            f"{path}: expected {2 + 4 * POINTS} columns (two images, {POINTS} points in each), got {len(header)}"
        )
    rows = []
    for i, (where, cells) in enumerate(table):
        images = [_image(folder, cell, where) for cell in cells[:2]]
        try:
            values = np.array([number(cell) for cell in cells[2:]])
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        if not np.isfinite(values).all():
            raise InputError(f"{where}: expected {4 * POINTS} numbers, got an empty cell")
        xa, ya, xb, yb = values.reshape(4, POINTS) - ORIGIN - CENTRE
        category = images[0].parent.name
        rows.append(
            BenchmarkPair(
                name=f"{i:05d}-{images[0].stem}-{images[1].stem}",
                category=category,
                path_a=images[0],
                path_b=images[1],
                points_a=np.stack([xa, ya], axis=1),
                points_b=np.stack([xb, yb], axis=1),
                points=tuple(str(k) for k in range(POINTS)),
                facts={"class": category.partition("(")[0]},
            )
        )
    return finished(
        "pf-willow",
        split,
        rows,
        folder,
        choices={"list": path.name},
        expected=EXPECTED[split],
        images=f"expected them in {folder}/<subclass>",
    )


def _image(folder: Path, cell: str, where: str) -> Path:
    parts = PurePosixPath(cell.replace("\\", "/")).parts
    if len(parts) < 2:
        raise InputError(f"{where}: expected an image as PF-dataset/<subclass>/<image>, got {cell[:60]!r}")
    return folder / parts[-2] / parts[-1]
