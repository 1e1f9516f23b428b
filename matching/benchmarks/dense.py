"""Benchmarks that know the place of every pixel: which pixels count as points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError


def check_density(step: int | None, points: int | None, seed: int) -> None:
    """Raises InputError: a step or a number of points below 1, or a negative seed."""
    for name, value, least in (("step", step, 1), ("points", points, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise InputError(f"expected {name} of {least} or more, got {value}")


def lattice(width: int, height: int, step: int) -> Float[np.ndarray, "K 2"]:
    """Every step-th pixel of every step-th row, row by row, the first half a step from the edge: (K, 2) x then y."""
    y, x = np.mgrid[(step - 1) // 2 : height : step, (step - 1) // 2 : width : step]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def drawn(
    points_a: Float[np.ndarray, "K 2"], points_b: Float[np.ndarray, "K 2"], points: int | None, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
    """At most so many of the points, each as likely as any other, in the order in which they stood; all where `points` is None."""
    if points is None or len(points_a) <= points:
        return points_a, points_b
    chosen = np.sort(rng.permutation(len(points_a))[:points])
    return points_a[chosen], points_b[chosen]
