"""Mutual nearest neighbours of two sets of vectors: fewmatch and three peers, side by side in one run, with time and memory.

    python benchmarks/nearest_neighbours.py
    python benchmarks/nearest_neighbours.py --rows 3600 --columns 3600 --dims 768 --rounds 9

All find the same pairs of the same unit vectors; a difference that rounding does not explain ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
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

#: Row by row in the table, in the order of the rounds.
OURS, PRODUCT = "fewmatch", "the matrix product alone"
FULL, KORNIA, OPENCV = "torch, the whole matrix", "kornia match_mnn", "OpenCV BFMatcher, crossCheck"


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
        return np.stack(fewmatch.mutual_nearest(a, b)[:2], axis=1)

    def full() -> Pairs:
        """As it is written by hand: all products, then both maxima."""
        products = x @ y.T
        nearest_b, nearest_a = products.max(1).indices, products.max(0).indices
        rows = torch.arange(len(x))
        mutual = nearest_a[nearest_b] == rows
        return torch.stack([rows[mutual], nearest_b[mutual]], dim=1).numpy()

    def opencv() -> Pairs:
        matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(a, b)
        return np.array([(m.queryIdx, m.trainIdx) for m in matches], np.int64).reshape(-1, 2)

    found: dict[str, Search] = {OURS: ours, FULL: full, OPENCV: opencv}
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


# Time


def run_rounds(options: argparse.Namespace, a: Vectors, b: Vectors) -> dict[str, Row]:
    """All rows once per round, one after the other, so that what else the machine does falls on all of them."""
    found = searches(a, b)
    rows = {name: Row() for name in (OURS, PRODUCT, FULL, KORNIA, OPENCV) if name in found}
    for name, search in searches(a[:200], b[:200]).items():
        print(f"warming up {name}", file=sys.stderr)
        search()
    for number in range(options.rounds):
        for name, row in rows.items():
            if name == OPENCV and number >= options.opencv_rounds:
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


def differing(a: Vectors, b: Vectors, pairs: NDArray[np.int64], ours: NDArray[np.int64]) -> tuple[int, int]:
    """How many pairs only one of two has, and how many of these float64 does not call close."""
    one, other = {tuple(p) for p in pairs.tolist()}, {tuple(p) for p in ours.tolist()}
    real = 0
    for i, j in one ^ other:
        along_row = b.astype(np.float64) @ a[i].astype(np.float64)
        along_column = a.astype(np.float64) @ b[j].astype(np.float64)
        rivals = (np.delete(along_row, j), np.delete(along_column, i))
        gaps = [along_row[j] - (rival.max() if len(rival) else -np.inf) for rival in rivals]
        # Close calls are pairs that float64 would hardly find, and those that it hardly misses.
        real += min(gaps) > MARGIN or min(gaps) < -MARGIN
    return len(one ^ other), real


# The table


def print_table(rows: dict[str, Row], a: Vectors, b: Vectors) -> int:
    """Prints the rows, and returns how many pairs really differ from fewmatch's."""
    print(
        f"{'':30}{'best s':>9}{'median s':>10}{'worst s':>9}{'ratio':>9}{'from':>8}{'to':>8}"
        f"{'extra MB':>10}{'pairs':>8}{'differ':>8}{'really':>8}"
    )
    ours = rows[OURS]
    assert ours.pairs is not None
    all_real = 0
    for name, row in rows.items():
        ratios = [theirs / mine for theirs, mine in zip(row.seconds, ours.seconds, strict=False)]
        checked = f"{'':24}"
        if row.pairs is not None:
            unlike, real = differing(a, b, row.pairs, ours.pairs)
            all_real += real
            checked = f"{len(row.pairs):8d}" + (f"{unlike:8d}{real:8d}" if row is not ours else "")
        extra = "–" if row.extra is None else format(row.extra / 1e6, ".1f")
        print(
            f"{name:30}{min(row.seconds):9.3f}{statistics.median(row.seconds):10.3f}{max(row.seconds):9.3f}"
            f"{statistics.median(ratios):8.2f}×{min(ratios):7.2f}×{max(ratios):7.2f}×{extra:>10}{checked}"
        )
    if KORNIA not in rows:
        print(f"{KORNIA:30}not installed: pip install --no-deps -c constraints.txt kornia kornia_rs")
    print(
        "\nratio: a row's seconds to fewmatch's of the same round; the median of the rounds, the lowest and the highest.\n"
        "the matrix product alone: all products, by torch, into memory that is there already.\n"
        "extra MB: peak memory beyond the inputs (10⁶ bytes), measured in a process of its own.\n"
        f"differ: pairs that only this row or only fewmatch has; really: those with a float64 margin above {MARGIN:g}."
    )
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
        ("--threads", os.cpu_count() or 1, "for every row"),
    )
    add_numbers(parser, numbers)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parse_numbers(parser, ("rows", "columns", "dims", "rounds", "opencv_rounds", "threads"))


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
        )
        a, b = unit_vectors(options)
        rows = run_rounds(options, a, b)
        for name, row in rows.items():
            row.extra = measure(name, options) if name != PRODUCT else None
        real = print_table(rows, a, b)
    if real:
        print(f"\n{real} pairs really differ")
    return 1 if real else 0


if __name__ == "__main__":
    sys.exit(main())
