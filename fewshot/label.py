"""Labels for new images from a few labelled ones: nearest class mean with probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoders.errors import InputError
from fewshot.centering import (
    TRANSDUCTIVE,
    center_by,
    center_episodes,
    center_table,
    check_base,
    check_center,
    mean_vector,
    shifted,
    unit,
)
from fewshot.methods.ncm import check_metric, scores
from fewshot.table import as_table

#: Factor on the squared distance in the softmax, where none is fitted.
TEMPERATURE = 10.0


class Labeller:
    """Nearest class mean over a support set of any make-up: two classes or more, one image or more each.

    The support set is taken in once; queries may then come in any number of portions, and unless the centring is transductive each
    query's result depends on itself alone.

    Attributes:
        class_names: the classes, sorted; the columns of every result.
        temperature: τ of the probabilities, softmax of -τ·distance² over the classes.
    """

    def __init__(
        self,
        support: Float[np.ndarray | Tensor, "n d"],
        labels: Sequence[str],
        *,
        center: str = "support",
        base: Float[np.ndarray | Tensor, "b d"] | None = None,
        metric: str = "euclidean",
        prenormalize: bool = False,
        temperature: float = TEMPERATURE,
        device: str | torch.device = "cpu",
    ) -> None:
        """Take in the support set.

        Args:
            support: (n, d) raw features.
            labels: their classes by name.
            center, base, metric, prenormalize: as in `fewshot.evaluate`.
            temperature: above 0.

        Raises:
            InputError: fewer than two classes, shapes that do not fit, an unknown name, or a vector that is zero after centring.
        """
        self.center = check_center(center)
        self.metric = metric
        self.prenormalize = prenormalize
        check_metric(metric)
        check_base(self.center, base is not None)
        if not temperature > 0:
            raise InputError(f"expected a temperature above 0, got {temperature:g}")
        self.temperature = temperature
        self._device = device
        x = self._raw(support)
        if len(labels) != len(x):
            raise InputError(f"expected {len(x)} labels for {len(x)} support vectors, got {len(labels)}")
        names, index = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
        self.class_names = [str(name) for name in names]
        if len(names) < 2:
            raise InputError(
                f"expected at least two classes in the support set, got {len(names)}"
                + (f" ({names[0]})" if len(names) else "")
            )
        self._index = torch.from_numpy(index).to(x.device)
        self._base_mean = None if base is None else mean_vector(self._raw(base))
        self._mean = mean_vector(x)
        self._support = x
        if self.center not in TRANSDUCTIVE:
            self._means = self._class_means(self._centered(x, "support"))

    def probabilities(self, query: Float[np.ndarray | Tensor, "q d"]) -> Float[np.ndarray, "q w"]:
        """Class probabilities of each query, columns in the order of `class_names`; every row sums to one.

        With transductive centring these queries are the whole set whose mean is used.

        Raises:
            InputError: another number of dimensions, or a query that is zero after centring.
        """
        q = self._raw(query)
        if q.shape[1] != self._support.shape[1]:
            raise InputError(
                f"expected queries of {self._support.shape[1]} dimensions as the supports, got {q.shape[1]}"
            )
        if len(q) == 0:
            return np.zeros((0, len(self.class_names)))
        if self.center in TRANSDUCTIVE:
            # Moved to the supports' mean first, where float32 loses no digits to a common offset; the result does not change.
            s, z = center_episodes(shifted(self._support, self._mean)[None], shifted(q, self._mean)[None], self.center)
            means, z = self._class_means(s[0]), z[0]
        else:
            means, z = self._means, self._centered(q, "query")
        score = scores(z[None], means[None], self.metric)[0]
        return torch.softmax(self.temperature * score.double(), dim=-1).cpu().numpy()

    def _raw(self, features: Float[np.ndarray | Tensor, "n d"]) -> Float[Tensor, "n d"]:
        x = as_table(features, self._device)
        return unit(x, what="feature vector") if self.prenormalize else x

    def _centered(self, x: Float[Tensor, "n d"], what: str) -> Float[Tensor, "n d"]:
        if self.center == "support":
            return center_by(x, self._mean, f"{what} centred by support,")
        return center_table(x, self.center, self._base_mean)

    def _class_means(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "w d"]:
        total = z.new_zeros(len(self.class_names), z.shape[1]).index_add_(0, self._index, z)
        return total / torch.bincount(self._index, minlength=len(self.class_names))[:, None]
