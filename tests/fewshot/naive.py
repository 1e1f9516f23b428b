"""Nearest class mean in every centring mode, written out in NumPy and float64, one vector at a time."""

from __future__ import annotations

import numpy as np


def center_one(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    difference = x - mean
    return difference / np.sqrt((difference**2).sum())


def centered(
    support: np.ndarray, query: np.ndarray, center: str, base: np.ndarray | None = None, prenormalize: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """support (s, d) and query (q, d), raw -> centred unit vectors, by the definitions."""
    support, query = support.astype(np.float64), query.astype(np.float64)
    base = None if base is None else base.astype(np.float64)
    if prenormalize:
        support, query = (np.stack([center_one(x, 0 * x) for x in rows]) for rows in (support, query))
        base = None if base is None else np.stack([center_one(x, 0 * x) for x in base])
    zero = np.zeros(support.shape[1])
    if center == "none":
        means = zero, zero
    elif center == "base":
        means = base.mean(axis=0), base.mean(axis=0)
    elif center == "support":
        means = support.mean(axis=0), support.mean(axis=0)
    elif center == "support+query":
        both = np.concatenate([support, query]).mean(axis=0)
        means = both, both
    elif center == "separate":
        means = support.mean(axis=0), query.mean(axis=0)
    elif center == "feature":
        return np.stack([center_one(x, x.mean()) for x in support]), np.stack([center_one(x, x.mean()) for x in query])
    else:
        raise AssertionError(center)
    return np.stack([center_one(x, means[0]) for x in support]), np.stack([center_one(x, means[1]) for x in query])


def squared_distances(
    z_support: np.ndarray, labels: np.ndarray, z_query: np.ndarray, classes: int, metric: str
) -> np.ndarray:
    """(q, classes) squared distance of each query to each class's plain mean (to its direction for cosine)."""
    out = np.empty((len(z_query), classes))
    for c in range(classes):
        mean = z_support[labels == c].mean(axis=0)
        if metric == "cosine":
            mean = mean / np.sqrt((mean**2).sum())
        for q, z in enumerate(z_query):
            out[q, c] = ((z - mean) ** 2).sum()
    return out
