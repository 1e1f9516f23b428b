"""Every PCK of the scored pairs in one report: per image, per point and per category, and what convention they are of."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pair import Benchmark
from fewmatch.matching.benchmarks.pck.averages import (
    Estimate,
    all_averages,
    averages_json,
    mean_of_pairs,
    share_of_points,
)
from fewmatch.matching.benchmarks.pck.convention import Average, Convention, key_of
from fewmatch.matching.benchmarks.pck.records import PairRecord, benchmark_digest, images_digest

#: A fact is split by where it has at most so many values.
MOST_VALUES = 12


@dataclass(frozen=True, eq=False)
class PCKReport:
    """The right points of P pairs at A alphas, all of which have points.

    convention: what was counted. benchmark: kind, split, choices and digests of annotations and images, or None.
    names, categories, facts: of the pairs. n: (P,) their points. right: (P, A) how many of them are right at each alpha.
    own_right: (P, A) those of them that are nearest to their own place among the pair's points (PCK†).
    twin_n, twin_right: (P,) and (P, A) the same of points whose mirror image is among the pair's (the geometry-aware subset); None where
        no pair says.
    kept: (P,) points that the convention's filters let through, of which alone some are right; None where it has no filters.
    dropped: pairs that do not count, by name, and why. moved: points given outside their image. mirrored: sources taken as their mirror
        images.
    """

    convention: Convention
    benchmark: Mapping[str, Any] | None
    names: tuple[str, ...]
    categories: tuple[str, ...]
    facts: tuple[Mapping[str, int | float | str], ...]
    n: Int[np.ndarray, "P"]
    right: Int[np.ndarray, "P A"]
    own_right: Int[np.ndarray, "P A"]
    twin_n: Int[np.ndarray, "P"] | None
    twin_right: Int[np.ndarray, "P A"] | None
    dropped: tuple[tuple[str, str], ...]
    moved: int
    mirrored: int
    kept: Int[np.ndarray, "P"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def averages(self) -> dict[Average, Estimate]:
        """Every average, at each alpha of the convention."""
        return all_averages(self.right, self.n, self.categories)

    def headline(self) -> tuple[float, float | None]:
        """The convention's average at its alpha, and the half-width of its 95 % interval where there is one."""
        estimate = self.averages()[self.convention.average]
        at = self.convention.alphas.index(self.convention.alpha)
        return float(estimate.value[at]), None if estimate.ci95 is None else float(estimate.ci95[at])

    def to_json(self) -> dict[str, Any]:
        """All of it; `per_pair` in columns, from which everything else follows and which `compare_pck` reads.

        `pck` maps an alpha and an average to its `pck` and `ci95`, shares from 0 to 1. `pck_dagger` has the same form; `geometry_aware`,
        null where twins are not known, has it with its pairs and points, and so has `kept`, of the points that filters let through, with their
        share of all points, null without filters; `by_category` and `by_fact` have the averages per image and
        per point alone.
        """
        alphas, (value, ci95) = self.convention.alphas, self.headline()
        aware = None
        if self.twin_n is not None and self.twin_right is not None and (self.twin_n > 0).any():
            some = self.twin_n > 0
            of = [category for category, kept in zip(self.categories, some, strict=True) if kept]
            aware = averages_json(self.twin_right[some], self.twin_n[some], of, alphas)
        kept = None
        if self.kept is not None:
            some = self.kept > 0
            of = [category for category, any_kept in zip(self.categories, some, strict=True) if any_kept]
            share = float(self.kept.sum() / self.n.sum())
            kept = {"share": share} | (
                averages_json(self.right[some], self.kept[some], of, alphas)
                if some.any()
                else {"pairs": 0, "points": 0, "categories": 0, "pck": None}
            )
        whole = averages_json(self.right, self.n, self.categories, alphas)
        return {
            "benchmark": None if self.benchmark is None else dict(self.benchmark),
            "convention": self.convention.to_json(),
            "headline": {
                "average": self.convention.average,
                "alpha": self.convention.alpha,
                "pck": value,
                "ci95": ci95,
            },
            **whole,
            "dropped": [{"name": name, "reason": reason} for name, reason in self.dropped],
            "points_outside": self.moved,
            "mirrored": self.mirrored,
            "pck_dagger": averages_json(self.own_right, self.n, self.categories, alphas)["pck"],
            "geometry_aware": aware,
            "kept": kept,
            "by_category": self._by(self.categories),
            "by_fact": {name: self._by(column) for name, column in self._split_facts().items()},
            "per_pair": {
                "name": list(self.names),
                "category": list(self.categories),
                "n": self.n.tolist(),
                "right": {key_of(alpha): self.right[:, at].tolist() for at, alpha in enumerate(alphas)},
                **({} if self.kept is None else {"kept": self.kept.tolist()}),
            },
        }

    def to_csv(self) -> str:
        """A line per category, by name: pairs, points, and for each alpha the PCK per image and per point and the half-widths.

        Fields are empty where a single pair gives no interval. Lines end with a line feed.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        columns = [
            f"{average}_{part}@{key_of(alpha)}"
            for alpha in self.convention.alphas
            for average in ("image", "point")
            for part in ("pck", "ci95")
        ]
        writer.writerow(["category", "pairs", "points", *columns])
        for name, entry in self._by(self.categories).items():
            cells = [
                entry["pck"][key_of(alpha)][average][part]
                for alpha in self.convention.alphas
                for average in ("image", "point")
                for part in ("pck", "ci95")
            ]
            writer.writerow([name, entry["pairs"], entry["points"], *cells])
        return out.getvalue()

    def _split_facts(self) -> dict[str, list[str | None]]:
        """Of each fact with few values the value of every pair, None where it has none."""
        columns = {}
        for name in sorted({name for facts in self.facts for name in facts}):
            column = [str(facts[name]) if name in facts else None for facts in self.facts]
            if len(set(column) - {None}) <= MOST_VALUES:
                columns[name] = column
        return columns

    def _by(self, labels: Sequence[str | None]) -> dict[str, Any]:
        """Pairs, points and two averages of the pairs of each label, by label."""
        column, out = np.array(labels, dtype=object), {}
        for label in sorted({label for label in labels if label is not None}, key=_natural):
            mine = np.flatnonzero(column == label)
            right, n = self.right[mine], self.n[mine]
            image, point = mean_of_pairs(right / n[:, None]), share_of_points(right, n)
            out[label] = {
                "pairs": len(mine),
                "points": int(n.sum()),
                "pck": {
                    key_of(alpha): {"image": image.to_json(at), "point": point.to_json(at)}
                    for at, alpha in enumerate(self.convention.alphas)
                },
            }
        return out


def pck(records: Sequence[PairRecord], convention: Convention, *, benchmark: Benchmark | None = None) -> PCKReport:
    """Count the right points of scored pairs, at all alphas of a convention.

    Point k is right at α if ‖p̂_k − p_k‖ ≤ α·T, or < α·T, as the convention has it, in float64, and if its filters kept the point. Averages and
    their intervals: `mean_of_pairs`, `share_of_points`, `mean_of_categories`. Pairs without a point count neither as 0 nor as 1: they are
    dropped, and named.

    Args:
        records: of `score_pair` under this convention. They may have been found under one with other alphas, `<=` or `<`, or average.
        benchmark: of these pairs, after any limit; its kind, split, digest, choices and dropped pairs go into the report, and a digest of
            the images where the records have it.

    Raises:
        InputError: no pair with a point, or two records of one pair.
    """
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise InputError(f"expected one record a pair, got two of {twice}")
    kept = [record for record in records if len(record)]
    if not kept:
        raise InputError(f"no pair with a point to score, of {len(names)} pairs")
    alphas = np.array(convention.alphas, np.float64)
    right = []
    for record in kept:
        limit = record.thresholds[:, None] * alphas
        error = record.errors[:, None]
        hits = error <= limit if convention.inclusive else error < limit
        right.append(hits if record.kept is None else hits & record.kept[:, None])
    twin_n = twin_right = None
    if any(record.twins is not None for record in kept):
        known = [np.zeros(len(record), bool) if record.twins is None else record.twins for record in kept]
        twin_n = np.array([marks.sum() for marks in known], np.int64)
        twin_right = np.array([hits[marks].sum(axis=0) for hits, marks in zip(right, known, strict=True)], np.int64)
    return PCKReport(
        convention=convention,
        benchmark=None
        if benchmark is None
        else {
            "kind": benchmark.kind,
            "split": benchmark.split,
            "digest": benchmark_digest(benchmark),
            "images": images_digest(kept),
            "choices": dict(benchmark.choices),
        },
        names=tuple(record.name for record in kept),
        categories=tuple(record.category for record in kept),
        facts=tuple(record.facts for record in kept),
        n=np.array([len(record) for record in kept], np.int64),
        right=np.array([hits.sum(axis=0) for hits in right], np.int64),
        own_right=np.array(
            [hits[record.own_nearest].sum(axis=0) for hits, record in zip(right, kept, strict=True)], np.int64
        ),
        twin_n=twin_n,
        twin_right=twin_right,
        dropped=(
            *(() if benchmark is None else benchmark.dropped),
            *((record.name, "no point to score") for record in records if not len(record)),
        ),
        moved=sum(record.moved for record in kept),
        mirrored=sum(record.mirrored for record in kept),
        kept=np.array([len(record) if record.kept is None else record.kept.sum() for record in kept], np.int64)
        if convention.filters
        else None,
    )


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers by their size and before words."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
