"""Ridge regression onto the classes (Hoerl & Kennard 1970; for episodes: R2-D2, Bertinetto et al. 2019)."""

from __future__ import annotations

import torch

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.dual import centred_gram, mean_scores, solved
from fewmatch.fewshot.methods.linear import Linear
from fewmatch.fewshot.methods.option_checks import check_number


def ridge(batch: EpisodeBatch, *, penalty: float | int = 1.0) -> Linear:
    """Fit the least-squares map from vectors to one-hot classes, with a bias.

    It minimises Σ_i ‖y_i − Wᵀz_i − b‖² + penalty·‖W‖² over the supports: the penalty stands beside a sum, not a mean, of squared
    errors of vectors of length one, as `alpha` of scikit-learn's `Ridge`. The bias b is not penalised. Solved in the dual: one s×s system
    an episode, whatever the number of dimensions.

    Args:
        batch: episodes; classes may differ in their shots.
        penalty: above 0. Large ones lead to the nearest class mean's directions, small ones to exact interpolation of the supports.

    Raises:
        InputError: a penalty that is not above 0, or so small that float64 cannot tell it from 0.
    """
    penalty = check_number("ridge", "penalty", penalty, above=0.0)
    centred = centred_gram(batch)
    onehot = batch.onehot.to(centred.dtype)
    real = batch.real_supports.to(centred.dtype)[:, :, None]
    n = real.sum(dim=1, keepdim=True)
    share = onehot.sum(dim=1, keepdim=True) / n
    targets = (onehot - share) * real
    system = centred + penalty * torch.eye(batch.supports, dtype=centred.dtype, device=centred.device)
    dual = solved(system, targets, f"ridge: penalty {penalty:g}")
    dual = (
        dual - dual.sum(dim=1, keepdim=True) / n
    ) * real  # sums to zero up to rounding: the mean of the supports drops out
    return Linear(bias=share[:, 0] - mean_scores(batch, dual), dual=dual)
