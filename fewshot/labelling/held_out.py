"""Leave-one-out: each support scored by a method that has not seen it, and the temperature that fits those scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import optimize, special
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.centering import ZeroVectorError, center_episodes, mean_vector, shifted
from fewmatch.fewshot.labelling.classifiers import is_nearest_mean
from fewmatch.fewshot.labelling.projection import Projection
from fewmatch.fewshot.methods import Method

#: At most so many supports are held out, spread evenly over the classes; each is held out exactly.
MOST_HELD_OUT = 2_000
#: The same where the method has to be fitted anew for each.
MOST_REFITTED = 256
#: A factor of this in the temperature, up or down from the method's own, is one standard deviation of what is expected beforehand.
EXPECTED_FACTOR = 2.0
_BYTES_AT_ONCE = 64 * 2**20


def held_out_rows(index: Int[Tensor, "n"], most: int) -> Int[Tensor, "h"]:
    """The supports that can be held out, or `most` of them spread evenly over the classes: those that are not their class's only one."""
    shots = torch.bincount(index)
    by_class = torch.argsort(index, stable=True)
    rows = by_class[shots[index[by_class]] > 1]
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most, dtype=torch.float64).round().long()]


def held_out_scores(
    support: Float[Tensor, "n d"],
    index: Int[Tensor, "n"],
    method: Method,
    options: Mapping[str, Any],
    projection: Projection,
) -> tuple[Float[np.ndarray, "h w"], Int[np.ndarray, "h"]]:
    """Scores of supports by the method fitted to all others, which are centred by their own mean where the centring is by supports.

    Args:
        support: (n, d) raw, as `projection.prepared` returned them. index: their classes.

    Returns:
        the scores and true classes of the supports that were held out; none where every class has one support only.

    Raises:
        ZeroVectorError: what is left without one of them has no direction after centring.
    """
    classes = int(index.max()) + 1
    rows = held_out_rows(index, MOST_HELD_OUT if is_nearest_mean(method) else MOST_REFITTED)
    if len(rows) == 0:
        return np.zeros((0, classes)), np.zeros(0, np.int64)
    if is_nearest_mean(method):
        x = shifted(support, mean_vector(support)) if projection.center == "support" else projection(support, "support")
        step = 1 / (len(x) - 1) if projection.center == "support" else 0.0
        scores = _nearest_mean(x.double(), index, rows, str(options.get("metric", "euclidean")), step)
    else:
        scores = _refitted(support, index, rows, method, options, projection)
    return scores.cpu().numpy(), index[rows].cpu().numpy()


