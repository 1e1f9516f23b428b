"""Few-shot keypoints on the frames of `mirror_mouse`: how near they are found, beside mean positions and DAISY, and what the search costs.

Run it with `python benchmarks/mouse_keypoints.py --data FOLDER`, the folder with `CollectedData.csv` and `labeled-data`. The exit code is 1
if at five shots the plain search misses what docs/keypoints.md promises of it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from machine import add_numbers, machine, options_parser
from skimage.feature import daisy
from skimage.io import imread

import fewmatch
from fewmatch.encoders.frame import Frame, dense_frame, resample
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.reading import read_labels
from fewmatch.matching.keypoints.maps import View
from fewmatch.matching.keypoints.options import KeypointOptions
from fewmatch.matching.keypoints.score import KeypointScores, score_keypoints
from fewmatch.matching.keypoints.search import KeypointFinder, find_keypoints

#: Of DAISY: pixels between descriptors, and the radius of one (scikit-image's default).
STEP, RADIUS = 8, 15
#: PCK@.05 with five shots that the plain search must reach, and the methods that it must beat.
AT_LEAST = 0.50
METHODS = ("mean position", "DAISY", "plain", "position prior")
RESAMPLES = 10_000
#: Width and height of all frames.
SIZE = (396, 406)


def main() -> int:
    parser = options_parser(__doc__)
    parser.add_argument("--data", required=True, type=Path, help="the folder of mirror_mouse")
    parser.add_argument("--encoder", default="mini", help="name of the encoder, or its weights")
    parser.add_argument("--sizes", default="256,384", help="short side of the encoder's input, one or several")
    parser.add_argument("--shots", default="1,3,5,10", help="numbers of labelled frames")
    add_numbers(parser, [("--draws", 5, "seeded draws of the labelled frames"), ("--threads", 2, "of torch")])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(options.threads, "scikit-image"))
    truth = read_labels(options.data / "CollectedData.csv").keypoints
    images = [options.data / path for path in truth.paths]
    sizes = [int(size) for size in options.sizes.split(",")]
    encoder = fewmatch.load(options.encoder)
    views = encoded(images, encoder, sizes)
    dense = [[daisy_view(path)] for path in images]
    print(
        f"{len(images)} frames, {len(truth.parts)} parts, {int(truth.visible.sum()):,} points; {encoder.name} at "
        f"{', '.join(map(str, sizes))} px, {views[0][0][0].dtype}; DAISY every {STEP} px"
    )
    assert all((view[1].width, view[1].height) == SIZE for of_image in views for view in of_image)
    print_costs(images, encoder, sizes, views, truth)
    met = True
    for shots in (int(k) for k in options.shots.split(",")):
        runs = [one_draw(views, dense, truth, shots, seed) for seed in range(options.draws)]
        met &= report(shots, runs, truth)
    return 0 if met else 1


def encoded(images: Sequence[Path], encoder: fewmatch.FrozenEncoder, sizes: Sequence[int]) -> list[list[View]]:
    """The views of each image, one for each size; kept in fewmatch's cache."""
    stores = [fewmatch.encode_images(images, encoder, keep="patches", size=size) for size in sizes]
    return [[(store.feature_map(i), store.frame(i)) for store in stores] for i in range(len(images))]


def daisy_view(path: Path) -> View:
    """The image's dense DAISY descriptors: the image is enlarged by its edge so that they begin in its corner."""
    grey = imread(path, as_gray=True)
    descriptors = daisy(np.pad(grey, RADIUS, mode="edge"), step=STEP, radius=RADIUS)
    height, width = grey.shape
    frame = Frame(
        width,
        height,
        descriptors.shape[:2],
        2 * RADIUS + 1,
        STEP,
        scale=(1.0, 1.0),
        offset=(-float(RADIUS), -float(RADIUS)),
    )
    return descriptors.astype(np.float32), frame


def one_draw(
    views: Sequence[Sequence[View]], dense: Sequence[Sequence[View]], truth: Keypoints, shots: int, seed: int
) -> tuple[np.ndarray, dict[str, Keypoints]]:
    """The frames that were not drawn, and what each method found in them."""
    labelled = np.sort(np.random.default_rng([shots, seed]).choice(len(truth), shots, replace=False))
    others = np.setdiff1d(np.arange(len(truth)), labelled)
    marked = truth.take(labelled)

    def search(of: Sequence[Sequence[View]], position_prior: bool = False) -> Keypoints:
        finder = KeypointFinder.fit([of[i] for i in labelled], marked, KeypointOptions(position_prior=position_prior))
        return find_keypoints(finder, ((truth.paths[i], of[i]) for i in others))

    places = np.where(marked.visible[:, :, None], marked.xy, np.nan)
    known = marked.visible.any(axis=0)
    mean = np.full(places.shape[1:], np.nan)
    mean[known] = np.nanmean(places[:, known], axis=0)
    there = np.broadcast_to(marked.visible.mean(axis=0) >= 0.5, (len(others), len(truth.parts)))
    mean_position = dataclasses.replace(
        truth.take(others),
        xy=np.broadcast_to(mean, (len(others), *mean.shape)).copy(),
        visible=there & known,
    )
    return others, {
        "mean position": mean_position,
        "DAISY": search(dense),
        "plain": search(views),
        "position prior": search(views, position_prior=True),
    }


