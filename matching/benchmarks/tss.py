"""TSS: image pairs with dense flow on the foreground, in both directions.

    {FG3DCar,JODS,PASCAL}/<pair>/image1.png image2.png mask1.png mask2.png flow1.flo flow2.flo flip_gt.txt

flow1 lives on image 1: pixel (x, y) of image 1 is at (x, y) + flow1 in image 2; flow2 is the other way. Points are the pixels of the mask
(any value above 0) whose flow is known. A flow may end outside the other image; such a point counts as well.
flip_gt says whether the objects face opposite ways; it is kept as a fact, and nothing is mirrored. Pixels are counted from 0.
Source: Taniai et al. 2016, TSS; Middlebury's .flo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from fewmatch.encoders.images import read_image
from fewmatch.errors import ImageError, InputError
from fewmatch.matching.benchmarks.dense import check_density, drawn, lattice
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.records import finished, require_files, require_folder, text_of
from fewmatch.matching.flow_files import read_flow

#: The index of the first pixel, and where in a pixel its integer coordinate lies: 0 is its centre, 0.5 its left and top edge.
ORIGIN, CENTRE = 0, 0.0

SPLITS = ("test",)
#: Pairs of each subset; each counts in both directions.
SUBSETS = {"FG3DCar": 195, "JODS": 81, "PASCAL": 124}
_FILES = ("image1.png", "image2.png", "mask1.png", "mask2.png", "flow1.flo", "flow2.flo", "flip_gt.txt")


def read_tss(
    folder: Path, split: str = "test", *, step: int = 1, points: int | None = None, seed: int = 0
) -> Benchmark:
    """All pairs, those of a subset by name, first from image 1 to image 2, then back. The category is the subset.

    All foreground pixels of the 400 pairs are tens of millions of points, 32 bytes each.

    Args:
        folder: TSS_CVPR2016, in which the subsets lie.
        split: test.
        step: every step-th pixel of every step-th row; 1 for all, which is the benchmark's definition.
        points: at most so many of them for each pair and direction, drawn with the seed; by default all.
        seed: of the drawing.

    Raises:
        InputError: a missing or damaged file, or files of one pair that do not fit together.
    """
    check_density(step, points, seed)
    require_folder(folder, "TSS_CVPR2016")
    subsets = [name for name in SUBSETS if (folder / name).is_dir()]
    if not subsets:
        raise InputError(f"{folder} has none of {', '.join(SUBSETS)}: give the folder of TSS in which they lie")
    folders = [(name, pair) for name in subsets for pair in sorted((folder / name).iterdir()) if pair.is_dir()]
    files = [pair / name for _, pair in folders for name in _FILES]
    require_files(files, "files", f"expected {', '.join(_FILES)} in each pair's folder")
    rng = np.random.default_rng(seed)
    rows = [row for name, pair in folders for row in _directions(name, pair, step, points, rng)]
    choices: dict[str, int | float | str | bool] = {"step": step}
    if points is not None:
        choices |= {"points": points, "seed": seed}
    return finished("tss", split, rows, folder, choices=choices, expected=2 * sum(SUBSETS.values()))


def _directions(
    subset: str, folder: Path, step: int, points: int | None, rng: np.random.Generator
) -> tuple[BenchmarkPair, BenchmarkPair]:
    flip = text_of(folder / "flip_gt.txt", "0 or 1").strip()
    if flip not in ("0", "1"):
        raise InputError(f"{folder / 'flip_gt.txt'}: expected 0 or 1, got {flip[:40]!r}")
    flows, masks = [], []
    for side in (1, 2):
        flow, mask = read_flow(folder / f"flow{side}.flo"), _mask(folder / f"mask{side}.png")
        if flow.shape[:2] != mask.shape:
            raise InputError(
                f"{folder}: expected mask{side}.png of the size of flow{side}.flo, {flow.shape[1]}×{flow.shape[0]} px, "
                f"got {mask.shape[1]}×{mask.shape[0]} px"
            )
        flows.append(flow)
        masks.append(mask)
    rows = []
    for a, b in ((0, 1), (1, 0)):
        height, width = masks[a].shape
        points_a = lattice(width, height, step)
        x, y = points_a.astype(np.int64).T
        counts = masks[a][y, x] & np.isfinite(flows[a][y, x]).all(axis=1)
        points_a = points_a[counts]
        points_a, points_b = drawn(points_a, points_a + flows[a][y[counts], x[counts]], points, rng)
        rows.append(
            BenchmarkPair(
                name=f"{subset}/{folder.name}/{a + 1}-{b + 1}",
                category=subset,
                path_a=folder / f"image{a + 1}.png",
                path_b=folder / f"image{b + 1}.png",
                points_a=points_a - ORIGIN - CENTRE,
                points_b=points_b - ORIGIN - CENTRE,
                size_a=(width, height),
                size_b=(masks[b].shape[1], masks[b].shape[0]),
                facts={"flip_gt": int(flip), "direction": f"{a + 1} to {b + 1}"},
            )
        )
    return rows[0], rows[1]


def _mask(path: Path) -> Bool[np.ndarray, "H W"]:
    try:
        return np.asarray(read_image(path).rgb.any(axis=2))
    except ImageError as error:
        raise InputError(f"{path} cannot be read as a mask ({error}): copy it again") from error
