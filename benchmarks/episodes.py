"""Thousands of few-shot episodes on cached features: fewmatch, a NumPy loop and the package easyfsl, side by side in one run.

    python benchmarks/episodes.py
    python benchmarks/episodes.py --episodes 2000 --dims 384 --easyfsl-episodes 200

Every row classifies the same episodes, and what they predict is compared; a real difference ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import threadpoolctl
import torch
from machine import add_numbers, machine, options_parser, parse_numbers, version
from numpy.typing import NDArray

import fewmatch

#: Squared distances of unit vectors carry rounding errors of some 1e-7 in float32: below this margin either answer is right.
MARGIN = 1e-6
REPEATS = 3
#: Episodes, from the first, that every centring is checked on against float64.
CHECKED = 200
#: Episodes that a slow row runs before its clock starts.
WARM_UP = 20

Rows = NDArray[np.int32]
Predictions = NDArray[np.int64]
#: Classifies episode e from its support rows (W, K) and query rows (W, Q): (W·Q,) places of classes in the episode.
Classify = Callable[[int, Rows, Rows], Predictions]


@dataclass(frozen=True)
class Problem:
    """Features x (N, D) with labels (N,), a base set of other classes with its mean, and the episodes that every row classifies."""

    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    base: NDArray[np.float32]
    base_mean: NDArray[np.float64]
    task: dict[str, Any]  # what sample_episodes is asked for
    episodes: fewmatch.Episodes

    def truth(self) -> Predictions:
        return np.repeat(np.arange(self.episodes.ways), self.episodes.queries)

    def sample(self) -> fewmatch.Episodes:
        return fewmatch.sample_episodes(self.labels, **self.task)


@dataclass(frozen=True)
class Row:
    """One line of the table; times in seconds for `counted` episodes. correct (counted,): right answers in each episode."""

    who: str
    center: str
    sampling: float
    classification: float
    counted: int
    correct: NDArray[np.int64]
    predictions: Predictions | None = None  # (counted, W·Q)

    def per_episode(self) -> float:
        return (self.sampling + self.classification) / self.counted


def make_problem(options: argparse.Namespace) -> Problem:
    """Gaussian classes around a common offset as large as their spread.

    The distance between two classes, measured in the noise of a query, is a²·√(D·K/2) for class centres of size a: with a chosen
    so that it does not change, accuracy stays near 80 % (5 ways) for --dims from some hundreds up, whatever --shots.
    """
    rng = np.random.default_rng(options.seed)
    size = (options.separation / (options.dims * options.shots) ** 0.5) ** 0.5
    offset = rng.standard_normal(options.dims, dtype=np.float32)

    def draw(classes: int) -> NDArray[np.float32]:
        centres = offset + np.float32(size) * rng.standard_normal((classes, options.dims), dtype=np.float32)
        x = rng.standard_normal((classes * options.images, options.dims), dtype=np.float32)
        x += np.repeat(centres, options.images, axis=0)
        return x

    x, base = draw(options.classes), draw(options.classes)
    labels = np.repeat(np.arange(options.classes), options.images)
    task = {name: getattr(options, name) for name in ("ways", "shots", "queries", "episodes", "seed")}
    episodes = fewmatch.sample_episodes(labels, **task)
    return Problem(x, labels, base, base.mean(axis=0, dtype=np.float64), task, episodes)


# fewmatch


def fewmatch_row(problem: Problem, center: str) -> Row:
    """Sampling and evaluation of all episodes at once: medians after one run that warms up."""
    base = problem.base if center == "base" else None
    sampling, classification = [], []
    for repeat in range(REPEATS + 1):
        started = time.perf_counter()
        episodes = problem.sample()
        sampled = time.perf_counter()
        report = fewmatch.evaluate(problem.x, problem.labels, episodes, center=center, base=base)
        if repeat:
            sampling.append(sampled - started)
            classification.append(time.perf_counter() - sampled)
    asked = report.ways * report.queries
    return Row(
        "fewmatch",
        center,
        statistics.median(sampling),
        statistics.median(classification),
        report.episodes,
        np.rint(report.per_episode * asked).astype(np.int64),
    )


# One episode after the other


def run_loop(problem: Problem, count: int, classify: Classify) -> tuple[float, Predictions]:
    """Seconds for the first `count` of the common episodes, and what was predicted."""
    support, query = problem.episodes.support, problem.episodes.query
    predictions = np.empty((count, problem.episodes.ways * problem.episodes.queries), np.int64)
    for e in range(min(count, WARM_UP)):
        classify(e, support[e], query[e])
    started = time.perf_counter()
    for e in range(count):
        predictions[e] = classify(e, support[e], query[e])
    return time.perf_counter() - started, predictions


def loop_row(who: str, center: str, problem: Problem, sampling: float, count: int, classify: Classify) -> Row:
    print(f"running {who}, centre {center}, {count} episodes", file=sys.stderr)
    seconds, predictions = run_loop(problem, count, classify)
    correct = (predictions == problem.truth()).sum(axis=1)
    return Row(who, center, sampling, seconds, count, correct, predictions)


def numpy_sampling(problem: Problem, count: int) -> float:
    """Seconds to draw `count` episodes one by one, as it is written by hand."""
    e = problem.episodes
    rng = np.random.default_rng(problem.task["seed"])
    classes = np.unique(problem.labels)
    members = [np.flatnonzero(problem.labels == c) for c in classes]
    started = time.perf_counter()
    for _ in range(count):
        support, query = [], []
        for c in rng.choice(len(classes), e.ways, replace=False):
            rows = rng.choice(members[c], e.shots + e.queries, replace=False)
            support.append(rows[: e.shots])
            query.append(rows[e.shots :])
        np.stack(support), np.stack(query)
    return time.perf_counter() - started


def numpy_classify(problem: Problem, center: str, by_product: bool) -> Classify:
    """Nearest class mean in float32, with the differences written out (as SimpleShot's code does) or by a matrix product."""
    x = problem.x

    def classify(_: int, support_rows: Rows, query_rows: Rows) -> Predictions:
        support, query = x[support_rows], x[query_rows.ravel()]
        if center == "support":
            mean = support.mean(axis=(0, 1))
            support, query = support - mean, query - mean
        support = support / np.linalg.norm(support, axis=-1, keepdims=True)
        query = query / np.linalg.norm(query, axis=-1, keepdims=True)
        means = support.mean(axis=1)
        if by_product:
            distances = (means**2).sum(axis=1) - 2 * query @ means.T
        else:
            distances = np.linalg.norm(query[:, None] - means, axis=-1)
        return np.asarray(distances.argmin(axis=1))

    return classify


# easyfsl


class _Unused:
    """Stands where easyfsl names a class of a package that is not here; these rows never call it."""


def load_easyfsl() -> SimpleNamespace | None:
    """The classes of easyfsl that work on features; None where easyfsl is not installed.

    `import easyfsl` asks for torchvision, pandas and tqdm, but only to name their classes: for its own ResNets, for readers of image
    folders and CSV files, for progress bars. torchvision is compiled for one build of torch and does not import beside another
    (the CPU build here), so empty modules stand in while easyfsl is imported; nothing that is timed touches them.
    """
    if version("easyfsl") is None:
        return None
    named: dict[str, tuple[str, ...]] = {
        "torchvision": (),
        "torchvision.models": (),
        "torchvision.models.resnet": ("BasicBlock", "Bottleneck", "conv1x1", "conv3x3"),
        "torchvision.transforms": (),
        "torchvision.datasets": ("ImageFolder",),
        "pandas": ("DataFrame",),
        "tqdm": ("tqdm",),
    }
    stand_ins: dict[str, ModuleType] = {}
    for name, classes in named.items():
        module = ModuleType(name)
        for attribute in classes:
            setattr(module, attribute, _Unused)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stand_ins[parent], child, module)
        stand_ins[name] = module
    hidden = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return SimpleNamespace(
            network=importlib.import_module("easyfsl.methods").PrototypicalNetworks,
            pt_map=importlib.import_module("easyfsl.methods").PTMAP,
            dataset=importlib.import_module("easyfsl.datasets").FeaturesDataset,
            sampler=importlib.import_module("easyfsl.samplers").TaskSampler,
        )
    finally:
        # Others look into sys.modules to learn whether, say, pandas is in use.
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(hidden)


