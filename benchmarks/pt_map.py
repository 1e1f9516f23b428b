"""PT-MAP on cached features: all episodes by fewmatch, and some of the same ones by the package easyfsl, in one run.

    python benchmarks/pt_map.py
    python benchmarks/pt_map.py --episodes 1000 --easyfsl-episodes 20

Both get the same vectors (non-negative features, square root, centred separately, length one) and the same settings, so that their
predictions can be compared: where they differ in more than the stated share of queries, the run ends with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import threadpoolctl
import torch
from episodes import load_easyfsl, make_problem
from machine import add_numbers, machine, options_parser, parse_numbers

import fewmatch
from fewmatch.fewshot import fit_transforms

#: Iterations of transport and movement, and λ and α of the paper.
EPOCHS, LAMBDA, ALPHA = 20, 10.0, 0.2
#: Share of the queries that the two may label differently: each stops its transports by another test.
TOLERATED = 0.005
REPEATS = 3


def parse() -> argparse.Namespace:
    parser = options_parser(__doc__)
    numbers = (
        ("--episodes", 10_000, "episodes that fewmatch runs"),
        ("--ways", 5, "classes per episode"),
        ("--shots", 5, "supports per class"),
        ("--queries", 15, "queries per class"),
        ("--dims", 1024, "length of a feature vector"),
        ("--classes", 20, "classes to draw from"),
        ("--images", 600, "images per class"),
        ("--separation", 2.35, "of the classes; accuracy grows with it"),
        ("--seed", 0, "of features and episodes"),
        ("--threads", os.cpu_count() or 1, "for both"),
        ("--easyfsl-episodes", 50, "episodes that easyfsl runs, at most; its time is scaled up"),
    )
    add_numbers(parser, numbers)
    return parse_numbers(parser, ("easyfsl_episodes", "threads", "episodes"))


def centred(x: np.ndarray, episodes: fewmatch.Episodes, e: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Supports and queries of episode e as the method wants them."""
    support, query = (torch.from_numpy(x[rows[e].ravel()]) for rows in (episodes.support, episodes.query))
    support, query = (fewmatch.center_episodes(support[None], query[None], "separate")[i][0] for i in (0, 1))
    return support, query


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    with threadpoolctl.threadpool_limits(limits=options.threads):
        print(machine(options.threads, "easyfsl"))
        problem = make_problem(options)
        x = fit_transforms("relu,power", None)(problem.x)
        seconds, report = [], None
        for _ in range(REPEATS):
            started = time.perf_counter()
            episodes = problem.sample()
            report = fewmatch.evaluate(
                x, problem.labels, episodes, method="pt-map", options={"epochs": EPOCHS, "lam": LAMBDA, "alpha": ALPHA}
            )
            seconds.append(time.perf_counter() - started)
        assert report is not None
        ours = statistics.median(seconds) / options.episodes
        print(
            f"{options.episodes} episodes, {options.ways}-way {options.shots}-shot {options.queries}-query, D = {options.dims}, "
            f"{EPOCHS} epochs, float32 features\n"
            f"fewmatch: {ours * options.episodes:.2f} s ({min(seconds):.2f}–{max(seconds):.2f} in {REPEATS} runs), drawing included; "
            f"{1000 * ours:.3f} ms an episode; accuracy {100 * report.accuracy:.2f} %"
        )
        package = load_easyfsl()
        if package is None:
            print("easyfsl: not installed (pip install --no-deps -c constraints.txt easyfsl)")
            return 0
        return compare(package, x, problem.episodes, report, ours, min(options.easyfsl_episodes, options.episodes))


def compare(package: Any, x: np.ndarray, episodes: fewmatch.Episodes, report: Any, ours: float, count: int) -> int:
    """easyfsl on the first episodes, fed with the same vectors."""

    class OnVectors(package.pt_map):  # type: ignore[misc, name-defined]
        """Its arithmetic on vectors that have been prepared already."""

        def compute_features(self, images: torch.Tensor) -> torch.Tensor:
            return images

    network = OnVectors(
        torch.nn.Identity(), fine_tuning_steps=EPOCHS, fine_tuning_lr=ALPHA, lambda_regularization=LAMBDA
    ).eval()
    labels = torch.arange(episodes.ways).repeat_interleave(episodes.shots)
    predictions = np.empty((count, episodes.ways * episodes.queries), np.int64)
    prepared = [centred(x, episodes, e) for e in range(count)]
    with torch.no_grad():
        for warm_up in (True, False):
            started = time.perf_counter()
            for e in range(2 if warm_up else count):
                support, query = prepared[e]
                network.process_support_set(support, labels)
                predictions[e] = network(query).argmax(dim=1)
            elapsed = time.perf_counter() - started
    theirs = elapsed / count
    truth = np.repeat(np.arange(episodes.ways), episodes.queries)
    differing = (predictions != report.predictions[:count]).mean()
    print(
        f"easyfsl, its arithmetic alone on the same vectors: {1000 * theirs:.1f} ms an episode over {count} episodes "
        f"(~{theirs * len(episodes):.0f} s for all); accuracy on these {100 * (predictions == truth).mean():.2f} %, "
        f"fewmatch {100 * (report.predictions[:count] == truth).mean():.2f} %\n"
        f"ratio: {theirs / ours:.0f}×; labels that differ: {100 * differing:.2f} %"
    )
    return 1 if differing > TOLERATED else 0


if __name__ == "__main__":
    sys.exit(main())
