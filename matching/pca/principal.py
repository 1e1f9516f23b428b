"""Principal components from moments that are summed up image by image, their signs, and what else colours are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

#: Skewness below this is none: the sign must not hang on rounding.
_SKEWED = 1e-6
#: Variance below this share of the mean squared value is rounding, not variance.
_ROUNDING = 1e-13
#: Terms of the surface of `position`: x, y, x², xy, y².
TERMS = 5


@dataclass(frozen=True)
class Principal:
    """directions: (n, D) principal directions, ratios: (n,) their shares of the variance; zero where there is none."""

    directions: Float[np.ndarray, "n D"]
    ratios: Float[np.ndarray, "n"]


class Moments:
    """Count, mean and scatter matrices of vectors that come in groups: within the groups, and in all (Chan et al. 1983)."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._means: list[Float[np.ndarray, "D"]] = []

    def add(self, vectors: Float[np.ndarray, "n D"]) -> None:
        if not self._counts:
            self.within = np.zeros((vectors.shape[1],) * 2)
            self.square = np.zeros(vectors.shape[1])
        if not len(vectors):
            return
        mean = vectors.mean(axis=0)
        self.within += (vectors - mean).T @ (vectors - mean)
        self.square += (vectors**2).sum(axis=0)
        self._counts.append(len(vectors))
        self._means.append(mean)

    @property
    def count(self) -> int:
        return sum(self._counts)

    @property
    def mean(self) -> Float[np.ndarray, "D"]:
        return np.asarray(np.average(self._means, axis=0, weights=self._counts))

    @property
    def total(self) -> Float[np.ndarray, "D D"]:
        off = np.stack(self._means) - self.mean
        return np.asarray(self.within + (off * np.array(self._counts)[:, None]).T @ off)


def principal_components(covariance: Float[np.ndarray, "D D"], square: float, count: int) -> Principal:
    """The first principal components; `square` is the mean squared length of the vectors before a mean was subtracted."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1].T
    real = values > _ROUNDING * square
    directions, ratios = np.zeros((count, len(values))), np.zeros(count)
    kept = min(count, int(real.sum()))
    if kept:
        directions[:kept] = vectors[:kept]
        ratios[:kept] = values[:kept] / values[real].sum()
    return Principal(directions, ratios)


def sign_of(scores: Float[np.ndarray, "n"], direction: Float[np.ndarray, "D"]) -> float:
    """1 or −1, so that the scores are skewed to the right, or else the largest loading is positive."""
    variance = float((scores**2).mean())
    skewness = float((scores**3).mean()) / variance**1.5 if variance > 0 else 0.0
    if abs(skewness) > _SKEWED:
        return 1.0 if skewness > 0 else -1.0
    # Of loadings that are equal but for rounding the first one decides.
    largest = np.argmax(np.abs(direction) >= np.abs(direction).max() * (1 - 1e-9))
    return -1.0 if direction[largest] < 0 else 1.0


def otsu_threshold(values: Float[np.ndarray, "n"]) -> float | None:
    """The threshold between two neighbouring values that maximises the variance between the two sides; None where all are equal.

    Otsu (1979), on the values themselves instead of a histogram. Of equal variances the lowest threshold wins.
    """
    ordered = np.sort(values)
    n = len(ordered)
    below = np.arange(1, n)
    # Without the mean the sums stay small, and so do their rounding errors.
    sums = np.cumsum(ordered - ordered.mean())[:-1]
    between = np.where(ordered[1:] > ordered[:-1], sums**2 / (below * (n - below)), -1.0)
    if not n > 1 or between.max() < 0:
        return None
    split = int(between.argmax())
    threshold = (ordered[split] + ordered[split + 1]) / 2
    return float(threshold if threshold < ordered[split + 1] else ordered[split])


def mutual_information(a: Bool[np.ndarray, "n"], b: Bool[np.ndarray, "n"]) -> float:
    """How much two yes-or-no facts about the same patches tell of each other, in nats; 0 where they are independent."""
    total = 0.0
    for in_a in (a, ~a):
        for in_b in (b, ~b):
            both = float((in_a & in_b).mean())
            if both:
                total += both * float(np.log(both / (in_a.mean() * in_b.mean())))
    return total


def terms(h: int, w: int) -> Float[np.ndarray, "h w 5"]:
    """x, y, x², xy and y² of the centres of patches, x and y from −1 to 1 over the grid."""
    y, x = np.meshgrid((2 * np.arange(h) + 1) / h - 1, (2 * np.arange(w) + 1) / w - 1, indexing="ij")
    return np.stack([x, y, x**2, x * y, y**2], axis=2)


def border(real: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The patches of an image that have the image's edge, or padding, on one of their four sides."""
    around = np.pad(real, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(real & ~inner)
