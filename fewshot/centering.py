"""Centre and project: subtract a named mean of raw vectors, then divide by the Euclidean norm."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.errors import InputError

#: Which mean is subtracted (all are means over images, not over classes):
#: none: nothing. base: the mean of a given base set (SimpleShot's CL2N). support: of the episode's supports.
#: support+query: of the episode's supports and queries together. separate: supports by their mean, queries by theirs.
#: feature: each vector by the mean of its own coordinates.
Center = Literal["none", "base", "support", "support+query", "separate", "feature"]
CENTERS: tuple[Center, ...] = get_args(Center)
#: These look at the queries as a set, so that a query's result depends on which others are asked.
TRANSDUCTIVE: frozenset[Center] = frozenset(("support+query", "separate"))

#: A centred vector this many rounding errors long, measured against what it was centred from, is zero up to rounding.
_ROUNDING_ERRORS = 16
_NO_BASE = "centring by a base set needs that set: give base features (--base)"


class ZeroVectorError(InputError):
    """A vector has no direction after centring, so there is nothing to project."""


def check_center(center: str) -> Center:
    """The mode of this name.

    Raises:
        InputError: there is none.
    """
    if center not in CENTERS:
        raise InputError(f"no centring called {center}: expected one of {', '.join(CENTERS)}")
    return center


def check_base(center: Center, given: bool) -> None:
    """Whether base features are given where, and only where, their mean is subtracted.

    Raises:
        InputError: they are missing, or too many.
    """
    if center == "base" and not given:
        raise InputError(_NO_BASE)
    if given and center != "base":
        raise InputError(f"base features are used with center base only, not with {center}")


def unit(
    x: Float[Tensor, "*n d"], scale: Float[Tensor, "*m 1"] | float = 0.0, what: str = "vector"
) -> Float[Tensor, "*n d"]:
    """Vectors divided by their Euclidean norm; see `unit_`."""
    return unit_(x.clone(), scale, what)


def unit_(
    x: Float[Tensor, "*n d"], scale: Float[Tensor, "*m 1"] | float = 0.0, what: str = "vector", first: int = 0
) -> Float[Tensor, "*n d"]:
    """Divide vectors by their Euclidean norm, in place.

    Args:
        x: vectors along the last axis.
        scale: size of the vectors that x was computed from; a norm within rounding of zero at that size counts as zero.
        what, first: name the vectors and number the first of them in the error.

    Raises:
        ZeroVectorError: a vector is zero.
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    zero = norm <= _ROUNDING_ERRORS * torch.finfo(x.dtype).eps * torch.as_tensor(scale, dtype=x.dtype, device=x.device)
    if bool(zero.any()):
        place = [int(i) for i in zero.nonzero()[0][:-1]]
        number = ", ".join(str(i) for i in [place[0] + first, *place[1:]])
        raise ZeroVectorError(f"{what} {number} is zero, so it has no direction")
    return x.div_(norm)


def center_by(x: Float[Tensor, "n d"], mean: Float[Tensor, "d"], what: str) -> Float[Tensor, "n d"]:
    """Centre by a given mean of raw vectors, and project.

    Raises:
        ZeroVectorError: a row is zero after centring; `what` names the rows in the message.
    """
    return unit(shifted(x, mean), _size(x), what)


def center_table(
    x: Float[Tensor, "n d"], center: Center, base_mean: Float[Tensor, "b"] | None = None
) -> Float[Tensor, "n d"]:
    """Centre and project a whole table, for the modes whose mean is the same in every episode (none, base, feature).

    Raises:
        InputError: `base` without a mean of fitting length.
        ZeroVectorError: a row is zero after centring.
    """
    if center == "none":
        return unit(x, what="feature vector")
    if center == "feature":
        own = x.mean(dim=-1, keepdim=True, dtype=torch.float64)
        return unit(shifted(x, own), _size(x), "feature vector centred by its own coordinates,")
    if center == "base":
        if base_mean is None:
            raise InputError(_NO_BASE)
        if base_mean.shape != x.shape[-1:]:
            raise InputError(f"expected base features of {x.shape[-1]} dimensions as the others, got {len(base_mean)}")
        return center_by(x, base_mean, "feature vector centred by the base set,")
    raise ValueError(f"{center} takes its mean from each episode")


