"""Classifiers whose scores are linear in the query, kept as coefficients of the supports or as weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch


@dataclass(frozen=True)
class Linear:
    """Scores query·weight + bias, one weight vector a class, for e episodes at once.

    bias: (e, w). Either dual: (e, s, w), the weights as sums of supports (weight = supportᵀ·dual), which needs inner products only;
    or weights: (e, d, w).
    """

    bias: Float[Tensor, "e w"]
    dual: Float[Tensor, "e s w"] | None = None
    weights: Float[Tensor, "e d w"] | None = None

    def scores(self, batch: EpisodeBatch) -> Float[Tensor, "e q w"]:
        """Scores of the queries of the batch that this was fitted to."""
        if self.dual is not None:
            return torch.bmm(batch.cross_gram, self.dual) + self.bias[:, None, :]
        query = batch.vectors[1]
        weights = self.in_space(batch)
        return torch.bmm(query.to(weights.dtype), weights) + self.bias[:, None, :]

    def in_space(self, batch: EpisodeBatch) -> Float[Tensor, "e d w"]:
        """The weights as vectors, for queries to come: query·weights + bias."""
        if self.weights is not None:
            return self.weights
        if self.dual is None:
            raise ValueError("expected dual or weights")
        support = batch.vectors[0].to(self.dual.dtype)
        return torch.bmm(support.transpose(1, 2), self.dual)
