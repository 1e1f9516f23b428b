"""Mutual nearest neighbours of two sets of vectors: fewmatch and three peers, side by side in one run, with time and memory.

    python benchmarks/nearest_neighbours.py
    python benchmarks/nearest_neighbours.py --rows 3600 --columns 3600 --dims 768 --rounds 9

All find the same pairs of the same unit vectors; a difference that rounding does not explain ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import threadpoolctl
import torch
from machine import add_numbers, machine, options_parser, parse_numbers, version
from numpy.typing import NDArray

import fewmatch

#: Products of unit vectors carry rounding errors of some 1e-7 in float32: below this margin either answer is right.
MARGIN = 1e-6

Vectors = NDArray[np.float32]
#: (K, 2) rows of a and of b, in any order; None from what only shows what a part costs.
Pairs = NDArray[np.int64] | None
Search = Callable[[], Pairs]

#: Row by row in the tables, in the order of the rounds; of each part the first is compared with the others.
OURS, PRODUCT = "fewmatch", "the matrix product alone"
FULL, KORNIA, OPENCV = "torch, the whole matrix", "kornia match_mnn", "OpenCV BFMatcher, crossCheck"
FILTERED, FULL_FILTERED = "fewmatch, all filters", "torch, the whole matrix, filters"
MANY, FULL_MANY, OPENCV_MANY = "fewmatch, one to many", "torch, one to many", "OpenCV, one to many"
PARTS = {
    "pairs": (OURS, PRODUCT, FULL, KORNIA, OPENCV),
    "filters": (FILTERED, FULL_FILTERED),
    "many": (MANY, FULL_MANY, OPENCV_MANY),
}

#: The filters: least cosine, largest ratio, radius around a match in which it has no rivals, and longest cycle (both in patches).
MIN_SCORE, MAX_RATIO, EXCLUSION, MAX_CYCLE = 0.25, 0.9, 2.0, 1.0
#: A ratio is off by more than a cosine is: it is compared with this margin.
RATIO_MARGIN = 1e-4


@dataclass
class Row:
    """One line of the table. seconds: one entry per round. extra: peak memory beyond the inputs, in bytes."""

    seconds: list[float] = field(default_factory=list)
    pairs: Pairs = None
    extra: int | None = None


def unit_vectors(options: argparse.Namespace) -> tuple[Vectors, Vectors]:
    """Gaussian directions; the first half of b is the first half of a with noise, so that about half of the rows have a true match.

    Made in place: nothing that is freed here may hide what the searches take.
    """
    rng = np.random.default_rng(options.seed)
    a, b = (np.empty((n, options.dims), np.float32) for n in (options.rows, options.columns))
    for x in (a, b):
        rng.standard_normal(dtype=np.float32, out=x)
    common = min(len(a), len(b)) // 2
    b[:common] += a[:common]
    for x in (a, b):
        for row in x:
            row /= np.linalg.norm(row)
    return a, b


def searches(a: Vectors, b: Vectors, chosen: str | None = None) -> dict[str, Search]:
    """What is compared, by name; with `chosen`, that one alone."""
    x, y = torch.from_numpy(a), torch.from_numpy(b)

    def ours() -> Pairs:
        return np.stack(fewmatch.mutual_nearest(a, b, metric="dot")[:2], axis=1)

    def full() -> Pairs:
        return full_pairs(x, y)

    def opencv() -> Pairs:
        return opencv_pairs(a, b)

    filtered, full_filtered = filtered_searches(a, b)
    found: dict[str, Search] = {
        OURS: ours,
        FULL: full,
        OPENCV: opencv,
        FILTERED: filtered,
        FULL_FILTERED: full_filtered,
    }
    if chosen in (None, PRODUCT):
        memory = torch.zeros(len(x), len(y))

        def product() -> Pairs:
            torch.mm(x, y.T, out=memory)
            return None

        found[PRODUCT] = product
    if version("kornia") is not None and chosen in (None, KORNIA):
        from kornia.feature import match_mnn

        def kornia() -> Pairs:
            """By Euclidean distance, which orders unit vectors as the cosine does."""
            return match_mnn(x, y)[1].numpy()

        found[KORNIA] = kornia
    return found if chosen is None else {chosen: found[chosen]}


def full_pairs(x: torch.Tensor, y: torch.Tensor) -> NDArray[np.int64]:
    """As it is written by hand: all products, then both maxima."""
    products = x @ y.T
    nearest_b, nearest_a = products.max(1).indices, products.max(0).indices
    rows = torch.arange(len(x))
    mutual = nearest_a[nearest_b] == rows
    return torch.stack([rows[mutual], nearest_b[mutual]], dim=1).numpy()


def opencv_pairs(a: Vectors, b: Vectors) -> NDArray[np.int64]:
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(a, b)
    return np.array([(m.queryIdx, m.trainIdx) for m in matches], np.int64).reshape(-1, 2)


def frame_of(count: int) -> fewmatch.Frame:
    """So many patches as a grid that is as square as can be, one pixel each."""
    rows = next(r for r in range(math.isqrt(count), 0, -1) if count % r == 0)
    return fewmatch.Frame(count // rows, rows, (rows, count // rows), patch=1, stride=1, scale=(1.0, 1.0))


def index_pairs(matches: fewmatch.Matches, frame_a: fewmatch.Frame, frame_b: fewmatch.Frame) -> NDArray[np.int64]:
    return np.stack([matches.patch_a @ [frame_a.grid[1], 1], matches.patch_b @ [frame_b.grid[1], 1]], axis=1)


def filtered_searches(a: Vectors, b: Vectors) -> tuple[Search, Search]:
    """Two maps of patches with all filters: fewmatch, and with the whole matrix."""
    frames = frame_of(len(a)), frame_of(len(b))
    map_a, map_b = (z.reshape(*frame.grid, -1) for z, frame in zip((a, b), frames, strict=True))
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    place_a, place_b = (torch.from_numpy(np.argwhere(np.ones(frame.grid))).float() for frame in frames)

    def ours() -> Pairs:
        matches = fewmatch.match(
            map_a,
            frames[0],
            map_b,
            frames[1],
            min_score=MIN_SCORE,
            max_ratio=MAX_RATIO,
            exclusion=EXCLUSION,
            max_cycle=MAX_CYCLE,
        )
        return index_pairs(matches, *frames)

    def full() -> Pairs:
        products = x @ y.T
        score, nearest_b = products.max(1)
        nearest_a = products.max(0).indices
        cycle = (place_a - place_a[nearest_a[nearest_b]]).norm(dim=1)
        i = ((cycle <= MAX_CYCLE) & (score >= MIN_SCORE)).nonzero()[:, 0]
        j = nearest_b[i]
        onward = products[i].masked_fill_(torch.cdist(place_b[j], place_b) <= EXCLUSION, -torch.inf).amax(1)
        backward = products.T[j].masked_fill_(torch.cdist(place_a[i], place_a) <= EXCLUSION, -torch.inf).amax(1)
        kept = (1 - score[i]) / (1 - torch.maximum(onward, backward)) <= MAX_RATIO
        return torch.stack([i[kept], j[kept]], dim=1).numpy()

    return ours, full


def many_searches(images: list[Vectors], gallery: Vectors) -> dict[str, Search]:
    """Many images matched with one. The pairs of all are listed together, with those of image k moved by k times its patches."""
    frame = frame_of(len(gallery))
    maps = [image.reshape(*frame.grid, -1) for image in images]
    one, tensors, of_gallery = (
        gallery.reshape(*frame.grid, -1),
        list(map(torch.from_numpy, images)),
        torch.from_numpy(gallery),
    )

    def together(pairs: list[NDArray[np.int64]]) -> Pairs:
        return np.concatenate([np.add(found, (k * len(gallery), 0)) for k, found in enumerate(pairs)])

    return {
        MANY: lambda: together([index_pairs(fewmatch.match(m, frame, one, frame), frame, frame) for m in maps]),
        FULL_MANY: lambda: together([full_pairs(x, of_gallery) for x in tensors]),
        OPENCV_MANY: lambda: together([opencv_pairs(image, gallery) for image in images]),
    }


# Time


def run_rounds(options: argparse.Namespace, names: tuple[str, ...], found: dict[str, Search]) -> dict[str, Row]:
    """All rows once per round, one after the other, so that what else the machine does falls on all of them."""
    rows = {name: Row() for name in names if name in found}
    for number in range(options.rounds):
        for name, row in rows.items():
            if name in (OPENCV, OPENCV_MANY) and number >= options.opencv_rounds:
                continue
            print(f"round {number + 1}: {name}", file=sys.stderr)
            started = time.perf_counter()
            row.pairs = found[name]()
            row.seconds.append(time.perf_counter() - started)
    return rows


# Memory


def resident(which: str) -> int:
    """VmRSS or VmHWM, the memory now and at its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which + ":"))


