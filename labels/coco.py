"""COCO keypoints: one JSON of images, categories and annotations, which holds three numbers for each part: x, y and v.

v = 0: nothing is known of the place; 1: the part is hidden, and people marked where; 2: it can be seen. Many files have no 2 at all and
write 1 for every marked point (those of mmpose for freihand, onehand10k, panoptic and h36m do): there 1 is read as visible.

Points are counted from 0 and taken as indices of pixels, so their centres are at integers, as detectron2 reads them too; boxes are measured
from the left and top edge of the image. A skeleton counts the parts from 1. The width and height of an image are those as displayed.
Source: COCO, cocodataset.org/#format-data; detectron2, data/datasets/coco.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError
from fewmatch.labels.image_sizes import Size
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import LabelRow, Labels, SkippedLabel, labels_of_rows
from fewmatch.labels.layouts import CocoLayout
from fewmatch.names import same_name

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0
#: The same of boxes.
BOX_ORIGIN, BOX_CENTRE = 0, 0.5

#: Our own entry of an annotation: the score of each part, null where there is none. COCO has one score for all of them.
SCORES = "keypoint_scores"
#: Our own entry of a file in which all parts with a place are hidden: the least v that is visible, which nothing else says there.
CONVENTION = "fewmatch"
_LISTS = ("images", "annotations", "categories")

_Record = dict[str, Any]


def read_coco(path: Path, text: str, visible: Literal[1, 2] | None = None) -> Labels:
    """The labels in the text of a file: every image, with its one annotation that has keypoints.

    Args:
        path: the file. text: its text.
        visible: the least v that counts as visible; None is 2, but 1 where no annotation of the file has a 2, which a note says.

    Raises:
        InputError: no whole JSON, not COCO's, no category or several with keypoints, an image with several annotated objects, or
            nothing that can be used.
    """
    try:
        # Some tools write NaN where a place is not known, which is no JSON and must not be written back.
        content = json.loads(text, parse_float=_finite_or_none, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:  # of what is no JSON, and of numbers with thousands of digits
        raise InputError(f"{path} is no whole JSON ({error}): the file may be cut off") from error
    images, annotations, categories = _lists(path, content)
    category = _category(path, categories, annotations)
    parts = _names(path, category)
    skipped: list[SkippedLabel] = []
    names = _image_names(path, images, skipped)
    of_image = _one_each(path, annotations, category, names, skipped)
    least, notes = visible, list[str]()
    if least is None:
        least = _least_visible(content, annotations)
        if least == 1:
            notes.append(
                f"{path}: v is 1 at every marked point and never 2, so that 1 is read as visible (--visible 2 reads it as hidden)"
            )
    rows: list[LabelRow] = []
    records: dict[str, _Record] = {}
    kept: dict[str, _Record] = {}
    for image_id, (name, record) in names.items():
        annotation = of_image.get(image_id)
        where = f"{path}, image {image_id}" + ("" if annotation is None else f", annotation {annotation.get('id')}")
        try:
            rows.append(_label_row(name, where, annotation, parts, least, _size(record)))
        except ValueError as error:
            skipped.append(SkippedLabel(name, where, str(error)))
        else:
            records.setdefault(name, record)
            if annotation is not None:
                kept.setdefault(name, annotation)
    layout = CocoLayout(
        {key: value for key, value in content.items() if key not in _LISTS},
        {key: value for key, value in category.items() if key not in ("keypoints", "skeleton")},
        records,
        kept,
    )
    return labels_of_rows(path, layout, parts, rows, skipped, _skeleton(path, category, len(parts)), notes)


def _least_visible(content: _Record, annotations: Sequence[_Record]) -> Literal[1, 2]:
    """The least v of visible parts, by what the whole file has."""
    said = content.get(CONVENTION)
    if isinstance(said, dict) and said.get("visible") == 2:
        return 2
    lists = [annotation.get("keypoints") for annotation in annotations]
    seen = [v for values in lists if isinstance(values, list) for v in values[2::3]]
    return 1 if 1 in seen and 2 not in seen else 2


def _size(record: _Record) -> Size | None:
    """Width and height of an image's record; None where it has none, or 0 for what is not known.

    Raises ValueError for what is no size.
    """
    sides = [record.get(name) for name in ("width", "height")]
    if any(side in (None, 0) and not isinstance(side, bool) for side in sides):
        return None
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, (int, float)) or side < 1 or side != int(side):
            raise ValueError(
                f"expected whole pixels as its width and height, got {sides[0]!r:.20} and {sides[1]!r:.20}"
            )
    width, height = (int(side) for side in sides if side is not None)
    return width, height


def _lists(path: Path, content: Any) -> tuple[list[_Record], list[_Record], list[_Record]]:
    if isinstance(content, list):
        raise InputError(
            f"{path} is a JSON list, as of COCO results: give the file of annotations, which names the images"
        )
    lists: list[list[_Record]] = []
    for name in _LISTS:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{path} is none of COCO's: expected a list {name} of objects")
        lists.append(entries)
    return lists[0], lists[1], lists[2]


def _category(path: Path, categories: Sequence[_Record], annotations: Sequence[_Record]) -> _Record:
    """The one category with keypoints, or of several the one that has annotations."""
    with_points = [category for category in categories if category.get("keypoints")]
    if len(with_points) > 1:
        used = {str(annotation.get("category_id")) for annotation in annotations if annotation.get("keypoints")}
        with_points = [category for category in with_points if str(category.get("id")) in used] or with_points
    if len(with_points) != 1:
        found = ", ".join(str(category.get("name")) for category in with_points) or "none"
        raise InputError(f"{path}: expected one category with keypoints, got {found}")
    return with_points[0]


def _names(path: Path, category: _Record) -> list[str]:
    names = category["keypoints"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"{path}: expected names as the keypoints of category {category.get('name')}, got {names!r:.80}"
        )
    keys = [same_name(name) for name in names]
    twice = next((name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: category {category.get('name')} has the keypoint {twice} twice")
    return names


def _skeleton(path: Path, category: _Record, parts: int) -> tuple[tuple[int, int], ...]:
    edges = category.get("skeleton") or []
    if not isinstance(edges, list) or not all(
        isinstance(edge, list) and len(edge) == 2 and all(type(end) is int for end in edge) for edge in edges
    ):
        raise InputError(f"{path}: expected a skeleton of pairs of numbers, got {edges!r:.80}")
    # Some tools count from 0. Where no edge ends at 0, nothing tells that, and COCO's count holds.
    first = 0 if any(0 in edge for edge in edges) else 1
    for edge in edges:
        if not all(first <= end < parts + first for end in edge):
            raise InputError(
                f"{path}: expected a skeleton between keypoints {first} to {parts + first - 1}, got {edge}"
            )
    return tuple((one - first, other - first) for one, other in edges)


def _image_names(path: Path, images: Sequence[_Record], skipped: list[SkippedLabel]) -> dict[str, tuple[str, _Record]]:
    """File name and record by id, as text: some tools write ids as strings in one list and as numbers in the other."""
    names: dict[str, tuple[str, _Record]] = {}
    for number, record in enumerate(images, start=1):
        name, image_id = record.get("file_name"), record.get("id")
        if image_id is None or not isinstance(name, str) or not name:
            what = "file_name" if image_id is not None else "id"
            skipped.append(SkippedLabel(None, f"{path}, images, entry {number}", f"it has no {what}"))
            continue
        if str(image_id) in names:
            raise InputError(f"{path}: two images have the id {image_id}: {names[str(image_id)][0]} and {name}")
        names[str(image_id)] = (name, record)
    return names


def _one_each(
    path: Path,
    annotations: Sequence[_Record],
    category: _Record,
    names: Mapping[str, tuple[str, _Record]],
    skipped: list[SkippedLabel],
) -> dict[str, _Record]:
    """The annotation of each image, by its id. Those without a single point count only where there is no other."""
    found: dict[str, list[_Record]] = {}
    for annotation in annotations:
        if "keypoints" not in annotation or str(annotation.get("category_id")) != str(category.get("id")):
            continue  # a box, or an object of another kind
        image_id = str(annotation.get("image_id"))
        if image_id not in names:
            where = f"{path}, annotation {annotation.get('id')}"
            skipped.append(SkippedLabel(None, where, f"it is of image {image_id}, which the file does not list"))
            continue
        found.setdefault(image_id, []).append(annotation)
    chosen = {}
    for image_id, of_image in found.items():
        objects = [annotation for annotation in of_image if _has_points(annotation["keypoints"])] or of_image[:1]
        if len(objects) > 1:
            ids = ", ".join(str(annotation.get("id")) for annotation in objects)
            raise InputError(
                f"{path}: {names[image_id][0]} has {len(objects)} annotated objects (annotations {ids}): expected one in each image"
            )
        chosen[image_id] = objects[0]
    return chosen


def _has_points(values: Any) -> bool:
    """Whether any part is marked; what is malformed counts, so that it is looked at and named."""
    return not isinstance(values, list) or len(values) % 3 != 0 or any(v != 0 for v in values[2::3])


def _label_row(
    name: str, where: str, annotation: _Record | None, parts: Sequence[str], least: int, size: Size | None
) -> LabelRow:
    """Raises ValueError for what is wrong with the annotation."""
    xy, score = np.full((len(parts), 2), np.nan), np.full(len(parts), np.nan)
    visible = np.zeros(len(parts), bool)
    if annotation is None:
        return LabelRow(name, where, xy, visible, score, size=size)
    values = annotation["keypoints"]
    if not isinstance(values, list) or len(values) != 3 * len(parts):
        got = len(values) if isinstance(values, list) else type(values).__name__
        raise ValueError(f"expected {3 * len(parts)} numbers for {len(parts)} keypoints, got {got}")
    for p, part in enumerate(parts):
        x, y, v = values[3 * p : 3 * p + 3]
        if isinstance(v, bool) or v not in (0, 1, 2):
            raise ValueError(f"{part}: expected a visibility of 0, 1 or 2, got {v!r:.40}")
        if v:
            xy[p] = _finite(part, x) - ORIGIN - CENTRE, _finite(part, y) - ORIGIN - CENTRE
            visible[p] = v >= least
    scores = annotation.get(SCORES, [None] * len(parts))
    if not isinstance(scores, list) or len(scores) != len(parts):
        raise ValueError(f"expected {len(parts)} {SCORES}, one for each keypoint")
    for p, value in enumerate(scores):
        score[p] = np.nan if value is None else _finite(parts[p], value)
    return LabelRow(name, where, xy, visible, score, size=size)


def _finite_or_none(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _finite(part: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
    raise ValueError(f"{part}: expected a number, got {value!r:.40}")


def coco_text(
    keypoints: Keypoints, layout: CocoLayout | None = None, *, sizes: Sequence[tuple[int, int]] | None = None
) -> str:
    """Keypoints as COCO's JSON. Every number reads back as the same float.

    Images and annotations that the layout knows keep their ids and all other entries; new ones are counted on from there. An
    annotation's `num_keypoints` counts the parts with a place, and its score is the mean over their scores. A new `bbox` covers
    a pixel around each of them (a box that people drew is kept), `area` is the box's. An image without places and scores gets no
    annotation, unless the layout has one.

    Args:
        keypoints: to be written.
        layout: what the file that was read held beside the points.
        sizes: (width, height) of each image in pixels, which most tools ask for; where it is None, as the layout knows them.
    """
    layout = layout or CocoLayout()
    if sizes is not None and len(sizes) != len(keypoints):
        raise InputError(f"expected the sizes of {len(keypoints)} images, got {len(sizes)}")
    image_ids = _ids(keypoints.paths, layout.images)
    annotation_ids = _ids(keypoints.paths, layout.annotations)
    images, annotations = [], []
    for n, path in enumerate(keypoints.paths):
        size = {} if sizes is None else {"width": int(sizes[n][0]), "height": int(sizes[n][1])}
        images.append({**layout.images.get(path, {}), "id": image_ids[n], "file_name": path, **size})
        old = layout.annotations.get(path)
        if old is None and not (keypoints.placed[n].any() or np.isfinite(keypoints.score[n]).any()):
            continue
        annotations.append(
            {
                "id": annotation_ids[n],
                "image_id": image_ids[n],
                "category_id": layout.category["id"],
                **_of_points(keypoints, n, old),
            }
        )
    category = layout.category | {
        "keypoints": list(keypoints.parts),
        "skeleton": [[one + 1, other + 1] for one, other in keypoints.skeleton],
    }
    content = layout.top | {"images": images, "annotations": annotations, "categories": [category]}
    if keypoints.placed.any() and not keypoints.visible.any():
        content |= {CONVENTION: {"visible": 2}}
    return json.dumps(content, allow_nan=False) + "\n"


def _ids(paths: Sequence[str], known: Mapping[str, _Record]) -> list[Any]:
    """The id of each path's record; new ones follow the highest number."""
    last = max((record["id"] for record in known.values() if type(record.get("id")) is int), default=0)
    ids = []
    for path in paths:
        own = known.get(path, {}).get("id")
        if own is None:
            own = last = last + 1
        ids.append(own)
    return ids


