"""TIM-GD: class weights that make the queries' labels certain and evenly spread (Boudiaf et al. 2020), by gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_count, check_number, check_weights
from fewmatch.fewshot.methods.transductive.assignments import log_scores

#: Adam's constants, as everybody leaves them.
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8

#: Bytes of vectors worked on at a time. Every iteration reads them twice, so on a CPU they should stay in the caches.
_PART_BYTES = {"cpu": 4 * 2**20}
_PART_BYTES_ELSEWHERE = 2**30


def tim_gd(
    batch: EpisodeBatch,
    *,
    temperature: float = 15.0,
    weights: Sequence[float] = (0.1, 1.0, 0.1),
    learning_rate: float = 1e-4,
    iterations: int = 1000,
) -> Float[Tensor, "e q w"]:
    """TIM-GD: the loss of `tim`, by Adam on the class weights, which start as the class means.

    Args:
        batch: episodes with their vectors; classes may differ in their shots.
        temperature: τ.
        weights: of the cross-entropy of the supports, of the entropy of the mean assignment, and of the mean entropy.
        learning_rate, iterations: of Adam.

    Returns:
        (e, q, w) the logarithms of p = softmax of -(τ/2)·distance² to the weights.

    Raises:
        InputError: a value that an option cannot take.
    """
    orders = torch.ones(len(batch.onehot), device=batch.onehot.device)
    return descend("tim-gd", batch, temperature, weights, learning_rate, iterations, orders)


def descend(
    method: str,
    batch: EpisodeBatch,
    temperature: float,
    weights: Sequence[float],
    learning_rate: float,
    iterations: int,
    orders: Float[Tensor, "e"],
) -> Float[Tensor, "e q w"]:
    """Check the options and run Adam on a few episodes at a time; orders are the α of each episode.

    Raises:
        InputError: a value that an option cannot take.
    """
    check_number(method, "temperature", temperature, above=0.0)
    check_weights(method, "weights", weights, 3)
    check_number(method, "learning_rate", learning_rate, above=0.0)
    check_count(method, "iterations", iterations, least=0)
    support, query = batch.vectors
    points = support.shape[1] + query.shape[1]
    size = _PART_BYTES.get(support.device.type, _PART_BYTES_ELSEWHERE)
    step = max(1, size // (points * support.shape[2] * support.element_size()))
    parts = [
        _descend(batch, slice(start, start + step), temperature, weights, learning_rate, iterations, orders)
        for start in range(0, len(support), step)
    ]
    return torch.cat(parts)


def _descend(
    batch: EpisodeBatch,
    part: slice,
    temperature: float,
    weights: Sequence[float],
    learning_rate: float,
    iterations: int,
    orders: Float[Tensor, "e"],
) -> Float[Tensor, "e q w"]:
    vectors = batch.vectors
    points = torch.cat([vectors[0][part], vectors[1][part]], dim=1)
    s, dtype = batch.supports, points.dtype
    least = torch.finfo(dtype).tiny
    classes = batch.classes[part]
    absent = ~classes[:, :, None]
    targets = batch.onehot[part].to(dtype).transpose(1, 2)
    real, asked = batch.real_supports[part].to(dtype)[:, None, :], batch.asked[part].to(dtype)[:, None, :]
    per_support = weights[0] * real / real.sum(dim=2, keepdim=True).clamp(min=1)
    per_query = asked / asked.sum(dim=2, keepdim=True).clamp(min=1)
    alpha = orders[part].to(dtype)[:, None, None]

    w = torch.bmm(targets, points[:, :s]) / targets.sum(dim=2, keepdim=True).clamp(min=1)
    transposed = points.transpose(1, 2)
    first, second = torch.zeros_like(w), torch.zeros_like(w)

    def logits() -> Tensor:
        """τ·(w·z - |w|²/2): what |z|² adds is the same for all classes."""
        half = w.square().sum(dim=2, keepdim=True) / 2
        return (torch.bmm(w, transposed) - half).mul_(temperature).masked_fill_(absent, -torch.inf)

    for iteration in range(1, iterations + 1):
        log_p = torch.log_softmax(logits(), dim=1)
        p = log_p.exp()
        # Slopes of the loss in the logits: of the cross-entropy, and of both entropies through p.
        mean = (p[:, :, s:] * per_query).sum(dim=2, keepdim=True)
        inner = weights[1] * _slope(mean.clamp(min=least).log(), alpha) - weights[2] * _slope(log_p[:, :, s:], alpha)
        inner = inner.masked_fill(absent, 0.0)
        p_query = p[:, :, s:]
        by_query = p_query * (inner - (p_query * inner).sum(dim=1, keepdim=True)) * per_query
        slopes = torch.cat([(p[:, :, :s] - targets) * per_support, by_query], dim=2)
        gradient = torch.bmm(slopes, points).sub_(slopes.sum(dim=2, keepdim=True) * w).mul_(temperature)
        first.lerp_(gradient, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        size = second.sqrt().div_((1 - _BETAS[1] ** iteration) ** 0.5).add_(_EPSILON)
        w.addcdiv_(first, size, value=-learning_rate / (1 - _BETAS[0] ** iteration))
    return log_scores(logits()[:, :, s:].double(), classes)


def _slope(log_p: Float[Tensor, "e w q"], alpha: Float[Tensor, "e 1 1"]) -> Float[Tensor, "e w q"]:
    """Minus the derivative of the Tsallis entropy of order α, but for a constant: α·(p^(α-1) - 1)/(α-1), which is log p for α = 1."""
    by = alpha - 1
    power = torch.expm1(
        (by * log_p).clamp(max=80.0)
    )  # within float32; p, with which it is multiplied, is zero long before
    return torch.where(by == 0, log_p, alpha * power / torch.where(by == 0, 1.0, by))
