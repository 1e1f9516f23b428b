"""One pair under a convention: T, where its points are found, and how far from the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from fewmatch.errors import InputError
from fewmatch.labels.image_sizes import size_difference
from fewmatch.matching.benchmarks.left_right import ABSENT
from fewmatch.matching.benchmarks.pair import BenchmarkPair
from fewmatch.matching.benchmarks.pck.convention import Convention
from fewmatch.matching.benchmarks.pck.places import EncodedImage, Located, locate
from fewmatch.matching.benchmarks.pck.records import PairRecord


def pair_threshold(
    pair: BenchmarkPair,
    convention: Convention,
    direction: Literal["a-to-b", "b-to-a"] = "a-to-b",
    *,
    size_a: tuple[int, int] | None = None,
    size_b: tuple[int, int] | None = None,
) -> float:
    """T of a pair in pixels of the original image; α·T is how far off a point may be found.

    The target is B from A to B, and A from B to A. A box's side is right − left or bottom − top, as annotated; the points' box is that around
    the points of the pair in that image, so of those that are known in both.

    Args:
        size_a, size_b: width and height of the images; None takes those of the annotation.

    Raises:
        InputError: the annotation has no box or size that T asks for, or T is not above 0 (a single point has no extent).
    """
    base, _, which = convention.threshold.partition("-")
    if base == "fixed":
        assert convention.fixed is not None
        return convention.fixed
    of_b = (which == "target") == (direction == "a-to-b")
    name = "B" if of_b else "A"
    if base == "bbox":
        box = pair.box_b if of_b else pair.box_a
        if box is None:
            raise InputError(
                f"{pair.name}: no box of {name} is known for threshold {convention.threshold}: use image-{which}"
            )
        threshold = float(max(box[2] - box[0], box[3] - box[1]))
    elif base == "image":
        size = (size_b or pair.size_b) if of_b else (size_a or pair.size_a)
        if size is None:
            raise InputError(f"{pair.name}: the size of {name} is not known for threshold {convention.threshold}")
        threshold = float(max(size))
    else:
        threshold = float(np.ptp(pair.points_b if of_b else pair.points_a, axis=0).max()) if len(pair.points_a) else 0.0
    if not (np.isfinite(threshold) and threshold > 0):
        raise InputError(
            f"{pair.name}: T by {convention.threshold} is {threshold:g} px, expected more than 0: use another threshold"
        )
    return threshold


def require_twins(pair: BenchmarkPair, convention: Convention) -> None:
    """Refuse a convention with a flip for a pair of which nobody knows what is left and right.

    In a mirror image a left paw looks like a right one: without the exchange the points of a mirrored source would be wrong.

    Raises:
        InputError: that is so.
    """
    if convention.flip_rule is not None and pair.twins is None:
        raise InputError(
            f"{pair.name}: which of its points are left and right of each other is not known, so a mirrored source cannot be "
            "scored: use --flip none"
        )


def score_pair(
    pair: BenchmarkPair,
    a: EncodedImage,
    b: EncodedImage,
    convention: Convention,
) -> PairRecord:
    """Find the points of a pair and measure how far off they are, in the convention's direction or in both.

    Args:
        a, b: the pair's images, encoded as the convention has it.

    Raises:
        InputError: an image of another size than annotated, and what `require_twins`, `pair_threshold` and `locate` raise; the pair is named.
    """
    require_twins(pair, convention)
    for path, frame, size in ((pair.path_a, a.frame, pair.size_a), (pair.path_b, b.frame, pair.size_b)):
        difference = None if size is None else size_difference(size, (frame.width, frame.height))
        if difference is not None:
            raise InputError(f"{pair.name}: {path.name}: {difference}")
    sizes = {"size_a": (a.frame.width, a.frame.height), "size_b": (b.frame.width, b.frame.height)}
    errors, thresholds, nearest, found = [], [], [], []
    ways: Sequence[Literal["a-to-b", "b-to-a"]] = (
        ("a-to-b", "b-to-a") if convention.direction == "both" else (convention.direction,)
    )
    for way in ways:
        truth = pair.points_b if way == "a-to-b" else pair.points_a
        try:
            located = locate_pair(pair, a, b, convention, way)
        except InputError as error:
            raise InputError(f"{pair.name}: {error}") from error
        truth = np.asarray(truth, np.float64)
        own = np.hypot(*(located.xy_b - truth).T)
        errors.append(own)
        nearest.append(_own_nearest(located.xy_b, truth, own))
        thresholds.append(np.full(len(truth), pair_threshold(pair, convention, way, **sizes) if len(truth) else 1.0))
        found.append(located)
    twins = None
    if pair.twins is not None:
        twin = np.asarray(pair.twins, np.int64)
        twins = np.tile((twin != np.arange(len(twin))) & (twin != ABSENT), len(ways))
    return PairRecord(
        name=pair.name,
        category=pair.category,
        errors=np.concatenate(errors),
        thresholds=np.concatenate(thresholds),
        own_nearest=np.concatenate(nearest),
        twins=twins,
        kept=np.concatenate([located.kept for located in found]),
        facts=dict(pair.facts),
        moved=int(sum(located.moved.sum() for located in found)),
        mirrored=sum(located.choice is not None and located.choice.mirrored for located in found),
    )


def _own_nearest(
    found: Float[np.ndarray, "K 2"], truth: Float[np.ndarray, "K 2"], own: Float[np.ndarray, "K"]
) -> Bool[np.ndarray, "K"]:
    """Whether no other point's place is nearer than the own one; a tree, since dense benchmarks have very many points."""
    if not len(truth):
        return np.zeros(0, bool)
    nearest = cKDTree(truth).query(found)[1]
    return np.asarray(own <= np.hypot(*(found - truth[nearest]).T))


def locate_pair(
    pair: BenchmarkPair,
    a: EncodedImage,
    b: EncodedImage,
    convention: Convention,
    direction: Literal["a-to-b", "b-to-a"] = "a-to-b",
) -> Located:
    """Where the points of a pair's source are found in its target; see `locate`."""
    points, source, target = (pair.points_a, a, b) if direction == "a-to-b" else (pair.points_b, b, a)
    if convention.flip_rule is None:
        source = dataclasses.replace(source, mirrored=None)
    return locate(np.asarray(points, np.float64), source, target, convention, twins=pair.twins)
