"""PCK on pairs of the labelled frames of `mirror_mouse`, written as an SPair-71k folder: an encoder beside SIFT at the centres of its patches.

Run it with `python benchmarks/mouse_pck.py --data FOLDER`, the folder with `CollectedData.csv` and `labeled-data`.
What was found is in docs/pck.md.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import add_numbers, machine, options_parser
from skimage.io import imread

import fewmatch
from fewmatch.encoders.frame import Frame
from fewmatch.labels.reading import read_labels
from fewmatch.matching.benchmarks.limiting import limited
from fewmatch.matching.benchmarks.pair import Benchmark
from fewmatch.matching.benchmarks.pck.compare import compare_pck
from fewmatch.matching.benchmarks.pck.places import EncodedImage
from fewmatch.matching.benchmarks.pck.presets import choose_convention
from fewmatch.matching.benchmarks.pck.report import PCKReport, pck
from fewmatch.matching.benchmarks.pck.scoring import score_pair
from fewmatch.matching.benchmarks.reading import read_benchmark

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "matching"))
from benchmark_folders import a_pair, write_spair

#: Averages of one category that differ.
AVERAGES = ("image", "point")


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--data", required=True, type=Path, help="the folder of mirror_mouse")
    parser.add_argument("--encoder", default="mini", help="name of the encoder, or its weights")
    parser.add_argument("--sizes", default="128,256", help="short side of the encoder's input, one or several")
    parser.add_argument("--sift", default="8,16,32", help="diameters of SIFT's keypoints in pixels, one or several")
    parser.add_argument("--folder", type=Path, help="leave the SPair-71k folder there, for `fewmatch pck`")
    add_numbers(parser, [("--limit", 200, "pairs"), ("--seed", 0, "of their draw"), ("--threads", 2, "of torch")])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(options.threads))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        write_pairs(options.data, folder)
        whole = read_benchmark(folder, "spair")
        benchmark = limited(whole, options.limit, options.seed)
        points = sum(len(pair.points_a) for pair in benchmark.pairs)
        print(f"{len(benchmark.pairs)} of {len(whole.pairs):,} pairs, seed {options.seed}, {points:,} points")
        encoder = fewmatch.load(options.encoder, device="cpu", dtype="float32")
        files = list(dict.fromkeys(path for pair in benchmark.pairs for path in (pair.path_a, pair.path_b)))
        for size in (int(text) for text in options.sizes.split(",")):
            maps = encoded(files, encoder, size)
            reports = {f"{encoder.name}, {size} px": scored(benchmark, maps)}
            for diameter in (float(text) for text in options.sift.split(",")):
                dense = {file: sift_view(file, maps[file].frame, diameter) for file in files}
                reports[f"SIFT of {diameter:g} px there"] = scored(benchmark, dense)
            print_reports(reports, maps[files[0]].frame.grid)
    return 0


def write_pairs(data: Path, folder: Path) -> None:
    """Every frame with every later one as SPair-71k: the points that both show, and the box around all points of a frame."""
    labels = read_labels(data / "CollectedData.csv").keypoints
    # SPair-71k knows whole numbers only.
    xy, seen = np.rint(labels.xy), labels.visible
    names = [Path(path).stem for path in labels.paths]
    pictures = {
        name: np.repeat(imread(data / path)[..., None], 3, axis=2)
        for name, path in zip(names, labels.paths, strict=True)
    }
    boxes = [(*xy[i][seen[i]].min(axis=0), *xy[i][seen[i]].max(axis=0)) for i in range(len(names))]
    sizes = [(pictures[name].shape[1], pictures[name].shape[0]) for name in names]
    pairs = []
    for a, b in itertools.combinations(range(len(names)), 2):
        both = np.flatnonzero(seen[a] & seen[b])
        pairs.append(
            a_pair(
                "mouse",
                names[a],
                names[b],
                xy[a][both],
                xy[b][both],
                points=[str(part) for part in both],
                box_a=boxes[a],
                box_b=boxes[b],
                size_a=sizes[a],
                size_b=sizes[b],
            )
        )
    write_spair(folder, pairs, pictures)


def encoded(files: Sequence[Path], encoder: fewmatch.FrozenEncoder, size: int) -> dict[Path, EncodedImage]:
    """The map of each image; kept in fewmatch's cache."""
    store = fewmatch.encode_images(files, encoder, keep="patches", size=size)
    place = {name: i for i, name in enumerate(store.names)}
    return {file: EncodedImage(store.feature_map(place[file.name]), store.frame(place[file.name])) for file in files}


def sift_view(file: Path, frame: Frame, diameter: float) -> EncodedImage:
    """Upright SIFT descriptors at the centres of the frame's patches; where there is nothing to describe they are zero."""
    grey = imread(file)[..., 0]
    rows, columns = np.indices(frame.grid)
    x, y = frame.to_pixels(rows.ravel(), columns.ravel())
    keypoints = [cv2.KeyPoint(float(px), float(py), diameter, 0.0) for px, py in zip(x, y, strict=True)]
    kept, descriptors = cv2.SIFT.create().compute(grey, keypoints)
    assert len(kept) == len(keypoints), "OpenCV left out points"
    return EncodedImage(descriptors.reshape(*frame.grid, -1), frame)


def scored(benchmark: Benchmark, maps: dict[Path, EncodedImage]) -> PCKReport:
    convention = choose_convention("spair")
    records = [score_pair(pair, maps[pair.path_a], maps[pair.path_b], convention) for pair in benchmark.pairs]
    return pck(records, convention, benchmark=benchmark)


def print_reports(reports: dict[str, PCKReport], grid: tuple[int, int]) -> None:
    """A table of all, and the first less each other."""
    results = {name: report.to_json() for name, report in reports.items()}
    first, *others = results
    alphas = list(results[first]["pck"])
    print(f"\n{grid[0]} × {grid[1]} patches; PCK in %\n{'':<20}" + "".join(f"{f'{a} of T':>34}" for a in alphas))
    print(f"{'':<20}" + "".join(f"{average:>17}" for _ in alphas for average in AVERAGES))
    for name, result in results.items():
        cells = [result["pck"][alpha][average] for alpha in alphas for average in AVERAGES]
        print(f"{name:<20}" + "".join(f"{percent(cell['pck'], cell['ci95']):>17}" for cell in cells))
    for name in others:
        compared = compare_pck(results[name], results[first]).to_json()["pck"]
        cells = [compared[alpha][average] for alpha in alphas for average in AVERAGES]
        text = "".join(f"{percent(cell['difference'], cell['ci95'], '+'):>17}" for cell in cells)
        print(f"{'more than that by':<20}" + text + f"   ({name})")
    sys.stdout.flush()


def percent(share: float, ci95: float, sign: str = "") -> str:
    return f"{100 * share:{sign}.1f} ± {100 * ci95:.1f}"


if __name__ == "__main__":
    sys.exit(main())
