"""What linear classifiers in the dual share: the supports' centred inner products, and small systems solved."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch


def centred_gram(batch: EpisodeBatch) -> Float[Tensor, "e s s"]:
    """Inner products of the supports after their mean is subtracted; padding stays zero.

    An unpenalised bias is the same as centring, so this is what classifiers with one are fitted to.
    """
    gram = batch.support_gram
    real = batch.real_supports.to(gram.dtype)
    n = real.sum(dim=1)[:, None, None]
    rows = gram.sum(dim=2, keepdim=True) / n
    centred = gram - rows - rows.transpose(1, 2) + rows.sum(dim=1, keepdim=True) / n
    return centred * real[:, :, None] * real[:, None, :]


def mean_scores(batch: EpisodeBatch, dual: Float[Tensor, "e s w"]) -> Float[Tensor, "e w"]:
    """The mean over the supports of supportᵀ·weight, without bias."""
    n = batch.real_supports.sum(dim=1).to(dual.dtype)
    total = torch.bmm(batch.support_gram.sum(dim=1, keepdim=True), dual)[:, 0]
    return total / n[:, None]


def solved(left: Float[Tensor, "e s s"], right: Float[Tensor, "e s w"], what: str) -> Float[Tensor, "e s w"]:
    """The solution x of left·x = right, where left is a Gram matrix plus the multiple of the identity that an option sets.

    Raises:
        InputError: the option, which `what` names, is so small that there is none.
    """
    solution: Tensor
    solution, info = torch.linalg.solve_ex(left, right)
    if bool((info != 0).any()) or not bool(torch.isfinite(solution).all()):
        raise InputError(f"{what} is too small for these features: without it their matrix has no inverse")
    return solution
