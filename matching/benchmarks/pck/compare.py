"""Two PCK results on the same pairs: the difference of each pair, and what it says about the pairs that were not drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.pck.averages import Z95, Estimate, mean_of_pairs
from fewmatch.matching.benchmarks.pck.convention import key_of

#: Fields in which two conventions may differ without being different: `in_words` repeats the others.
_APART = ("name", "note", "alphas", "alpha", "average", "in_words")
#: Names that a message lists before it only counts.
_NAMED = 3


@dataclass(frozen=True, eq=False)
class PCKComparison:
    """The second result less the first, at each alpha that both have.

    pairs: how many. alphas: (A,). first, second: the averages `image` and `point` of each, (A,). difference: second − first of each average,
    with the interval of the paired difference. differs: the fields in which the conventions differ, with both values; then it
    is not the features alone that are compared. same_images: whether the files of the images had the same content; None where a result does
    not say.
    """

    pairs: int
    alphas: tuple[float, ...]
    first: Mapping[str, Float[np.ndarray, "A"]]
    second: Mapping[str, Float[np.ndarray, "A"]]
    difference: Mapping[str, Estimate]
    differs: Mapping[str, tuple[Any, Any]]
    same_images: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """By alpha and average: `first`, `second`, `difference` (second − first) and `ci95`, the half-width of its interval."""
        by_alpha = {}
        for at, alpha in enumerate(self.alphas):
            by_alpha[key_of(alpha)] = {
                name: {
                    "first": float(self.first[name][at]),
                    "second": float(self.second[name][at]),
                    "difference": float(estimate.value[at]),
                    "ci95": None if estimate.ci95 is None else float(estimate.ci95[at]),
                }
                for name, estimate in self.difference.items()
            }
        return {
            "pairs": self.pairs,
            "pck": by_alpha,
            "differs": {name: list(pair) for name, pair in self.differs.items()},
            "same_images": self.same_images,
        }


def compare_pck(a: Mapping[str, Any], b: Mapping[str, Any]) -> PCKComparison:
    """Compare two results of `PCKReport.to_json` on the same pairs: b − a, pair by pair.

    Per image: the mean of d_p, the difference of the pair's shares, with 1.96·s/√P. Per point: the difference of the two shares of points,
    with 1.96·√V, V = P/(P − 1) · Σ_p e_p², e_p = (r_p − R·n_p)/Σn of b less the same of a: the ratio estimator, linearised, whole
    pairs being drawn.
    The order of the pairs does not matter.

    Raises:
        InputError: no such results, another benchmark, split or annotation, other pairs, or no alpha that both have.
    """
    tables = [_table(result, which) for result, which in ((a, "first"), (b, "second"))]
    for field, words in (("kind", "benchmark"), ("split", "split")):
        _require_same(a, b, field, f"expected results on the same {words}")
    (pairs_a, right_a), (pairs_b, right_b) = tables
    only = [[name for name in mine if name not in other] for mine, other in ((pairs_a, pairs_b), (pairs_b, pairs_a))]
    if any(only):
        raise InputError(
            f"expected results on the same pairs, got {_listed(only[0])} only in the first and {_listed(only[1])} only in the second: "
            "use the same --limit and --seed"
        )
    _require_same(
        a,
        b,
        "digest",
        "the pairs have the same names and other points, boxes, categories or left and right: expected one annotation, read by one "
        "version of fewmatch",
    )
    alphas = [key for key in right_a if key in right_b]
    if not alphas:
        raise InputError(f"expected results with an alpha in common, got {', '.join(right_a)} and {', '.join(right_b)}")
    names = list(pairs_a)
    n_a = np.array([pairs_a[name][1] for name in names], np.int64)
    n_b = np.array([pairs_b[name][1] for name in names], np.int64)
    r_a = _columns(right_a, alphas, [pairs_a[name][0] for name in names])
    r_b = _columns(right_b, alphas, [pairs_b[name][0] for name in names])
    shares_a, shares_b = r_a / n_a[:, None], r_b / n_b[:, None]
    points_a, residual_a = _linearised(r_a, n_a)
    points_b, residual_b = _linearised(r_b, n_b)
    count = len(names)
    ci95 = None
    if count > 1:
        ci95 = Z95 * np.sqrt(count / (count - 1) * ((residual_b - residual_a) ** 2).sum(axis=0))
    return PCKComparison(
        pairs=count,
        alphas=tuple(float(key) for key in alphas),
        first={"image": shares_a.mean(axis=0), "point": points_a},
        second={"image": shares_b.mean(axis=0), "point": points_b},
        difference={"image": mean_of_pairs(shares_b - shares_a), "point": Estimate(points_b - points_a, ci95)},
        differs=_differing(a.get("convention") or {}, b.get("convention") or {}),
        same_images=_same_images(a, b),
    )


def _require_same(a: Mapping[str, Any], b: Mapping[str, Any], field: str, message: str) -> None:
    first, second = ((result.get("benchmark") or {}).get(field) for result in (a, b))
    if first != second:
        raise InputError(f"{message}, got {first} and {second}")


def _table(result: Mapping[str, Any], which: str) -> tuple[dict[str, tuple[int, int]], dict[str, list[int]]]:
    """Of each pair by name its row and its points, and by alpha the right points of the rows."""
    try:
        columns = result["per_pair"]
        names, n, right = list(columns["name"]), list(columns["n"]), dict(columns["right"])
        lengths = {len(names), len(n), *map(len, right.values())}
        whole = all(isinstance(v, int) for column in (n, *right.values()) for v in column) and min(n) > 0
        fits = all(0 <= r <= m for column in right.values() for r, m in zip(column, n, strict=True))
        if len(lengths) > 1 or len(set(names)) < len(names) or not whole or not fits:
            raise ValueError("columns that do not fit")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the {which} result is no JSON of a PCK run, or its per_pair is damaged") from error
    return {name: (row, points) for row, (name, points) in enumerate(zip(names, n, strict=True))}, right


def _columns(right: dict[str, list[int]], alphas: list[str], rows: list[int]) -> Int[np.ndarray, "P A"]:
    return np.array([right[key] for key in alphas], np.int64).T[rows]


def _linearised(
    right: Int[np.ndarray, "P A"], n: Int[np.ndarray, "P"]
) -> tuple[Float[np.ndarray, "A"], Float[np.ndarray, "P A"]]:
    """The share of points, and by how much each pair moves it."""
    value = right.sum(axis=0) / n.sum()
    return value, (right - value * n[:, None]) / n.sum()


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [name for name in (*a, *(name for name in b if name not in a)) if name not in _APART]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _same_images(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool | None:
    first, second = ((result.get("benchmark") or {}).get("images") for result in (a, b))
    return None if first is None or second is None else first == second


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
