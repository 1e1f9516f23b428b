"""BD-CSPN: prototypes rectified by the queries nearest to them (Liu, Song and Qin 2020)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.ncm import check_metric
from fewmatch.fewshot.methods.option_checks import check_choice, check_number
from fewmatch.fewshot.methods.transductive.assignments import shares

#: How the points that are nearest to a prototype make the new one, with a point's share = softmax over the classes of temperature·cosine.
#: shares: the sum of share·point over their number (the authors' of LaplacianShot; the prototype is the shorter the less sure they are).
#: normalised: the same over the sum of the shares. points: weights are a softmax over the points instead (the paper's equation).
Weights = Literal["shares", "normalised", "points"]
#: Which queries are compared with the prototypes: shifted by the mean of the supports minus that of the queries, or as they are.
Classify = Literal["shifted", "original"]


def bd_cspn(
    batch: EpisodeBatch,
    *,
    temperature: float = 10.0,
    weights: str = "shares",
    classify: str = "shifted",
    metric: str = "cosine",
) -> Float[Tensor, "e q w"]:
    """Score queries against rectified prototypes.

    Queries are shifted by the mean of the supports minus the mean of the queries. Each support and shifted query then belongs to the
    prototype (class mean of the supports) of the highest cosine, and a weighted mean of its points takes the prototype's place. A
    prototype without points stays.

    Args:
        batch: episodes; classes may differ in their shots.
        temperature: how sharply weights follow cosines.
        weights: see `Weights`.
        classify: see `Classify`.
        metric: `cosine`, or `euclidean`, for which the length of prototypes matters.

    Returns:
        (e, q, w) the cosines, or minus the squared distances.

    Raises:
        InputError: a value that an option cannot take.
    """
    check_number("bd-cspn", "temperature", temperature, above=0.0)
    check_choice("bd-cspn", "weights", weights, get_args(Weights))
    check_choice("bd-cspn", "classify", classify, get_args(Classify))
    check_metric(metric)
    products, lengths, own = rectified(batch, temperature, weights, classify)
    if metric == "cosine":
        # A point of length zero has the cosine 0 with everything.
        scores = products / (lengths[:, None, :] * own[:, :, None]).clamp(min=torch.finfo(own.dtype).tiny).sqrt()
    else:
        scores = (2 * products).sub_(lengths[:, None, :] + own[:, :, None]).clamp_(max=0)
    return scores.transpose(1, 2).contiguous()


def rectified(
    batch: EpisodeBatch, temperature: float, weights: str, classify: str
) -> tuple[Float[Tensor, "e w q"], Float[Tensor, "e q"], Float[Tensor, "e w"]]:
    """Inner products of queries with rectified prototypes, squared lengths of the queries, and of the prototypes.

    The arguments are those of `bd_cspn`.
    """
    s = batch.supports
    real = torch.cat([batch.real_supports, batch.asked], dim=1)
    asked = torch.cat([torch.zeros_like(batch.real_supports), batch.asked], dim=1).double()
    supports_share = batch.real_supports / batch.real_supports.sum(dim=1, keepdim=True).clamp(min=1)
    queries_share = batch.asked / batch.asked.sum(dim=1, keepdim=True).clamp(min=1)
    shift = torch.cat([supports_share, -queries_share], dim=1).double()

    # Products of the shift with the points, before and after the queries are shifted, and with itself.
    with_shift = torch.bmm(shift[:, None, :], batch.gram)[:, 0]
    squared_shift = (shift * with_shift).sum(dim=1, keepdim=True)
    gram = batch.gram + asked[:, :, None] * with_shift[:, None, :] + with_shift[:, :, None] * asked[:, None, :]
    gram += squared_shift[:, :, None] * asked[:, :, None] * asked[:, None, :]
    with_shift = with_shift + asked * squared_shift

    start = batch.mean_coefficients
    products = torch.bmm(start, gram)
    lengths = torch.diagonal(gram, dim1=1, dim2=2)
    own = (start * products).sum(dim=2)
    floor = torch.finfo(gram.dtype).tiny
    logits = temperature * products / (lengths[:, None, :] * own[:, :, None]).clamp(min=floor).sqrt()
    nearest = logits.masked_fill(~batch.classes[:, :, None], -torch.inf).argmax(dim=1, keepdim=True)
    belongs = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, nearest, True) & real[:, None, :]
    if weights == "points":
        weight = torch.softmax(logits.masked_fill(~belongs, -torch.inf), dim=2)
    else:
        weight = shares(logits, batch.classes) * belongs
        total = belongs.sum(dim=2, keepdim=True) if weights == "shares" else weight.sum(dim=2, keepdim=True)
        weight = weight / total
    weight = torch.where(belongs.any(dim=2, keepdim=True), weight, start)

    products = torch.bmm(weight, gram)
    own = (weight * products).sum(dim=2)
    products, lengths = products[:, :, s:], lengths[:, s:]
    if classify == "original":
        products = products - (weight * with_shift[:, None, :]).sum(dim=2, keepdim=True)
        lengths = torch.diagonal(batch.query_gram, dim1=1, dim2=2)
    return products, lengths, own