def easyfsl_rows(package: SimpleNamespace, problem: Problem, count: int) -> list[Row]:
    """Its prototypical networks: fed with gathered tensors (its arithmetic alone), and through its data loader (as it is used)."""
    e = problem.episodes
    x = torch.from_numpy(problem.x)
    dataset = package.dataset(problem.labels.tolist(), x, [str(c) for c in np.unique(problem.labels)])
    # TaskSampler hands its parent an argument that torch no longer takes.
    with mock.patch.object(torch.utils.data.Sampler, "__init__", lambda *_, **__: None):
        sampler = package.sampler(dataset, n_way=e.ways, n_shot=e.shots, n_query=e.queries, n_tasks=count)
    random.seed(problem.task["seed"])
    started = time.perf_counter()
    list(sampler)
    sampling = time.perf_counter() - started
    support_labels = torch.arange(e.ways).repeat_interleave(e.shots)

    def network() -> Any:
        return package.network(torch.nn.Identity(), feature_normalization=2.0).eval()

    def from_tensors(center: str) -> Classify:
        model = network()

        def classify(_: int, support_rows: Rows, query_rows: Rows) -> Predictions:
            support = x[torch.from_numpy(support_rows.ravel())]
            query = x[torch.from_numpy(query_rows.ravel())]
            if center == "support":
                # One vector for the whole run is what its constructor takes; a mean for each episode is set by hand.
                model.feature_centering = support.mean(dim=0)
            model.process_support_set(support, support_labels)
            return np.asarray(model(query).argmax(dim=1))

        return classify

    def from_loader() -> Classify:
        model = network()
        tasks = np.concatenate([e.support, e.query], axis=2)[:count].reshape(count, -1).tolist()
        # The warm-up asks for the first episodes, then the clock asks for them again.
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=tasks[: min(count, WARM_UP)] + tasks,
            collate_fn=sampler.episodic_collate_fn,
        )
        batches = iter(loader)

        def classify(episode: int, _support: Rows, _query: Rows) -> Predictions:
            support, labels, query, _, class_ids = next(batches)
            model.process_support_set(support, labels)
            predicted = model(query).argmax(dim=1)
            # It numbers an episode's classes in the order of a Python set.
            return np.asarray(np.searchsorted(e.classes[episode], np.asarray(class_ids)[predicted]))

        return classify

    with torch.no_grad():
        return [
            loop_row("easyfsl, tensors", "support", problem, sampling, count, from_tensors("support")),
            loop_row("easyfsl, tensors", "none", problem, sampling, count, from_tensors("none")),
            loop_row("easyfsl, its data loader", "none", problem, sampling, count, from_loader()),
        ]


