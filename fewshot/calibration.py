"""Whether probabilities mean what they say: expected calibration error, reliability, and the temperature that mends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, special

from fewmatch.errors import InputError
from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.report import Report

#: Equal bins of confidence from 0 to 1 (Guo et al. 2017).
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy.

    temperature: τ of the probabilities softmax(τ·scores). ece: expected calibration error, Σ (share of queries in the bin) ·
    |accuracy − mean confidence| over `BINS` equal bins. nll: mean −log of the probability of the true class.
    count, confidence, accuracy: (bins,) queries in each bin, their mean confidence and the share that is right (not a number where
    there are none).
    """

    temperature: float
    ece: float
    nll: float
    count: Int[np.ndarray, "b"]
    confidence: Float[np.ndarray, "b"]
    accuracy: Float[np.ndarray, "b"]

    def to_json(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "ece": self.ece,
            "nll": self.nll,
            "bins": [
                {"count": int(n), "confidence": float(c), "accuracy": float(a)}
                for n, c, a in zip(self.count, self.confidence, self.accuracy, strict=True)
                if n
            ],
        }


def measure_calibration(report: Report, episodes: Episodes, temperature: float | None = None) -> Calibration:
    """The calibration of a report that kept its scores, at its own temperature or another.

    Raises:
        InputError: the report has no scores.
    """
    scores, truth = scored(report, episodes)
    tau = report.temperature if temperature is None else temperature
    log_p = special.log_softmax(tau * scores, axis=1)
    confidence = np.exp(log_p.max(axis=1))
    right = log_p.argmax(axis=1) == truth
    count, mean_confidence, accuracy = reliability(confidence, right)
    there = count > 0
    ece = float((count[there] / len(truth) * np.abs(accuracy[there] - mean_confidence[there])).sum())
    return Calibration(tau, ece, _nll(scores, truth, tau), count, mean_confidence, accuracy)


def reliability(
    confidence: Float[np.ndarray, "n"], right: Bool[np.ndarray, "n"], bins: int = BINS
) -> tuple[Int[np.ndarray, "b"], Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
    """Number, mean confidence and accuracy of what falls into each of the bins (i/bins, (i+1)/bins]; the first takes 0 as well."""
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, right.astype(np.float64))]
    mean, share = (np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums)
    return count, mean, share


def fit_temperature(report: Report, episodes: Episodes) -> float:
    """The τ above 0 that makes the true classes likeliest: to be fitted on other classes than it is then used on.

    Raises:
        InputError: the report has no scores.
    """
    scores, truth = scored(report, episodes)
    # The loss is convex in τ, so one minimum in its logarithm too; a perfect report wants an infinite τ, which the bounds stop.
    found = optimize.minimize_scalar(
        lambda log_tau: _nll(scores, truth, float(np.exp(log_tau))), bounds=(-12.0, 12.0), method="bounded"
    )
    return float(np.exp(found.x))


def scored(report: Report, episodes: Episodes) -> tuple[Float[np.ndarray, "n W"], Int[np.ndarray, "n"]]:
    """The scores of all queries that were asked, and the places of their true classes.

    Raises:
        InputError: the report has no scores.
    """
    if report.scores is None:
        raise InputError("the report kept no scores: evaluate with keep_scores=True")
    count, ways, queries = episodes.query.shape
    asked = (episodes.query >= 0).reshape(count, -1)
    truth = np.broadcast_to(np.arange(ways).repeat(queries), asked.shape)
    return report.scores[:, : ways * queries][asked].astype(np.float64), truth[asked]


def _nll(scores: Float[np.ndarray, "n W"], truth: Int[np.ndarray, "n"], temperature: float) -> float:
    own = np.take_along_axis(scores, truth[:, None], axis=1)[:, 0]
    # A score of -inf has probability zero at every temperature; it is counted as the smallest number there is.
    logs = np.where(np.isneginf(own), -np.inf, temperature * own - special.logsumexp(temperature * scores, axis=1))
    return float(-np.maximum(logs, np.log(np.finfo(np.float64).tiny)).mean())