def peak_beyond_inputs(options: argparse.Namespace) -> int:
    """In a process of its own: the peak of the memory while one row runs, less what it was before."""
    a, b = unit_vectors(options)
    next(iter(searches(a[:200], b[:200], options.measure).values()))()  # libraries and threads are there now
    search = searches(a, b, options.measure)[options.measure]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    search()
    return resident("VmHWM") - before


def measure(name: str, options: argparse.Namespace) -> int | None:
    """`peak_beyond_inputs` of one row; None where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    print(f"memory of {name}", file=sys.stderr)
    sizes = [f"--{key}={getattr(options, key)}" for key in ("rows", "columns", "dims", "seed", "threads")]
    command = [sys.executable, __file__, *sizes, "--measure", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


# The check


def differing(a: Vectors, b: Vectors, pairs: NDArray[np.int64], ours: NDArray[np.int64], part: str) -> tuple[int, int]:
    """How many pairs only one of two has, and how many of these float64 does not call close."""
    of_image = len(b) if part == "many" else len(a)  # the vectors of a are those of many images
    one, other = {tuple(p) for p in pairs.tolist()}, {tuple(p) for p in ours.tolist()}
    real = 0
    for i, j in one ^ other:
        along_row = b.astype(np.float64) @ a[i].astype(np.float64)
        image, at = divmod(i, of_image)
        along_column = a[image * of_image :][:of_image].astype(np.float64) @ b[j].astype(np.float64)
        rivals = (np.delete(along_row, j), np.delete(along_column, at))
        gaps = [along_row[j] - (rival.max() if len(rival) else -np.inf) for rival in rivals]
        # Close calls are pairs that float64 would hardly find, and those that it hardly misses.
        if part != "filters":
            real += min(gaps) > MARGIN or min(gaps) < -MARGIN
            continue
        far = [
            line[np.hypot(*(np.argwhere(np.ones(frame.grid)) - np.divmod(here, frame.grid[1])).T) > EXCLUSION]
            for line, here, frame in ((along_row, j, frame_of(len(b))), (along_column, i, frame_of(len(a))))
        ]
        ratio = (1 - along_row[j]) / (1 - max(line.max(initial=-np.inf) for line in far))
        two = np.sort(along_column)[-2:]
        close = abs(gaps[0]) < MARGIN or two[-1] - two[0] < MARGIN
        real += not (close or abs(along_row[j] - MIN_SCORE) < MARGIN or abs(ratio - MAX_RATIO) < RATIO_MARGIN)
    return len(one ^ other), real


# The table


def print_table(rows: dict[str, Row], a: Vectors, b: Vectors, part: str) -> int:
    """Prints the rows of one part, and returns how many pairs really differ from the first one's."""
    print(
        f"{part:34}{'best s':>9}{'median s':>10}{'worst s':>9}{'ratio':>9}{'from':>8}{'to':>8}"
        f"{'extra MB':>10}{'pairs':>8}{'differ':>8}{'really':>8}"
    )
    ours = next(iter(rows.values()))
    assert ours.pairs is not None
    all_real = 0
    for name, row in rows.items():
        ratios = [theirs / mine for theirs, mine in zip(row.seconds, ours.seconds, strict=False)]
        checked = f"{'':24}"
        if row.pairs is not None:
            unlike, real = differing(a, b, row.pairs, ours.pairs, part)
            all_real += real
            checked = f"{len(row.pairs):8d}" + (f"{unlike:8d}{real:8d}" if row is not ours else "")
        extra = "–" if row.extra is None else format(row.extra / 1e6, ".1f")
        print(
            f"{name:34}{min(row.seconds):9.3f}{statistics.median(row.seconds):10.3f}{max(row.seconds):9.3f}"
            f"{statistics.median(ratios):8.2f}×{min(ratios):7.2f}×{max(ratios):7.2f}×{extra:>10}{checked}"
        )
    if OURS in rows and KORNIA not in rows:
        print(f"{KORNIA:34}not installed: pip install --no-deps -c constraints.txt kornia kornia_rs")
    print()
    return all_real


