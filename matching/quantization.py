"""Unit descriptors of several images in few dimensions and 8 bits: small, and their dot products are near the cosines.

The directions are the first right singular vectors of all descriptors together, without centring, so that dot products are kept: no other
matrix of that rank is nearer to the matrix of all cosines in the least-squares sense (Eckart and Young 1936). Each direction has a step of
its own, a 127th of the largest value in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8

from fewmatch.errors import InputError

#: Directions that hold less than this share of all squared lengths are rounding.
_ROUNDING = 1e-12
#: Lengths of unit vectors in half precision are off by less than this.
_OFF_UNIT = 1e-2
#: So many products are held at a time (in float32: 16 MB).
_BLOCK = 2**22


@dataclass(frozen=True, eq=False)
class QuantizedDescriptors:
    """What stands for the descriptors of several images.

    codes: for each image (n, d); codes · step is the descriptor's projection on the d directions.
    step: (d,) a code's unit, by direction. dimensions: D, of the descriptors themselves.
    """

    codes: tuple[Int8[np.ndarray, "_n d"], ...]
    step: Float32[np.ndarray, "d"]
    dimensions: int

    def cosines(self, a: int, patches: Int[np.ndarray, "k"], b: int) -> Float32[np.ndarray, "k m"]:
        """The dot products of some patches of image `a` (by index) with all of image `b`: near the cosines of their descriptors."""
        return np.asarray((self.codes[a][patches] * self.step**2) @ self.codes[b].T.astype(np.float32))


class CosineError(NamedTuple):
    """Absolute differences of quantised products from the cosines: the largest, the mean, and the number of pairs of patches."""

    largest: float
    mean: float
    pairs: int


def quantize(descriptors: Sequence[Float[np.ndarray, "_n D"]], dimensions: int = 128) -> QuantizedDescriptors:
    """Descriptors of several images in at most so many dimensions and 8 bits, by directions that all images share.

    Args:
        descriptors: for each image (n, D), of unit length, or zero where there is none; zero becomes zero.
        dimensions: the most there may be; fewer, if fewer hold everything.

    Raises:
        InputError: no images, descriptors of different dimensions or neither of unit length nor zero, or fewer than one dimension asked for.
    """
    sizes = sorted({x.shape[1] for x in descriptors})
    if len(sizes) != 1 or not sizes[0]:
        raise InputError(f"expected images with descriptors of one and the same dimension, got {sizes or 'no images'}")
    if dimensions < 1:
        raise InputError(f"expected 1 dimension or more, got {dimensions}")
    scatter = np.zeros((sizes[0],) * 2)
    for x in descriptors:
        _require_unit(x)
        scatter += (wide := x.astype(np.float64)).T @ wide
    values, vectors = np.linalg.eigh(scatter)
    kept = max(1, min(dimensions, int((values > _ROUNDING * max(np.trace(scatter), 1e-300)).sum())))
    directions = vectors[:, ::-1][:, :kept]
    projected = [x @ directions for x in descriptors]
    largest = np.max([np.abs(p).max(axis=0, initial=0) for p in projected], axis=0)
    step = (largest / 127).astype(np.float32)
    unit = np.where(step > 0, step, 1)
    codes = tuple(np.clip(np.rint(p / unit), -127, 127).astype(np.int8) for p in projected)
    return QuantizedDescriptors(codes, step, sizes[0])


def cosine_error(
    descriptors: Sequence[Float[np.ndarray, "_n D"]],
    quantized: QuantizedDescriptors,
    valid: Sequence[Bool[np.ndarray, "_n"]],
) -> CosineError:
    """How far quantised products are from the cosines, over all pairs of two different valid patches, of one image or of two.

    Everything is multiplied out, a block at a time.

    Args:
        descriptors: what was quantised. valid: the patches of each image that count.

    Raises:
        InputError: a descriptor that is neither of unit length nor zero.
    """
    for x in descriptors:
        _require_unit(x)
    rows = [np.flatnonzero(mask) for mask in valid]
    largest, total, pairs = 0.0, 0.0, 0
    for b in range(len(rows)):
        y = descriptors[b][rows[b]]
        small_y = quantized.codes[b][rows[b]].T.astype(np.float32)
        for a in range(b + 1):
            height = max(1, _BLOCK // max(1, len(y)))
            for start in range(0, len(rows[a]), height):
                part = rows[a][start : start + height]
                off = np.abs(descriptors[a][part] @ y.T - (quantized.codes[a][part] * quantized.step**2) @ small_y)
                if a == b:  # each pair of patches once
                    off = off[np.arange(len(y)) > np.arange(start, start + len(part))[:, None]]
                if off.size:
                    largest, total = max(largest, float(off.max())), total + float(off.sum(dtype=np.float64))
                pairs += off.size
    return CosineError(largest, total / pairs if pairs else 0.0, pairs)


def _require_unit(x: Float[np.ndarray, "_n D"]) -> None:
    """Refuse vectors whose products are no cosines."""
    length = np.linalg.norm(x, axis=1)
    wrong = np.flatnonzero(~(np.abs(length - 1) <= _OFF_UNIT) & (length != 0))
    if len(wrong):
        raise InputError(f"expected descriptors of length 1, or 0, got one of length {length[wrong[0]]:g}")
