"""Points that people marked, where in their file each image's labels stand, and what could not be used of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from encoders.errors import InputError
from matching.annotations.layouts import Layout
from matching.keypoints import Keypoints


@dataclass(frozen=True)
class SkippedLabel:
    """Something in an annotation file that could not be used.

    image: as the file names it, None where that cannot be told. where: the file and the line, annotation or image in it.
    reason: what is wrong, and what to do where that is not plain.
    """

    image: str | None
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {'' if self.image is None else self.image + ': '}{self.reason}"

    def to_json(self) -> dict[str, str | None]:
        return {"path": self.image, "where": self.where, "reason": self.reason}


@dataclass(frozen=True, eq=False)
class Labels:
    """The keypoints of an annotation file.

    keypoints: the images that can be used. What people marked has no score, predictions have one.
    source: the file. layout: what it holds beside the points, to write it back.
    where: (N,) where the labels of each image stand, in words that begin with the file.
    skipped: what was left out, with its reason. An image with one faulty point is left out whole: without that point the part would
        count as not visible there.
    files: (N,) the image files, once `locate_images` has found them.
    """

    keypoints: Keypoints
    source: Path
    layout: Layout
    where: tuple[str, ...]
    skipped: tuple[SkippedLabel, ...] = ()
    files: tuple[Path, ...] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def marked(self) -> Bool[np.ndarray, "N"]:
        """In which images at least one part has a place. In the others nothing can be seen, or nobody has looked."""
        return np.asarray(self.keypoints.placed.any(axis=1))

    def take(self, images: Sequence[int] | Int[np.ndarray, "n"] | Bool[np.ndarray, "N"]) -> Labels:
        """Some of the images, in this order."""
        index = np.arange(len(self))[np.asarray(images)] if len(images) else np.zeros(0, np.int64)
        return dataclasses.replace(
            self,
            keypoints=self.keypoints.take(images),
            where=tuple(self.where[i] for i in index),
            files=None if self.files is None else tuple(self.files[i] for i in index),
        )

    def without(self, reasons: Mapping[int, str]) -> Labels:
        """All but these images, which join the skipped ones, each with its reason.

        Raises:
            InputError: no image is left.
        """
        if not reasons:
            return self
        gone = tuple(SkippedLabel(self.keypoints.paths[i], self.where[i], reason) for i, reason in reasons.items())
        left = [i for i in range(len(self)) if i not in reasons]
        if not left:
            raise nothing_left(self.source, gone)
        return dataclasses.replace(self.take(left), skipped=(*self.skipped, *gone))


@dataclass(frozen=True, eq=False)
class LabelRow:
    """One image's labels on their way from a file: its name, where they stand, and (P, …) places, visibility and scores."""

    image: str
    where: str
    xy: Float[np.ndarray, "P 2"]
    visible: Bool[np.ndarray, "P"]
    score: Float[np.ndarray, "P"]


def labels_of_rows(
    source: Path,
    layout: Layout,
    parts: Sequence[str],
    rows: Sequence[LabelRow],
    skipped: Sequence[SkippedLabel],
    skeleton: tuple[tuple[int, int], ...] = (),
) -> Labels:
    """Rows of a file as labels. An image that is there twice counts once where both rows say the same, and else not at all.

    Raises:
        InputError: no row can be used.
    """
    if not rows:
        raise nothing_left(source, skipped)
    xy, visible = np.stack([row.xy for row in rows]), np.stack([row.visible for row in rows])
    score = np.stack([row.score for row in rows])
    bad = repeated_images([row.image for row in rows], (xy, visible, score), [row.where for row in rows])
    skipped = [*skipped, *(SkippedLabel(rows[i].image, rows[i].where, reason) for i, reason in bad.items())]
    good = [i for i in range(len(rows)) if i not in bad]
    if not good:
        raise nothing_left(source, skipped)
    names = tuple(rows[i].image for i in good)
    keypoints = Keypoints(names, tuple(parts), xy[good], visible[good], score[good], skeleton)
    return Labels(keypoints, source, layout, tuple(rows[i].where for i in good), tuple(skipped))


def repeated(keys: Sequence[Hashable], same: Callable[[int, int], bool], where: Sequence[str]) -> dict[int, str]:
    """Which of several entries cannot count because their key is there more than once, and why.

    Of entries that say the same the first counts. Where they do not, nobody can tell which is right, and none counts.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    reasons: dict[int, str] = {}
    for first, *others in groups.values():
        if all(same(first, other) for other in others):
            reasons |= dict.fromkeys(others, f"there already, {where[first]}: delete one of them")
        else:
            places = " and ".join(where[i] for i in (first, *others))
            reasons |= dict.fromkeys((first, *others), f"there several times and not the same ({places}): keep one")
    return dict(sorted(reasons.items()))


def repeated_images(keys: Sequence[Hashable], arrays: Sequence[np.ndarray], where: Sequence[str]) -> dict[int, str]:
    """`repeated` for images whose labels are rows of arrays."""

    def same(i: int, j: int) -> bool:
        return all(np.array_equal(array[i], array[j], equal_nan=array.dtype != bool) for array in arrays)

    return repeated(keys, same, where)


def nothing_left(source: Path, skipped: Sequence[SkippedLabel]) -> InputError:
    """The error for a file of which nothing can be used."""
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    why = f"{skipped[0]}{more}" if skipped else "it has no rows"
    return InputError(f"{source} has no labels that can be used: {why}")
