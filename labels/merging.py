"""Labels of several files as those of one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import Labels, Repeated, SkippedLabel, nothing_left, repeated_images, yielding_note
from fewmatch.names import same_name


def merge_labels(every: Sequence[Labels], *, replace: bool = False) -> Labels:
    """The images of all files, in turn; parts, their order, the layout and the source are the first one's.

    An image that is in several files (the same file, where `locate_images` has found them all, else the same path) counts once where they
    say the same of it; where they do not, it counts not at all and is listed in `skipped`, unless `replace` lets the last file
    have its way, as corrections should. An entry of an image that nobody looked at yields to any other.

    Raises:
        InputError: nothing to merge, a part is not in every file, two different images have the same path, or no image is left.
    """
    if not every:
        raise InputError("no labels to merge: expected at least one file")
    first = every[0]
    _check_parts(every)
    located = all(labels.files is not None for labels in every)
    arrays = [_in_order(labels.keypoints, first.keypoints.parts) for labels in every]
    paths = [path for labels in every for path in labels.keypoints.paths]
    where = [place for labels in every for place in labels.where]
    files = [file for labels in every for file in labels.files or ()] if located else None
    if files is not None:
        keys = [os.path.abspath(file) for file in files]
    else:
        same = [[same_name(path) for path in labels.keypoints.paths] for labels in every]
        # Where one file has both spellings of a name, they are two images.
        keys = (
            paths if any(len(set(names)) < len(names) for names in same) else [name for names in same for name in names]
        )
    xy, visible, score = (np.concatenate([group[k] for group in arrays]) for k in range(3))
    labelled = np.concatenate([labels.labelled for labels in every])

    skipped = [skip for labels in every for skip in labels.skipped]
    if replace:
        last: dict[object, int] = {}
        for i, key in enumerate(keys):
            if labelled[i] or key not in last:
                last[key] = i
        # The place of the first, so that corrections do not change the order; the labels of the last.
        index = [last[key] for key in dict.fromkeys(keys)]
        found = Repeated({}, {i: last[key] for i, key in enumerate(keys) if not labelled[i] and last[key] != i})
    else:
        found = repeated_images(keys, (xy, visible, score), where, labelled)
        skipped += [SkippedLabel(paths[i], where[i], reason) for i, reason in found.reasons.items()]
        index = [i for i in range(len(keys)) if i not in found.reasons and i not in found.yielding]
    if not index:
        raise nothing_left(first.source, skipped)
    names = [paths[i] for i in index]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"two different images are called {twice}: keep their labels in files of one folder above both"
        )
    keypoints = Keypoints(
        tuple(names),
        first.keypoints.parts,
        xy[index],
        visible[index],
        score[index],
        first.keypoints.skeleton,
        labelled[index],
    )
    sizes = [size for labels in every for size in labels.sizes]
    notes = [note for labels in every for note in labels.notes] + yielding_note(found, paths, where)
    return dataclasses.replace(
        first,
        keypoints=keypoints,
        where=tuple(where[i] for i in index),
        sizes=tuple(sizes[i] for i in index),
        notes=tuple(notes),
        skipped=tuple(skipped),
        files=None if files is None else tuple(files[i] for i in index),
    )


def _check_parts(every: Sequence[Labels]) -> None:
    own = [{same_name(part) for part in labels.keypoints.parts} for labels in every]
    for part in dict.fromkeys(part for labels in every for part in labels.keypoints.parts):
        there = [same_name(part) in parts for parts in own]
        if not all(there):
            having, lacking = (
                [str(labels.source) for labels, has in zip(every, there, strict=True) if has == which]
                for which in (True, False)
            )
            raise InputError(
                f"the part {part} is in {', '.join(having)} but not in {', '.join(lacking)}: expected the same parts in every file"
            )


def _in_order(keypoints: Keypoints, parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ordered = keypoints.in_order(parts)
    return ordered.xy, ordered.visible, ordered.score
