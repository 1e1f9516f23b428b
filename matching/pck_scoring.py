"""One pair under a convention: T, where its points are found, and how far from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor

from encoders.errors import InputError
from encoders.frame import Frame
from matching.benchmarks.pair import BenchmarkPair
from matching.pck_convention import Convention
from matching.pck_places import Located, MapFrame, locate
from matching.pck_records import PairRecord


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


def score_pair(
    pair: BenchmarkPair,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    convention: Convention,
    *,
    mirrored_a: MapFrame | None = None,
    mirrored_b: MapFrame | None = None,
    valid_a: Bool[np.ndarray, "ha wa"] | None = None,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
) -> PairRecord:
    """Find the points of a pair and measure how far off they are, in the convention's direction or in both.

    Args:
        map_a, frame_a, map_b, frame_b: of the pair's images, encoded as the convention has it.
        mirrored_a, mirrored_b: the same of the mirror images of whichever is a source, which `flip` needs.
        valid_a, valid_b: patches that take part (see `locate`).

    Raises:
        InputError: an image of another size than annotated, and what `pair_threshold` and `locate` raise; the pair is named.
    """
    for path, frame, size in ((pair.path_a, frame_a, pair.size_a), (pair.path_b, frame_b, pair.size_b)):
        if size is not None and (frame.width, frame.height) != tuple(size):
            raise InputError(
                f"{pair.name}: {path.name} has {frame.width}×{frame.height} px, expected {size[0]}×{size[1]} as annotated"
            )
    sizes = {"size_a": (frame_a.width, frame_a.height), "size_b": (frame_b.width, frame_b.height)}
    a = (pair.points_a, map_a, frame_a, mirrored_a, valid_a)
    b = (pair.points_b, map_b, frame_b, mirrored_b, valid_b)
    errors, thresholds, nearest, found = [], [], [], []
    ways: Sequence[Literal["a-to-b", "b-to-a"]] = (
        ("a-to-b", "b-to-a") if convention.direction == "both" else (convention.direction,)
    )
    for way in ways:
        (points, source, source_frame, mirrored, valid), (truth, target, target_frame, _, valid_there) = (
            (a, b) if way == "a-to-b" else (b, a)
        )
        located = _locate(
            pair, points, source, source_frame, target, target_frame, convention, mirrored, valid, valid_there
        )
        truth = np.asarray(truth, np.float64)
        own = np.hypot(*(located.xy_b - truth).T)
        errors.append(own)
        nearest.append(_own_nearest(located.xy_b, truth, own))
        thresholds.append(np.full(len(truth), pair_threshold(pair, convention, way, **sizes) if len(truth) else 1.0))
        found.append(located)
    twins = None
    if pair.twins is not None:
        twins = np.tile(np.asarray(pair.twins, np.int64) != np.arange(len(pair.twins)), len(ways))
    return PairRecord(
        name=pair.name,
        category=pair.category,
        errors=np.concatenate(errors),
        thresholds=np.concatenate(thresholds),
        own_nearest=np.concatenate(nearest),
        twins=twins,
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


def _locate(
    pair: BenchmarkPair,
    points: Float[np.ndarray, "K 2"],
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    convention: Convention,
    mirrored: MapFrame | None,
    valid_a: Bool[np.ndarray, "ha wa"] | None,
    valid_b: Bool[np.ndarray, "hb wb"] | None,
) -> Located:
    given = mirrored if convention.flip_rule is not None else None
    try:
        return locate(
            np.asarray(points, np.float64),
            map_a,
            frame_a,
            map_b,
            frame_b,
            convention,
            mirrored_a=given,
            twins=pair.twins,
            valid_a=valid_a,
            valid_b=valid_b,
        )
    except InputError as error:
        raise InputError(f"{pair.name}: {error}") from error
