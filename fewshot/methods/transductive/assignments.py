"""What transductive methods share: soft assignments of queries to classes, and distances to prototypes that are sums of points.

Tensors are class-major here, (e, w, q): a product with the symmetric Gram matrix from the right is several times faster on a CPU than
one from the left, and sums over the classes run along memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.fewshot.batch import EpisodeBatch

#: Scores are log-probabilities of at least this, for a probability may be zero (log of the smallest normal float64).
LEAST_LOG = -708.0


@dataclass(frozen=True)
class SupportSums:
    """Inner products with the sums of each class's supports.

    Prototypes of the form share·(sum of the class's supports) + Σ weights·query need no more than these and the products of the queries.

    with_queries: (e, w, q) of the sums with the queries. own: (e, w) squared lengths of the sums. queries: (e, q, q) of the queries.
    lengths: (e, q) squared lengths of the queries.
    """

    with_queries: Float[Tensor, "e w q"]
    own: Float[Tensor, "e w"]
    queries: Float[Tensor, "e q q"]
    lengths: Float[Tensor, "e q"]

    @classmethod
    def of(cls, batch: EpisodeBatch) -> SupportSums:
        """The sums of a batch."""
        classes = batch.onehot.double().transpose(1, 2)
        own = (torch.bmm(classes, batch.support_gram) * classes).sum(dim=2)
        queries = batch.query_gram.contiguous()
        with_queries = torch.bmm(classes, batch.gram[:, : batch.supports, batch.supports :])
        return cls(with_queries, own, queries, torch.diagonal(queries, dim1=1, dim2=2))

    def squared_distances(
        self, share: Float[Tensor, "e w"], weights: Float[Tensor, "e w q"] | None = None
    ) -> Float[Tensor, "e w q"]:
        """Squared distances of the queries to the prototypes share·(sum of supports) + Σ weights·query, never below zero."""
        from_supports = share[:, :, None] * self.with_queries
        if weights is None:
            products, own = from_supports, share.square() * self.own
        else:
            from_queries = torch.bmm(weights, self.queries)
            products = from_supports + from_queries
            own = share.square() * self.own + (weights * (products + from_supports)).sum(dim=2)
        return (self.lengths[:, None, :] + own[:, :, None]).sub_(products, alpha=2).clamp_(min=0)


def squared_distances(gram: Float[Tensor, "e n n"], coefficients: Float[Tensor, "e w n"]) -> Float[Tensor, "e w n"]:
    """Squared distances of all points to points of their span, never below zero."""
    products = torch.bmm(coefficients, gram)
    own = (coefficients * products).sum(dim=2)
    lengths = torch.diagonal(gram, dim1=1, dim2=2)
    return (lengths[:, None, :] + own[:, :, None]).sub_(products, alpha=2).clamp_(min=0)


def shares(logits: Float[Tensor, "e w q"], classes: Bool[Tensor, "e w"]) -> Float[Tensor, "e w q"]:
    """The softmax over the classes that an episode has; zero for others."""
    logits = logits.masked_fill(~classes[:, :, None], -torch.inf)
    powers = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    return powers.div_(powers.sum(dim=1, keepdim=True))


def log_shares(logits: Float[Tensor, "e w q"], classes: Bool[Tensor, "e w"]) -> Float[Tensor, "e w q"]:
    """The logarithm of `shares`."""
    return torch.log_softmax(logits.masked_fill(~classes[:, :, None], -torch.inf), dim=1)


def log_scores(logits: Float[Tensor, "e w q"], classes: Bool[Tensor, "e w"]) -> Float[Tensor, "e q w"]:
    """Scores of a method that ends with assignments: their logarithms, so that the softmax of the scores is the assignments."""
    return log_shares(logits, classes).clamp_(min=LEAST_LOG).transpose(1, 2).contiguous()