# The check


def squared_distances(problem: Problem, episode: int, center: str) -> NDArray[np.float64]:
    """(W·Q, W) by the definition, in float64."""
    support = problem.x[problem.episodes.support[episode]].astype(np.float64)
    query = problem.x[problem.episodes.query[episode].ravel()].astype(np.float64)
    flat = support.reshape(-1, support.shape[-1])
    of_support, of_query, of_both = flat.mean(axis=0), query.mean(axis=0), np.concatenate([flat, query]).mean(axis=0)
    mean, query_mean = {
        "none": (np.zeros(1), np.zeros(1)),
        "base": (problem.base_mean, problem.base_mean),
        "support": (of_support, of_support),
        "support+query": (of_both, of_both),
        "separate": (of_support, of_query),
        "feature": (support.mean(axis=-1, keepdims=True), query.mean(axis=-1, keepdims=True)),
    }[center]
    support, query = support - mean, query - query_mean
    support /= np.linalg.norm(support, axis=-1, keepdims=True)
    query /= np.linalg.norm(query, axis=-1, keepdims=True)
    distances: NDArray[np.float64] = np.square(query[:, None] - support.mean(axis=1)).sum(axis=-1)
    return distances


def close_calls(problem: Problem, episode: int, center: str) -> NDArray[np.bool_]:
    """(W·Q,) whether the second nearest mean is not more than MARGIN further than the nearest."""
    nearest = np.sort(squared_distances(problem, episode, center), axis=1)
    return np.asarray(nearest[:, 1] - nearest[:, 0] <= MARGIN)


def compare(problem: Problem, row: Row, other: Row) -> tuple[int, int]:
    """How many predictions differ on the episodes that both rows have, and how many of these differ by more than rounding.

    Where a row keeps only how many answers were right (fewmatch reports accuracies), the differences of these counts are added up,
    and as many of them are rounding as the episode has queries with a margin below MARGIN.
    """
    both = min(row.counted, other.counted)
    differing = real = 0
    if row.predictions is not None and other.predictions is not None:
        differ = row.predictions[:both] != other.predictions[:both]
        for e in np.flatnonzero(differ.any(axis=1)):
            differing += int(differ[e].sum())
            real += int((differ[e] & ~close_calls(problem, int(e), row.center)).sum())
        return differing, real
    counts = np.abs(row.correct[:both] - other.correct[:both])
    for e in np.flatnonzero(counts):
        rounding = int(close_calls(problem, int(e), row.center).sum())
        differing += int(counts[e])
        real += max(0, int(counts[e]) - rounding)
    return differing, real


def in_float64(problem: Problem, center: str, count: int) -> Row:
    nearest = [squared_distances(problem, e, center).argmin(axis=1) for e in range(count)]
    predictions = np.asarray(nearest, dtype=np.int64)
    return Row("float64", center, 0.0, 0.0, count, (predictions == problem.truth()).sum(axis=1), predictions)


# The table


