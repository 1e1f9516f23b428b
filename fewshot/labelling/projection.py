"""What is done to every raw vector before a method sees it, where the mean that is subtracted is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import TRANSDUCTIVE, Center, center_by, center_table, mean_vector, unit
from fewmatch.fewshot.table import as_table


@dataclass(frozen=True, eq=False)
class Projection:
    """Centre and project, one vector at a time: no vector's result depends on the others that are asked.

    center: none, base, support or feature. mean: (d,) float64 mean of raw vectors, for base and support.
    prenormalize: bring vectors to length one first. project: whether centred vectors are brought to length one.
    """

    center: Center
    dimensions: int
    mean: Float[Tensor, "d"] | None = None
    prenormalize: bool = False
    project: bool = True

    def __call__(self, raw: Float[Tensor, "n d"], what: str) -> Float[Tensor, "n d"]:
        """Centred vectors of what `prepared` returned; `what` names them in errors.

        Raises:
            ZeroVectorError: a vector is zero after centring.
        """
        if self.center == "support":
            if self.mean is None:
                raise ValueError("expected the mean of the supports")
            return center_by(raw, self.mean, f"{what} centred by support,")
        return center_table(raw, self.center, self.mean) if self.project else raw

    def prepared(
        self, features: Float[np.ndarray | Tensor, "n d"], device: str | torch.device, what: str
    ) -> Float[Tensor, "n d"]:
        """Raw features as a tensor, checked, and of length one where that comes first.

        Raises:
            InputError: another number of dimensions than the supports have, or values that are not finite.
        """
        return prepared(features, self.prenormalize, device, what, self.dimensions)


def prepared(
    features: Float[np.ndarray | Tensor, "n d"],
    prenormalize: bool,
    device: str | torch.device,
    what: str,
    dimensions: int | None = None,
) -> Float[Tensor, "n d"]:
    """See `Projection.prepared`; any number of dimensions will do where none is given."""
    x = as_table(features, device)
    if dimensions is not None and x.shape[1] != dimensions:
        raise InputError(f"expected {what} of {dimensions} dimensions as the supports, got {x.shape[1]}")
    return unit(x, what="feature vector") if prenormalize else x


def fit_projection(
    support: Float[Tensor, "n d"],
    center: Center,
    base: Float[np.ndarray | Tensor, "b f"] | None,
    *,
    prenormalize: bool = False,
    project: bool = True,
) -> Projection:
    """The projection that belongs to a support set, as `prepared` returned it.

    Raises:
        InputError: base features of another number of dimensions.
    """
    if center in TRANSDUCTIVE:
        raise ValueError(f"{center} takes its mean from the queries")
    mean = None
    if center == "support":
        mean = mean_vector(support)
    elif base is not None:
        mean = mean_vector(prepared(base, prenormalize, support.device, "base features", support.shape[1]))
    return Projection(center, support.shape[1], mean, prenormalize, project)
