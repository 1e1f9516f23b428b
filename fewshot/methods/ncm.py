"""Nearest class mean (Mensink et al. 2013; prototypes as in Snell et al. 2017, features as in SimpleShot, Wang et al. 2019)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch

Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def check_metric(metric: str) -> Metric:
    """The metric of this name.

    Raises:
        InputError: there is none.
    """
    if metric not in METRICS:
        raise InputError(f"no metric called {metric}: expected one of {', '.join(METRICS)}")
    return metric


def class_means(support: Float[Tensor, "e w k d"]) -> Float[Tensor, "e w d"]:
    """The prototypes: the plain mean of each class's supports, not normalised again."""
    return support.mean(dim=2)


def compared_means(means: Float[Tensor, "e w d"], metric: str) -> Float[Tensor, "e w d"]:
    """The means that queries are compared with: for `cosine` those of length one (a mean of length zero keeps it).

    Raises:
        InputError: an unknown metric.
    """
    if check_metric(metric) == "euclidean":
        return means
    norm = torch.linalg.vector_norm(means, dim=-1, keepdim=True)
    return means / torch.where(norm > 0, norm, 1.0)


def scores(
    query: Float[Tensor, "e q d"], means: Float[Tensor, "e w d"], metric: str = "euclidean"
) -> Float[Tensor, "e q w"]:
    """Minus the squared Euclidean distance of each query to each mean.

    Queries are unit vectors, so the constant 1 stands for their squared length. For the metric see `compared_means`.

    Raises:
        InputError: an unknown metric.
    """
    means = compared_means(means, metric)
    squared = means.square().sum(dim=-1)
    return torch.baddbmm(-(1 + squared)[:, None, :], query, means.transpose(1, 2), alpha=2)


def ncm(batch: EpisodeBatch, *, metric: str = "euclidean") -> Float[Tensor, "e q w"]:
    """Score every query against the mean of every class.

    Args:
        batch: episodes; classes may differ in their shots.
        metric: `euclidean` (smallest distance) or `cosine` (largest cosine); they agree for one shot.

    Returns:
        (e, q, w) minus the squared distances.
    """
    support, query = batch.vectors
    onehot = batch.onehot.to(support.dtype)
    means = torch.bmm(onehot.transpose(1, 2), support) / batch.shots.to(support.dtype).clamp(min=1)[:, :, None]
    return scores(query, means, metric)
