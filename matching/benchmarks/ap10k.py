"""AP-10K pairs as GeoAware-SC makes them: animals with 17 points, within a species, across species and across families.

    JPEGImages/<family>/<species>/<image>.jpg
    ImageAnnotation/<family>/<species>/<image>.json    bbox: left, top, width, height; keypoints: 17 × (x, y, v); width, height
    PairAnnotation/{trn,val,test,test_cross_species,test_cross_family}/<…>:<name>.json    src_json_path, trg_json_path

A point counts where v is above 0 in both images. The category is what a pair's file is called after the colon ("_" on Windows): the
species, across species the family, across families "all". The paths in a pair's file begin wherever they were made; from
ImageAnnotation on they are taken. Points are indices of pixels counted from 0, as COCO's.
Source: AP-10K (Yu et al. 2021); GeoAware-SC (Zhang et al. 2024), utils/utils_dataset.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.left_right import twins_of
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair, Box
from fewmatch.matching.benchmarks.records import (
    checked_size,
    corners,
    entry,
    finished,
    json_record,
    numbers,
    require_folder,
    words,
)

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

SPLITS = ("trn", "val", "test", "test_cross_species", "test_cross_family")
POINTS = (
    "left_eye",
    "right_eye",
    "nose",
    "neck",
    "root_of_tail",
    "left_shoulder",
    "left_elbow",
    "left_front_paw",
    "right_shoulder",
    "right_elbow",
    "right_front_paw",
    "left_hip",
    "left_knee",
    "left_back_paw",
    "right_hip",
    "right_knee",
    "right_back_paw",
)


@dataclass(frozen=True, eq=False)
class _Image:
    path: Path
    xy: Float[np.ndarray, "17 2"]
    visible: Bool[np.ndarray, "17"]
    box: Box
    size: tuple[int, int] | None


def read_ap10k(folder: Path, split: str = "test") -> Benchmark:
    """The pairs of a split, in the order of their files' names.

    Args:
        folder: ap-10k, in which PairAnnotation, ImageAnnotation and JPEGImages lie.
        split: one of `SPLITS`.

    Raises:
        InputError: a missing or damaged file.
    """
    annotations = require_folder(folder / "PairAnnotation" / split, "AP-10K's pairs as GeoAware-SC makes them")
    files = sorted(annotations.glob("*.json"))
    if not files:
        raise InputError(f"{annotations} has no pair: expected a JSON for each")
    images: dict[str, _Image] = {}
    rows = []
    for path in files:
        record = json_record(path, "a pair of AP-10K")
        sides = []
        for key in ("src_json_path", "trg_json_path"):
            name = words(record, key, path)
            if name not in images:
                images[name] = _image(folder, name, path)
            sides.append(images[name])
        a, b = sides
        both = np.flatnonzero(a.visible & b.visible)
        names = [POINTS[k] for k in both]
        stem, colon, category = path.stem.rpartition(":")
        if not colon:
            stem, _, category = path.stem.rpartition("_")
        rows.append(
            BenchmarkPair(
                name=f"{stem}:{category}",
                category=category,
                path_a=a.path,
                path_b=b.path,
                points_a=a.xy[both] - ORIGIN - CENTRE,
                points_b=b.xy[both] - ORIGIN - CENTRE,
                points=tuple(names),
                twins=twins_of(names),
                box_a=a.box,
                box_b=b.box,
                size_a=a.size,
                size_b=b.size,
                facts={"species_a": a.path.parent.name, "species_b": b.path.parent.name},
            )
        )
    return finished(
        "ap10k",
        split,
        rows,
        folder,
        choices={"list": f"PairAnnotation/{split}, by name"},
        images=f"expected them in {folder / 'JPEGImages'}/<family>/<species>",
    )


def _image(folder: Path, name: str, pair: Path) -> _Image:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if "ImageAnnotation" not in parts:
        raise InputError(f"{pair}: expected paths below ImageAnnotation, got {name[:120]!r}")
    inner = parts[len(parts) - 1 - parts[::-1].index("ImageAnnotation") + 1 :]
    path = folder.joinpath("ImageAnnotation", *inner)
    record = json_record(path, f"the annotation of an image, named in {pair.name}")
    values = np.array(_keypoints(record, path)).reshape(len(POINTS), 3)
    left, top, width, height = numbers(entry(record, "bbox", path), "bbox", path, 4)
    size = None
    if "width" in record and "height" in record:
        size_width, size_height = numbers([record["width"], record["height"]], "width and height", path)
        size = checked_size(size_width, size_height, "width and height", path)
    return _Image(
        folder.joinpath("JPEGImages", *inner).with_suffix(".jpg"),
        values[:, :2],
        values[:, 2] > 0,
        corners((left, top, left + width, top + height), "bbox", path),
        size,
    )


def _keypoints(record: dict[str, Any], path: Path) -> list[float]:
    """51 numbers, whether they stand in one list or in 17."""
    values = entry(record, "keypoints", path)
    if isinstance(values, list) and values and all(isinstance(point, list) for point in values):
        values = [value for point in values for value in numbers(point, "keypoints", path, 3)]
    found = numbers(values, "keypoints", path, 3 * len(POINTS))
    wrong = next((v for v in found[2::3] if v not in (0, 1, 2)), None)
    if wrong is not None:
        raise InputError(f"{path}: expected a visibility of 0, 1 or 2 in keypoints, got {wrong:g}")
    return found
