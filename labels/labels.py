"""Points that people marked, where in their file each image's labels stand, and what could not be used of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from fewmatch.errors import InputError
from fewmatch.labels.image_sizes import Size
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.layouts import Layout


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
    sizes: (N,) the width and height in pixels that the file says an image has, None where it says none.
    notes: what a user should know though nothing is wrong, a line each.
    skipped: what was left out, with its reason. An image with one faulty point is left out whole: without that point the part would
        count as not visible there.
    files: (N,) the image files, once `locate_images` has found them. root: the folder that relative paths turned out to begin in.
    """

    keypoints: Keypoints
    source: Path
    layout: Layout
    where: tuple[str, ...]
    sizes: tuple[Size | None, ...]
    skipped: tuple[SkippedLabel, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] | None = None
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def labelled(self) -> Bool[np.ndarray, "N"]:
        """Which images somebody looked at: see `Keypoints.labelled`."""
        return self.keypoints.labelled

    def take(self, images: Sequence[int] | Int[np.ndarray, "n"] | Bool[np.ndarray, "N"]) -> Labels:
        """Some of the images, in this order."""
        index = np.arange(len(self))[np.asarray(images)] if len(images) else np.zeros(0, np.int64)
        return dataclasses.replace(
            self,
            keypoints=self.keypoints.take(images),
            where=tuple(self.where[i] for i in index),
            sizes=tuple(self.sizes[i] for i in index),
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

    def once_each(self, keys: Sequence[Hashable]) -> Labels:
        """The labels with each key once, by the rule of `repeated`.

        Raises:
            InputError: no image is left.
        """
        points = self.keypoints
        found = repeated_images(keys, (points.xy, points.visible, points.score), self.where, points.labelled)
        if not found.reasons and not found.yielding:
            return self
        notes = yielding_note(found, points.paths, self.where)
        left = [i for i in range(len(self)) if i not in found.yielding]
        reasons = {n: found.reasons[i] for n, i in enumerate(left) if i in found.reasons}
        return dataclasses.replace(self.take(left).without(reasons), notes=(*self.notes, *notes))


@dataclass(frozen=True, eq=False)
class LabelRow:
    """One image's labels on their way from a file: its name, where they stand, and (P, …) places, visibility and scores.

    examined: whether the file says that its parts are not visible, and not merely nothing. size: of the image as the file has it.
    """

    image: str
    where: str
    xy: Float[np.ndarray, "P 2"]
    visible: Bool[np.ndarray, "P"]
    score: Float[np.ndarray, "P"]
    examined: bool = False
    size: Size | None = None


def labels_of_rows(
    source: Path,
    layout: Layout,
    parts: Sequence[str],
    rows: Sequence[LabelRow],
    skipped: Sequence[SkippedLabel],
    skeleton: tuple[tuple[int, int], ...] = (),
    notes: Sequence[str] = (),
) -> Labels:
    """Rows of a file as labels. An image that is there several times counts once or not at all, by the rule of `repeated`.

    Raises:
        InputError: no row can be used.
    """
    if not rows:
        raise nothing_left(source, skipped)
    xy, visible = np.stack([row.xy for row in rows]), np.stack([row.visible for row in rows])
    score = np.stack([row.score for row in rows])
    labelled = np.isfinite(xy).all(axis=2).any(axis=1) | np.array([row.examined for row in rows], bool)
    names, where = [row.image for row in rows], [row.where for row in rows]
    found = repeated_images(names, (xy, visible, score), where, labelled)
    skipped = [*skipped, *(SkippedLabel(names[i], where[i], reason) for i, reason in found.reasons.items())]
    good = [i for i in range(len(rows)) if i not in found.reasons and i not in found.yielding]
    if not good:
        raise nothing_left(source, skipped)
    keypoints = Keypoints(
        tuple(names[i] for i in good),
        tuple(parts),
        xy[good],
        visible[good],
        score[good],
        skeleton,
        labelled[good],
    )
    return Labels(
        keypoints,
        source,
        layout,
        tuple(where[i] for i in good),
        tuple(rows[i].size for i in good),
        tuple(skipped),
        (*notes, *yielding_note(found, names, where)),
    )


@dataclass(frozen=True)
class Repeated:
    """Entries that do not count because their key is there more than once.

    reasons: those that contradict each other or only say again what another says, each with its reason. yielding: those that say nothing,
    each with the entry that counts in its place.
    """

    reasons: dict[int, str]
    yielding: dict[int, int]


def repeated(
    keys: Sequence[Hashable],
    same: Callable[[int, int], bool],
    where: Sequence[str],
    empty: Callable[[int], bool],
) -> Repeated:
    """Which of several entries do not count because their key is there more than once.

    Of entries that say the same the first counts. Where they do not, nobody can tell which is right, and none counts. An empty entry,
    one that nobody filled in, contradicts nothing: it yields to the others.
    """
    groups: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    reasons: dict[int, str] = {}
    yielding: dict[int, int] = {}
    for group in groups.values():
        if len(group) == 1:
            continue
        filled = [i for i in group if not empty(i)] or group[:1]
        first, *others = filled
        yielding |= {i: first for i in group if i not in filled}
        if all(same(first, other) for other in others):
            reasons |= dict.fromkeys(others, f"there already, {where[first]}: delete one of them")
        else:
            places = " and ".join(where[i] for i in filled)
            reasons |= dict.fromkeys(filled, f"there several times and not the same ({places}): keep one")
    return Repeated(dict(sorted(reasons.items())), yielding)


def repeated_images(
    keys: Sequence[Hashable],
    arrays: Sequence[np.ndarray],
    where: Sequence[str],
    labelled: Bool[np.ndarray, "N"],
) -> Repeated:
    """`repeated` for images whose labels are rows of arrays; those that nobody looked at are empty."""

    def same(i: int, j: int) -> bool:
        return all(np.array_equal(array[i], array[j], equal_nan=array.dtype != bool) for array in arrays)

    return repeated(keys, same, where, lambda i: not labelled[i])


def yielding_note(found: Repeated, names: Sequence[str], where: Sequence[str]) -> list[str]:
    """A line about entries that yield, if there are any."""
    if not found.yielding:
        return []
    i, other = next(iter(found.yielding.items()))
    more = f" (and {len(found.yielding) - 1} more such entries)" if len(found.yielding) > 1 else ""
    return [f"{where[i]}: {names[i]} is empty there, so that {where[other]} counts{more}"]


def nothing_left(source: Path, skipped: Sequence[SkippedLabel]) -> InputError:
    """The error for a file of which nothing can be used."""
    more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
    why = f"{skipped[0]}{more}" if skipped else "it has no rows"
    return InputError(f"{source} has no labels that can be used: {why}")
