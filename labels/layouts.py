"""What an annotation file holds beside its points: read, kept, and written back, so that a file comes out as it came in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fewmatch.labels.image_sizes import Size

#: The formats by name: DeepLabCut's (and Lightning Pose's) CSV, COCO keypoints in JSON, and a CSV with a line for each point.
AnnotationFormat = Literal["deeplabcut", "coco", "csv"]
FORMATS: tuple[AnnotationFormat, ...] = get_args(AnnotationFormat)


@dataclass(frozen=True)
class DeepLabCutLayout:
    """scorer: who marked the points, of the first header row.

    path_columns: 1 where a path fills one column, 3 where it fills three: two folders and the name.
    likelihood: whether there are columns of it, as in files of predictions.
    """

    scorer: str = "fewmatch"
    path_columns: Literal[1, 3] = 1
    likelihood: bool = False


@dataclass(frozen=True)
class CocoLayout:
    """top: what stands beside images, annotations and categories, such as info and licenses.

    category: the category of the points, without its keypoints and skeleton.
    images, annotations: the records by file name; of the annotations, those with points.
    """

    top: dict[str, Any] = field(default_factory=dict)
    category: dict[str, Any] = field(default_factory=lambda: {"id": 1, "name": "object", "supercategory": ""})
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    annotations: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class PointsLayout:
    """delimiter: what stands between two values."""

    delimiter: str = ","


Layout = DeepLabCutLayout | CocoLayout | PointsLayout

_LAYOUTS: dict[AnnotationFormat, type[Layout]] = {
    "deeplabcut": DeepLabCutLayout,
    "coco": CocoLayout,
    "csv": PointsLayout,
}


def format_of(layout: Layout) -> AnnotationFormat:
    """The name of a layout's format."""
    return next(name for name, kind in _LAYOUTS.items() if isinstance(layout, kind))


def layout_for(name: AnnotationFormat, like: Layout | None = None) -> Layout:
    """The layout to write a format in: `like`, where it is of that format, else the format's plain one."""
    return like if like is not None and format_of(like) == name else _LAYOUTS[name]()


def resized(layout: Layout, sizes: Mapping[str, Size]) -> Layout:
    """The layout for images of these sizes, by file name: without what COCO's annotations say in pixels beside their points."""
    if not isinstance(layout, CocoLayout):
        return layout
    images = {
        path: record | {"width": sizes[path][0], "height": sizes[path][1]} if path in sizes else record
        for path, record in layout.images.items()
    }
    annotations = {
        path: {key: value for key, value in record.items() if key not in _IN_PIXELS} if path in sizes else record
        for path, record in layout.annotations.items()
    }
    return dataclasses.replace(layout, images=images, annotations=annotations)


_IN_PIXELS = ("bbox", "area", "segmentation")
