"""Methods that have taken in a support set, ready for queries in any number of portions: class means, weights, or the supports themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.methods import Method
from fewmatch.fewshot.methods.knn import knn
from fewmatch.fewshot.methods.ncm import ncm
from fewmatch.fewshot.methods.ncm import scores as ncm_scores
from fewmatch.fewshot.probes.neighbours import nearest, votes

#: Other methods than class means and neighbours work on inner products of the supports, and take at most so many: beyond it their
#: matrix fills the memory.
MOST_SUPPORTS = 5_000
#: Those that are fitted take at most so many weights, supports times classes.
MOST_WEIGHTS = 2_000_000
#: Queries that are asked at a time where the supports are asked anew for each portion.
_QUERIES_AT_ONCE = 1_024


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Nearest class mean. means: (w, d) plain means of each class's centred supports."""

    means: Float[Tensor, "w d"]
    metric: str

    def scores(self, query: Float[Tensor, "q d"]) -> Float[Tensor, "q w"]:
        return ncm_scores(query[None], self.means[None], self.metric)[0]

    def tensors(self) -> dict[str, Tensor]:
        return {"means": self.means}


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """Scores query·weights + bias."""

    weights: Float[Tensor, "d w"]
    bias: Float[Tensor, "w"]

    def scores(self, query: Float[Tensor, "q d"]) -> Float[Tensor, "q w"]:
        return torch.addmm(self.bias, query.to(self.weights.dtype), self.weights)

    def tensors(self) -> dict[str, Tensor]:
        return {"weights": self.weights, "bias": self.bias}


@dataclass(frozen=True, eq=False)
class KeptSupports:
    """A method that asks the supports anew for every query.

    support: (s, d) centred. index: (s,) their classes. classes: w.
    """

    method: Method
    options: Mapping[str, Any]
    support: Float[Tensor, "s d"]
    index: Int[Tensor, "s"]
    classes: int

    def scores(self, query: Float[Tensor, "q d"]) -> Float[Tensor, "q w"]:
        parts = []
        for part in torch.split(query, _QUERIES_AT_ONCE):
            if self.method.run is knn:
                parts.append(self._neighbours(part))
            else:
                episode = one_episode(self.support, self.index, part, self.classes)
                parts.append(self.method.scores(episode, **self.options)[0])
        return torch.cat(parts)

    def _neighbours(self, query: Float[Tensor, "q d"]) -> Float[Tensor, "q w"]:
        """As `knn`, without the inner products of the supports among themselves."""
        k = min(self.options["k"] or len(self.support), len(self.support))
        cosines, rows = nearest(_unit(self.support), _unit(query), k)
        _, shares = next(iter(votes(cosines, self.index[rows], [k], self.options["temperature"], self.classes)))
        return torch.log(shares)

    def tensors(self) -> dict[str, Tensor]:
        return {"support": self.support, "index": self.index}


#: What gives centred queries their scores, each by itself; `tensors()` is all that there is to keep of it.
Classifier = ClassMeans | LinearWeights | KeptSupports


def fit_classifier(
    method: Method, options: Mapping[str, Any], support: Float[Tensor, "s d"], index: Int[Tensor, "s"], classes: int
) -> Classifier:
    """Take in centred supports and their classes.

    Raises:
        InputError: more supports than the method can take, or an option's value that it cannot.
    """
    if is_nearest_mean(method):
        return ClassMeans(class_means(support, index, classes), str(options.get("metric", "euclidean")))
    if method.run is not knn:
        check_size(method, len(support), classes)
    if method.fit is None:
        return keep_supports(method, options, support, index, classes)
    episode = one_episode(support, index, support[:0], classes)
    linear = method.fit(episode, **options)
    return LinearWeights(linear.in_space(episode)[0], linear.bias[0])


def keep_supports(
    method: Method, options: Mapping[str, Any], support: Float[Tensor, "s d"], index: Int[Tensor, "s"], classes: int
) -> KeptSupports:
    """`KeptSupports`, after a look at the options.

    Raises:
        InputError: a value that the method cannot take.
    """
    if method.run is knn:  # it is not asked again: see `KeptSupports.scores`
        knn(one_episode(support[:1], index[:1], support[:1], classes), **options)
    return KeptSupports(method, options, support, index, classes)


def is_nearest_mean(method: Method) -> bool:
    """Whether class means are all that the method keeps."""
    return method.run is ncm


def check_size(method: Method, supports: int, classes: int) -> None:
    """Refuse what would fill the memory or take for ever.

    Raises:
        InputError: naming the limit and the way out.
    """
    way_out = "use method ncm, which takes any number, or give fewer examples"
    if supports > MOST_SUPPORTS:
        raise InputError(f"{method.name} takes at most {MOST_SUPPORTS:,} supports, got {supports:,}: {way_out}")
    if method.fit is not None and supports * classes > MOST_WEIGHTS:
        raise InputError(
            f"{method.name} takes at most {MOST_WEIGHTS:,} weights, got {supports:,} supports for {classes:,} classes: {way_out}"
        )


def class_means(support: Float[Tensor, "s d"], index: Int[Tensor, "s"], classes: int) -> Float[Tensor, "w d"]:
    """The plain mean of each class's vectors."""
    total = support.new_zeros(classes, support.shape[1]).index_add_(0, index, support)
    return total / torch.bincount(index, minlength=classes)[:, None]


def one_episode(
    support: Float[Tensor, "s d"], index: Int[Tensor, "s"], query: Float[Tensor, "q d"], classes: int
) -> EpisodeBatch:
    """A batch of one episode without padding."""
    onehot = torch.nn.functional.one_hot(index, classes).to(support.dtype)
    device = support.device
    return EpisodeBatch(
        onehot[None],
        torch.ones(1, len(query), dtype=torch.bool, device=device),
        torch.ones(1, classes, dtype=torch.bool, device=device),
        support[None],
        query[None],
        dimensions=support.shape[1],
    )


def _unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Vectors of length one, but for those of length zero, whose cosine with all others is 0."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(norm > 0, norm, 1.0)
