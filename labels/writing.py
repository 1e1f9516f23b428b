"""Keypoints to files that annotation tools load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fewmatch.errors import InputError
from fewmatch.labels.coco import coco_text
from fewmatch.labels.deeplabcut import deeplabcut_text
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.layouts import CocoLayout, DeepLabCutLayout, Layout
from fewmatch.labels.points_csv import points_text
from fewmatch.writing import write_atomically


def write_keypoints(
    path: str | os.PathLike[str],
    keypoints: Keypoints,
    layout: Layout,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    likelihood: bool | None = None,
) -> Path:
    """Write keypoints in the format of a layout, whole or not at all; returns the path.

    `read_labels` gives every number back. What a format has no place for is lost: in DeepLabCut's, whether a part with a place is
    visible, and skeletons; in the simple CSV, skeletons.

    Args:
        path: the file; one that is there is replaced.
        keypoints: to be written.
        layout: that of the labels (`Labels.layout`), or a plain one (`layout_for`).
        sizes: (width, height) of each image in pixels; used by COCO.
        likelihood: as in `deeplabcut_text`; used by DeepLabCut's CSV.

    Raises:
        InputError: there is no image or no part.
    """
    if not keypoints.paths or not keypoints.parts:
        raise InputError(f"nothing to write to {path}: expected at least one image and one part")
    if isinstance(layout, CocoLayout):
        text = coco_text(keypoints, layout, sizes=sizes)
    elif isinstance(layout, DeepLabCutLayout):
        text = deeplabcut_text(keypoints, layout, likelihood=likelihood)
    else:
        text = points_text(keypoints, layout)
    # Names of files may hold bytes that are no UTF-8; they are written as they are.
    return write_atomically(Path(path), text.encode("utf-8", "surrogateescape"))
