"""What every correspondence benchmark is made of: pairs of images, and points that correspond in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

#: Left, top, right, bottom in pixels.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class BenchmarkPair:
    """Two images and the points that are known in both.

    name: of the pair, unlike that of any other. category: what it is counted under.
    path_a, path_b: the source, in which points are given, and the target, in which they are looked for.
    points_a, points_b: (K, 2) pixels of the originals, x then y, pixel centres at integers; the same order in both, K of 1 or more.
    points: names of the K points, or None.
    twins: for each point the index of its mirror image (right paw for left paw) among the K points: its own index where it is its own mirror
        image (a nose), −1 where its mirror image is not among them. None where the benchmark does not say what is left and right.
    box_a, box_b: of the object, or None: the annotation's corners, moved with the points where it counts from 1, so that extents are its own.
    size_a, size_b: width and height as the annotation says, or None.
    facts: what else the annotation says of the pair and results may be split by (viewpoint_variation, …).
    """

    name: str
    category: str
    path_a: Path
    path_b: Path
    points_a: Float[np.ndarray, "K 2"]
    points_b: Float[np.ndarray, "K 2"]
    points: tuple[str, ...] | None = None
    twins: tuple[int, ...] | None = None
    box_a: Box | None = None
    box_b: Box | None = None
    size_a: tuple[int, int] | None = None
    size_b: tuple[int, int] | None = None
    facts: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """The pairs of one split of a benchmark.

    kind: the reader's name. split: which split. pairs: in the order of the official list.
    dropped: pairs (name, reason) that are in the list but cannot count, such as those with no point in common.
    choices: which list was read, and what was chosen of the benchmark (a seed, a step, a limit): part of every result.
    notes: what a user should know though nothing is wrong, such as another number of pairs than the official list has.
    """

    kind: str
    split: str
    pairs: Sequence[BenchmarkPair]
    dropped: Sequence[tuple[str, str]] = ()
    choices: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    notes: Sequence[str] = ()