def shifted(x: Float[Tensor, "n d"], mean: Float[Tensor, "d"] | Float[Tensor, "n 1"]) -> Float[Tensor, "n d"]:
    """x - mean in the dtype of x, subtracted in float64: raw features may share an offset far larger than what tells them apart."""
    out = torch.empty_like(x)
    step = max(1, 65_536 // x.shape[1])  # so many rows stay in the caches
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        out[rows] = x[rows].double().sub(mean if mean.ndim == 1 else mean[rows])
    return out


def mean_vector(x: Float[Tensor, "n d"]) -> Float[Tensor, "d"]:
    """The mean of vectors, in float64."""
    step = max(1, 65_536 // x.shape[1])
    total = x.new_zeros(x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), step):
        total += x[start : start + step].double().sum(dim=0)
    return total / len(x)


def center_episodes(
    support: Float[Tensor, "e s d"], query: Float[Tensor, "e q d"], center: Center
) -> tuple[Float[Tensor, "e s d"], Float[Tensor, "e q d"]]:
    """Centre and project the raw vectors of episodes by each episode's own mean (support, support+query, separate).

    Raises:
        ZeroVectorError: a centred vector is zero, as with one support in all.
    """
    return center_episodes_(support.clone(), query.clone(), center)


def center_episodes_(
    support: Float[Tensor, "e s d"],
    query: Float[Tensor, "e q d"],
    center: Center,
    first: int = 0,
    real: tuple[Bool[Tensor, "e s"], Bool[Tensor, "e q"]] | None = None,
) -> tuple[Float[Tensor, "e s d"], Float[Tensor, "e q d"]]:
    """`center_episodes` in place: over many episodes, fresh memory at every step would cost as much as the arithmetic.

    Args:
        first: the number of the first episode, for the error.
        real: False where a support or a query is padding, which must be zero and stays so; None where all are real.
    """
    s: int | Tensor
    q: int | Tensor
    if real is None:
        s, q = support.shape[1], query.shape[1]
        fewest, fewest_queries = s, q
    else:
        s, q = (mask.sum(dim=1)[:, None, None].to(support.dtype) for mask in real)
        fewest, fewest_queries = int(s.min()), int(q.min())
    total = support.sum(dim=1, keepdim=True)
    m = m_query = total / s
    if center == "support+query":
        m = m_query = (total + query.sum(dim=1, keepdim=True)) / (s + q)
    elif center == "separate":
        if fewest_queries == 1:
            raise ZeroVectorError(
                "a single query minus the mean of the queries is zero: `separate` needs two queries or more"
            )
        m_query = query.sum(dim=1, keepdim=True) / q
    elif center != "support":
        raise ValueError(f"{center} has one mean for all episodes")
    if center != "support+query" and fewest == 1:
        raise ZeroVectorError(
            f"a single support minus the mean of the supports is zero: `{center}` needs two supports or more"
        )
    what = f"(episode, number) centred by {center},"
    for vectors, mean, name, mask in (
        (support, m, "support", real and real[0]),
        (query, m_query, "query", real and real[1]),
    ):
        vectors.sub_(mean)
        if mask is not None:
            vectors.masked_fill_(~mask[..., None], 1.0)  # any direction will do until padding is zero again
        unit_(vectors, torch.linalg.vector_norm(mean, dim=-1, keepdim=True), f"{name} {what}", first)
        if mask is not None:
            vectors.masked_fill_(~mask[..., None], 0.0)
    return support, query


def _size(x: Float[Tensor, "n d"]) -> Float[Tensor, "n 1"]:
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norms
