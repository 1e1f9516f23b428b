"""The plane of an episode: its images in two dimensions, so that the nearest class mean there is the nearest class mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.centering import (
    TRANSDUCTIVE,
    Center,
    ZeroVectorError,
    center_episodes_,
    center_table,
    check_base,
    check_center,
    mean_vector,
    shifted,
    unit,
)
from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.evaluation import check_episodes
from fewmatch.fewshot.labelling.label import TEMPERATURE
from fewmatch.fewshot.methods.ncm import check_metric, class_means, compared_means, scores
from fewmatch.fewshot.table import as_table

#: Spread of the class means (vectors of length about one) at and below which it is rounding.
_NO_SPREAD = 1e-12
#: Share of the largest coordinate below which a class is taken to lie at zero when signs are chosen.
_AT_ZERO = 1e-6


@dataclass(frozen=True)
class EpisodePlane:
    """One episode of W ways, K shots and Q queries per class, seen in the span of its class means.

    Coordinates are projections of the centred unit vectors, x and y in the unit of their distances, with the middle of the class means
    at (0, 0). For `cosine` the class means are those of length one, which that rule compares with.

    means: (W, 2). support: (W, K, 2). query: (W, Q, 2), by true class.
    predicted: (W, Q) the class of each query, 0 to W - 1, decided in all dimensions.
    distances: (W, Q, W) squared distance of each query to each class mean in all dimensions.
    probabilities: (W, Q, W) softmax of -temperature·distances.
    support_distances: (W, K, W) the same of each support; the mean of its own class holds it.
    rank: how many axes the class means spread over. 2: both. 1: x alone decides; y is the largest remaining spread of supports and
        queries. 0: the means coincide, and neither decides.
    exact: whether the nearest class mean in the plane is the nearest one in all dimensions (always for two and three ways).
    shown: share of the spread of the class means (sum of squares) that is in the plane, 0 to 1.
    dimensions: of the features. center, metric, prenormalize: as asked for.
    """

    means: Float[np.ndarray, "W 2"]
    support: Float[np.ndarray, "W K 2"]
    query: Float[np.ndarray, "W Q 2"]
    predicted: Int[np.ndarray, "W Q"]
    distances: Float[np.ndarray, "W Q W"]
    probabilities: Float[np.ndarray, "W Q W"]
    support_distances: Float[np.ndarray, "W K W"]
    rank: int
    exact: bool
    shown: float
    dimensions: int
    center: Center
    metric: str
    prenormalize: bool
    temperature: float = TEMPERATURE

    @property
    def ways(self) -> int:
        return len(self.means)

    @property
    def shots(self) -> int:
        return int(self.support.shape[1])

    @property
    def queries(self) -> int:
        return int(self.query.shape[1])

    @property
    def right(self) -> Bool[np.ndarray, "W Q"]:
        """Which queries are classified right."""
        return np.asarray(self.predicted == np.arange(self.ways)[:, None])

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def support_probabilities(self) -> Float[np.ndarray, "W K W"]:
        """What `probabilities` are for the queries."""
        weights = np.exp(
            -self.temperature * (self.support_distances - self.support_distances.min(axis=2, keepdims=True))
        )
        return np.asarray(weights / weights.sum(axis=2, keepdims=True))

    @property
    def transductive(self) -> bool:
        return self.center in TRANSDUCTIVE

    def nearest(self, points: Float[np.ndarray, "*n 2"]) -> Int[np.ndarray, "*n"]:
        """The class whose mean is nearest in the plane, 0 to W - 1; ties to the lowest."""
        squared = np.square(points[..., None, :] - self.means).sum(axis=-1)
        return np.asarray(squared.argmin(axis=-1))


def episode_plane(
    features: Float[np.ndarray | Tensor, "N D"],
    labels: Sequence[object] | np.ndarray,
    episodes: Episodes,
    index: int = 0,
    *,
    center: str = "support",
    base: Float[np.ndarray | Tensor, "B D"] | None = None,
    metric: str = "euclidean",
    prenormalize: bool = False,
) -> EpisodePlane:
    """One episode by nearest class mean, with its picture in two dimensions.

    The plane is the span of the class means: what a query has outside of it adds the same to its distance to every mean. Three means
    lie in a plane, so for three ways nothing that decides is lost; for more, the two directions in which the means spread the most are
    kept. The direction of largest spread is x, and class 0 lies to the right and above (the next class where class 0 is at zero), so
    that an episode always gives the same picture. All is computed in float64.

    Args:
        features: (N, D) raw features, one row per image.
        labels: (N,) their labels.
        episodes: rows of `features`; they must have been drawn from these labels.
        index: which of the episodes, from 0.
        center, base, metric, prenormalize: as in `fewmatch.evaluate`.

    Raises:
        InputError: shapes, labels and episodes do not fit each other, no episode of that index, an unknown name, a base set too many or
            missing, or a vector that is zero after centring.
    """
    mode = check_center(center)
    check_metric(metric)
    check_base(mode, base is not None)
    support, query = _raw(features, labels, episodes, index)
    base_mean = None if base is None else _base_mean(base, prenormalize)
    return _plane(support, query, mode, base_mean, metric, prenormalize, index)


def episode_planes(
    features: Float[np.ndarray | Tensor, "N D"],
    labels: Sequence[object] | np.ndarray,
    episodes: Episodes,
    index: int = 0,
    *,
    shots: Sequence[int],
    centers: Sequence[str],
    base: Float[np.ndarray | Tensor, "B D"] | None = None,
    metric: str = "euclidean",
    prenormalize: bool = False,
) -> dict[tuple[int, str], EpisodePlane | ZeroVectorError]:
    """One episode under several settings: with the first k supports of each class and the same queries, by each centring.

    Args:
        shots: the k, each from 1 to the supports that were drawn.
        centers: modes of centring; `base` is used with the mode `base` only.
        features, labels, episodes, index, base, metric, prenormalize: as in `episode_plane`.

    Returns:
        By (k, centring), in the order given: the plane, or why there is none, where a vector is zero after centring.

    Raises:
        InputError: as `episode_plane`, and for more or fewer shots than were drawn.
    """
    modes = [check_center(center) for center in centers]
    check_metric(metric)
    for mode in modes:
        check_base(mode, mode == "base" and base is not None)
    off = [k for k in shots if not 1 <= k <= episodes.shots]
    if off:
        raise InputError(f"expected 1 to {episodes.shots} shots, which were drawn, got {off[0]}")
    support, query = _raw(features, labels, episodes, index)
    base_mean = None if base is None else _base_mean(base, prenormalize)
    planes: dict[tuple[int, str], EpisodePlane | ZeroVectorError] = {}
    for mode in modes:
        mean = base_mean if mode == "base" else None
        for k in shots:
            try:
                planes[k, mode] = _plane(support[:, :k], query, mode, mean, metric, prenormalize, index)
            except ZeroVectorError as error:
                planes[k, mode] = error
    return planes


def _raw(
    features: Float[np.ndarray | Tensor, "N D"], labels: Sequence[object] | np.ndarray, episodes: Episodes, index: int
) -> tuple[Float[Tensor, "w k d"], Float[Tensor, "w q d"]]:
    """The raw vectors of an episode, supports and queries, in float64."""
    if not 0 <= index < len(episodes):
        raise InputError(f"no episode {index}: expected 0 to {len(episodes) - 1}")
    if not episodes.shots or not episodes.queries:
        raise InputError("expected at least one support and one query per class")
    one = slice(index, index + 1)
    used = np.concatenate([episodes.support[index], episodes.query[index]], axis=1)
    if used.min() < 0:
        raise InputError(
            f"expected a full episode, got one of rows {used.min()} to {used.max()}: a plane has as many supports, and as many queries, "
            "of every class"
        )
    x = as_table(features)
    check_episodes(
        Episodes(episodes.classes[one], episodes.support[one], episodes.query[one]), np.asarray(labels), len(x)
    )
    support, query = (
        x[torch.from_numpy(part[index].astype(np.int64))].double() for part in (episodes.support, episodes.query)
    )
    return support, query


def _base_mean(base: Float[np.ndarray | Tensor, "B d"], prenormalize: bool) -> Float[Tensor, "d"]:
    b = as_table(base)
    return mean_vector(unit(b.double(), what="base vector") if prenormalize else b)


def _plane(
    support: Float[Tensor, "w k d"],
    query: Float[Tensor, "w q d"],
    mode: Center,
    base_mean: Float[Tensor, "b"] | None,
    metric: str,
    prenormalize: bool,
    index: int,
) -> EpisodePlane:
    """The plane of raw vectors."""
    ways, shots, dimensions = support.shape
    queries = query.shape[1]
    vectors = torch.cat([support.reshape(-1, dimensions), query.reshape(-1, dimensions)])
    s, q = _centered(vectors, ways * shots, mode, base_mean, prenormalize, index)
    # The plane must hold the means that the rule compares with.
    means = compared_means(class_means(s.view(1, ways, shots, -1)), metric)
    score = scores(q[None], means, metric)[0]
    plane, rank, spread = _project(means[0].numpy(), torch.cat([s, q]).numpy())
    total = float(np.square(spread).sum())
    return EpisodePlane(
        means=plane[:ways],
        support=plane[ways : ways + ways * shots].reshape(ways, shots, 2),
        query=plane[ways + ways * shots :].reshape(ways, queries, 2),
        predicted=score.numpy().argmax(axis=1).reshape(ways, queries),
        distances=_distances(score).view(ways, queries, ways).numpy(),
        probabilities=torch.softmax(TEMPERATURE * score, dim=-1).view(ways, queries, ways).numpy(),
        support_distances=_distances(scores(s[None], means, metric)[0]).view(ways, shots, ways).numpy(),
        rank=rank,
        exact=bool((spread[2:] <= _NO_SPREAD).all()),
        shown=float(np.square(spread[:2]).sum()) / total if total else 1.0,
        dimensions=dimensions,
        center=mode,
        metric=metric,
        prenormalize=prenormalize,
    )


def _distances(score: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
    """Squared distances from scores; rounding makes none negative, nor -0.0."""
    return (-score).clamp(min=0) + 0.0


def _centered(
    x: Float[Tensor, "n d"],
    supports: int,
    mode: Center,
    base_mean: Float[Tensor, "b"] | None,
    prenormalize: bool,
    index: int,
) -> tuple[Float[Tensor, "s d"], Float[Tensor, "q d"]]:
    """The episode's raw vectors, supports first, as centred unit vectors."""
    try:
        if prenormalize:
            x = unit(x, what="feature vector")
        if mode in ("none", "base", "feature"):
            x = center_table(x, mode, base_mean)
            return x[:supports], x[supports:]
    except ZeroVectorError as error:
        raise ZeroVectorError(f"episode {index}, supports counted first, then queries: {error}") from error
    # Near the origin no digits are lost to a common offset; these modes do not change when everything is moved.
    x = shifted(x, mean_vector(x))
    s, q = center_episodes_(x[None, :supports], x[None, supports:], mode, first=index)
    return s[0], q[0]


