"""PT-MAP: prototypes that follow an optimal transport of the queries to the classes (Hu, Gripon and Pateux 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_count, check_number
from fewmatch.fewshot.methods.transductive.assignments import SupportSums, log_scores, shares

#: How many queries each class is taken to have. balanced: all the same, the method as published. estimated: see `estimated_counts`.
Prior = Literal["balanced", "estimated"]

#: Newton needs some three steps an epoch; this many only where λ·distance² reaches the thousands.
_MOST_STEPS = 200
#: No offset moves further at once: where assignments are nearly hard the Hessian is nearly zero, and a step overshoots.
_LONGEST_STEP = 4.0
#: A step that has been shortened to less than this share of itself is not tried.
_SHORTEST = 1e-3


def pt_map(
    batch: EpisodeBatch,
    *,
    lam: float = 10.0,
    alpha: float = 0.2,
    epochs: int = 20,
    tolerance: float = 1e-6,
    prior: str | Sequence[float] | Float[Tensor, "e w"] = "balanced",
) -> Float[Tensor, "e q w"]:
    """Alternate between assigning the queries under a prior on the classes' sizes and moving the class means.

    p is exp(-lam·distance²) with rows and columns scaled so that each query counts 1 and each class what the prior says; a mean moves by
    alpha of the way to (Σ supports + Σ p·query) / (k + Σ p). The published method's features are non-negative ones to the power 0.5,
    and supports and queries centred separately; both are done before.

    The scaling that Sinkhorn's iterations approach is found by Newton's method in as many dimensions as there are classes: where
    classes are far apart those take hundreds of rounds, and this a handful.

    Args:
        batch: episodes; classes may differ in their shots.
        lam, alpha, epochs: λ, α and the number of moves, as in the paper.
        tolerance: how far a class's sum may be from the prior, as a share of the mean class's.
        prior: `balanced`, `estimated`, the proportions of the classes (in any unit, the same for all episodes), or a row of them for each
            episode of the batch. What is asked of a class that an episode does not have is left out.

    Returns:
        (e, q, w) the logarithms of the last p, whose rows sum to one.

    Raises:
        InputError: a value that an option cannot take.
    """
    check_number("pt-map", "lam", lam, above=0.0)
    check_number("pt-map", "alpha", alpha, above=0.0, most=1.0)
    check_count("pt-map", "epochs", epochs, least=0)
    check_number("pt-map", "tolerance", tolerance, above=0.0)
    counts = prior_counts(prior, batch)
    estimate = isinstance(prior, str) and prior == "estimated"
    sums = SupportSums.of(batch)
    shots = batch.shots.double()
    share = 1 / shots.clamp(min=1)
    weights = torch.zeros_like(sums.with_queries)
    squared = sums.squared_distances(share)
    offsets = torch.zeros_like(share)
    for _ in range(epochs):
        logits = -lam * squared
        if estimate:
            counts = estimated_counts(logits, counts, batch)
        p, offsets = transport(logits, counts, batch.asked, offsets, tolerance)
        total = (shots + p.sum(dim=2)).clamp_(min=1)
        share = share.lerp(1 / total, alpha)
        weights.lerp_(p.div_(total[:, :, None]), alpha)
        squared = sums.squared_distances(share, weights)
    logits = -lam * squared
    if estimate:
        counts = estimated_counts(logits, counts, batch)
    _, offsets = transport(logits, counts, batch.asked, offsets, tolerance)
    return log_scores(logits + offsets.masked_fill(counts == 0, -torch.inf)[:, :, None], batch.classes)


def prior_counts(prior: str | Sequence[float] | Float[Tensor, "e w"], batch: EpisodeBatch) -> Float[Tensor, "e w"]:
    """How many queries each class is to have; for `estimated`, to begin with.

    Raises:
        InputError: not a prior for these episodes.
    """
    e, w = batch.classes.shape
    if isinstance(prior, str):
        if prior not in get_args(Prior):
            raise InputError(
                f"pt-map: expected prior to be {', '.join(get_args(Prior))} or {w} proportions, got {prior!r}"
            )
        proportions = batch.classes.double()
    else:
        try:
            given = torch.as_tensor(prior, dtype=torch.float64, device=batch.classes.device)
        except (TypeError, ValueError) as error:
            raise InputError(f"pt-map: expected prior to be proportions of {w} classes, got {prior!r}") from error
        if given.shape not in ((w,), (e, w)):
            raise InputError(
                f"pt-map: expected prior to be proportions of {w} classes, or for {e} episodes, got the shape {tuple(given.shape)}"
            )
        proportions = given * batch.classes
        if not bool((given.isfinite() & (given >= 0)).all()) or not bool((proportions.sum(dim=1) > 0).all()):
            raise InputError(
                "pt-map: expected prior to be finite proportions, none below zero and not all of them zero"
            )
    queries = batch.asked.sum(dim=1, keepdim=True)
    return queries * proportions / proportions.sum(dim=1, keepdim=True)


def estimated_counts(
    logits: Float[Tensor, "e w q"], counts: Float[Tensor, "e w"], batch: EpisodeBatch
) -> Float[Tensor, "e w"]:
    """The sizes of the classes after another look at the queries; iterated once an epoch, from equal ones.

    Queries are assigned by √size·exp(logit), not transported, and counted; one imagined query is added to each class, and the sum
    brought back to the number of queries. With the size itself in the place of its root this would be expectation and maximisation,
    which empties classes that overlap; without it, sizes are always drawn towards equal ones. The imagined query (the mode under a
    Dirichlet(2) prior) keeps every class alive: none ever gets less than 1/(q + w) of the queries.
    """
    p = shares(logits + counts.log()[:, :, None] / 2, batch.classes).mul_(batch.asked[:, None, :])
    found = p.sum(dim=2) + batch.classes
    return found * (batch.asked.sum(dim=1, keepdim=True) / found.sum(dim=1, keepdim=True))


def transport(
    logits: Float[Tensor, "e w q"],
    counts: Float[Tensor, "e w"],
    asked: Bool[Tensor, "e q"],
    offsets: Float[Tensor, "e w"],
    tolerance: float,
) -> tuple[Float[Tensor, "e w q"], Float[Tensor, "e w"]]:
    """The softmax over the classes of logits + an offset for each class, so that each class sums to its count.

    The offsets are the minimum of the convex f = Σ over the queries of logsumexp(logits + offsets) - Σ counts·offsets. A step of Newton
    that does not lower f is shortened until it does, or gives way to one of Sinkhorn's, which always does and can be very short. Each
    episode stops by itself.

    Args:
        logits: of each query for each class.
        counts: of each class, summing to the number of queries; a class of count 0 gets nothing.
        asked: False where a query is padding.
        offsets: where to start.
        tolerance: the largest error of a class's sum, as a share of the mean count.

    Returns:
        The assignments, zero for padding, and the offsets.
    """
    present = counts > 0
    logits = logits.masked_fill(~present[:, :, None], -torch.inf)
    real = asked.double()
    queries, classes = real.sum(dim=1), present.sum(dim=1)
    allowed = tolerance * queries / classes
    # Sums do not change when all offsets do, so that direction of the Hessian is filled; and those of absent classes.
    fill = present[:, :, None] * present[:, None, :] * (queries / classes**2)[:, None, None]
    fill += torch.diag_embed(torch.where(present, 1e-12 * queries[:, None], 1.0))

    kept, kept_sums, kept_step = offsets, counts, torch.zeros_like(offsets)
    length = torch.ones_like(queries)[:, None]
    best = torch.full_like(queries, torch.inf)
    done = queries == 0
    for _ in range(_MOST_STEPS):
        p = logits + offsets[:, :, None]
        top = p.amax(dim=1, keepdim=True)
        rows = p.sub_(top).exp_().sum(dim=1)
        p.mul_((real / rows)[:, None, :])
        sums = p.sum(dim=2)
        done = done | ((sums - counts).abs().amax(dim=1) <= allowed)
        if bool(done.all()):
            break
        value = (rows.log_().add_(top[:, 0]) * real).sum(dim=1) - (counts * offsets).sum(dim=1)
        lower = (value <= best + 1e-12 * best.abs())[:, None]
        hessian = fill.sub(torch.bmm(p, p.transpose(1, 2)))
        torch.diagonal(hessian, dim1=1, dim2=2).add_(sums)
        step = torch.linalg.solve_ex(hessian, counts - sums).result
        step *= _LONGEST_STEP / step.abs().amax(dim=1, keepdim=True).clamp(min=_LONGEST_STEP)
        kept, kept_sums = torch.where(lower, offsets, kept), torch.where(lower, sums, kept_sums)
        kept_step, length = torch.where(lower, step, kept_step), torch.where(lower, 1.0, length / 4)
        sinkhorn = torch.where(present, (counts / kept_sums).log(), 0.0).clamp(-_LONGEST_STEP, _LONGEST_STEP)
        moved = kept + torch.where(length >= _SHORTEST, length * kept_step, sinkhorn)
        best = torch.where(lower[:, 0], value, best)
        offsets = torch.where(done[:, None], offsets, moved)
    return p, offsets