def _of_points(keypoints: Keypoints, n: int, old: _Record | None) -> _Record:
    """The entries of image n's annotation that come from its points, above those that it had."""
    placed, xy = keypoints.placed[n], keypoints.xy[n]
    values: list[Any] = []
    for p, (x, y) in enumerate((xy + ORIGIN + CENTRE).tolist()):
        values += [x, y, 2 if keypoints.visible[n, p] else 1] if placed[p] else [0, 0, 0]
    entries: _Record = {"keypoints": values, "num_keypoints": int(placed.sum())}
    scores = keypoints.score[n]
    if np.isfinite(scores).any():
        entries[SCORES] = [value if math.isfinite(value) else None for value in scores.tolist()]
        meant = scores[placed & np.isfinite(scores)]
        entries["score"] = float(meant.mean()) if len(meant) else 0.0
    dropped = ["id", "image_id", "category_id"]
    if old is not None and SCORES in old:  # its scores are of points that are no longer there
        dropped += [SCORES, "score"]
    before = {key: value for key, value in (old or {}).items() if key not in dropped}
    if old is None or "bbox" not in old or old["bbox"] == _box(_old_points(old)):
        box = _box(xy[placed])
        entries |= {"bbox": box, "area": box[2] * box[3]}
    return {"iscrowd": 0, "segmentation": []} | before | entries


def _old_points(annotation: _Record) -> Float[np.ndarray, "n 2"]:
    values = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
    return np.asarray(values[values[:, 2] > 0, :2] - ORIGIN - CENTRE)


def _box(xy: Float[np.ndarray, "n 2"]) -> list[float]:
    """Left, top, width and height of what covers a pixel around each point, in COCO's coordinates of boxes."""
    if not len(xy):
        return [0.0, 0.0, 0.0, 0.0]
    low, high = xy.min(axis=0), xy.max(axis=0)
    left, top = (low - 0.5 + BOX_ORIGIN + BOX_CENTRE).tolist()
    width, height = (high - low + 1).tolist()
    return [left, top, width, height]
