"""What transforms of features take from a base set: its mean, principal components, independent components."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float64

from fewmatch.errors import InputError

#: Transforms that are fitted, and those of them that are followed by a number of components.
FITTED = ("center", "pca", "whiten", "ica")
COUNTED = ("pca", "ica")

#: A principal component with this share of the first one's variance, or less, is rounding of float32 features.
_NO_VARIANCE = 1e-10
#: And with this share of the mean's squared length, rounding of float64 sums.
_ALL_EQUAL = 1e-24
_ICA_STEPS = 1000


def fit_step(
    name: str, number: float, chunks: Callable[[], Iterator[Float64[np.ndarray, "n D"]]]
) -> dict[str, Float64[np.ndarray, "..."]]:
    """What one transform needs of the base set.

    Args:
        name: one of `FITTED`. number: of components, or the shrinkage of `whiten`.
        chunks: goes through the base set once a call.

    Returns:
        mean (D,), and except for `center` matrix (D, N): the transform is (x − mean)·matrix.

    Raises:
        InputError: the base set does not vary in so many directions, or has no independent components that can be found.
    """
    word = name if np.isnan(number) else f"{name}={number:g}"
    count = sum(len(chunk) for chunk in chunks())
    mean = np.zeros(1)
    for _ in range(2):  # the second time corrects what the first lost in rounding
        mean = mean + np.sum([(chunk - mean).sum(axis=0) for chunk in chunks()], axis=0) / count
    if name == "center":
        return {"mean": mean}
    covariance = np.zeros((len(mean), len(mean)))
    for chunk in chunks():
        covariance += (chunk - mean).T @ (chunk - mean) / max(count - 1, 1)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    rank = int((variances > max(_NO_VARIANCE * variances[0], _ALL_EQUAL * (mean @ mean))).sum())
    if rank == 0:
        raise InputError(f"{word}: the base features are all the same, so they have no principal components")
    if name in COUNTED and number > rank:
        raise InputError(
            f"{word}: expected {rank} components or fewer, since the {count} base features of {len(mean)} dimensions"
            f" vary in {rank} directions, got {number:g}"
        )
    if name == "ica":
        return {"mean": mean, "matrix": _independent(word, int(number), np.concatenate(list(chunks())) - mean)}
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    axes = np.where(largest < 0, -axes, axes)
    if name == "pca":
        return {"mean": mean, "matrix": np.ascontiguousarray(axes[:, : int(number)])}
    shrunken = (1 - number) * variances.clip(min=0) + number * variances.mean()
    kept = rank if number == 0 else len(mean)
    return {"mean": mean, "matrix": np.ascontiguousarray(axes[:, :kept] / np.sqrt(shrunken[:kept]))}


def _independent(word: str, components: int, centred: Float64[np.ndarray, "B D"]) -> Float64[np.ndarray, "D N"]:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    ica = FastICA(components, whiten="unit-variance", max_iter=_ICA_STEPS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            ica.fit(centred)
        except ConvergenceWarning as error:
            raise InputError(
                f"{word}: no independent components found in {_ICA_STEPS:,} steps on these base features: take fewer"
            ) from error
    return np.ascontiguousarray(ica.components_.T)
