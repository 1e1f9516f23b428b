"""Soft k-means over supports and queries, the supports keeping their class (as in EASY, Bendou et al. 2022)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods.option_checks import check_count, check_number
from fewmatch.fewshot.methods.transductive.assignments import SupportSums, log_scores, shares


def soft_k_means(batch: EpisodeBatch, *, temperature: float = 20.0, iterations: int = 30) -> Float[Tensor, "e q w"]:
    """Alternate between assigning the queries and moving the class means.

    p = softmax(-temperature·distance²) over the classes; mean = (Σ supports + Σ p·query) / (k + Σ p).

    Args:
        batch: episodes; classes may differ in their shots.
        temperature: how sharply queries are assigned.
        iterations: how often distances are computed. The last ones are the result, and no means are computed from them: with one
            iteration this is the nearest class mean.

    Returns:
        (e, q, w) the logarithms of the last p.

    Raises:
        InputError: a temperature that is not above zero, or no iteration.
    """
    check_number("soft-kmeans", "temperature", temperature, above=0.0)
    check_count("soft-kmeans", "iterations", iterations)
    sums = SupportSums.of(batch)
    shots = batch.shots.double()
    squared = sums.squared_distances(1 / shots.clamp(min=1))
    for _ in range(iterations - 1):
        p = shares(-temperature * squared, batch.classes).mul_(batch.asked[:, None, :])
        total = (shots + p.sum(dim=2)).clamp_(min=1)
        squared = sums.squared_distances(1 / total, p.div_(total[:, :, None]))
    return log_scores(-temperature * squared, batch.classes)
