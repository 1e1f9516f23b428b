"""Mutual nearest neighbours of two sets of vectors, in one pass over blocks of their products and in memory for one block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from encoders.errors import InputError
from fewshot.parallel import in_chunks

#: Rows and columns of a block, at most: large enough for a fast matrix product, small enough that its results (6 MB in float32) stay
#: in the caches while they are looked through.
_ROWS, _COLUMNS = 1024, 1536
#: Blocks on an accelerator are so many times as high and as wide, to keep it busy.
_LARGER = 4
#: From so many multiplications on, stripes that run through on one core each beat torch's own threads on every block.
_WORTH_THREADS = 2**31

_Best = tuple[Float[np.ndarray, "_n"], Int[np.ndarray, "_n"]]


def mutual_nearest(
    a: Float[np.ndarray, "N D"] | Float[Tensor, "N D"],
    b: Float[np.ndarray, "M D"] | Float[Tensor, "M D"],
    *,
    valid_a: Bool[np.ndarray, "N"] | Bool[Tensor, "N"] | None = None,
    valid_b: Bool[np.ndarray, "M"] | Bool[Tensor, "M"] | None = None,
    block: tuple[int, int] = (_ROWS, _COLUMNS),
) -> tuple[Int[np.ndarray, "K"], Int[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """The pairs (i, j) in which b_j has the largest dot product with a_i, and a_i with b_j.

    With f(i) = argmax_j ⟨a_i, b_j⟩ and g(j) = argmax_i ⟨a_i, b_j⟩ these are the pairs with j = f(i) and i = g(j); of equal products
    the lowest index counts as the largest, in both directions. Nothing is normalised: give unit vectors for cosines. The
    N × M products are computed once and never held together: memory beyond the inputs is O(N + M), with one block for each thread.
    (Inputs of another precision, in reverse order, read-only or masked are copied first.) Products are float32 (float64 where both
    inputs are), computed where the inputs are (both on the same device).

    Args:
        a, b: (N, D) and (M, D), finite.
        valid_a, valid_b: rows that may match; the others are as if they were not there. None is all.
        block: rows of a and of b whose products are computed at a time, at most, by each thread (an accelerator takes 4 times as
            many of both); it changes the speed, and no more than the rounding.

    Returns:
        index_a, index_b: (K,) rows of a (ascending) and of b. score: (K,) their dot products.

    Raises:
        InputError: shapes that do not fit, or vectors that are not finite or whose squared length overflows.

    Source: best buddies (Dekel et al. 2015), as used on patches by Amir et al. 2021; `docs/matching.md`.
    """
    x, y = as_tensor(a), as_tensor(b)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise InputError(f"expected vectors of shape (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(block) < 1:
        raise InputError(f"expected blocks of 1 or more rows and columns, got {block}")
    dtype = torch.float64 if x.dtype == y.dtype == torch.float64 else torch.float32
    x, rows = _valid(x.to(dtype), valid_a, "a")
    y, columns = _valid(y.to(x.device, dtype), valid_b, "b")
    if not len(x) or not len(y):
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0, np.float64 if dtype == torch.float64 else np.float32)
    (score, nearest_b), (_, nearest_a) = _both_ways(x, y, block)
    mutual = np.flatnonzero(nearest_a[nearest_b] == np.arange(len(x)))
    return rows[mutual], columns[nearest_b[mutual]], score[mutual]


def as_tensor(x: Any) -> Tensor:
    """The same numbers as a tensor without gradient; arrays that torch cannot share without a warning are copied."""
    return torch.as_tensor(np.require(x, requirements=["C", "W"]) if isinstance(x, np.ndarray) else x).detach()


def _valid(x: Float[Tensor, "n d"], valid: Any, name: str) -> tuple[Float[Tensor, "v d"], Int[np.ndarray, "v"]]:
    """The rows that may match, and which they are."""
    if valid is not None:
        mask = as_tensor(valid)
        if mask.dtype != torch.bool or mask.shape != x.shape[:1]:
            raise InputError(f"expected valid_{name} of {len(x)} booleans, got {tuple(mask.shape)} of {mask.dtype}")
        rows = mask.cpu().numpy().nonzero()[0]
        x = x[torch.from_numpy(rows).to(x.device)] if len(rows) < len(x) else x
    else:
        rows = np.arange(len(x))
    # The sum of squares is finite where the vectors and all their products are, and infinite or NaN where they may not be.
    finite = torch.isfinite(torch.linalg.vector_norm(x, dim=1).square()) if len(x) else torch.ones(0, dtype=torch.bool)
    if not bool(finite.all()):
        raise InputError(
            f"vector {int(rows[int((~finite).nonzero()[0])])} of {name} is not finite, or too long to multiply"
        )
    return x.contiguous(), rows


def _both_ways(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], block: tuple[int, int]) -> tuple[_Best, _Best]:
    """For each row the largest product and its column, and for each column the largest and its row; ties to the lowest."""
    on_cpu = x.device.type == "cpu"
    search, most = (_search_cpu, block) if on_cpu else (_search_torch, (_LARGER * block[0], _LARGER * block[1]))
    threads = torch.get_num_threads() if on_cpu and len(x) * len(y) * x.shape[1] >= _WORTH_THREADS else 1
    stripe = -(-len(x) // threads)  # rows of a for one core
    height, width = _even(stripe, most[0]), _even(len(y), most[1])

    def work(start: int) -> tuple[_Best, _Best]:
        return search(x[start : start + stripe], y, height, width)

    starts = range(0, len(x), stripe)
    results = in_chunks(work, starts, x.device) if len(starts) > 1 else map(work, starts)
    best_rows, best_columns = [], None
    for start, (of_rows, of_columns) in zip(starts, results, strict=True):
        best_rows.append(of_rows)
        of_columns = of_columns[0], of_columns[1] + start
        if best_columns is None:
            best_columns = of_columns
        else:
            better = of_columns[0] > best_columns[0]  # a tie stays with the earlier rows
            for kept, new in zip(best_columns, of_columns, strict=True):
                np.copyto(kept, new, where=better)
    assert best_columns is not None
    return (np.concatenate([v for v, _ in best_rows]), np.concatenate([i for _, i in best_rows])), best_columns


def _even(length: int, most: int) -> int:
    """The length of as few equal parts as there can be of at most so many: no thin last block, which would cost as much as a whole one."""
    return -(-length // -(-length // most))


def _search_cpu(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], height: int, width: int) -> tuple[_Best, _Best]:
    """Blocks from the top left; NumPy looks through them, because its maxima are several times faster than torch's here."""
    kind = np.float64 if x.dtype == torch.float64 else np.float32
    row_value, row_index = np.full(len(x), -np.inf, kind), np.zeros(len(x), np.int64)
    column_value, column_index = np.full(len(y), -np.inf, kind), np.zeros(len(y), np.int64)
    memory = torch.empty(height * width, dtype=x.dtype)
    for top in range(0, len(x), height):
        part = x[top : top + height]
        for left in range(0, len(y), width):
            other = y[left : left + width]
            products = memory[: len(part) * len(other)].view(len(part), len(other))
            torch.mm(part, other.T, out=products)
            s = products.numpy()
            _improve(row_value, row_index, slice(top, top + len(part)), *_row_maxima(s), left)
            _improve(column_value, column_index, slice(left, left + len(other)), *_column_maxima(s), top)
    return (row_value, row_index), (column_value, column_index)


