"""Open-set episodes: queries of classes that the support set does not have, and how well they are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int32
from scipy import special, stats

from fewmatch.errors import InputError
from fewmatch.fewshot.episodes.episodes import Episodes, sample_episodes
from fewmatch.fewshot.report import Report, mean_and_interval

#: How sure a query is of one of the classes it is offered: the largest class probability, or the largest score (for nearest class
#: mean, minus the squared distance to the nearest mean).
MEASURES = ("probability", "score")


@dataclass(frozen=True)
class OpenSet:
    """How well a measure of being known tells queries of known classes from others; means over episodes with 95 % intervals.

    auroc: chance that a known query has the higher measure (ties count half). fpr95: share of unknown queries accepted by the highest
    threshold that accepts at least 95 % of the known ones.
    """

    measure: str
    auroc: float
    auroc_ci95: float | None
    fpr95: float
    fpr95_ci95: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def sample_open_episodes(
    labels: Sequence[object] | np.ndarray,
    *,
    ways: int,
    unknown_classes: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    class_names: Sequence[str] | None = None,
) -> tuple[Episodes, Int32[np.ndarray, "E U"]]:
    """Draw episodes, each with queries of further classes that have no supports.

    Returns:
        the episodes, and (E, unknown_classes·queries) rows of unknown queries for `evaluate(unknown=…)`.

    Raises:
        InputError: as `sample_episodes`, for `ways + unknown_classes` classes.
    """
    if unknown_classes < 1:
        raise InputError(f"expected 1 unknown class or more, got {unknown_classes}")
    drawn = sample_episodes(
        labels,
        ways=ways + unknown_classes,
        shots=shots,
        queries=queries,
        episodes=episodes,
        seed=seed,
        class_names=class_names,
    )
    # Classes are in ascending order: which of them are unknown has to be drawn, from a stream of its own.
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    order = rng.permuted(np.tile(np.arange(ways + unknown_classes), (episodes, 1)), axis=1)
    known, others = np.sort(order[:, :ways], axis=1), order[:, ways:]
    unknown = np.take_along_axis(drawn.query, others[:, :, None], axis=1).reshape(episodes, -1)
    return (
        dataclasses.replace(
            drawn,
            classes=np.take_along_axis(drawn.classes, known, axis=1),
            support=np.take_along_axis(drawn.support, known[:, :, None], axis=1),
            query=np.take_along_axis(drawn.query, known[:, :, None], axis=1),
            sampler={**drawn.sampler, "unknown_classes": unknown_classes},
        ),
        unknown,
    )


def unknown_detection(report: Report, episodes: Episodes, temperature: float | None = None) -> list[OpenSet]:
    """Detection of the unknown queries of a report that kept its scores, by each of `MEASURES`.

    Raises:
        InputError: the report has no scores, or no unknown queries.
    """
    known = episodes.query.shape[1] * episodes.query.shape[2]
    if report.scores is None or report.scores.shape[1] == known:
        raise InputError(
            "expected a report with scores and unknown queries: evaluate with unknown=… and keep_scores=True"
        )
    scores = report.scores.astype(np.float64)
    tau = report.temperature if temperature is None else temperature
    values = {"probability": special.softmax(tau * scores, axis=2).max(axis=2), "score": scores.max(axis=2)}
    found = []
    for measure in MEASURES:
        inside, outside = values[measure][:, :known], values[measure][:, known:]
        auroc, auroc_ci95 = mean_and_interval(area_under_roc(inside, outside))
        fpr95, fpr95_ci95 = mean_and_interval(false_positives_at_95(inside, outside))
        found.append(OpenSet(measure, auroc, auroc_ci95, fpr95, fpr95_ci95))
    return found


def area_under_roc(known: Float[np.ndarray, "E K"], unknown: Float[np.ndarray, "E U"]) -> Float[np.ndarray, "E"]:
    """Share of pairs in which the known value is the higher, ties counting half (Mann–Whitney U over K·U), for each row."""
    k, u = known.shape[1], unknown.shape[1]
    ranks = stats.rankdata(np.concatenate([known, unknown], axis=1), axis=1)[:, :k]
    return np.asarray((ranks.sum(axis=1) - k * (k + 1) / 2) / (k * u))


def false_positives_at_95(known: Float[np.ndarray, "E K"], unknown: Float[np.ndarray, "E U"]) -> Float[np.ndarray, "E"]:
    """Share of unknown values at or above the highest threshold that 95 % of the known ones reach, for each row."""
    k = known.shape[1]
    # The ceil(0.95 k)-th highest; in whole numbers, since 0.95 is no binary fraction.
    threshold = np.sort(known, axis=1)[:, k - (95 * k + 99) // 100]
    return np.asarray((unknown >= threshold[:, None]).mean(axis=1))