def _nearest_mean(
    x: Float[Tensor, "n d"], index: Int[Tensor, "n"], rows: Int[Tensor, "h"], metric: str, step: float
) -> Float[Tensor, "h w"]:
    """Nearest class mean without each row in turn.

    With the mean of all supports at zero, the mean without x_i is −x_i/(n−1): so y_a = x_a + step·x_i is what is projected, with
    step = 1/(n−1), and z_i = x_i/‖x_i‖. Where no mean changes, step is 0 and x is projected already.
    """
    classes = int(index.max()) + 1
    squared = x.square().sum(dim=1)
    shots = torch.bincount(index, minlength=classes)
    members = torch.split(torch.argsort(index, stable=True), shots.tolist())
    # ‖Σ w·x‖² of a class through inner products of its members, which are few, unless it has more members than there are dimensions.
    grams = [x[those] @ x[those].T if len(those) <= x.shape[1] else None for those in members]
    tiny = 1e-12 * float(squared.max())
    if bool((squared[rows] <= tiny).any()):
        raise ZeroVectorError("leave-one-out: a support equals the mean of the others, so it has no direction")
    out = x.new_empty(len(rows), classes)
    at_once = max(1, _BYTES_AT_ONCE // (8 * max(len(x), classes, x.shape[1])))
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        held = x[part]
        length = squared[part, None]
        product = held @ x.T
        norm = (squared + 2 * step * product + step * step * length).clamp(min=0)
        norm[torch.arange(len(part)), part] = torch.inf  # the one that is held out weighs nothing
        if bool((norm <= tiny).any()):
            raise ZeroVectorError("leave-one-out: a support equals the mean of what is left, so it has no direction")
        weight = norm.rsqrt()
        cosine = (product + step * length) * weight / length.sqrt()
        along = x.new_zeros(len(part), classes).index_add_(1, index, cosine)
        total = x.new_zeros(len(part), classes).index_add_(1, index, weight)
        crossed = x.new_zeros(len(part), classes).index_add_(1, index, weight * product)
        own = torch.stack(
            [_squared_sum(weight[:, those], x, those, g) for those, g in zip(members, grams, strict=True)], 1
        )
        own = own + 2 * step * total * crossed + step * step * length * total.square()
        count = shots.to(x.dtype).repeat(len(part), 1)
        count[torch.arange(len(part)), index[part]] -= 1
        along, own = along / count, own.clamp(min=0) / count.square()
        if metric == "cosine":
            along = along / torch.where(own > 0, own, 1.0).sqrt()
            own = torch.where(own > 0, 1.0, 0.0)
        out[start : start + at_once] = 2 * along - 1 - own
    return out


def _squared_sum(
    weight: Float[Tensor, "h k"], x: Float[Tensor, "n d"], rows: Int[Tensor, "k"], gram: Float[Tensor, "k k"] | None
) -> Float[Tensor, "h"]:
    """Squared length of the weighted sums of some rows of x."""
    if gram is None:
        return (weight @ x[rows]).square().sum(dim=1)
    return ((weight @ gram) * weight).sum(dim=1)


def _refitted(
    support: Float[Tensor, "n d"],
    index: Int[Tensor, "n"],
    rows: Int[Tensor, "h"],
    method: Method,
    options: Mapping[str, Any],
    projection: Projection,
) -> Float[Tensor, "h w"]:
    """Any method fitted anew without each row in turn: one episode for each, with a single query."""
    n, classes = len(support), int(index.max()) + 1
    by_support = projection.center == "support"
    x = shifted(support, mean_vector(support)) if by_support else projection(support, "support")
    onehot = torch.nn.functional.one_hot(index, classes).to(x.dtype)
    everyone = torch.arange(n, device=x.device)
    at_once = max(1, _BYTES_AT_ONCE // (n * (x.shape[1] * x.element_size() + 16 * n)))
    out = []
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        others = torch.stack([everyone[everyone != row] for row in part])
        left, held = x[others], x[part][:, None, :]
        if by_support:
            left, held = center_episodes(left, held, "support")
        e = len(part)
        batch = EpisodeBatch(
            onehot[others],
            torch.ones(e, 1, dtype=torch.bool, device=x.device),
            torch.ones(e, classes, dtype=torch.bool, device=x.device),
            left,
            held,
            dimensions=x.shape[1],
        )
        out.append(method.scores(batch, **options)[:, 0].double())
    return torch.cat(out)


def likeliest_temperature(scores: Float[np.ndarray, "h w"], truth: Int[np.ndarray, "h"], expected: float) -> float:
    """The τ above 0 that makes the true classes of held-out supports likeliest under softmax(τ·scores), given what is expected.

    It minimises Σ −log p(true class) + (log₂(τ / expected))²/2: a few supports that are all right, or all wrong, would otherwise ask for
    probabilities of one, or of one in w. With many supports the second term does not matter.

    Raises:
        ValueError: no scores.
    """
    if not len(scores):
        raise ValueError("expected a held-out support at least")
    own = np.take_along_axis(scores, truth[:, None], axis=1)[:, 0]
    least = math.log(np.finfo(np.float64).tiny)  # a score of -inf has probability zero at every temperature

    def loss(log_tau: float) -> float:
        tau = math.exp(log_tau)
        logs = np.where(np.isneginf(own), -np.inf, tau * own - special.logsumexp(tau * scores, axis=1))
        away = (log_tau - math.log(expected)) / math.log(EXPECTED_FACTOR)
        return float(-np.maximum(logs, least).sum() + 0.5 * away * away)

    centre = math.log(expected)
    found = optimize.minimize_scalar(loss, bounds=(centre - 12.0, centre + 12.0), method="bounded")
    return math.exp(found.x)
