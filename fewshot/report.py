"""What an evaluation found: accuracy with its interval, and differences between methods on the same episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int16

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import Center
from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.new_images import new_images_interval


@dataclass(frozen=True)
class Report:
    """The result of one method on one set of episodes.

    ways, shots, queries: per episode, class and class; a pair (least, most) where they vary. queries is None where only their number
    in an episode is fixed (`queries_total`).
    accuracy: mean over episodes of the share of queries that are right, as a fraction. ci95: half-width 1.96·s/√n of its 95 %
    interval over the n episodes, s with ddof 1; None for one episode. It covers what other episodes of the same images would give.
    ci95_new_images: half-width of the 95 % interval that covers what other images of the same classes would give
    (`fewmatch.fewshot.new_images`); None where it is not known, and ci95_new_images_reason says why. Neither covers other classes.
    few_images: whether there are so few images that more of them are needed, and more episodes would not help.
    notes: what the user should know about the options under this centring, one sentence each.
    per_episode: (E,) the accuracy of each episode. predictions: (E, Q) the place of the class chosen for each query, among the classes
    of its episode; -1 where the query is padding. scores: (E, Q, W) what it was chosen by, if asked for; -inf for classes not there.
    temperature: τ of the class probabilities softmax(τ·scores). transductive: whether the queries were used as a set.
    seconds: what the computation took.
    """

    method: str
    center: Center
    options: dict[str, Any]
    prenormalize: bool
    transductive: bool
    ways: int | tuple[int, int]
    shots: int | tuple[int, int]
    queries: int | tuple[int, int] | None
    episodes: int
    accuracy: float
    ci95: float | None
    temperature: float
    seconds: float
    per_episode: Float[np.ndarray, "E"]
    predictions: Int16[np.ndarray, "E Q"]
    scores: np.ndarray | None = None
    ci95_new_images: float | None = None
    ci95_new_images_reason: str | None = None
    few_images: bool = False
    notes: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str | None:
        """The distance to class means, for the methods that have a choice."""
        return self.options.get("metric")

    def right(self, episodes: Episodes) -> Bool[np.ndarray, "E Q"]:
        """Which queries of known classes are right, in the order of `episodes.query`; False for padding."""
        count, ways, queries = episodes.query.shape
        right: Bool[np.ndarray, "E Q"] = self.predictions[:, : ways * queries] == np.repeat(np.arange(ways), queries)
        return right & (episodes.query.reshape(count, -1) >= 0)

    def to_json(self) -> dict[str, Any]:
        """One entry of `results` in the command's JSON."""
        return {
            "method": self.method,
            "center": self.center,
            "transductive": self.transductive,
            "metric": self.metric,
            "options": {name: _plain(value) for name, value in self.options.items()},
            "prenormalize": self.prenormalize,
            "ways": _plain(self.ways),
            "shots": _plain(self.shots),
            "queries": _plain(self.queries),
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "ci95_new_images": self.ci95_new_images,
            "ci95_new_images_reason": self.ci95_new_images_reason,
            "few_images": self.few_images,
            "notes": list(self.notes),
            "seconds": self.seconds,
        } | self.more


def mean_and_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float | None]:
    """The mean and the half-width of its 95 % interval, 1.96·s/√n (s with ddof 1); no half-width for a single value."""
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True)
class Difference:
    """One method minus another on the same episodes.

    mean: of the paired differences. ci95: half-width of their interval over episodes; ci95_new_images: of that for new images of the
    same classes, None where it is not known, and ci95_new_images_reason says why.
    """

    first: Report
    second: Report
    mean: float
    ci95: float | None
    ci95_new_images: float | None = None
    ci95_new_images_reason: str | None = None


def paired(
    first: Report,
    second: Report,
    episodes: Episodes | None = None,
    labels: Sequence[object] | np.ndarray | None = None,
) -> Difference:
    """How much better the first is than the second, episode by episode (Lafargue et al. 2024: paired intervals are the ones to compare).

    Args:
        first, second: evaluated on the same episodes, which the caller sees to.
        episodes, labels: what both were evaluated on, for the interval for new images.

    Raises:
        InputError: they have different numbers of episodes.
    """
    if first.episodes != second.episodes:
        raise InputError(
            f"expected results on the same episodes, got {first.episodes} and {second.episodes}: they cannot be paired"
        )
    mean, ci95 = mean_and_interval(first.per_episode - second.per_episode)
    if episodes is None or labels is None:
        return Difference(first, second, mean, ci95, None, "the episodes and labels were not given")
    values = first.right(episodes).astype(np.float64) - second.right(episodes)
    if not values.any():
        return Difference(first, second, mean, ci95, None, "the two methods are right and wrong on the same queries")
    new = new_images_interval(
        values,
        episodes,
        labels,
        transductive=first.transductive or second.transductive,
        unknown=first.predictions.shape[1] > values.shape[1],
    )
    return Difference(first, second, mean, ci95, new.ci95, new.reason)


def _plain(value: Any) -> Any:
    """A value that JSON has: pairs as lists, arrays as their shape."""
    if isinstance(value, tuple):
        return list(value)
    return list(value.shape) if hasattr(value, "shape") else value
