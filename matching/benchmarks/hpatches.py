"""HPatches sequences: six images of a plane, and the homographies from the first to each of the others.

    {i,v}_<sequence>/{1..6}.ppm    i: other light, v: other viewpoint
    {i,v}_<sequence>/H_1_{2..6}    three rows of three numbers, which map pixels of image 1 to pixels of image k

Points are pixels of image 1 on a lattice whose places in image k lie inside of it. Pixels are counted from 0, centres at integers.
Source: HPatches (Balntas et al. 2017); D2-Net for the subset of 108 sequences.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fewmatch.encoders.images import image_size
from fewmatch.errors import ImageError, InputError
from fewmatch.labels.cells import number
from fewmatch.matching.benchmarks.dense import check_density, drawn, lattice
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.records import finished, require_files, require_folder, text_of

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

SPLITS = ("test",)
CATEGORIES = {"i": "illumination", "v": "viewpoint"}
#: Sequences with images above 1,600 × 1,200 px, which the usual subset leaves out; the first is spelt so.
LARGE = (
    "i_contruction",
    "i_crownnight",
    "i_dc",
    "i_pencils",
    "i_whitebuilding",
    "v_artisans",
    "v_astronautis",
    "v_talent",
)
#: Sequences of the usual subset, and all of them.
EXPECTED = {False: 108, True: 116}
#: Pixels between two points unless told.
STEP = 16
_TARGETS = range(2, 7)


def read_hpatches(
    folder: Path,
    split: str = "test",
    *,
    step: int = STEP,
    points: int | None = None,
    seed: int = 0,
    all_sequences: bool = False,
) -> Benchmark:
    """Five pairs a sequence, from image 1 to each of the others; sequences by name.

    Args:
        folder: hpatches-sequences-release, in which the sequences lie.
        split: test.
        step: every step-th pixel of every step-th row is a point.
        points: at most so many of them for each pair, drawn with the seed; by default all.
        seed: of the drawing.
        all_sequences: also the 8 that the usual subset of 108 leaves out.

    Raises:
        InputError: a missing or damaged file.
    """
    check_density(step, points, seed)
    require_folder(folder, "HPatches' sequences")
    sequences = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and entry.name[:2] in ("i_", "v_") and (all_sequences or entry.name not in LARGE)
    ]
    if not sequences:
        raise InputError(f"{folder} has no sequence: give the folder of HPatches in which those called i_… and v_… lie")
    images = {(s, k): _image(s, k) for s in sequences for k in (1, *_TARGETS)}
    require_files(images.values(), "images", "expected 1.ppm to 6.ppm in each sequence")
    require_files((s / f"H_1_{k}" for s in sequences for k in _TARGETS), "homographies", "expected H_1_2 to H_1_6")
    rng = np.random.default_rng(seed)
    rows = []
    for sequence in sequences:
        size_a = _size(images[sequence, 1])
        grid = lattice(*size_a, step)
        for k in _TARGETS:
            size_b = _size(images[sequence, k])
            moved = _moved(grid, _homography(sequence / f"H_1_{k}"))
            with np.errstate(invalid="ignore"):
                inside = ((moved >= -0.5) & (moved <= np.array(size_b) - 0.5)).all(axis=1)
            points_a, points_b = drawn(grid[inside], moved[inside], points, rng)
            rows.append(
                BenchmarkPair(
                    name=f"{sequence.name}/1-{k}",
                    category=CATEGORIES[sequence.name[0]],
                    path_a=images[sequence, 1],
                    path_b=images[sequence, k],
                    points_a=points_a - ORIGIN - CENTRE,
                    points_b=points_b - ORIGIN - CENTRE,
                    size_a=size_a,
                    size_b=size_b,
                    facts={"sequence": sequence.name, "target": k},
                )
            )
    choices: dict[str, int | float | str | bool] = {"all_sequences": all_sequences, "step": step}
    if points is not None:
        choices |= {"points": points, "seed": seed}
    expected = len(_TARGETS) * EXPECTED[all_sequences]
    return finished("hpatches", split, rows, folder, choices=choices, expected=expected)


def _image(sequence: Path, k: int) -> Path:
    """Some copies are PNG."""
    path = sequence / f"{k}.png"
    return path if path.is_file() else path.with_suffix(".ppm")


def _size(path: Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except ImageError as error:
        raise InputError(f"{path} cannot be read as an image ({error}): copy it again") from error


def _homography(path: Path) -> Float[np.ndarray, "3 3"]:
    cells = text_of(path, "three rows of three numbers").split()
    try:
        values = [number(cell) for cell in cells]
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    if len(values) != 9 or any(math.isnan(value) for value in values):
        raise InputError(
            f"{path}: expected three rows of three numbers, got {len(values)} values: the file may be cut off"
        )
    matrix = np.array(values).reshape(3, 3)
    if np.linalg.matrix_rank(matrix) < 3:
        raise InputError(f"{path}: expected a homography that can be inverted, got {values}")
    return matrix


def _moved(points: Float[np.ndarray, "K 2"], matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "K 2"]:
    """NaN for what the homography maps to infinity or behind the camera."""
    mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    # A homography may be scaled by -1. Its last entry is the third coordinate of pixel (0, 0), which is in front of the camera.
    weight = mapped[:, 2:] * (1.0 if matrix[2, 2] >= 0 else -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight > 0, mapped[:, :2] / mapped[:, 2:], np.nan)
