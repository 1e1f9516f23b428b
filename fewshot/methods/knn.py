"""Weighted k nearest neighbours (Wu et al. 2018; as in the evaluation of DINO, Caron et al. 2021, and DINOv2)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_count, check_number


def knn(batch: EpisodeBatch, *, k: int | None = None, temperature: float | int = 0.07) -> Float[Tensor, "e q w"]:
    """Score every query by the classes of its nearest supports.

    A neighbour with cosine s to the query has the weight softmax(s / temperature), taken over the neighbours. DINO's weights
    exp(s / temperature) rank the classes alike; these sum to one whatever k is.

    Args:
        batch: episodes; classes may differ in their shots.
        k: how many neighbours; in an episode with fewer supports all of them, as also by default. Of supports that are equally near
            the first in the episode's order is a neighbour first.
        temperature: above 0. The smaller, the more the nearest decides; far below 0.01 weights vanish in float64.

    Returns:
        (e, q, w) logarithms of the summed weights of each class's neighbours, -inf where it has none: their softmax gives the weights,
        which sum to one.

    Raises:
        InputError: a k that is no whole number above 0, or a temperature that is not above 0.
    """
    temperature = check_number("knn", "temperature", temperature, above=0.0)
    if k is not None:
        check_count("knn", "k", k)
    real = batch.real_supports[:, None, :]
    cosines = _cosines(batch).masked_fill(~real, -torch.inf)
    if k is not None and k < batch.supports:
        cosines = cosines.masked_fill(~_nearest(cosines, k), -torch.inf)
    weights = torch.softmax(cosines / temperature, dim=-1)
    return torch.log(torch.bmm(weights, batch.onehot.to(weights.dtype)))


def _cosines(batch: EpisodeBatch) -> Float[Tensor, "e q s"]:
    """Cosines of queries and supports; a vector of length zero has cosine 0 with all others."""
    length = torch.diagonal(batch.gram, dim1=1, dim2=2).clamp(min=0).sqrt()
    length = torch.where(length > 0, length, 1.0)
    s = batch.supports
    return batch.cross_gram / (length[:, s:, None] * length[:, None, :s])


def _nearest(cosines: Float[Tensor, "e q s"], k: int) -> Bool[Tensor, "e q s"]:
    """True at the k highest of each query; `topk` would choose among equals as it likes."""
    order = torch.sort(cosines, dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(cosines, dtype=torch.bool).scatter_(-1, order, True)