def report(shots: int, runs: Sequence[tuple[np.ndarray, dict[str, Keypoints]]], truth: Keypoints) -> bool:
    """Print the tables of a number of shots; whether what is promised of five shots holds."""
    by_method = {method: [scores(found[method], truth.take(others)) for others, found in runs] for method in METHODS}
    print(f"\n{shots} labelled, {len(runs)} draws\n{'':<16}PCK@.05   PCK@.1   median px   visible balanced")
    for method, draws in by_method.items():
        pck = np.array([s.overall_pck for s in draws])
        spread = pck.std(axis=0, ddof=1) if len(draws) > 1 else np.zeros(2)
        columns = [f"{mean:.3f} ± {s:.3f}" for mean, s in zip(pck.mean(axis=0), spread, strict=True)]
        print(
            f"{method:<16}{columns[0]}   {columns[1]}   {np.mean([s.overall_median_error for s in draws]):9.1f}   "
            f"{np.mean([s.visible_accuracy for s in draws]):.3f} {np.mean([s.balanced_accuracy for s in draws]):.3f}"
        )
    good = np.mean([s.overall_pck[0] for s in by_method["plain"]]) >= AT_LEAST
    for better, worse in (("plain", "mean position"), ("plain", "DAISY"), ("position prior", "plain")):
        mean, over_images, over_draws = paired(runs, truth, better, worse)
        print(
            f"PCK@.05, {better} − {worse}: {mean:+.3f}, over frames [{over_images[0]:+.3f}, {over_images[1]:+.3f}], "
            f"over draws [{over_draws[0]:+.3f}, {over_draws[1]:+.3f}]"
        )
        good &= bool(over_images[0] > 0)
    print(f"\n{'part':<16}n   " + "   ".join(f"{method}: .05 .1 px" for method in METHODS))
    for p, part in enumerate(truth.parts):
        cells = [
            f"{mean_of(s.pck[p, 0] for s in draws):.2f} {mean_of(s.pck[p, 1] for s in draws):.2f} "
            f"{mean_of(s.median_error[p] for s in draws):5.1f}"
            for draws in by_method.values()
        ]
        print(f"{part:<16}{sum(int(s.n[p]) for s in by_method['plain'])}   " + "   ".join(cells))
    sys.stdout.flush()
    return good or shots != 5


def mean_of(values: object) -> float:
    """The mean over draws; inf where a draw did not show the part."""
    return float(np.mean(np.fromiter(values, np.float64)))  # type: ignore[call-overload]


def scores(found: Keypoints, truth: Keypoints) -> KeypointScores:
    return score_keypoints(found, truth, np.full((len(truth), 2), SIZE))


def paired(
    runs: Sequence[tuple[np.ndarray, dict[str, Keypoints]]], truth: Keypoints, better: str, worse: str
) -> tuple[float, np.ndarray, tuple[float, float]]:
    """The difference in PCK@.05 over all points of all draws; its 95 % interval by a bootstrap over frames, and by Student's t over draws."""
    from scipy.stats import t

    gain, count, by_draw = np.zeros(len(truth)), np.zeros(len(truth)), []
    for others, found in runs:
        there = truth.visible[others]
        hits = {
            m: np.nan_to_num(np.linalg.norm(found[m].xy - truth.xy[others], axis=2), nan=np.inf) <= 0.05 * max(SIZE)
            for m in (better, worse)
        }
        difference = (hits[better].astype(int) - hits[worse]) * there
        gain[others] += difference.sum(axis=1)
        count[others] += there.sum(axis=1)
        by_draw.append(difference.sum() / there.sum())
    chosen = np.random.default_rng(0).integers(0, len(truth), (RESAMPLES, len(truth)))
    resampled = gain[chosen].sum(axis=1) / count[chosen].sum(axis=1)
    mean = float(np.mean(by_draw))
    half = (
        float(t.ppf(0.975, len(by_draw) - 1) * np.std(by_draw, ddof=1) / len(by_draw) ** 0.5)
        if len(by_draw) > 1
        else float("nan")
    )
    return float(gain.sum() / count.sum()), np.quantile(resampled, (0.025, 0.975)), (mean - half, mean + half)


def print_costs(
    images: Sequence[Path],
    encoder: fewmatch.FrozenEncoder,
    sizes: Sequence[int],
    views: Sequence[Sequence[View]],
    truth: Keypoints,
    count: int = 12,
) -> None:
    """The time of the encoder (resizing included) and of the search, frame by frame in turn, so that both meet the same load."""
    finder = KeypointFinder.fit(views[:5], truth.take(range(5)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (encoder.preprocessing.mean, encoder.preprocessing.std))
    finder.find(views[0])
    spent = np.zeros(2)
    for number in range(count):
        pixels = np.stack([imread(images[number])] * 3, axis=2)
        begin = time.perf_counter()
        for size in sizes:
            frame = dense_frame(pixels.shape[1], pixels.shape[0], size=size, patch=encoder.patch_size)
            batch = torch.from_numpy(resample(pixels, frame).copy()).permute(2, 0, 1)[None].float() / 255
            with torch.no_grad():
                encoder((batch - mean) / std)
        middle = time.perf_counter()
        finder.find(views[number])
        spent += middle - begin, time.perf_counter() - middle
    print(
        f"one frame: encoder {1000 * spent[0] / count:.0f} ms, search {1000 * spent[1] / count:.1f} ms: "
        f"{100 * spent[1] / spent.sum():.1f} % of the whole"
    )


if __name__ == "__main__":
    sys.exit(main())
