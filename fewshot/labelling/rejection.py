"""None of these: how like the known classes a query is, and where to draw the line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.labelling.held_out import MOST_HELD_OUT, held_out_rows

#: The share of held-out supports that a threshold chosen on them accepts.
ACCEPT = 0.95


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """Similarity to the known classes: the largest cosine of a raw vector with a class's mean of raw vectors of length one.

    Whatever method labels the queries, and without any centring: what tells the classes apart is what centring keeps, and what tells them
    from everything else is largely what it takes away. directions: (w, d) the means at length one, in the precision of float32.
    """

    directions: Float[Tensor, "w d"]

    def similarity(self, raw: Float[Tensor, "q d"]) -> Float[np.ndarray, "q"]:
        """From -1 to 1, for each query."""
        directions = self.directions.double()
        return (_unit(raw) @ directions.T).amax(dim=1).clamp(-1, 1).cpu().numpy()


def known_classes(raw: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> KnownClasses:
    """Take in raw supports and their classes."""
    z = _unit(raw)
    total = z.new_zeros(int(index.max()) + 1, z.shape[1]).index_add_(0, index, z)
    return KnownClasses(_unit(total).float())


def held_out_similarity(raw: Float[Tensor, "n d"], index: Int[Tensor, "n"]) -> Float[np.ndarray, "h"]:
    """The similarity of supports to the classes as they are without each of them; of every one that is not its class's only one,
    or of some 2,000 spread evenly over the classes."""
    z = _unit(raw)
    total = z.new_zeros(int(index.max()) + 1, z.shape[1]).index_add_(0, index, z)
    directions = _unit(total)
    rows = held_out_rows(index, MOST_HELD_OUT)
    found = []
    for part in torch.split(rows, 256):
        cosine = z[part] @ directions.T
        without = _unit(total[index[part]] - z[part])
        cosine[torch.arange(len(part)), index[part]] = (z[part] * without).sum(dim=1)
        found.append(cosine.amax(dim=1).cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0)


def threshold_accepting(similarity: Float[np.ndarray, "h"], share: float) -> float:
    """The highest threshold that at least this share of the values reaches.

    Raises:
        InputError: a share that is not above 0 and at most 1, or no values.
    """
    if not 0 < share <= 1:
        raise InputError(f"expected a share of supports to accept above 0 and at most 1, got {share:g}")
    if not len(similarity):
        raise InputError(
            "a threshold for rejection cannot be chosen where every class has one support only, since none can be held out: "
            "give a number, or more supports"
        )
    reached = math.ceil(share * len(similarity) - 1e-9)  # 0.95 is no binary fraction
    return float(np.sort(similarity)[len(similarity) - reached])


def _unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Float64 vectors of length one; a vector of length zero stays as it is, like nothing at all."""
    x = x.double()
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)
