"""Some episodes at once, as the tensors that few-shot methods work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EpisodeBatch:
    """e episodes of up to w classes, s supports in all and q queries, centred and projected.

    All that most methods need of the vectors is their inner products: n = s + q points, the supports first, a matrix per episode in
    float64. A point of the episode's span is then a row of n coefficients, and nothing has D dimensions any more.

    onehot: (e, s, w) 1 where a support belongs to a class, 0 elsewhere; a row of zeros is padding.
    asked: (e, q) False where a query is padding. classes: (e, w) False where an episode has fewer classes.
    support, query: (e, s, d) and (e, q, d) vectors, zero where padded; None where only `gram` was kept.
    dimensions: d, for methods that need it beside inner products.
    """

    onehot: Float[Tensor, "e s w"]
    asked: Bool[Tensor, "e q"]
    classes: Bool[Tensor, "e w"]
    support: Float[Tensor, "e s d"] | None = None
    query: Float[Tensor, "e q d"] | None = None
    given_gram: Float[Tensor, "e n n"] | None = None
    dimensions: int | None = None

    @property
    def supports(self) -> int:
        """s, padding included."""
        return int(self.onehot.shape[1])

    @cached_property
    def gram(self) -> Float[Tensor, "e n n"]:
        """(e, n, n) inner products of all points in float64; rows and columns of padding are zero."""
        if self.given_gram is not None:
            return self.given_gram
        support, query = self.vectors
        points = torch.cat([support, query], dim=1)
        return torch.bmm(points, points.transpose(1, 2)).double()

    @property
    def vectors(self) -> tuple[Float[Tensor, "e s d"], Float[Tensor, "e q d"]]:
        """Supports and queries as vectors.

        Raises:
            ValueError: only their inner products were kept.
        """
        if self.support is None or self.query is None:
            raise ValueError("this batch holds inner products only: the method must be registered with `vectors=True`")
        return self.support, self.query

    @property
    def support_gram(self) -> Float[Tensor, "e s s"]:
        """Inner products of the supports, float64."""
        return self.gram[:, : self.supports, : self.supports]

    @property
    def cross_gram(self) -> Float[Tensor, "e q s"]:
        """Inner products of queries (rows) with supports, float64."""
        return self.gram[:, self.supports :, : self.supports]

    @property
    def query_gram(self) -> Float[Tensor, "e q q"]:
        """Inner products of the queries, float64."""
        return self.gram[:, self.supports :, self.supports :]

    @cached_property
    def shots(self) -> Float[Tensor, "e w"]:
        """Supports of each class; 0 where there is no such class."""
        return self.onehot.sum(dim=1)

    @cached_property
    def real_supports(self) -> Bool[Tensor, "e s"]:
        """False where a support is padding."""
        return self.onehot.sum(dim=2) > 0

    @cached_property
    def mean_coefficients(self) -> Float[Tensor, "e w n"]:
        """The class means as coefficients of the points: 1/k at each of a class's k supports. Float64."""
        share = self.onehot.double() / self.shots.double().clamp(min=1)[:, None, :]
        out = share.new_zeros(len(share), share.shape[2], share.shape[1] + self.asked.shape[1])
        out[:, :, : self.supports] = share.transpose(1, 2)
        return out

    def squared_distances(self, coefficients: Float[Tensor, "e w n"]) -> Float[Tensor, "e n w"]:
        """Squared Euclidean distance of every point to points of the span given by coefficients, float64, never below zero."""
        products = torch.bmm(self.gram, coefficients.transpose(1, 2))
        own = (coefficients.transpose(1, 2) * products).sum(dim=1, keepdim=True)
        squared = torch.diagonal(self.gram, dim1=1, dim2=2)[:, :, None]
        return (squared + own - 2 * products).clamp_(min=0)

    def query_labels(self, scores: Float[Tensor, "e q w"]) -> Int[Tensor, "e q"]:
        """The class with the highest score, the lowest of equals; classes that an episode does not have are never chosen."""
        return scores.masked_fill(~self.classes[:, None, :], -torch.inf).argmax(dim=-1)
