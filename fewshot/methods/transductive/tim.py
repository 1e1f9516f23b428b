"""TIM: class weights that make the queries' labels certain and evenly spread (Boudiaf et al. 2020), by alternating closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_count, check_number, check_weights
from fewmatch.fewshot.methods.transductive.assignments import log_scores, log_shares, shares, squared_distances


def tim(
    batch: EpisodeBatch,
    *,
    temperature: float = 15.0,
    weights: Sequence[float] = (0.1, 1.0, 0.1),
    iterations: int = 150,
) -> Float[Tensor, "e q w"]:
    """TIM-ADM: minimise a·CE(supports) - b·H(mean p) + c·mean H(p), p = softmax of -(temperature/2)·distance² to a class's weights.

    An auxiliary q stands for the queries' p, and the two are brought together by their Kullback-Leibler divergence. Both have closed
    forms given the other: q ∝ p^(1+c) / (Σ of p^(1+c) over the queries)^(b/(1+b)), and weights that are means of points. They stay sums
    of the points, so that only inner products are needed; and the result does not depend on the axes, as that of Adam does (`tim_gd`).

    Args:
        batch: episodes; classes may differ in their shots. Weights start as the class means.
        temperature: τ.
        weights: a, b and c: of the cross-entropy of the supports, of the entropy of the mean assignment, and of the mean entropy.
        iterations: how often q and the weights are updated.

    Returns:
        (e, q, w) the logarithms of p.

    Raises:
        InputError: a value that an option cannot take.
    """
    check_number("tim", "temperature", temperature, above=0.0)
    ce, spread, certain = check_weights("tim", "weights", weights, 3)
    check_count("tim", "iterations", iterations, least=0)
    s = batch.supports
    real = torch.cat([batch.real_supports, batch.asked], dim=1).double()[:, None, :]
    asked = real[:, :, s:]
    targets = batch.onehot.double().transpose(1, 2)
    pull = ce / (1 + certain)
    # The authors' balance of supports and queries: sums over each, weighted so that both count as means.
    balance = real[:, :, :s].sum(dim=2, keepdim=True) / asked.sum(dim=2, keepdim=True).clamp(min=1)
    coefficients = batch.mean_coefficients
    for _ in range(iterations):
        logits = -temperature / 2 * squared_distances(batch.gram, coefficients)
        log_p = log_shares(logits, batch.classes)
        p = log_p.exp() * real
        sharpened = (1 + certain) * log_p[:, :, s:]
        per_class = sharpened.masked_fill(~batch.asked[:, None, :], -torch.inf).logsumexp(dim=2, keepdim=True)
        per_class = per_class.nan_to_num(neginf=0.0)
        q = shares(sharpened - spread / (1 + spread) * per_class, batch.classes) * asked
        # Numerators: targets and q pull the weights to their points; p holds them where they are.
        pulls = torch.cat([pull * (targets - p[:, :, :s]), balance * (q - p[:, :, s:])], dim=2)
        holds = pull * p[:, :, :s].sum(dim=2, keepdim=True) + balance * p[:, :, s:].sum(dim=2, keepdim=True)
        total = pull * targets.sum(dim=2, keepdim=True) + balance * q.sum(dim=2, keepdim=True)
        moved = (pulls + holds * coefficients) / total.clamp(min=torch.finfo(total.dtype).tiny)
        coefficients = torch.where(batch.classes[:, :, None], moved, coefficients)
    return log_scores(-temperature / 2 * squared_distances(batch.gram, coefficients)[:, :, s:], batch.classes)
