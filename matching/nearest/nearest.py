"""Nearest neighbours both ways and mutual ones, of two sets of vectors, by cosine or dot product, in memory for one block of products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.matching.nearest.blocks import BLOCK, both_ways
from fewmatch.matching.nearest.candidates import Precision, check_precision

#: What nearest means. cosine: the largest cosine. dot: the largest dot product, of vectors as they are.
Metric = Literal["cosine", "dot"]
METRICS: tuple[Metric, ...] = get_args(Metric)
#: Rows that are normalised at a time.
_ROWS = 4096


@dataclass(frozen=True)
class Nearest:
    """For each of N vectors its nearest among others.

    index: (N,) which it is; -1 where there is none. score: (N,) their cosine or dot product; -inf where there is none.
    """

    index: Int[np.ndarray, "N"]
    score: Float[np.ndarray, "N"]


def nearest_both_ways(
    a: Float[np.ndarray, "N D"] | Float[Tensor, "N D"],
    b: Float[np.ndarray, "M D"] | Float[Tensor, "M D"],
    *,
    valid_a: Bool[np.ndarray, "N"] | Bool[Tensor, "N"] | None = None,
    valid_b: Bool[np.ndarray, "M"] | Bool[Tensor, "M"] | None = None,
    metric: Metric = "cosine",
    precision: Precision = "auto",
    block: tuple[int, int] = BLOCK,
) -> tuple[Nearest, Nearest]:
    """For each a_i the b_j with the largest cosine, and for each b_j the a_i, from one pass over the products.

    Of equal products the lowest index counts as the largest, in both directions. With the metric `cosine` vectors are divided by their
    lengths first; a vector of zeros has no direction, so it is nobody's nearest and has none. With `dot` they are multiplied as they are, and a
    vector of zeros has the product 0 with every other.
    The N × M products are computed once and never held together: memory beyond the inputs is O(N + M), with one block for each thread.
    (Inputs of another precision, in reverse order, read-only or masked are copied first; half precision needs a copy of its own.)
    Products are float32 (float64 where both inputs are), computed where the inputs are (both on the same device).

    Args:
        a, b: (N, D) and (M, D), finite.
        valid_a, valid_b: rows that may match; the others are as if they were not there. None is all.
        metric: one of `METRICS`. For unit vectors both are the same, and `dot` saves normalising them again.
        precision: `bfloat16` and `float16` compute all products in half precision first, and again in full those that can be the largest by a
            bound on the rounding, so that the answer stays that of `float32`. `auto` is float16 on CUDA, bfloat16 on a CPU that multiplies it
            natively (both where it is worth it), and float32 elsewhere.
        block: rows of a and of b whose products are computed at a time, at most, by each thread (an accelerator takes 4 times as
            many of both); it changes the speed, and no more than the rounding.

    Returns:
        The nearest b of each of the N vectors of a, and the nearest a of each of the M vectors of b. Vectors that may not match have none.

    Raises:
        InputError: shapes that do not fit, vectors that are not finite, with `dot` vectors whose squared length overflows, or an unknown
            metric or precision.
    """
    if metric not in METRICS:
        raise InputError(f"no metric called {metric}: expected one of {', '.join(METRICS)}")
    x, rows, y, columns, sizes = _checked(a, b, valid_a, valid_b, metric, block)
    check_precision(precision)
    none = tuple(
        Nearest(np.full(n, -1, np.int64), np.full(n, -np.inf, np.float64 if x.dtype == torch.float64 else np.float32))
        for n in sizes
    )
    if len(x) and len(y):
        for best, kept, others, found in zip(
            none, (rows, columns), (columns, rows), both_ways(x, y, block=block, precision=precision), strict=True
        ):
            best.index[kept] = others[found.index]
            # Rounding can take a cosine past 1.
            best.score[kept] = found.value.clip(-1, 1) if metric == "cosine" else found.value
    return none[0], none[1]


def mutual_nearest(
    a: Float[np.ndarray, "N D"] | Float[Tensor, "N D"],
    b: Float[np.ndarray, "M D"] | Float[Tensor, "M D"],
    *,
    valid_a: Bool[np.ndarray, "N"] | Bool[Tensor, "N"] | None = None,
    valid_b: Bool[np.ndarray, "M"] | Bool[Tensor, "M"] | None = None,
    metric: Metric = "cosine",
    precision: Precision = "auto",
    block: tuple[int, int] = BLOCK,
) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """The pairs (i, j) in which b_j has the largest cosine with a_i, and a_i with b_j.

    With f(i) = argmax_j s(a_i, b_j) and g(j) = argmax_i s(a_i, b_j), where s is the cosine or, with the metric `dot`, the dot product,
    these are the pairs with j = f(i) and i = g(j). Arguments, ties, vectors of zeros, memory and precision are those of `nearest_both_ways`.

    Returns:
        index_a, index_b: (K,) rows of a (ascending) and of b. score: (K,) their cosines or dot products.

    Raises:
        InputError: as `nearest_both_ways`.

    Source: best buddies (Dekel et al. 2015), as used on patches by Amir et al. 2021; `docs/matching.md`.
    """
    forth, back = nearest_both_ways(
        a, b, valid_a=valid_a, valid_b=valid_b, metric=metric, precision=precision, block=block
    )
    index_a = np.flatnonzero(forth.index >= 0)
    index_a = index_a[back.index[forth.index[index_a]] == index_a]
    return index_a, forth.index[index_a], forth.score[index_a]


def _checked(
    a: Any, b: Any, valid_a: Any, valid_b: Any, metric: Metric, block: tuple[int, int]
) -> tuple[Float[Tensor, "v d"], Int[np.ndarray, "v"], Float[Tensor, "w d"], Int[np.ndarray, "w"], tuple[int, int]]:
    """The vectors that may match, in one precision and ready to multiply; which rows they are; how many there are with those that may not."""
    x, y = as_tensor(a), as_tensor(b)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise InputError(f"expected vectors of shape (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(block) < 1:
        raise InputError(f"expected blocks of 1 or more rows and columns, got {block}")
    dtype = torch.float64 if x.dtype == y.dtype == torch.float64 else torch.float32
    kept_x, rows = _valid(x.to(dtype), valid_a, metric, "a")
    kept_y, columns = _valid(y.to(x.device, dtype), valid_b, metric, "b")
    return kept_x, rows, kept_y, columns, (len(x), len(y))


def as_tensor(x: Any) -> Tensor:
    """The same numbers as a tensor without gradient; arrays that torch cannot share without a warning are copied."""
    return torch.as_tensor(np.require(x, requirements=["C", "W"]) if isinstance(x, np.ndarray) else x).detach()


def _valid(
    x: Float[Tensor, "n d"], valid: Any, metric: Metric, name: str
) -> tuple[Float[Tensor, "v d"], Int[np.ndarray, "v"]]:
    """The rows that may match, with `cosine` those with a direction as unit vectors, and which they are."""
    if valid is not None:
        mask = as_tensor(valid)
        if mask.dtype != torch.bool or mask.shape != x.shape[:1]:
            raise InputError(f"expected valid_{name} of {len(x)} booleans, got {tuple(mask.shape)} of {mask.dtype}")
        rows = mask.cpu().numpy().nonzero()[0]
        x = x[torch.from_numpy(rows).to(x.device)] if len(rows) < len(x) else x
    else:
        rows = np.arange(len(x))
    if metric == "cosine":
        largest = x.abs().amax(dim=1)
        _require_finite(torch.isfinite(largest), rows, f"of {name} is not finite")
        there = largest.cpu().numpy() > 0
        if not there.all():
            rows, x = rows[there], x[torch.from_numpy(there).to(x.device)]
        return _unit(x), rows
    # The sum of squares is finite where the vectors and all their products are, and infinite or NaN where they may not be.
    length = torch.linalg.vector_norm(x, dim=1).square()
    _require_finite(torch.isfinite(length), rows, f"of {name} is not finite, or too long to multiply")
    return x.contiguous(), rows


def _require_finite(finite: Bool[Tensor, "v"], rows: Int[np.ndarray, "v"], what: str) -> None:
    if not bool(finite.all()):
        raise InputError(f"vector {int(rows[int((~finite).nonzero()[0])])} {what}")


def _unit(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Vectors that are not zero, divided by their lengths.

    The division by the largest entry comes first: no square can over- or underflow then, and vectors that are exact multiples of each other
    become exactly equal, so that they tie.
    """
    unit = torch.empty_like(x, memory_format=torch.contiguous_format)
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # MPS has no float64
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        part = (part / part.abs().amax(dim=1, keepdim=True)).to(wide)
        unit[start : start + _ROWS] = part / torch.linalg.vector_norm(part, dim=1, keepdim=True)
    return unit