def print_table(problem: Problem, rows: list[Row]) -> int:
    """The rows with their ratios to fewmatch at the same centring. Returns how many predictions really differ from fewmatch's."""
    total, asked = len(problem.episodes), problem.episodes.ways * problem.episodes.queries
    ours = {row.center: row for row in rows if row.who == "fewmatch"}
    print(
        f"{'':32}{'centre':15}{'sampling':>10}{'classify':>10}{'in all':>10}{'episodes/s':>12}{'ratio':>9}"
        f"{'accuracy':>10}{'differ':>8}{'really':>8}"
    )
    all_real = 0
    for row in rows:
        scale, reference = total / row.counted, ours[row.center]
        mark = "~" if row.counted < total else ""
        differing, real = compare(problem, row, reference)
        all_real += real
        compared = f"{'':>8}{'':>8}" if row is reference else f"{differing:8d}{real:8d}"
        print(
            f"{row.who:32}{row.center:15}"
            + "".join(
                f"{mark + format(seconds * scale, '.3f'):>10}"
                for seconds in (row.sampling, row.classification, row.sampling + row.classification)
            )
            + f"{1 / row.per_episode():12.0f}{row.per_episode() / reference.per_episode():8.1f}×"
            f"{100 * row.correct.sum() / (row.counted * asked):9.2f}%{compared}"
        )
    if not any(row.who.startswith("easyfsl") for row in rows):
        print(f"{'easyfsl':32}not installed: pip install --no-deps -c constraints.txt easyfsl")
    print(f"\nSeconds for {total} episodes. ratio: time in all, to fewmatch's with the same centring.")
    for who, counted in {row.who: row.counted for row in rows if row.counted < total}.items():
        print(f"~ {who}: {counted} episodes were run; the seconds are these times {total / counted:g}.")
    print(
        f"differ: predictions unlike fewmatch's on the same episodes; really: those with a float64 margin above {MARGIN:g}.\n"
        "fewmatch reports accuracies, so its predictions are compared by the number of right answers in each episode."
    )
    return all_real


def print_checks(problem: Problem, rows: list[Row]) -> int:
    """The loops among themselves, prediction by prediction, and every centring against float64. Returns what really differs."""
    all_real = 0
    asked = problem.episodes.ways * problem.episodes.queries
    for row, other in itertools.combinations([row for row in rows if row.predictions is not None], 2):
        if row.center == other.center:
            differing, real = compare(problem, row, other)
            all_real += real
            of = min(row.counted, other.counted) * asked
            print(f"centre {row.center}: {row.who} / {other.who}: {differing} of {of} differ, {real} really")
    checked = min(CHECKED, len(problem.episodes))
    for center in fewmatch.CENTERS:
        exact = in_float64(problem, center, checked)
        results = [(row.who, *compare(problem, row, exact)) for row in rows if row.center == center]
        all_real += sum(real for _, _, real in results)
        found = ", ".join(f"{who} {differing} ({real})" for who, differing, real in results)
        print(f"centre {center}: unlike float64 in the first {checked} episodes (really): {found}")
    return all_real


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
        ("--threads", os.cpu_count() or 1, "for every row"),
        ("--naive-episodes", 10_000, "episodes that each NumPy loop runs, at most"),
        ("--easyfsl-episodes", 1000, "episodes that each row of easyfsl runs, at most"),
    )
    add_numbers(parser, numbers)
    return parse_numbers(parser, ("naive_episodes", "easyfsl_episodes", "threads", "episodes"))


def main() -> int:
    options = parse()
    torch.set_num_threads(options.threads)
    with threadpoolctl.threadpool_limits(limits=options.threads):
        print(machine(options.threads, "easyfsl"))
        problem = make_problem(options)
        print(
            f"{options.episodes} episodes, {options.ways}-way {options.shots}-shot {options.queries}-query, D = {options.dims}, "
            f"{options.classes} classes × {options.images} images, float32\n"
            f"fewmatch: median of {REPEATS} after one run; the loops: once, after {WARM_UP} episodes\n"
        )
        rows = []
        for center in sorted(fewmatch.CENTERS, key=lambda name: name != "support"):
            print(f"running fewmatch, centre {center}", file=sys.stderr)
            rows.append(fewmatch_row(problem, center))
        count = min(options.naive_episodes, options.episodes)
        sampling = numpy_sampling(problem, count)
        for center in ("support", "none"):
            for who, by_product in (("NumPy loop, differences", False), ("NumPy loop, matrix product", True)):
                rows.append(
                    loop_row(who, center, problem, sampling, count, numpy_classify(problem, center, by_product))
                )
        package = load_easyfsl()
        if package is not None:
            rows += easyfsl_rows(package, problem, min(options.easyfsl_episodes, options.episodes))
        real = print_table(problem, rows)
        print()
        real += print_checks(problem, rows)
    if real:
        print(f"\n{real} predictions really differ")
    return 1 if real else 0


if __name__ == "__main__":
    sys.exit(main())
