"""Products in half precision that find where the largest can be, so that only those few are computed in full: the answer stays exact."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewmatch.encoders.devices import multiplies_bfloat16
from fewmatch.errors import InputError

#: What the products that find the largest are computed in; `auto` is the fastest that the device has hardware for.
Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: A block with more candidates than so many for each of its rows and columns (a sky: patches all alike) is computed in full instead.
MOST_PER_LINE = 8

#: The largest product of each row, or column, of a block, and where it is; -inf where no candidate lies in it.
Best = tuple[Float[Tensor, "_n"], Int[Tensor, "_n"]]


@dataclass(frozen=True)
class Halves:
    """Two sets of vectors in half precision.

    a, b: (n, D) and (m, D). scale: of their products to those of the originals, a power of two; both sets are no longer than 1.
    error: how far a product of theirs, computed and stored in half precision, can be from `scale` times the exact one.
    """

    a: Float[Tensor, "n d"]
    b: Float[Tensor, "m d"]
    scale: float
    error: float

    def part(self, of_a: slice, of_b: slice) -> Halves:
        """The same with some of the vectors."""
        return dataclasses.replace(self, a=self.a[of_a], b=self.b[of_b])


def uses_numpy(device: torch.device) -> bool:
    """Whether results on this device are looked through with NumPy: on a CPU it compares several times faster than torch."""
    return device.type == "cpu"


def check_precision(precision: str) -> None:
    """Raises:
    InputError: no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")


def half_dtype(precision: str, device: torch.device, dtype: torch.dtype, worth: bool) -> torch.dtype | None:
    """The dtype in which candidates are found; None where all products are computed in full.

    `auto` is float16 on CUDA, bfloat16 on CPUs that multiply it natively, and full elsewhere, for float64 and where it is not worth it.

    Raises:
        InputError: a precision that this device cannot be used with.
    """
    if precision == "auto":
        if not worth or dtype == torch.float64:
            return None
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16(device) else None
    if precision == "float32":
        return None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"expected vectors on a CPU or CUDA for precision {precision}, got {device.type}")
    return torch.bfloat16 if precision == "bfloat16" else torch.float16


def halves(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], dtype: torch.dtype) -> Halves:
    """Both sets rounded to this dtype, with a bound that holds whatever they are.

    With a', b' the rounded vectors, ⟨a, b⟩ - ⟨a', b'⟩ = ⟨a, b - b'⟩ + ⟨a - a', b'⟩, and by Cauchy and Schwarz neither term is larger than
    the lengths allow; what rounding took away is measured. Adding up D products in float32 errs by D · 2⁻²⁴ at most; 2⁻²² stands for it,
    as accelerators round less carefully and the sums that candidates are held against are rounded too. Storing the sum in half
    precision adds half a unit in its last place.
    """
    (a, exponent_a, length_a, lost_a), (b, exponent_b, length_b, lost_b) = _rounded(x, dtype), _rounded(y, dtype)
    arithmetic = x.shape[1] * 2.0**-22 + torch.finfo(dtype).eps / 2
    error = length_a * lost_b + lost_a * (length_b + lost_b) + arithmetic * (length_a + lost_a) * (length_b + lost_b)
    return Halves(a, b, 2.0 ** (exponent_a + exponent_b), error)


def _rounded(x: Float[Tensor, "n d"], dtype: torch.dtype) -> tuple[Float[Tensor, "n d"], int, float, float]:
    """x · 2^e in this dtype, e, the length of the longest vector then (at most 1), and of the longest rounding error."""
    longest = float(torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).max())
    exponent = min(-math.frexp(longest)[1], 400)
    low, lost = torch.empty_like(x, dtype=dtype), 0.0
    for start in range(0, len(x), 1024):
        some = slice(start, start + 1024)
        exact = x[some].double() * 2.0**exponent
        low[some] = exact
        lost = max(lost, float(torch.linalg.vector_norm(exact - low[some].double(), dim=1).max()))
    return low, exponent, longest * 2.0**exponent, lost


def block_maxima(
    x: Float[Tensor, "r d"],
    y: Float[Tensor, "c d"],
    half: Halves,
    least: tuple[Float[Tensor, "r"], Float[Tensor, "c"]] | None,
) -> tuple[Best, Best] | None:
    """The largest product of each row and column of a block; of equal ones the first; None where there are too many candidates.

    A product in half precision that lies more than twice the error below the largest of its row cannot belong to the row's largest, nor can
    one that lies more than the error below a product already found.

    Args:
        x, y: the vectors of the block; `half` holds the same.
        least: products that are to be beaten, for each row and column (-inf if none); lines that do not reach them may come out as -inf.
    """
    low = half.a @ half.b.T
    if uses_numpy(low.device):
        s = low.float().numpy()
        bounds = (_bound(torch.from_numpy(s.max(axis=axis)), half, least, 1 - axis).float().numpy() for axis in (1, 0))
        likely = s >= next(bounds)[:, None]
        likely |= s >= next(bounds)
        if np.count_nonzero(likely) > MOST_PER_LINE * sum(s.shape):
            return None
        i, j = (torch.from_numpy(place) for place in np.divmod(np.flatnonzero(likely), s.shape[1]))
    else:
        of_rows, of_columns = (
            _rounded_down(_bound(low.amax(dim=axis), half, least, 1 - axis), low.dtype) for axis in (1, 0)
        )
        where = (low >= of_rows[:, None]).logical_or_(low >= of_columns)
        if int(where.sum()) > MOST_PER_LINE * sum(low.shape):
            return None
        i, j = where.nonzero(as_tuple=True)
    step = max(1, low.numel() // x.shape[1])  # so that the vectors of some candidates take no more memory than a block
    score = x.new_empty(len(i))
    for start in range(0, len(i), step):
        some = slice(start, start + step)
        score[some] = (x[i[some]] * y[j[some]]).sum(dim=1)
    return _best(score, i, j, len(x)), _best(score, j, i, len(y))


def _bound(
    largest: Float[Tensor, "n"], half: Halves, least: tuple[Float[Tensor, "r"], Float[Tensor, "c"]] | None, which: int
) -> Float[Tensor, "n"]:
    """What a product in half precision must reach to be a candidate of its line."""
    bound = largest.double() - 2 * half.error
    if least is not None:
        bound = torch.maximum(bound, least[which].double() * half.scale - half.error)
    return bound


def _rounded_down(bound: Float[Tensor, "n"], dtype: torch.dtype) -> Float[Tensor, "n"]:
    limits = torch.finfo(dtype)
    return (bound - bound.abs() * limits.eps - limits.tiny).to(dtype)


def _best(score: Float[Tensor, "k"], line: Int[Tensor, "k"], place: Int[Tensor, "k"], lines: int) -> Best:
    """The largest score of each line, and of its places the first."""
    value = score.new_full((lines,), -torch.inf).scatter_reduce_(0, line, score, "amax")
    first = score == value[line]
    nowhere = place.new_full((lines,), torch.iinfo(place.dtype).max)
    return value, nowhere.scatter_reduce_(0, line[first], place[first], "amin")


@contextlib.contextmanager
def float32_sums() -> Iterator[None]:
    """CUDA may add partial sums of half-precision products in half precision, which no bound covers: not in here."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction = before
