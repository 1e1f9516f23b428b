"""Where the images of labels lie, and whether the points lie in them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewmatch.encoders.images import image_size
from fewmatch.errors import ImageError, InputError
from fewmatch.labels.image_sizes import RESCALE_OPTION, Size, size_difference
from fewmatch.labels.labels import Labels
from fewmatch.labels.layouts import resized
from fewmatch.names import DiskNames

#: Folders above the annotation file's own in which images are looked for: DeepLabCut's paths begin at the project, two folders up.
LEVELS = 3


def locate_images(
    labels: Labels,
    root: str | os.PathLike[str] | None = None,
    *,
    other: str | os.PathLike[str] | None = None,
    rescale: bool = False,
) -> Labels:
    """The labels of those images whose files are found, with `files` and `root`; the others join the skipped ones.

    Paths are relative to `root`, or without one to the nearest of the annotation file's folder and the `LEVELS` folders above it that
    holds any of the images. Absolute paths are taken as they are; backslashes are read as slashes where there is no such file, and names
    are compared by `fewmatch.names.same_name`. Two rows that name the same file in two ways count as one image that is there twice.

    Where the file of labels says how large images are, that is compared with the images (`compare_sizes`).

    Args:
        labels: as read from a file. root: see above.
        other: where to look if no image is found below any of these, such as the root of the labels that these ones correct.
        rescale: as in `compare_sizes`.

    Raises:
        InputError: no image is found.
    """
    if root is not None:
        roots = [Path(root)]
    else:
        folder = Path(os.path.abspath(labels.source)).parent
        roots = [folder, *folder.parents][: LEVELS + 1]
        roots += [] if other is None else [Path(other)]
    disk = DiskNames()
    for where in roots:
        files = [_file(where, path, disk) for path in labels.keypoints.paths]
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
    relative = any(not os.path.isabs(path) for path, file in zip(labels.keypoints.paths, files, strict=True) if file)
    located = dataclasses.replace(labels.without(missing), files=found, root=where if relative else None)
    stated = located.labelled & np.array([size is not None for size in located.sizes], bool)
    sizes = [_size(file) if has else None for file, has in zip(found, stated, strict=True)]
    located = compare_sizes(located, sizes, rescale=rescale)
    return located.once_each(located.files or ())


def _file(root: Path, path: str, disk: DiskNames) -> Path | None:
    for name in dict.fromkeys((path, path.replace("\\", "/"))):
        file = disk.find(os.path.normpath(root / name))
        if file is not None and os.path.isfile(file):
            return file
    return None


def _size(file: Path) -> Size | None:
    try:
        return image_size(file)
    except ImageError:  # whoever reads the image names what is wrong with it
        return None


def compare_sizes(labels: Labels, sizes: Sequence[Size | None], *, rescale: bool = False) -> Labels:
    """The labels of those images whose size is the one that the file of labels says, or for which it says none.

    The others join the skipped ones, unless the size differs by one factor and `rescale` is set: then the points are moved with the sides of
    the image, and the middle of a pixel stays the middle of what it covers. What the file says of boxes and outlines of such images is
    dropped in any case. Images that nobody looked at are left alone.

    Args:
        labels: as read from a file.
        sizes: (N,) width and height of each image as displayed, with EXIF orientation applied; None where it is not known.
        rescale: whether to move points.

    Raises:
        InputError: not as many sizes as images, or no image is left.
    """
    if len(sizes) != len(labels):
        raise InputError(f"expected the sizes of {len(labels)} images, got {len(sizes)}")
    reasons: dict[int, str] = {}
    rescaled: list[int] = []
    xy, words = labels.keypoints.xy.copy(), ""
    for i, (stated, actual) in enumerate(zip(labels.sizes, sizes, strict=True)):
        if stated is None or actual is None or not labels.labelled[i]:
            continue
        difference = size_difference(stated, actual)
        if difference is None:
            continue
        if difference.kind == "factor" and rescale:
            xy[i] = (xy[i] + 0.5) * (np.array(actual) / stated) - 0.5
            words = words or f"{labels.keypoints.paths[i]}: {difference}"
            rescaled.append(i)
        else:
            advice = f"; {RESCALE_OPTION} moves its points by it" if difference.kind == "factor" else ""
            reasons[i] = f"{difference}{advice}"
    if not reasons and not rescaled:
        return labels
    odd = {labels.keypoints.paths[i]: size for i in (*reasons, *rescaled) if (size := sizes[i]) is not None}
    labels = dataclasses.replace(
        labels,
        keypoints=dataclasses.replace(labels.keypoints, xy=xy),
        layout=resized(labels.layout, odd),
        sizes=tuple(sizes[i] if i in set(rescaled) else size for i, size in enumerate(labels.sizes)),
    )
    if rescaled:
        images = "1 image" if len(rescaled) == 1 else f"{len(rescaled)} images"
        note = f"{labels.source}: labels of {images} are moved to the size of the image ({words})"
        labels = dataclasses.replace(labels, notes=(*labels.notes, note))
    return labels.without(reasons)


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