def parse() -> argparse.Namespace:
    parser = options_parser(__doc__)
    numbers = (
        ("--rows", 14_400, "vectors in the first set"),
        ("--columns", 14_400, "vectors in the second set"),
        ("--dims", 384, "length of a vector"),
        ("--rounds", 5, "times that every row runs"),
        ("--opencv-rounds", 2, "times that OpenCV runs, at most"),
        ("--seed", 0, "of the vectors"),
        ("--many", 100, "images matched with one"),
        ("--side", 37, "patches on a side of each of them"),
        ("--threads", os.cpu_count() or 1, "for every row"),
    )
    add_numbers(parser, numbers)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parse_numbers(parser, ("rows", "columns", "dims", "rounds", "opencv_rounds", "many", "side", "threads"))


def run_part(part: str, options: argparse.Namespace) -> int:
    """Measures and prints one part; returns how many pairs really differ."""
    if part == "many":
        count = options.side**2
        sizes = {"rows": options.many * count, "columns": count}
        a, b = unit_vectors(argparse.Namespace(**{**vars(options), **sizes}))
        found = many_searches(list(a.reshape(options.many, count, -1)), b)
        small = many_searches([a[:count]], b)
    else:
        a, b = unit_vectors(options)
        found, small = searches(a, b), searches(a[:200], b[:200])
    for name in PARTS[part]:
        if name in small:
            print(f"warming up {name}", file=sys.stderr)
            small[name]()
    rows = run_rounds(options, PARTS[part], found)
    for name, row in rows.items():
        row.extra = measure(name, options) if name != PRODUCT and part != "many" else None
    return print_table(rows, a, b, part)


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with threadpoolctl.threadpool_limits(limits=options.threads):
        if options.measure:
            print(peak_beyond_inputs(options))
            return 0
        print(machine(options.threads, "opencv-python", "kornia"))
        print(
            f"{options.rows} × {options.columns} unit vectors, D = {options.dims}, float32; {options.rounds} rounds, "
            f"at most {options.opencv_rounds} with OpenCV\n"
            f"filters: cosine ≥ {MIN_SCORE}, ratio ≤ {MAX_RATIO} outside {EXCLUSION:g} patches, cycle ≤ {MAX_CYCLE:g} patches\n"
            f"one to many: {options.many} images with one, {options.side} × {options.side} patches each\n"
        )
        real = sum(run_part(part, options) for part in options.parts)
        print(
            "ratio: a row's seconds to those of the part's first row in the same round; the median of the rounds, the lowest and the highest.\n"
            "the matrix product alone: all products, by torch, into memory that is there already.\n"
            "extra MB: peak memory beyond the inputs (10⁶ bytes), measured in a process of its own.\n"
            f"differ: pairs that only this row or only the first has; really: those with a float64 margin above {MARGIN:g}."
        )
    if real:
        print(f"\n{real} pairs really differ")
    return 1 if real else 0


if __name__ == "__main__":
    sys.exit(main())
