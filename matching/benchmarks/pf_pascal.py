"""PF-PASCAL: a CSV of pairs, with points in MATLAB files (Proposal Flow, HPF) or in the CSV itself (NCNet).

    JPEGImages/<image>.jpg
    Annotations/<class>/<image>.mat       kps (K, 2), NaN where a point is missing; bbox: left, top, right, bottom
    {trn,val,test}_pairs.csv              source, target, class 1 to 20, and in trn flip
    {train,val,test}_pairs_pf_pascal.csv  source_image, target_image, class, and XA, YA, XB, YB with ";" between the numbers

The first CSV is taken where both are there: its MATLAB files have boxes. Coordinates are indices of MATLAB, counted from 1.
Source: Proposal Flow (Ham et al. 2017), the annotations; cnngeometric, geotnf/point_tnf.py, which subtracts 1; hpf, data/pfpascal.py.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair, Box
from fewmatch.matching.benchmarks.records import (
    cell_index,
    cell_numbers,
    column,
    corners,
    csv_table,
    finished,
    require_folder,
    same_count,
)

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 1, 0.0

SPLITS = ("trn", "val", "test")
#: Some copies of the list have 308.
EXPECTED = {"test": 299}
#: Pascal VOC's classes; the CSV counts them from 1.
CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_MIRRORED = "flip is 1: the pair of another row, mirrored for training"


def read_pf_pascal(folder: Path, split: str = "test") -> Benchmark:
    """The pairs of a split, in the order of its list, with the points that both images have.

    Args:
        folder: PF-dataset-PASCAL, in which the lists and JPEGImages lie.
        split: one of `SPLITS`.

    Raises:
        InputError: a missing or damaged file.
    """
    require_folder(folder, "PF-PASCAL")
    path = _list_of(folder, split)
    header, table = csv_table(path, "PF-PASCAL's list of pairs")
    if len(header) < 3:
        raise InputError(f"{path}: expected the columns source, target, class, got {', '.join(header)[:120]}")
    in_list = [column(header, name, path) for name in ("XA", "YA", "XB", "YB")] if "XA" in header else None
    flip = header.index("flip") if "flip" in header else 3 if in_list is None and len(header) == 4 else None
    rows, dropped = [], []
    known: dict[Path, tuple[Float[np.ndarray, "K 2"], Box | None]] = {}
    for i, (where, cells) in enumerate(table):
        image_a, image_b = _image(cells[0], where), _image(cells[1], where)
        name = f"{i:05d}-{image_a.stem}-{image_b.stem}"
        if flip is not None and cell_index(cells[flip], "flip", where):
            dropped.append((name, _MIRRORED))
            continue
        category = _category(cells[2], where)
        box_a = box_b = None
        if in_list is not None:
            points_a, points_b = (_of_cells(cells, header, in_list[n : n + 2], where) for n in (0, 2))
        else:
            files = [folder / "Annotations" / category / f"{image.stem}.mat" for image in (image_a, image_b)]
            for file in files:
                if file not in known:
                    known[file] = _of_mat(file)
            (points_a, box_a), (points_b, box_b) = (known[file] for file in files)
        same_count(points_a, points_b, where)
        both = np.isfinite(points_a).all(axis=1) & np.isfinite(points_b).all(axis=1)
        rows.append(
            BenchmarkPair(
                name=name,
                category=category,
                path_a=folder / "JPEGImages" / image_a.name,
                path_b=folder / "JPEGImages" / image_b.name,
                points_a=points_a[both] - ORIGIN - CENTRE,
                points_b=points_b[both] - ORIGIN - CENTRE,
                points=tuple(str(k) for k in np.flatnonzero(both)) if in_list is None else None,
                box_a=box_a,
                box_b=box_b,
            )
        )
    return finished(
        "pf-pascal",
        split,
        rows,
        folder,
        choices={"list": path.name},
        expected=EXPECTED.get(split),
        dropped=dropped,
        images=f"expected them in {folder / 'JPEGImages'}",
    )


def _list_of(folder: Path, split: str) -> Path:
    names = [f"{split}_pairs.csv", f"{'train' if split == 'trn' else split}_pairs_pf_pascal.csv"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder} has neither {names[0]} nor {names[1]}: give the folder of PF-PASCAL that holds the lists"
    )


def _image(cell: str, where: str) -> PurePosixPath:
    """An image by its file name alone: lists write other folders before it, and some leave out the ending."""
    image = PurePosixPath(cell.replace("\\", "/"))
    if not image.name:
        raise InputError(f"{where}: expected the names of two images, got an empty cell")
    return image if image.suffix else image.with_suffix(".jpg")


def _category(cell: str, where: str) -> str:
    index = cell_index(cell, "class", where)
    if not 1 <= index <= len(CLASSES):
        raise InputError(f"{where}: expected a class of 1 to {len(CLASSES)}, got {index}")
    return CLASSES[index - 1]


def _of_cells(cells: list[str], header: list[str], columns: list[int], where: str) -> Float[np.ndarray, "K 2"]:
    x, y = (cell_numbers(cells[c], header[c], where) for c in columns)
    if len(x) != len(y):
        raise InputError(
            f"{where}: expected as many numbers in {header[columns[0]]} as in {header[columns[1]]}, got {len(x)} and {len(y)}"
        )
    return np.stack([np.array(x, np.float64), np.array(y, np.float64)], axis=1)


def _of_mat(path: Path) -> tuple[Float[np.ndarray, "K 2"], Box | None]:
    """Points, NaN where one is missing, and the box of a MATLAB file."""
    from scipy.io import loadmat

    if not path.is_file():
        raise InputError(f"no file {path}: expected the annotation of an image, copy PF-PASCAL's Annotations again")
    try:
        content = loadmat(path, variable_names=["kps", "bbox"])
    # The reader raises nearly anything on damaged files, zlib's and its own errors among them.
    except Exception as error:
        raise InputError(
            f"{path} is no whole MATLAB 5 file ({str(error)[:80]}): the file may be cut off, copy it again"
        ) from error
    points = content.get("kps")
    if points is None or points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "fiu":
        got = "none" if points is None else f"{points.shape} of {points.dtype}"
        raise InputError(f"{path}: expected numbers of shape (K, 2) in kps, got {got}")
    box = content.get("bbox")
    if box is None or not box.size:
        return points.astype(np.float64), None
    if box.size != 4 or box.dtype.kind not in "fiu" or not np.isfinite(box).all():
        raise InputError(f"{path}: expected 4 numbers in bbox, got {box.size} of {box.dtype}")
    return points.astype(np.float64), corners((box.ravel().astype(np.float64) - ORIGIN).tolist(), "bbox", path)
