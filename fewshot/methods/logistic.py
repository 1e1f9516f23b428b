"""Multinomial logistic regression with an L2 penalty, for many episodes at once (the probe of RFS, Tian et al. 2020, and of DINOv2)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.dual import centred_gram, mean_scores
from fewmatch.fewshot.methods.linear import Linear
from fewmatch.fewshot.methods.option_checks import check_number

#: Length of the gradient at which an episode is solved, as a share of what it can be. The penalty's curvature is one, so the weights are
#: no further from the optimum than the gradient is long.
_SOLVED = 1e-13
#: What is still a solution where rounding lets nothing better be found.
_ALMOST = 1e-8
#: Above it float64 does not tell the supports' probabilities from one well enough for the optimum.
MOST_C = 1e8
_NEWTON_STEPS = 100
_CONJUGATE_STEPS = 200


def logistic(batch: EpisodeBatch, *, C: float | int = 1.0) -> Linear:
    """Fit softmax(Wᵀz + b) to the supports' classes.

    It minimises C·Σ_i −log p(y_i | z_i) + ½·‖W‖² over the supports, to the optimum; b is not penalised. That is what scikit-learn's
    `LogisticRegression` minimises (for two classes, where that has one vector and not two, with twice our C). At the optimum
    W = Σ_i C·(y_i − p_i)·z_i, so inner products are all it needs.

    Solved by Newton's method with conjugate gradients and step halving in the coordinates of the supports' principal axes, where a diagonal
    matrix is close to the curvature. All episodes of the batch take their steps together; those that are solved drop out.

    Args:
        batch: episodes; classes may differ in their shots.
        C: above 0; the inverse of the penalty.

    Raises:
        InputError: a C that is not above 0 and at most 1e8, or for which no optimum is found.
    """
    C = check_number("logistic", "C", C, above=0.0, most=MOST_C)
    gram = centred_gram(batch)  # b is not penalised, so moving the origin changes nothing but b
    onehot = batch.onehot.to(gram.dtype)
    variances, axes = torch.linalg.eigh(gram)
    variances = variances.clamp(min=0)
    real, classes = batch.real_supports.to(gram.dtype), batch.classes
    shots = onehot.sum(dim=1)
    bound = C * (variances.sum(dim=1) + real.sum(dim=1)).sqrt()
    problem = _Problem(axes * variances.sqrt()[:, None, :], variances, onehot, real, classes, bound, C)
    prior = torch.where(classes, torch.log(shots.clamp(min=1)), 0.0)
    weights = gram.new_zeros(len(gram), batch.supports, onehot.shape[2])
    weights, bias = _minimised(problem, weights, prior)
    probabilities = problem.probabilities(problem.logits(weights, bias))
    dual = C * (onehot - probabilities * real[:, :, None])
    dual = (dual - dual.sum(dim=1, keepdim=True) / real.sum(dim=1)[:, None, None]) * real[:, :, None]
    bias = (bias - (bias * classes).sum(dim=1, keepdim=True) / classes.sum(dim=1, keepdim=True)) * classes
    return Linear(bias=bias - mean_scores(batch, dual), dual=dual)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The supports of some episodes in the coordinates of their principal axes.

    points: (e, s, r). variances: (e, r) of each coordinate, summed over the supports. onehot, real, classes: as in `EpisodeBatch`,
    numbers for `real`. bound: (e,) no gradient is longer, by order of magnitude. C: factor of the loss.
    """

    points: Float[Tensor, "e s r"]
    variances: Float[Tensor, "e r"]
    onehot: Float[Tensor, "e s w"]
    real: Float[Tensor, "e s"]
    classes: Bool[Tensor, "e w"]
    bound: Float[Tensor, "e"]
    C: float

    def part(self, rows: Bool[Tensor, "e"]) -> _Problem:
        """Only the episodes marked."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "C"})

    def logits(self, weights: Float[Tensor, "e r w"], bias: Float[Tensor, "e w"]) -> Float[Tensor, "e s w"]:
        """Scores of the supports."""
        return torch.baddbmm(bias[:, None, :], self.points, weights)

    def probabilities(self, logits: Float[Tensor, "e s w"]) -> Float[Tensor, "e s w"]:
        """Their softmax over the classes that there are."""
        return torch.softmax(logits.masked_fill(~self.classes[:, None, :], -torch.inf), dim=2)

    def objective(self, logits: Float[Tensor, "e s w"], weights: Float[Tensor, "e r w"]) -> Float[Tensor, "e"]:
        """What is minimised."""
        total = torch.logsumexp(logits.masked_fill(~self.classes[:, None, :], -torch.inf), dim=2)
        losses = total * self.real - (logits * self.onehot).sum(dim=2)
        return self.C * losses.sum(dim=1) + 0.5 * weights.square().sum(dim=(1, 2))

    def gradient(
        self, probabilities: Float[Tensor, "e s w"], weights: Float[Tensor, "e r w"]
    ) -> tuple[Float[Tensor, "e r w"], Float[Tensor, "e w"]]:
        """With respect to weights and bias.

        A number added to all biases changes nothing, so the sum of the second is zero; what rounding leaves of it would be a direction
        without curvature.
        """
        error = self.C * (probabilities * self.real[:, :, None] - self.onehot)
        to_b = error.sum(dim=1)
        to_b = (to_b - to_b.sum(dim=1, keepdim=True) / self.classes.sum(dim=1, keepdim=True)) * self.classes
        return torch.baddbmm(weights, self.points.transpose(1, 2), error), to_b


def _minimised(
    problem: _Problem, weights: Float[Tensor, "e r w"], bias: Float[Tensor, "e w"]
) -> tuple[Float[Tensor, "e r w"], Float[Tensor, "e w"]]:
    """The optimum, from a start."""
    weights, bias = weights.clone(), bias.clone()
    left = torch.arange(len(weights), device=weights.device)
    stalled = torch.zeros_like(left, dtype=torch.bool)
    for _ in range(_NEWTON_STEPS):
        w, b = weights[left], bias[left]
        logits = problem.logits(w, b)
        probabilities = problem.probabilities(logits)
        to_w, to_b = problem.gradient(probabilities, w)
        length = (to_w.square().sum(dim=(1, 2)) + to_b.square().sum(dim=1) / problem.real.sum(dim=1)).sqrt()
        if bool((stalled & (length > _ALMOST * problem.bound)).any()):
            break
        open_ = ~stalled & (length > _SOLVED * problem.bound)
        if not bool(open_.any()):
            return weights, bias
        if not bool(open_.all()):
            problem, left, w, b, length = problem.part(open_), left[open_], w[open_], b[open_], length[open_]
            logits, probabilities, to_w, to_b = logits[open_], probabilities[open_], to_w[open_], to_b[open_]
        step_w, step_b = _newton_step(problem, probabilities, to_w, to_b, (length / problem.bound).clamp(1e-3, 0.05))
        slope = (to_w * step_w).sum(dim=(1, 2)) + (to_b * step_b).sum(dim=1)
        size = _step_size(problem, logits, w, step_w, step_b, slope)
        weights[left] = w + size[:, None, None] * step_w
        bias[left] = b + size[:, None] * step_b
        stalled = size == 0
    raise InputError(
        f"logistic: no optimum found in {_NEWTON_STEPS} Newton steps with C {problem.C:g}: take a smaller one"
    )


def _newton_step(
    problem: _Problem,
    probabilities: Float[Tensor, "e s w"],
    to_w: Float[Tensor, "e r w"],
    to_b: Float[Tensor, "e w"],
    exactness: Float[Tensor, "e"],
) -> tuple[Float[Tensor, "e r w"], Float[Tensor, "e w"]]:
    """The solution of curvature·step = −gradient by preconditioned conjugate gradients, up to a share of the gradient."""
    spread = problem.C * probabilities * problem.real[:, :, None]
    # Were p(1 − p) of a class the same for all supports, these would be the curvatures along the principal axes and of the bias.
    along_b = (spread * (1 - probabilities)).sum(dim=1)
    along_w = 1 + problem.variances[:, :, None] * (along_b / problem.real.sum(dim=1)[:, None])[:, None, :]
    along_b = torch.where(along_b > 0, along_b, 1.0)
    step_w, step_b = torch.zeros_like(to_w), torch.zeros_like(to_b)
    left_w, left_b = -to_w, -to_b
    toward_w, toward_b = left_w / along_w, left_b / along_b
    energy = (left_w * toward_w).sum(dim=(1, 2)) + (left_b * toward_b).sum(dim=1)
    enough = exactness.square() * energy
    for _ in range(_CONJUGATE_STEPS):
        change = problem.logits(toward_w, toward_b)
        change = spread * (change - (probabilities * change).sum(dim=2, keepdim=True))
        curved_w = torch.baddbmm(toward_w, problem.points.transpose(1, 2), change)
        curved_b = change.sum(dim=1)
        curvature = (toward_w * curved_w).sum(dim=(1, 2)) + (toward_b * curved_b).sum(dim=1)
        size = torch.where((energy > enough) & (curvature > 0), energy / curvature, 0.0)
        step_w += size[:, None, None] * toward_w
        step_b += size[:, None] * toward_b
        left_w -= size[:, None, None] * curved_w
        left_b -= size[:, None] * curved_b
        new_w, new_b = left_w / along_w, left_b / along_b
        before, energy = energy, (left_w * new_w).sum(dim=(1, 2)) + (left_b * new_b).sum(dim=1)
        if not bool((energy > enough).any()):
            break
        turn = energy / torch.where(before > 0, before, 1.0)
        toward_w = new_w + turn[:, None, None] * toward_w
        toward_b = new_b + turn[:, None] * toward_b
    return step_w, step_b


def _step_size(
    problem: _Problem,
    logits: Float[Tensor, "e s w"],
    weights: Float[Tensor, "e r w"],
    step_w: Float[Tensor, "e r w"],
    step_b: Float[Tensor, "e w"],
    slope: Float[Tensor, "e"],
) -> Float[Tensor, "e"]:
    """1, 1/2, 1/4 …: the first that lowers the objective as the slope promises, within rounding; 0 where none does."""
    start = problem.objective(logits, weights)
    slack = 1e-14 * (start.abs() + problem.C)
    change = problem.logits(step_w, step_b)
    size = torch.ones_like(start)
    for _ in range(40):
        now = problem.objective(logits + size[:, None, None] * change, weights + size[:, None, None] * step_w)
        good = now <= start + 1e-4 * size * slope + slack
        if bool(good.all()):
            return size
        size = torch.where(good, size, size / 2)
    return torch.where(good, size, 0.0)
