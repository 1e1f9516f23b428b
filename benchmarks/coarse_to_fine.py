"""Matches of large maps: all products at once, and coarse to fine, side by side in one run, with time, products and accuracy.

    python benchmarks/coarse_to_fine.py
    python benchmarks/coarse_to_fine.py --size 512 --rounds 3

The pair is skimage's stereo_motorcycle, whose true correspondences are known.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import torch
from machine import add_numbers, machine, options_parser, parse_numbers
from numpy.typing import NDArray
from PIL import Image

import fewmatch
from fewmatch.encoders import Frame
from fewmatch.matching import Matches, disparity_error, share_within
from fewmatch.matching.coarse import coarse_to_fine, pooled

Map = tuple[NDArray[np.float32], Frame]
#: z for an interval of 95 %.
_Z = 1.96


def encoded(files: list[Path], folder: Path, size: int, stride: int | None) -> tuple[list[Map], float]:
    """The maps of both images, and how long the encoding took."""
    encoder = fewmatch.load("mini", stride=stride)
    started = time.perf_counter()
    store = fewmatch.encode_images(files, encoder, out=folder, keep="patches", size=size)
    seconds = time.perf_counter() - started
    return [(store.feature_map(i).astype(np.float32), store.frame(i)) for i in range(2)], seconds


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), as if the matches were independent, which neighbours are not quite."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return middle - half, middle + half


def median_interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The median and its 95 % interval, from the binomial distribution of ranks."""
    ordered, half = np.sort(values), _Z * math.sqrt(len(values)) / 2
    low, high = (round(len(values) / 2 + sign * half) for sign in (-1, 1))
    return float(np.median(values)), float(ordered[max(0, low)]), float(ordered[min(len(values) - 1, high)])


def main() -> int:
    parser = options_parser(__doc__)
    numbers = (
        ("--size", 384, "short side of the fine maps' images in pixels"),
        ("--stride", 4, "step between the fine maps' patches of 8 pixels"),
        ("--coarse-size", 192, "short side of the small images that are encoded for the coarse maps, at stride 8"),
        ("--radius", 1.0, "half the side of a window, in coarse patches"),
        ("--rounds", 5, "times that every row runs"),
        ("--threads", torch.get_num_threads(), "for every row"),
    )
    add_numbers(parser, numbers)
    options = parse_numbers(parser, ("size", "stride", "coarse_size", "rounds", "threads"))
    torch.set_num_threads(options.threads)
    left, right, disparity = skimage.data.stereo_motorcycle()
    print(machine(options.threads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / "left.png", folder / "right.png"]
        for file, image in zip(files, (left, right), strict=True):
            Image.fromarray(image).save(file)
        fine, seconds = encoded(files, folder / "fine", options.size, options.stride)
        small, small_seconds = encoded(files, folder / "small", options.coarse_size, None)
    run_table(options.radius, options.rounds, fine, small, disparity, (seconds, small_seconds))
    return 0


def run_table(
    radius: float,
    rounds: int,
    fine: list[Map],
    small: list[Map],
    disparity: NDArray[np.float64],
    encoding: tuple[float, float],
) -> None:
    """All rows once per round, one after the other, then the table."""
    frame = fine[0][1]
    tolerance = frame.stride / min(frame.scale)
    print(
        f"stereo_motorcycle {frame.width}×{frame.height} px by mini: {frame.grid[0]} × {frame.grid[1]} = {math.prod(frame.grid):,} patches of "
        f"each image, one every {tolerance:.1f} px; radius {radius:g}; {rounds} rounds\n"
        f"encoding both images took {encoding[0]:.1f} s for the fine maps, and {encoding[1]:.1f} s more for the small images; not in the rows\n"
    )
    products: dict[str, int] = {}

    def full() -> Matches:
        products[names[0]] = math.prod(frame.grid) * math.prod(fine[1][1].grid)
        return fewmatch.match(*fine[0], *fine[1])

    def from_coarse(name: str, coarse: Callable[[], list[Map]]) -> Matches:
        maps = coarse()
        matches = fewmatch.match(*maps[0], *maps[1])
        across = [
            2 * radius * c.stride / c.scale[axis] * f.scale[axis] / f.stride + 1
            for (_, c), (_, f) in zip(maps, fine, strict=True)
            for axis in (0, 1)
        ]
        products[name] = math.prod(maps[0][1].grid) * math.prod(maps[1][1].grid) + round(
            len(matches) * math.prod(across)
        )
        return coarse_to_fine(matches, maps[0][1], maps[1][1], *fine[0], *fine[1], radius=radius)

    names = ["full resolution", *(f"pooled {k} × {k}, to fine" for k in (2, 3, 4)), "small images, to fine"]
    rows: dict[str, Callable[[], Matches]] = {names[0]: full}
    for k, name in zip((2, 3, 4), names[1:4], strict=True):
        rows[name] = lambda k=k, name=name: from_coarse(name, lambda: [pooled(*m, k) for m in fine])
    rows[names[4]] = lambda: from_coarse(names[4], lambda: small)
    times: dict[str, list[float]] = {name: [] for name in names}
    found: dict[str, Matches] = {}
    for number in range(rounds + 1):
        for name, search in rows.items():
            print(f"{f'round {number}' if number else 'warming up'}: {name}", file=sys.stderr)
            started = time.perf_counter()
            found[name] = search()
            if number:
                times[name].append(time.perf_counter() - started)
    print(
        f"{'':24}{'median s':>9}{'faster':>8}{'from':>7}{'to':>7}{'products':>11}{'matches':>9}{'right':>7}"
        f"{'share right':>13}{'95 %':>15}{'median px':>11}{'95 %':>14}"
    )
    for name in names:
        matches, ratios = found[name], [f / s for f, s in zip(times[names[0]], times[name], strict=True)]
        error = disparity_error(matches.xy_a, matches.xy_b, disparity)
        share, known = share_within(error, tolerance)
        low, high = wilson(share, known)
        median, below, above = median_interval(error[np.isfinite(error)])
        print(
            f"{name:24}{statistics.median(times[name]):9.3f}{statistics.median(ratios):7.1f}×{min(ratios):6.1f}×{max(ratios):6.1f}×"
            f"{products[name] / 1e6:9.1f} M{len(matches):9,}{round(share * known):7,}{share:13.3f}  {low:6.3f}–{high:5.3f}"
            f"{median:11.2f}  {below:6.2f}–{above:4.2f}"
        )
    print(
        "\nseconds: the search alone, pooling included; faster: than full resolution in the same round: the median of the rounds, the lowest "
        f"and the highest.\nright: within one fine patch, {tolerance:.1f} px, of the true place, of the matches whose truth is known. "
        "Intervals take matches as independent."
    )


if __name__ == "__main__":
    sys.exit(main())
