"""Made-up benchmarks in their official layouts: pairs and pictures in, the folder that a reader reads out.

Every writer takes pairs in our coordinates (pixels of the originals, centres at integers) and writes those of the format, with its own
arithmetic: what a reader gives back must be the pairs that were written. Only the names of the images in `path_a` and `path_b` count. Pictures
are PNG under whatever ending the layout asks for, so that no pixel changes; decoders go by the content.
"""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from fewmatch.matching.benchmarks.pair import BenchmarkPair, Box

#: Pictures by the stem of their file: (H, W, 3) uint8.
Pictures = Mapping[str, np.ndarray]

VOC = [
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
]
AP10K = [
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
]
BIRD = [
    "back",
    "beak",
    "belly",
    "breast",
    "crown",
    "forehead",
    "left eye",
    "left leg",
    "left wing",
    "nape",
    "right eye",
    "right leg",
    "right wing",
    "tail",
    "throat",
]


def a_pair(
    category: str,
    image_a: str,
    image_b: str,
    points_a: Sequence[Sequence[float]] | np.ndarray,
    points_b: Sequence[Sequence[float]] | np.ndarray,
    *,
    points: Sequence[str] | None = None,
    box_a: Sequence[float] | None = None,
    box_b: Sequence[float] | None = None,
    size_a: tuple[int, int] | None = None,
    size_b: tuple[int, int] | None = None,
    facts: Mapping[str, int | float | str] | None = None,
) -> BenchmarkPair:
    """A pair to be written; images by the stem of their file. Formats that need boxes write the whole image where there is none."""
    return BenchmarkPair(
        f"{image_a}-{image_b}",
        category,
        Path(f"{image_a}.jpg"),
        Path(f"{image_b}.jpg"),
        np.array(points_a, np.float64).reshape(-1, 2),
        np.array(points_b, np.float64).reshape(-1, 2),
        points=None if points is None else tuple(points),
        box_a=_floats(box_a),
        box_b=_floats(box_b),
        size_a=size_a,
        size_b=size_b,
        facts=dict(facts or {}),
    )


def _floats(box: Sequence[float] | None) -> Box | None:
    if box is None:
        return None
    left, top, right, bottom = map(float, box)
    return left, top, right, bottom


def picture(path: Path, rgb: np.ndarray, ending: str = ".png") -> Path:
    """A picture as a file, its pixels unchanged: PNG by content, or PPM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(ending, np.ascontiguousarray(rgb[..., ::-1]))
    assert done
    path.write_bytes(data.tobytes())
    return path


def plain(width: int = 8, height: int = 6, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def _text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _size(pictures: Pictures, image: str) -> tuple[int, int]:
    return pictures[image].shape[1], pictures[image].shape[0]


def _numbers(points: np.ndarray) -> list[list[float]]:
    """Whole numbers as integers, as the official files have them."""
    return [[int(v) if float(v).is_integer() else float(v) for v in point] for point in np.asarray(points)]


def write_spair(
    folder: Path,
    pairs: Sequence[BenchmarkPair],
    pictures: Pictures,
    *,
    split: str = "test",
    layouts: Mapping[str, Sequence[int]] | None = None,
    colon: str = ":",
) -> list[str]:
    """SPair-71k. `layouts`: of each list the pairs in it; None writes no folder Layout. Returns the pairs' names."""
    names = []
    for number, pair in enumerate(pairs, start=1):
        a, b = pair.path_a.stem, pair.path_b.stem
        names.append(f"{number:06d}-{a}-{b}:{pair.category}")
        record = {
            "pair_id": number,
            "filename": f"{names[-1]}",
            "src_imname": f"{a}.jpg",
            "trg_imname": f"{b}.jpg",
            "category": pair.category,
            "src_kps": _numbers(pair.points_a),
            "trg_kps": _numbers(pair.points_b),
            "kps_ids": list(pair.points or map(str, range(len(pair.points_a)))),
            "mirror": 0,
            **{
                name: pair.facts.get(name, 0)
                for name in ("viewpoint_variation", "scale_variation", "truncation", "occlusion")
            },
        }
        for side, image, box in (("src", a, pair.box_a), ("trg", b, pair.box_b)):
            width, height = _size(pictures, image)
            record[f"{side}_imsize"] = [width, height, 3]
            record[f"{side}_bndbox"] = list(box or (0, 0, width, height))
            image_file = folder / "JPEGImages" / pair.category / f"{image}.jpg"
            if not image_file.exists():
                picture(image_file, pictures[image])
        _text(folder / "PairAnnotation" / split / f"{names[-1].replace(':', colon)}.json", json.dumps(record))
    for layout, members in (layouts or {}).items():
        _text(folder / "Layout" / layout / f"{split}.txt", "".join(f"{names[i]}\n" for i in members))
    return names


