"""Where the images of labels lie, and whether the points lie in them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.errors import InputError
from matching.annotations.labels import Labels, repeated_images

#: Folders above the annotation file's own in which images are looked for: DeepLabCut's paths begin at the project, two folders up.
LEVELS = 3


def locate_images(labels: Labels, root: str | os.PathLike[str] | None = None) -> Labels:
    """The labels of those images whose files are found, with `files`; the others join the skipped ones.

    Paths are relative to `root`, or without one to the nearest of the annotation file's folder and the `LEVELS` folders above it that
    holds any of the images. Absolute paths are taken as they are; backslashes are read as slashes where there is no such file.
    Two rows that name the same file in two ways count as one image that is there twice.

    Raises:
        InputError: no image is found.
    """
    if root is not None:
        roots = [Path(root)]
    else:
        folder = Path(os.path.abspath(labels.source)).parent
        roots = [folder, *folder.parents][: LEVELS + 1]
    for where in roots:
        files = [_file(where, path) for path in labels.keypoints.paths]
        if any(file is not None for file in files):
            break
    else:
        looked = ", ".join(map(str, roots))
        first = labels.keypoints.paths[0] if len(labels) else "none"
        raise InputError(
            f"none of the {len(labels)} images of {labels.source} is found, such as {first}: looked below {looked}; say where "
            "they lie with --images-root"
        )
    missing = {i: f"no such file below {where}" for i, file in enumerate(files) if file is None}
    found = tuple(file for file in files if file is not None)
    located = dataclasses.replace(labels.without(missing), files=found)
    points = located.keypoints
    return located.without(repeated_images(found, (points.xy, points.visible, points.score), located.where))


def _file(root: Path, path: str) -> Path | None:
    for name in dict.fromkeys((path, path.replace("\\", "/"))):
        file = os.path.normpath(root / name)
        if os.path.isfile(file):
            return Path(file)
    return None


def keep_inside(labels: Labels, sizes: Sequence[tuple[int, int]]) -> Labels:
    """The labels of those images whose points all lie in them; the others join the skipped ones.

    An image covers [-0.5, width - 0.5] × [-0.5, height - 0.5]: pixel centres are at integers.

    Args:
        labels: to be checked. sizes: (width, height) of each image in pixels, after EXIF rotation.

    Raises:
        InputError: not as many sizes as images, or no image is left.
    """
    if len(sizes) != len(labels):
        raise InputError(f"expected the sizes of {len(labels)} images, got {len(sizes)}")
    reasons = {}
    for i, (width, height) in enumerate(sizes):
        xy = labels.keypoints.xy[i]
        outside = ((xy < -0.5) | (xy > np.array([width, height]) - 0.5)).any(axis=1)
        if outside.any():
            names = ", ".join(
                f"{labels.keypoints.parts[p]} at ({xy[p, 0]:g}, {xy[p, 1]:g})" for p in np.flatnonzero(outside)
            )
            reasons[i] = f"outside the image, which is {width}×{height} px: {names}"
    return labels.without(reasons)
