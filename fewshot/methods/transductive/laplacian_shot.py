"""LaplacianShot: class means whose assignments neighbouring queries share (Ziko et al. 2020)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_choice, check_count, check_number
from fewmatch.fewshot.methods.transductive.assignments import SupportSums, log_scores, shares
from fewmatch.fewshot.methods.transductive.bd_cspn import rectified

#: Which prototypes queries are compared with. none: the class means. shifted: rectified as in BD-CSPN, and the queries shifted as there.
#: original: rectified, the queries as they are.
Rectify = Literal["none", "shifted", "original"]


def laplacian_shot(
    batch: EpisodeBatch,
    *,
    neighbours: int = 2,
    strength: float = 0.7,
    rectify: str = "shifted",
    iterations: int = 20,
    tolerance: float = 1e-6,
) -> Float[Tensor, "e q w"]:
    """Repeat y = softmax over the classes of (strength·Σ of y over the query's neighbours - distance² to the prototypes).

    Args:
        batch: episodes; classes may differ in their shots.
        neighbours: how many nearest other queries a query listens to (all, where there are fewer); of equally near ones the first.
        strength: λ, how much it listens.
        rectify: see `Rectify`.
        iterations: at most so many; an episode stops where its energy changes by less than `tolerance` of itself, from the third on.
        tolerance: see there.

    Returns:
        (e, q, w) the logarithms of y.

    Raises:
        InputError: a value that an option cannot take.
    """
    check_count("laplacian-shot", "neighbours", neighbours)
    check_number("laplacian-shot", "strength", strength, least=0.0)
    check_choice("laplacian-shot", "rectify", rectify, get_args(Rectify))
    check_count("laplacian-shot", "iterations", iterations)
    check_number("laplacian-shot", "tolerance", tolerance, least=0.0)
    if rectify == "none":
        squared = SupportSums.of(batch).squared_distances(1 / batch.shots.double().clamp(min=1))
    else:
        products, lengths, own = rectified(batch, temperature=10.0, weights="shares", classify=rectify)
        squared = (lengths[:, None, :] + own[:, :, None] - 2 * products).clamp_(min=0)
    nearest, near = nearest_queries(batch, neighbours)

    logits = -squared
    y = shares(logits, batch.classes)
    heard = listen(y, nearest, near)
    active = torch.ones(len(y), dtype=torch.bool, device=y.device)
    before = torch.full((len(y),), torch.inf, dtype=y.dtype, device=y.device)
    for iteration in range(iterations):
        logits = torch.where(active[:, None, None], strength * heard - squared, logits)
        y = shares(logits, batch.classes)
        heard = listen(y, nearest, near)
        terms = torch.special.xlogy(y, y) + y * (squared - strength * heard)
        energy = (terms * batch.asked[:, None, :]).sum(dim=(1, 2))
        if iteration > 1:
            active = active & ((energy - before).abs() > tolerance * before.abs())
            if not bool(active.any()):
                break
        before = energy
    return log_scores(logits, batch.classes)


def nearest_queries(batch: EpisodeBatch, neighbours: int) -> tuple[Int[Tensor, "e q k"], Bool[Tensor, "e q k"]]:
    """The nearest other queries of each query, and which of them there are."""
    gram = batch.query_gram
    lengths = torch.diagonal(gram, dim1=1, dim2=2)
    others = batch.asked[:, None, :] & ~torch.eye(gram.shape[1], dtype=torch.bool, device=gram.device)
    squared = (lengths[:, None, :] - 2 * gram).masked_fill_(
        ~others, torch.inf
    )  # but for the query's own length, which is in all
    nearest: list[Tensor] = []
    near: list[Tensor] = []
    # Repeated minima take the first of equals, which a partial sort does not promise, and are faster for a few neighbours.
    for _ in range(min(neighbours, max(1, gram.shape[1] - 1))):
        least, place = squared.min(dim=2, keepdim=True)
        squared.scatter_(2, place, torch.inf)
        nearest.append(place)
        near.append(least.isfinite())
    return torch.cat(nearest, dim=2), torch.cat(near, dim=2)


def listen(
    y: Float[Tensor, "e w q"], nearest: Int[Tensor, "e q k"], near: Bool[Tensor, "e q k"]
) -> Float[Tensor, "e w q"]:
    """The sum of the assignments of each query's neighbours."""
    e, w, q = y.shape
    rows = nearest.reshape(e, 1, -1).expand(e, w, -1)
    return (y.gather(2, rows).view(e, w, q, -1) * near[:, None]).sum(dim=3)