def write_pf_pascal(
    folder: Path,
    pairs: Sequence[BenchmarkPair],
    pictures: Pictures,
    *,
    split: str = "test",
    flips: Sequence[int] | None = None,
) -> None:
    """PF-PASCAL with MATLAB files: each image's points must be the same in all pairs; NaN is a missing one. Counted from 1."""
    rows = []
    for i, pair in enumerate(pairs):
        for path, points, box in ((pair.path_a, pair.points_a, pair.box_a), (pair.path_b, pair.points_b, pair.box_b)):
            picture(folder / "JPEGImages" / path.name, pictures[path.stem])
            content = {"kps": np.asarray(points) + 1.0}
            if box is not None:
                content["bbox"] = np.array([box]) + 1.0
            mat = folder / "Annotations" / pair.category / f"{path.stem}.mat"
            mat.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(mat, content)
        row = [f"PF-dataset-PASCAL/JPEGImages/{path.name}" for path in (pair.path_a, pair.path_b)]
        rows.append([*row, VOC.index(pair.category) + 1, *([] if flips is None else [flips[i]])])
    header = ["source_image", "target_image", "class", *([] if flips is None else ["flip"])]
    _csv(folder / f"{split}_pairs.csv", header, rows)


def write_pf_pascal_ncnet(
    folder: Path, pairs: Sequence[BenchmarkPair], pictures: Pictures, *, split: str = "test"
) -> None:
    """PF-PASCAL with the points in the CSV, counted from 1."""
    rows = []
    for pair in pairs:
        for path in (pair.path_a, pair.path_b):
            picture(folder / "JPEGImages" / path.name, pictures[path.stem])
        images = [f"PF-dataset-PASCAL/JPEGImages/{path.name}" for path in (pair.path_a, pair.path_b)]
        points = [_joined(xy[:, axis] + 1.0) for xy in (pair.points_a, pair.points_b) for axis in (0, 1)]
        rows.append([*images, VOC.index(pair.category) + 1, *points])
    _csv(
        folder / f"{split}_pairs_pf_pascal.csv", ["source_image", "target_image", "class", "XA", "YA", "XB", "YB"], rows
    )


def write_pf_willow(
    folder: Path, pairs: Sequence[BenchmarkPair], pictures: Pictures, *, name: str = "test_pairs.csv"
) -> None:
    """PF-WILLOW: ten points a pair, counted from 1."""
    rows = []
    for pair in pairs:
        images = []
        for path in (pair.path_a, pair.path_b):
            picture(folder / pair.category / f"{path.stem}.png", pictures[path.stem])
            images.append(f"PF-dataset/{pair.category}/{path.stem}.png")
        rows.append(
            [*images, *(v + 1.0 for xy in (pair.points_a, pair.points_b) for axis in (0, 1) for v in xy[:, axis])]
        )
    columns = [f"{axis}{side}{k}" for side in "AB" for axis in "XY" for k in range(10)]
    _csv(folder / name, ["imageA", "imageB", *columns], rows)


def write_tss(
    folder: Path,
    subset: str,
    name: str,
    pictures: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    flows: Sequence[np.ndarray],
    *,
    flip: int = 0,
) -> Path:
    """One pair of TSS: two pictures, two masks (H, W) bool and two flows (H, W, 2), NaN where unknown. Returns its folder."""
    where = folder / subset / name
    for side in (0, 1):
        picture(where / f"image{side + 1}.png", pictures[side])
        picture(
            where / f"mask{side + 1}.png",
            np.repeat(np.uint8(255) * np.asarray(masks[side], np.uint8)[..., None], 3, axis=2),
        )
        height, width = flows[side].shape[:2]
        data = np.where(np.isnan(flows[side]), 1e10, flows[side]).astype("<f4").tobytes()
        (where / f"flow{side + 1}.flo").write_bytes(struct.pack("<fii", 202021.25, width, height) + data)
    _text(where / "flip_gt.txt", f"{flip}\n")
    return where


def write_cub(
    folder: Path,
    images: Mapping[str, tuple[str, Mapping[str, tuple[float, float]], Box]],
    pictures: Pictures,
    *,
    training: Sequence[str] = (),
) -> None:
    """CUB-200-2011: by image its class, the places of its visible parts, and its box; numbers counted from 1."""
    classes = sorted({category for category, _, _ in images.values()})
    lists: dict[str, list[str]] = {}
    for number, (image, (category, parts, box)) in enumerate(images.items(), start=1):
        picture(folder / "images" / category / f"{image}.jpg", pictures[image])
        lists.setdefault("images.txt", []).append(f"{number} {category}/{image}.jpg")
        lists.setdefault("image_class_labels.txt", []).append(f"{number} {classes.index(category) + 1}")
        lists.setdefault("train_test_split.txt", []).append(f"{number} {int(image in training)}")
        left, top, right, bottom = box
        lists.setdefault("bounding_boxes.txt", []).append(
            f"{number} {left + 1} {top + 1} {right - left} {bottom - top}"
        )
        for part, name in enumerate(BIRD, start=1):
            x, y = (v + 1 for v in parts[name]) if name in parts else (0.0, 0.0)
            lists.setdefault("parts/part_locs.txt", []).append(f"{number} {part} {x} {y} {int(name in parts)}")
    lists["parts/parts.txt"] = [f"{part} {name}" for part, name in enumerate(BIRD, start=1)]
    for name, lines in lists.items():
        _text(folder / name, "\n".join(lines) + "\n")


