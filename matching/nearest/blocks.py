"""All products of two sets of vectors, block by block in the memory of one, and the largest of each row and each column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.fewshot.parallel import in_chunks
from fewmatch.matching.nearest.candidates import (
    Best,
    Halves,
    block_maxima,
    float32_sums,
    half_dtype,
    halves,
    uses_numpy,
)

#: Rows and columns of a block, at most: large enough for a fast matrix product, small enough that its results (6 MB in float32) stay
#: in the caches while they are looked through.
BLOCK = 1024, 1536
#: Blocks on an accelerator are so many times as high and as wide, to keep it busy.
LARGER = 4
#: From so many multiplications on, stripes that run through on one core each beat torch's own threads on every block.
_WORTH_THREADS = 2**31
#: Strips whose maxima are kept, at most: they take the memory of so many numbers for each vector, and no more.
_MOST_STRIPS = 32


@dataclass(frozen=True)
class Maxima:
    """For each vector of one set the largest of its products with those of the other.

    value, index: (n,) the largest, and with which; of equal ones the first.
    strips: (n, s) the largest within each strip of the other set, from edges[k] to edges[k + 1]; s is 0 if none were asked for.
    """

    value: Float[np.ndarray, "n"]
    index: Int[np.ndarray, "n"]
    strips: Float[np.ndarray, "n s"]
    edges: Int[np.ndarray, "s+1"]


def both_ways(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    block: tuple[int, int] = BLOCK,
    precision: str = "auto",
    strips: bool = False,
) -> tuple[Maxima, Maxima]:
    """For each row the largest product and its column, and for each column the largest and its row, from one pass over all products.

    Args:
        x, y: one vector or more each, finite and contiguous, of one dtype on one device.
        block, precision: see `mutual_nearest`. strips: keep the maxima within strips as well.
    """
    on_cpu = uses_numpy(x.device)
    worth = len(x) * len(y) * x.shape[1] >= _WORTH_THREADS
    dtype = half_dtype(precision, x.device, x.dtype, worth)
    low = halves(x, y, dtype) if dtype is not None else None
    threads = torch.get_num_threads() if on_cpu and worth else 1
    stripe = -(-len(x) // threads)  # rows of a for one core
    starts = range(0, len(x), stripe)
    larger = 1 if on_cpu else LARGER
    size = _even(stripe, larger * block[0]), _even(len(y), larger * block[1])
    most = (max(1, _MOST_STRIPS // len(starts)), _MOST_STRIPS) if strips else (0, 0)

    def work(start: int) -> tuple[Maxima, Maxima]:
        rows = slice(start, start + stripe)
        return _search(x[rows], y, low and low.part(rows, slice(None)), size, most)

    with float32_sums():
        results = list(in_chunks(work, starts, x.device) if len(starts) > 1 else map(work, starts))
    of_rows, of_columns = ([result[way] for result in results] for way in (0, 1))
    value, index = of_columns[0].value, of_columns[0].index
    for start, new in zip(starts[1:], of_columns[1:], strict=True):
        better = new.value > value  # a tie stays with the earlier rows
        np.copyto(value, new.value, where=better)
        np.copyto(index, new.index + start, where=better)
    edges = [start + part.edges[:-1] for start, part in zip(starts, of_columns, strict=True)]
    return (
        Maxima(
            np.concatenate([part.value for part in of_rows]),
            np.concatenate([part.index for part in of_rows]),
            np.concatenate([part.strips for part in of_rows]),
            of_rows[0].edges,
        ),
        Maxima(value, index, np.hstack([r.strips for r in of_columns]), np.concatenate([*edges, [len(x)]])),
    )


def _even(length: int, most: int) -> int:
    """The length of as few equal parts as there can be of at most so many: no thin last block, which would cost as much as a whole one."""
    return -(-length // -(-length // most))


class _Lines:
    """The largest product so far of each row, or of each column, while blocks come in from the first to the last."""

    def __init__(self, lines: Float[Tensor, "n d"], others: int, size: int, most: int) -> None:
        """lines: their vectors. others: the vectors that they are compared with, `size` a block. most: strips, at most."""
        blocks = -(-others // size)
        count = min(blocks, most)
        self.size, self.strip_of = size, [k * count // blocks for k in range(blocks)]
        edges = [size * self.strip_of.index(strip) for strip in range(count)]
        self.edges = np.array([*edges, others], np.int64)
        self.value = lines.new_full((len(lines),), -torch.inf)
        self.index = torch.zeros_like(self.value, dtype=torch.int64)
        self.strips = lines.new_full((len(lines), count), -torch.inf)

    def improve(self, where: slice, found: Best, first: int) -> None:
        """Keep what is strictly larger, so that a tie stays with the block that came first; `first` is where this one begins."""
        value, place = found
        better = value > self.value[where]
        self.value[where] = torch.where(better, value, self.value[where])
        self.index[where] = torch.where(better, place + first, self.index[where])
        if self.strips.shape[1]:
            kept = self.strips[where, self.strip_of[first // self.size]]
            torch.maximum(kept, value, out=kept)

    def maxima(self) -> Maxima:
        value, index, strips = (x.cpu().numpy() for x in (self.value, self.index, self.strips))
        return Maxima(value, index, strips, self.edges)


def _search(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], low: Halves | None, size: tuple[int, int], most: tuple[int, int]
) -> tuple[Maxima, Maxima]:
    """Blocks from the top left, one after the other."""
    rows, columns = _Lines(x, len(y), size[1], most[1]), _Lines(y, len(x), size[0], most[0])
    memory = x.new_empty(size[0] * size[1])
    for top in range(0, len(x), size[0]):
        for left in range(0, len(y), size[1]):
            down, right = slice(top, top + size[0]), slice(left, left + size[1])
            part, other = x[down], y[right]
            found = None
            if low is not None:
                # Where the maxima of strips are asked for, each block has to give its own.
                least = None if max(most) else (rows.value[down], columns.value[right])
                found = block_maxima(part, other, low.part(down, right), least)
            if found is None:
                products = memory[: len(part) * len(other)].view(len(part), len(other))
                torch.mm(part, other.T, out=products)
                found = _first_maxima(products)
            rows.improve(down, found[0], left)
            columns.improve(right, found[1], top)
    return rows.maxima(), columns.maxima()


def _first_maxima(s: Float[Tensor, "r c"]) -> tuple[Best, Best]:
    """The largest of each row and of each column, and the first place of each.

    On a CPU NumPy looks for them, because its maxima are several times faster than torch's; its argmax down the columns is slow, but finding
    the few places that hold a maximum is not. Accelerators' own argmax takes any of several equal values.
    """
    if not uses_numpy(s.device):
        return _first_along(s, 1), _first_along(s, 0)
    n = s.numpy()
    index = n.argmax(axis=1)
    of_rows = np.take_along_axis(n, index[:, None], axis=1)[:, 0], index
    value = n.max(axis=0)
    row, column = np.divmod(np.flatnonzero(n == value), n.shape[1])
    index = np.empty(n.shape[1], np.int64)
    index[column[::-1]] = row[::-1]  # of equal ones the first row is written last
    return _tensors(*of_rows), _tensors(value, index)


def _tensors(value: Float[np.ndarray, "k"], index: Int[np.ndarray, "k"]) -> Best:
    return torch.from_numpy(value), torch.from_numpy(index)


def _first_along(s: Float[Tensor, "r c"], axis: int) -> Best:
    value = s.amax(dim=axis, keepdim=True)
    shape = (-1, 1) if axis == 0 else (1, -1)
    places = torch.arange(s.shape[axis], dtype=torch.int32, device=s.device).view(shape)
    return value.squeeze(axis), torch.where(s == value, places, s.shape[axis]).amin(dim=axis)
