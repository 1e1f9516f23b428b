"""Linear discriminant analysis with a shrunken covariance that all classes share (Fisher 1936; Friedman 1989; Ledoit & Wolf 2004)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.dual import solved
from fewmatch.fewshot.methods.linear import Linear
from fewmatch.fewshot.methods.option_checks import check_choice, check_number

#: Scatter within classes at and below this share of the supports' squared lengths is none: inner products of float32 vectors tell no less.
_NO_SCATTER = 1e-6
#: The least shrinkage that `auto` takes: supports at one distance on both sides of their class's mean have a Ledoit-Wolf shrinkage of 0.
LEAST_AUTO = 0.01


def lda(batch: EpisodeBatch, *, shrinkage: float | int | str = 0.5) -> Linear:
    """Fit a Gaussian to each class, all with one covariance, and equal priors.

    With S the supports' covariance about the means of their classes and v = tr(S)/D its mean over the D dimensions, the covariance is
    Σ = (1−ρ)·S/v + ρ·I and the score μᵀΣ⁻¹z − ½·μᵀΣ⁻¹μ. Dividing by v, which scikit-learn does not do, changes no decision; it gives the
    scores one scale for any number of dimensions, and for ρ = 1 they are half those of `ncm` up to a constant. S lies in the span of the
    supports, so Σ⁻¹ is found there (Woodbury) at the price of one s×s system.

    Where no class has two different supports, as with one shot, S is zero and I takes the place of Σ: the nearest class mean. S counts
    as zero below 1e-6 of the supports' mean squared length.

    Args:
        batch: episodes; classes may differ in their shots. All supports weigh the same in S.
        shrinkage: ρ, above 0 and at most 1; or `auto`, Ledoit and Wolf's estimate for each episode, at least 0.01.

    Raises:
        InputError: another shrinkage, or one so small that float64 cannot tell it from 0.
    """
    if isinstance(shrinkage, str):
        check_choice("lda", "shrinkage", shrinkage, ("auto", "a number above 0 and at most 1"))
    gram = batch.support_gram
    onehot = batch.onehot.to(gram.dtype)
    means = onehot / batch.shots.to(gram.dtype).clamp(min=1)[:, None, :]
    within = torch.diag_embed(batch.real_supports.to(gram.dtype)) - torch.bmm(means, onehot.transpose(1, 2))
    products = torch.bmm(within, gram)
    scatter = torch.bmm(products, within)
    trace = torch.diagonal(scatter, dim1=1, dim2=2).sum(dim=1)
    none = trace <= _NO_SCATTER * torch.diagonal(gram, dim1=1, dim2=2).sum(dim=1)
    trace = torch.where(none, 1.0, trace)
    d = _dimensions(batch)
    if isinstance(shrinkage, str):
        rho = ledoit_wolf(scatter, batch.real_supports.sum(dim=1).to(gram.dtype), d).clamp(min=LEAST_AUTO)
    else:
        rho = torch.full_like(trace, check_number("lda", "shrinkage", shrinkage, above=0.0, most=1.0))
    # With R the rows z − μ of the supports, S/v = RᵀR·d/trace. So Σ⁻¹ = (I − Rᵀ·t·(ρI + t·RRᵀ)⁻¹·R)/ρ with t = (1−ρ)·d/trace.
    rho = torch.where(none, 1.0, rho)[:, None, None]
    t = (1 - rho) * d / trace[:, None, None]
    system = rho * torch.eye(batch.supports, dtype=gram.dtype, device=gram.device) + t * scatter
    inner = solved(system, t * torch.bmm(products, means), f"lda: shrinkage {float(rho.min()):g}")
    dual = (means - torch.bmm(within, inner)) / rho
    bias = -0.5 * (means * torch.bmm(gram, dual)).sum(dim=1)
    return Linear(bias=bias, dual=dual)


def ledoit_wolf(scatter: Float[Tensor, "e s s"], n: Float[Tensor, "e"], d: int) -> Float[Tensor, "e"]:
    """The shrinkage that Ledoit and Wolf (2004) estimate to lose least, from inner products of n centred vectors; 1 where all are zero.

    Padding among the vectors is zero.
    """
    lengths = torch.diagonal(scatter, dim1=1, dim2=2)
    squared = scatter.square().sum(dim=(1, 2)) / n.square()  # tr(S²)
    away = squared - (lengths.sum(dim=1) / n).square() / d
    noise = (lengths.square().sum(dim=1) / n - squared).clamp(min=0) / n
    return torch.where(away > 0, noise / torch.where(away > 0, away, 1.0), 1.0).clamp(max=1.0)


def _dimensions(batch: EpisodeBatch) -> int:
    if batch.dimensions is not None:
        return batch.dimensions
    return int(batch.vectors[0].shape[2])