def _project(
    means: Float[np.ndarray, "w d"], vectors: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "w+n 2"], int, Float[np.ndarray, "r"]]:
    """Coordinates of the means, then of the vectors; how many axes the means spread over; their spread in all directions, falling.

    The right singular vectors of the centred means are the eigenvectors of their Gram matrix taken back to the features, but keep the
    digits that squaring would lose where three means almost lie on a line.
    """
    middle = means.mean(axis=0)
    spread, directions = np.linalg.svd(means - middle, full_matrices=False)[1:]
    rank = int((spread[:2] > _NO_SPREAD).sum())
    axes = directions[:rank]
    around = vectors - middle
    rest = around - around @ axes.T @ axes
    rest_spread, others = np.linalg.svd(rest - rest.mean(axis=0), full_matrices=False)[1:]
    places = np.zeros((len(means) + len(vectors), 2))
    places[: len(means), :rank] = (means - middle) @ axes.T
    places[len(means) :, :rank] = around @ axes.T
    # Axes on which the means are all at zero show what else there is.
    others = others[rest_spread > _NO_SPREAD][: 2 - rank]
    places[len(means) :, rank : rank + len(others)] = rest @ others.T
    for axis in places.T:
        largest = np.abs(axis).max()
        if largest > 0 and axis[np.abs(axis) > _AT_ZERO * largest][0] < 0:
            axis *= -1
    return places + 0.0, rank, spread  # no -0.0