def write_ap10k(
    folder: Path,
    pairs: Sequence[BenchmarkPair],
    pictures: Pictures,
    *,
    split: str = "test",
    family: str = "Felidae",
    species: str | None = None,
    root: str = "data/ap-10k/",
    colon: str = ":",
) -> None:
    """AP-10K pairs: `points` name some of the 17. An image's points are those of all pairs that it is in.

    species: the folder of the images; None takes the pair's category. root: what the pairs' files write before ImageAnnotation.
    """
    known: dict[Path, dict[str, tuple[float, float]]] = {}
    for number, pair in enumerate(pairs, start=1):
        names = pair.points or AP10K[: len(pair.points_a)]
        record = {}
        sides = (("src", pair.path_a, pair.points_a, pair.box_a), ("trg", pair.path_b, pair.points_b, pair.box_b))
        for side, path, points, box in sides:
            inner = Path(family, species or pair.category, path.stem)
            file = folder / "ImageAnnotation" / inner.with_name(f"{path.stem}.json")
            known.setdefault(file, {}).update(zip(names, map(tuple, _numbers(points)), strict=True))
            values = [v for name in AP10K for v in (*known[file].get(name, (0, 0)), 2 if name in known[file] else 0)]
            width, height = _size(pictures, path.stem)
            left, top, right, bottom = box or (0, 0, width, height)
            content = {
                "bbox": [left, top, right - left, bottom - top],
                "keypoints": values,
                "width": width,
                "height": height,
            }
            _text(file, json.dumps(content))
            image_file = folder / "JPEGImages" / inner.with_name(f"{path.stem}.jpg")
            if not image_file.exists():
                picture(image_file, pictures[path.stem])
            record[f"{side}_json_path"] = f"{root}ImageAnnotation/{inner.as_posix()}.json"
        name = f"{number:06d}-{pair.path_a.stem}-{pair.path_b.stem}{colon}{pair.category}.json"
        _text(folder / "PairAnnotation" / split / name, json.dumps(record))


def write_hpatches(
    folder: Path, sequence: str, pictures: Sequence[np.ndarray], homographies: Sequence[np.ndarray]
) -> Path:
    """One sequence of HPatches: six pictures and the homographies from the first to the others. Returns its folder."""
    where = folder / sequence
    for k, rgb in enumerate(pictures, start=1):
        picture(where / f"{k}.ppm", rgb, ".ppm")
    for k, matrix in enumerate(homographies, start=2):
        _text(where / f"H_1_{k}", "\n".join(" ".join(repr(float(v)) for v in row) for row in matrix) + "\n")
    return where


def write_psc6k(
    folder: Path,
    pairs: Sequence[BenchmarkPair],
    pictures: Pictures,
    *,
    images: Path | None = None,
    both_ways: bool = True,
) -> None:
    """PSC6K: pairs from photo to sketch with eight points. `both_ways`: the list ps, else st with each pair in both directions."""
    root = images or folder
    classes = sorted({pair.category for pair in pairs})
    rows = []
    for pair in pairs:
        names = [f"photo/tx_000000000000/{pair.category}/{pair.path_a.stem}.jpg"]
        names.append(f"sketch/tx_000000000000/{pair.category}/{pair.path_b.stem}.png")
        for name, path in zip(names, (pair.path_a, pair.path_b), strict=True):
            picture(root / name, pictures[path.stem])
        cells = [[_joined(xy[:, axis]) for axis in (0, 1)] for xy in (pair.points_a, pair.points_b)]
        index = classes.index(pair.category) + 1
        rows.append([*names, index, *cells[0], *cells[1]])
        if not both_ways:
            rows.append([*names[::-1], index, *cells[1], *cells[0]])
    names = ["photo", "sketch"] if both_ways else ["source_image", "target_image"]
    _csv(folder / f"test_pairs_{'ps' if both_ways else 'st'}.csv", [*names, "class", "XA", "YA", "XB", "YB"], rows)


def _joined(values: np.ndarray) -> str:
    return ";".join(repr(float(v)) for v in values)


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
