"""SPair-71k: a JSON for each pair, with points that are visible in both images, and lists of the pairs of each split.

    JPEGImages/<category>/<image>.jpg
    PairAnnotation/{trn,val,test}/<id>-<source>-<target>:<category>.json
    Layout/{large,small}/{trn,val,test}.txt

Copies on Windows write "_" for the colon. Points and boxes are whole numbers; points are read as indices of pixels counted from 0. What a
pair's JSON says is taken, not what its name says. The threshold of PCK is the longer side of the target's box, right − left or
bottom − top as they stand. Points have numbers, which mean the same in all images of a category; which of them are left and right of each
other is not part of SPair-71k and comes from GeoAware-SC.
Source: SPair-71k (Min et al. 2019), its annotations; hpf, data/spair.py; GeoAware-SC (Zhang et al. 2024), utils/utils_geoware.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.left_right import twins_by_number
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.records import (
    corners,
    entry,
    finished,
    json_record,
    numbers,
    point_list,
    require_folder,
    same_count,
    size_of,
    text_of,
    words,
)

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

SPLITS = ("trn", "val", "test")
LAYOUTS = ("large", "small")
#: Pairs of the large layout.
EXPECTED = {"trn": 53_340, "val": 5_384, "test": 12_234}
#: What results are split by. truncation and occlusion: 0 none, 1 source, 2 target, 3 both.
FACTS = ("viewpoint_variation", "scale_variation", "truncation", "occlusion")

#: For each category how many numbers its points have, and which of these are left and right of each other.
_SIDES = {
    "aeroplane": (25, "4-5 6-7 8-9 10-11 12-13 14-15 16-17 18-19 20-21"),
    "bicycle": (14, "2-3 6-7 9-10"),
    "bird": (17, "1-2 4-5 7-8 10-11 12-13 14-15"),
    "boat": (14, "1-2 3-4 5-6 7-8 9-10 11-12"),
    "bottle": (10, "0-1 2-3 4-5 6-7 8-9"),
    "bus": (30, "0-1 2-3 5-6 10-20 11-21 12-22 13-23 14-24 15-25 16-17 18-19 26-27 28-29"),
    "car": (30, "0-1 2-3 6-7 10-20 11-21 12-22 13-23 14-24 15-25 16-17 18-19 26-27 28-29"),
    "cat": (15, "0-1 2-3 4-5 6-7 9-10 11-12"),
    "chair": (14, "0-1 2-3 4-5 6-7 8-9 10-11 12-13"),
    "cow": (21, "0-1 2-3 4-5 6-7 9-10 11-12 15-16 17-18 19-20"),
    "dog": (16, "0-1 2-3 4-5 9-10 11-12"),
    "horse": (20, "0-1 2-3 4-5 6-7 10-11 12-13 16-17 18-19"),
    "motorbike": (13, "0-1 2-3"),
    "person": (20, "0-1 2-3 8-9 10-11 12-13 14-15 16-17 18-19"),
    "pottedplant": (9, "0-2 4-5 6-8"),
    "sheep": (21, "0-1 2-3 4-5 6-7 9-10 11-12 15-16 17-18 19-20"),
    "train": (18, "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15 16-17"),
    "tvmonitor": (16, "0-2 3-7 4-6 8-10 11-15 12-14"),
}

_WHAT = "the annotation of a pair of SPair-71k"


def read_spair(folder: Path, split: str = "test", *, layout: str | None = None) -> Benchmark:
    """The pairs of a split, in the order of its list.

    Args:
        folder: SPair-71k, in which PairAnnotation and JPEGImages lie.
        split: one of `SPLITS`.
        layout: one of `LAYOUTS`; by default the large one, or where there is no folder Layout all pairs of the split by name.

    Raises:
        InputError: an unknown layout, a missing or damaged file.
    """
    annotations = require_folder(folder / "PairAnnotation" / split, "SPair-71k's annotations, a JSON for each pair")
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"no layout called {layout}: expected one of {', '.join(LAYOUTS)}")
    if layout is None and not (folder / "Layout").is_dir():
        files = sorted(annotations.glob("*.json"))
        listed = f"PairAnnotation/{split}, by name"
    else:
        listed = f"Layout/{layout or LAYOUTS[0]}/{split}.txt"
        lines = text_of(folder / listed, "names of pairs, one a line").splitlines()
        files = _files(annotations, folder / listed, [line.strip() for line in lines if line.strip()])
    if not files:
        raise InputError(f"{folder / listed.split(',')[0]} names no pair: copy it again")
    rows = [_pair(folder, path) for path in files]
    expected = EXPECTED.get(split) if layout != "small" else None
    return finished(
        "spair",
        split,
        rows,
        folder,
        choices={"list": listed},
        expected=expected,
        images=f"expected them in {folder / 'JPEGImages'}/<category>",
    )


def _files(annotations: Path, listed: Path, names: list[str]) -> list[Path]:
    """The file of each name, with a colon or an underscore before the category."""
    there = {path.name for path in annotations.glob("*.json")}
    files, missing = [], []
    for name in names:
        stem, _, category = name.replace(":", "_").rpartition("_")
        spellings = (f"{name}.json", f"{stem}:{category}.json", f"{stem}_{category}.json")
        found = next((spelling for spelling in spellings if spelling in there), None)
        if found is None:
            missing.append(name)
        else:
            files.append(annotations / found)
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(names):,} pairs of {listed} are not in {annotations}, the first is "
            f"{missing[0]}.json: copy the annotations again"
        )
    return files


def _pair(folder: Path, path: Path) -> BenchmarkPair:
    record = json_record(path, _WHAT)
    category = words(record, "category", path)
    points_a, points_b = (
        point_list(entry(record, f"{side}_kps", path), f"{side}_kps", path) for side in ("src", "trg")
    )
    same_count(points_a, points_b, path)
    box_a, box_b = (
        corners(numbers(entry(record, key, path), key, path, 4), key, path) for key in ("src_bndbox", "trg_bndbox")
    )
    stem, colon, _ = path.stem.partition(":")
    names = _names(record, len(points_a), path)
    return BenchmarkPair(
        name=f"{stem if colon else path.stem.removesuffix(f'_{category}')}:{category}",
        category=category,
        path_a=folder / "JPEGImages" / category / words(record, "src_imname", path),
        path_b=folder / "JPEGImages" / category / words(record, "trg_imname", path),
        points_a=points_a - ORIGIN - CENTRE,
        points_b=points_b - ORIGIN - CENTRE,
        points=names,
        twins=None if names is None else _twins(names, category),
        box_a=box_a,
        box_b=box_b,
        size_a=size_of(record, "src_imsize", path),
        size_b=size_of(record, "trg_imsize", path),
        facts={name: _fact(record[name], name, path) for name in FACTS if name in record},
    )


def _names(record: dict[str, Any], count: int, path: Path) -> tuple[str, ...] | None:
    """The numbers that a category gives its points, as text."""
    if "kps_ids" not in record:
        return None
    names = record["kps_ids"]
    if not isinstance(names, list) or len(names) != count:
        got = f"{len(names)} of them" if isinstance(names, list) else repr(names)[:60]
        raise InputError(f"{path}: expected {count} names in kps_ids, one for each point, got {got}")
    return tuple(str(name) for name in names)


def _twins(names: tuple[str, ...], category: str) -> tuple[int, ...] | None:
    """None for a category or a number that SPair-71k does not have: nothing is known of its left and right."""
    count, sides = _SIDES.get(category, (0, ""))
    if not all(name.isascii() and name.isdigit() and int(name) < count for name in names):
        return None
    pairs = [pair.split("-") for pair in sides.split()]
    return twins_by_number([int(name) for name in names], [(int(one), int(other)) for one, other in pairs])


def _fact(value: Any, name: str, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 3:
        raise InputError(f"{path}: expected a number of 0 to 3 in {name}, got {value!r:.60}")
    return value
