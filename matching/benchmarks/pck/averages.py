"""The averages of right points over pairs, points and categories, each with its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fewmatch.matching.benchmarks.pck.convention import AVERAGES, Average, key_of

#: Standard errors in half of a 95 % interval.
Z95 = 1.96


@dataclass(frozen=True, eq=False)
class Estimate:
    """A share for each of A alphas, and the half-width of its 95 % interval; None where too few pairs tell none.

    Intervals say how much the number would change with other pairs of the same kind, taking pairs for independent draws.
    """

    value: Float[np.ndarray, "A"]
    ci95: Float[np.ndarray, "A"] | None

    def to_json(self, at: int) -> dict[str, float | None]:
        """That of one alpha."""
        return {"pck": float(self.value[at]), "ci95": None if self.ci95 is None else float(self.ci95[at])}


def mean_of_pairs(shares: Float[np.ndarray, "P A"]) -> Estimate:
    """(1/P) Σ_p s_p, with 1.96·s/√P, s the standard deviation over pairs with P − 1 below."""
    count = len(shares)
    value = shares.mean(axis=0)
    return Estimate(value, Z95 * shares.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else None)


def share_of_points(right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"]) -> Estimate:
    """R = Σ_p r_p / Σ_p n_p, with 1.96·√V: the ratio estimator, whole pairs being drawn.

    V = P/(P − 1) · Σ_p (r_p − R·n_p)² / (Σ_p n_p)².
    """
    value, variance = _ratio(right, n)
    return Estimate(value, None if variance is None else Z95 * np.sqrt(variance))


def mean_of_categories(
    right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"], categories: Sequence[str], *, weighted: bool
) -> Estimate:
    """Σ_c w_c·R_c with R_c as `share_of_points` of category c, and 1.96·√(Σ_c w_c²·V_c): pairs drawn within categories.

    w_c is 1/C, or with `weighted` the category's share of the pairs. No interval where a category has a single pair.
    """
    names = np.asarray(categories)
    value, variance = np.zeros(right.shape[1]), np.zeros(right.shape[1])
    known = True
    distinct = np.unique(names)
    for name in distinct:
        mine = names == name
        weight = mine.mean() if weighted else 1 / len(distinct)
        share, spread = _ratio(right[mine], n[mine])
        value += weight * share
        known &= spread is not None
        variance += 0 if spread is None else weight**2 * spread
    return Estimate(value, Z95 * np.sqrt(variance) if known else None)


def mean_of_category_means(shares: Float[np.ndarray, "P A"], categories: Sequence[str]) -> Estimate:
    """The mean over C categories of the mean of their pairs' shares, with 1.96·√(Σ_c s_c²/P_c)/C: pairs drawn within categories.

    No interval where a category has a single pair.
    """
    names = np.asarray(categories)
    parts = [shares[names == name] for name in np.unique(names)]
    value = np.mean([part.mean(axis=0) for part in parts], axis=0)
    if min(map(len, parts)) < 2:
        return Estimate(value, None)
    variance = np.sum([part.var(axis=0, ddof=1) / len(part) for part in parts], axis=0)
    return Estimate(value, Z95 * np.sqrt(variance) / len(parts))


def all_averages(
    right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"], categories: Sequence[str]
) -> dict[Average, Estimate]:
    """Of the right points of P pairs of 1 or more points, every average."""
    return {
        "image": mean_of_pairs(right / n[:, None]),
        "point": share_of_points(right, n),
        "category": mean_of_categories(right, n, categories, weighted=False),
        "category-weighted": mean_of_categories(right, n, categories, weighted=True),
        "category-image": mean_of_category_means(right / n[:, None], categories),
    }


def averages_json(
    right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"], categories: Sequence[str], alphas: Sequence[float]
) -> dict[str, Any]:
    """Pairs, points, categories, and by alpha every average with its interval."""
    known = all_averages(right, n, categories)
    return {
        "pairs": len(n),
        "points": int(n.sum()),
        "categories": len(set(categories)),
        "pck": {key_of(alpha): {name: known[name].to_json(at) for name in AVERAGES} for at, alpha in enumerate(alphas)},
    }


def _ratio(
    right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"]
) -> tuple[Float[np.ndarray, "A"], Float[np.ndarray, "A"] | None]:
    count, total = len(n), n.sum()
    value = right.sum(axis=0) / total
    if count < 2:
        return value, None
    residual = right - value * n[:, None]
    return value, count / (count - 1) * (residual**2).sum(axis=0) / total**2
