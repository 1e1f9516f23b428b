"""How often the interval for new images covers the accuracy that new images would give, on simulated images.

    python benchmarks/new_images.py
    python benchmarks/new_images.py --redraws 40 --only ragged

Classes are Gaussian, so that new images can be drawn as often as wanted. The true accuracy of a set-up is that of 20,000 episodes from 2,000
images of each class. Then, 200 times, a small set of new images is drawn, episodes are drawn from it, and the script counts how often the
true accuracy lies within the interval over episodes (`ci95`) and within the interval for new images. Where a set-up compares two methods, it is
the paired difference that is covered or not. The exit code is 1 where the interval for new images covers less than 90 % of the redraws.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from machine import add_numbers, machine, options_parser, parse_numbers

import fewmatch

#: Images of each class, and episodes, for the true accuracy.
TRUE_IMAGES, TRUE_EPISODES = 2_000, 20_000
#: The same for methods that take long.
SLOW = ("soft-kmeans", "bd-cspn", "pt-map")
TRUE_EPISODES_SLOW = 4_000
ENOUGH = 0.90


@dataclass(frozen=True)
class SetUp:
    """Gaussian classes, and how episodes are drawn from few images of them.

    images: of each class; a pair (least, most) draws them. separation: standard deviation of the class means in each of `dims` dimensions,
    where images have 1. minus: a second method, whose difference from the first is looked at.
    """

    name: str
    method: str = "ncm"
    minus: str | None = None
    classes: int = 20
    images: int | tuple[int, int] = 30
    dims: int = 16
    separation: float = 0.6
    ways: int | tuple[int, int] = 5
    shots: int | tuple[int, int] = 1
    queries: int = 15
    episodes: int = 600
    more: dict[str, Any] = field(default_factory=dict)

    def draw(self, labels: np.ndarray, episodes: int, seed: int, *, new: bool = False) -> fewmatch.Episodes:
        """Episodes; `new` for those of the true accuracy, which are drawn with replacement."""
        queries = {"queries": self.queries} if "queries_total" not in self.more else {}
        more = {**self.more, "replacement": True} if new else self.more
        return fewmatch.sample_episodes(
            labels, ways=self.ways, shots=self.shots, episodes=episodes, seed=seed, **queries, **more
        )


SET_UPS = (
    SetUp("1 shot"),
    SetUp("5 shots", shots=5),
    SetUp("1 shot, classes far apart", separation=1.2),
    SetUp("5 shots, classes close", shots=5, separation=0.3),
    SetUp("300 images a class", images=300, shots=5),
    SetUp("100 episodes", shots=5, episodes=100),
    SetUp("10,000 episodes", shots=5, episodes=10_000),
    SetUp("ragged classes of 21 to 60", shots=5, images=(21, 60)),
    SetUp("7 classes of 5, 4 queries", classes=7, images=5, queries=4, episodes=2_000),
    SetUp("7 classes of 50", classes=7, images=50, shots=5, episodes=2_000),
    SetUp("2 classes of 8, 2 ways", classes=2, images=8, ways=2, queries=4),
    SetUp("3-8 ways, 1-5 shots", ways=(3, 8), shots=(1, 5)),
    SetUp("30 queries, Dirichlet(2)", shots=5, images=40, more={"queries_total": 30, "dirichlet": 2.0}),
    SetUp("60 images, no replacement", images=60, shots=5, more={"replacement": False}),
    SetUp("knn, 5 shots", method="knn", shots=5),
    SetUp("ridge, 5 shots", method="ridge", shots=5),
    SetUp("ridge minus ncm, 5 shots", method="ridge", minus="ncm", shots=5),
    SetUp("ridge minus ncm, 3,000 episodes", method="ridge", minus="ncm", shots=5, episodes=3_000),
    SetUp("soft-kmeans, 1 shot", method="soft-kmeans"),
    SetUp("bd-cspn, 5 shots", method="bd-cspn", shots=5),
    SetUp("pt-map, 1 shot, 60 images", method="pt-map", images=60),
    SetUp("bd-cspn minus ncm, 60 images, 2,000 episodes", method="bd-cspn", minus="ncm", images=60, episodes=2_000),
)


def parse() -> argparse.Namespace:
    parser = options_parser(__doc__)
    parser.add_argument("--only", default="", help="only set-ups with this in their name")
    add_numbers(parser, (("--redraws", 200, "how many times new images are drawn"), ("--seed", 0, "random seed")))
    return parse_numbers(parser, ("redraws",))


def images_of(rng: np.random.Generator, means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of Gaussian classes with these numbers of images."""
    labels = np.repeat(np.arange(len(means)), counts)
    return (means[labels] + rng.normal(size=(len(labels), means.shape[1]))).astype(np.float32), labels


def measured(
    set_up: SetUp, x: np.ndarray, labels: np.ndarray, episodes: fewmatch.Episodes
) -> tuple[float, float | None, float | None]:
    """Accuracy or difference, and the half-widths of its two intervals."""
    report = fewmatch.evaluate(x, labels, episodes, method=set_up.method)
    if set_up.minus is None:
        return report.accuracy, report.ci95, report.ci95_new_images
    other = fewmatch.evaluate(x, labels, episodes, method=set_up.minus)
    difference = fewmatch.paired(report, other, episodes, labels)
    return difference.mean, difference.ci95, difference.ci95_new_images


def study(set_up: SetUp, redraws: int, seed: int) -> bool:
    """Print one line; whether the interval for new images covers enough."""
    started = time.perf_counter()
    means = set_up.separation * np.random.default_rng((seed, 1)).normal(size=(set_up.classes, set_up.dims))
    rng = np.random.default_rng((seed, 2))
    slow = {set_up.method, set_up.minus} & set(SLOW)
    x, labels = images_of(rng, means, np.full(set_up.classes, TRUE_IMAGES))
    episodes = set_up.draw(labels, TRUE_EPISODES_SLOW if slow else TRUE_EPISODES, seed, new=True)
    truth = measured(set_up, x, labels, episodes)[0]
    counts = (
        np.full(set_up.classes, set_up.images)
        if isinstance(set_up.images, int)
        else rng.integers(set_up.images[0], set_up.images[1] + 1, set_up.classes)
    )
    found, over_episodes, for_new = [], [], []
    for redraw in range(redraws):
        x, labels = images_of(rng, means, counts)
        accuracy, ci95, ci95_new = measured(set_up, x, labels, set_up.draw(labels, set_up.episodes, seed + 1 + redraw))
        found.append(accuracy)
        over_episodes.append(ci95 or 0.0)
        for_new.append(np.nan if ci95_new is None else ci95_new)
    off, halves = np.abs(np.array(found) - truth), np.array(for_new)
    given = ~np.isnan(halves)
    covered = float((off[given] <= halves[given]).mean()) if given.any() else 0.0
    print(
        f"| {set_up.name} | {100 * truth:.1f} | {196 * np.std(found, ddof=1):.1f} | {100 * np.mean(over_episodes):.1f} "
        f"| {100 * (off <= over_episodes).mean():.0f} % | {100 * np.nanmean(halves) if given.any() else np.nan:.1f} "
        f"| {100 * covered:.0f} % | {100 * given.mean():.0f} % | {time.perf_counter() - started:.0f} |",
        flush=True,
    )
    return covered >= ENOUGH


def main() -> int:
    asked = parse()
    torch.set_num_threads(1)
    print(machine(1), "\n")
    print("| set-up | true | needed ± | ci95 ± | covers | new images ± | covers | given | seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    enough = [study(set_up, asked.redraws, asked.seed) for set_up in SET_UPS if asked.only in set_up.name]
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
