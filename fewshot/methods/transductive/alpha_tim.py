"""α-TIM: TIM-GD with entropies that bear classes of different sizes (Veilleux et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_number
from fewmatch.fewshot.methods.transductive.tim_gd import descend


def alpha_tim(
    batch: EpisodeBatch,
    *,
    alpha: float | str = "auto",
    temperature: float = 15.0,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    learning_rate: float = 1e-4,
    iterations: int = 1000,
) -> Float[Tensor, "e q w"]:
    """α-TIM: TIM-GD with Tsallis entropies H(p) = (1 - Σ p^α)/(α - 1) of the queries, which bear classes of different sizes.

    Args:
        batch: episodes with their vectors; classes may differ in their shots.
        alpha: α, 1 for Shannon's entropy. `auto`: the authors' values, 2 for one shot, 7 for five or more, 5 between (the mean over an
            episode's classes).
        temperature, weights, learning_rate, iterations: as for `tim_gd`.

    Returns:
        (e, q, w) the logarithms of p = softmax of -(τ/2)·distance² to the weights.

    Raises:
        InputError: a value that an option cannot take.
    """
    if alpha == "auto":
        shots = batch.shots.sum(dim=1) / batch.classes.sum(dim=1).clamp(min=1)
        orders = torch.where(shots <= 1, 2.0, torch.where(shots < 5, 5.0, 7.0))
    elif isinstance(alpha, str):
        raise InputError(f"alpha-tim: expected alpha to be a number above 0 or auto, got {alpha!r}")
    else:
        orders = torch.full((len(batch.onehot),), check_number("alpha-tim", "alpha", alpha, above=0.0))
    return descend("alpha-tim", batch, temperature, weights, learning_rate, iterations, orders.to(batch.onehot.device))