def _row_maxima(s: Float[np.ndarray, "r c"]) -> _Best:
    index = s.argmax(axis=1)
    return np.take_along_axis(s, index[:, None], axis=1)[:, 0], index


def _column_maxima(s: Float[np.ndarray, "r c"]) -> _Best:
    """NumPy's argmax down the columns is slow; the maxima are not, nor is finding the few places that hold them."""
    value = s.max(axis=0)
    row, column = np.divmod(np.flatnonzero(s == value), s.shape[1])
    index = np.empty(s.shape[1], np.int64)
    index[column[::-1]] = row[::-1]  # of equal ones the first row is written last
    return value, index


def _improve(
    value: Float[np.ndarray, "n"],
    index: Int[np.ndarray, "n"],
    where: slice,
    found: Float[np.ndarray, "k"],
    found_index: Int[np.ndarray, "k"],
    first: int,
) -> None:
    """Keep what is strictly larger, so that a tie stays with the block that came first."""
    better = found > value[where]
    np.copyto(value[where], found, where=better)
    np.copyto(index[where], found_index + first, where=better)


def _search_torch(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], height: int, width: int) -> tuple[_Best, _Best]:
    """The same where the vectors lie, for accelerators, whose own argmax takes any of several equal values."""
    row_value, column_value = (torch.full((len(z),), -torch.inf, dtype=x.dtype, device=x.device) for z in (x, y))
    row_index, column_index = (torch.zeros(len(z), dtype=torch.int64, device=x.device) for z in (x, y))
    for top in range(0, len(x), height):
        part = x[top : top + height]
        for left in range(0, len(y), width):
            s = part @ y[left : left + width].T
            for value, index, start, first, axis in (
                (row_value, row_index, top, left, 1),
                (column_value, column_index, left, top, 0),
            ):
                found, place = _first_maxima(s, axis)
                kept = slice(start, start + len(found))
                better = found > value[kept]
                value[kept] = torch.where(better, found, value[kept])
                index[kept] = torch.where(better, place + first, index[kept])
    return _numpy(row_value, row_index), _numpy(column_value, column_index)


def _first_maxima(s: Float[Tensor, "r c"], axis: int) -> tuple[Float[Tensor, "k"], Int[Tensor, "k"]]:
    value = s.amax(dim=axis, keepdim=True)
    shape = (-1, 1) if axis == 0 else (1, -1)
    places = torch.arange(s.shape[axis], dtype=torch.int32, device=s.device).view(shape)
    return value.squeeze(axis), torch.where(s == value, places, s.shape[axis]).amin(dim=axis)


def _numpy(value: Tensor, index: Tensor) -> _Best:
    return value.cpu().numpy(), index.cpu().numpy()
