"""Nearest neighbours of many queries among many vectors, block by block, and the votes of their classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.errors import InputError

#: Queries and vectors that are compared at a time: one block of cosines takes 64 MB in float32.
_QUERIES, _VECTORS = 512, 32_768


def nearest(
    vectors: Float[Tensor, "n d"],
    queries: Float[Tensor, "q d"],
    k: int,
    progress: Callable[[int, int], None] | None = None,
    block: tuple[int, int] = (_QUERIES, _VECTORS),
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k vectors with the largest inner products, largest first; of equals the lower index comes first.

    Memory is one block of inner products, whatever n and q.

    Args:
        vectors, queries: of length one where inner products are to be cosines.
        k: from 1 to n.
        progress: called with (queries done, queries in all).
        block: how many queries and vectors are compared at a time.

    Returns:
        Inner products and indices, on the CPU.
    """
    if not 1 <= k <= len(vectors):
        raise ValueError(f"expected k from 1 to {len(vectors)}, got {k}")
    values = torch.empty(len(queries), k, dtype=vectors.dtype)
    indices = torch.empty(len(queries), k, dtype=torch.int64)
    for first in range(0, len(queries), block[0]):
        part = queries[first : first + block[0]]
        best: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(vectors), block[1]):
            product = part @ vectors[start : start + block[1]].T
            value, index = _largest(product, min(k, product.shape[1]))
            index = index + start
            if (
                best is not None
            ):  # those found so far have lower indices, and a stable sort leaves them in front of equals
                value, index = torch.cat([best[0], value], dim=1), torch.cat([best[1], index], dim=1)
                value, order = value.sort(dim=1, descending=True, stable=True)
                value, index = value[:, :k], index.gather(1, order[:, :k])
            best = value, index
        if best is not None:
            values[first : first + len(part)], indices[first : first + len(part)] = best
        if progress is not None:
            progress(first + len(part), len(queries))
    return values, indices


def _largest(x: Float[Tensor, "q n"], k: int) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The k largest of each row, largest first, lower indices first among equals.

    `topk` chooses among equals as it likes. That matters only where the last one in equals the first one out: those rows are sorted.
    """
    if 2 * k >= x.shape[1]:
        value, index = x.sort(dim=1, descending=True, stable=True)
        return value[:, :k], index[:, :k]
    value, index = x.topk(k + 1, dim=1)
    doubtful = (value[:, k - 1] == value[:, k]).nonzero()[:, 0]
    index, order = index[:, :k].sort(dim=1)
    value, order = value.gather(1, order).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    if len(doubtful):
        sorted_value, sorted_index = x[doubtful].sort(dim=1, descending=True, stable=True)
        value[doubtful], index[doubtful] = sorted_value[:, :k], sorted_index[:, :k]
    return value, index


def votes(
    cosines: Float[Tensor, "q k"],
    labels: Int[Tensor, "q k"],
    ks: Sequence[int],
    temperature: float,
    classes: int,
) -> Iterator[tuple[int, Float[Tensor, "q w"]]]:
    """For each number of neighbours, the sum of exp(cosine/temperature) over those of each class, as shares that sum to one.

    DINO sums exp(s/T), DINOv2 the softmax of s/T over the largest k; divided by their sum over the classes both are these.

    Args:
        cosines: of the neighbours, largest first. labels: their classes.
        ks: ascending, at most k. temperature: above 0.

    Raises:
        InputError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"expected a temperature above 0, got {temperature:g}")
    weight = torch.exp((cosines.double() - cosines[:, :1].double()) / temperature)
    total = torch.zeros(len(cosines), classes, dtype=torch.float64)
    before = 0
    for k in ks:
        total.scatter_add_(1, labels[:, before:k], weight[:, before:k])
        before = k
        yield k, total / total.sum(dim=1, keepdim=True)
