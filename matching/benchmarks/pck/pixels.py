"""The pixel of an image whose enlarged features are most like a descriptor, without enlarging features."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError

#: Similarities of points and pixels that are held at once, and the points that are looked for at once.
_BLOCK, _QUERIES = 2**22, 64
#: Cosines of pixels that differ by no more are equal: beyond the outermost centres they are, but for rounding.
_SAME = 1e-9


def best_pixels(
    queries: Float[np.ndarray, "K D"],
    raw: Float[np.ndarray, "n D"],
    usable: Bool[np.ndarray, "h w"],
    frame: Frame,
    ends: Int[np.ndarray, "2 2"],
) -> Float[np.ndarray, "K 2"]:
    """The pixel whose bilinear mixture of raw descriptors has the largest cosine, the first of equals, row by row.

    Nothing is enlarged but similarities: the product with a mixture is the mixture of products, and the squared length of a
    mixture comes from the products of the four patches among themselves. A pixel counts if the patch nearest to it is usable.

    Args:
        queries: unit vectors. raw: descriptors, row by row. usable: which of them count.
        ends: first and last row, first and last column; pixels beyond these centres have the mixture on them.

    Returns:
        (K, 2) x and y.

    Raises:
        InputError: no pixel counts.

    Source: DIFT (Tang et al. 2023), which enlarges the features themselves.
    """
    rows, columns = usable.shape
    grid = np.where(usable.reshape(-1, 1), raw, 0.0).reshape(rows, columns, -1)
    products = _products(grid)
    down = frame.to_grid(0, np.arange(frame.height))[0].clip(*ends[0])
    across = frame.to_grid(np.arange(frame.width), 0)[1].clip(*ends[1])
    to_columns = _weights(across, columns).T
    best = np.full(len(queries), -np.inf)
    place = np.zeros((len(queries), 2))
    for first_query in range(0, len(queries), _QUERIES):
        asked = queries[first_query : first_query + _QUERIES]
        mine = slice(first_query, first_query + len(asked))
        similarity = np.moveaxis(grid @ asked.T, 2, 0)
        step = max(1, _BLOCK // (len(asked) * frame.width))
        for start in range(0, frame.height, step):
            part = down[start : start + step]
            length = np.sqrt(_squared_lengths(products, part, across))
            counts = usable[np.rint(part).astype(int)][:, np.rint(across).astype(int)] & (length > 1e-9)
            value = _weights(part, rows) @ similarity @ to_columns
            value = np.where(counts, value / np.where(counts, length, 1.0), -np.inf).reshape(len(asked), -1)
            top = value.max(axis=1)
            first = (value >= top[:, None] - _SAME).argmax(axis=1)
            y, x = np.divmod(first, frame.width)
            better = top > best[mine] + _SAME
            place[mine] = np.where(better[:, None], np.stack([x, y + start], axis=1), place[mine])
            best[mine] = np.maximum(best[mine], top)
    if not np.isfinite(best).all():
        raise InputError("no pixel of B may be matched: every one is masked out or without a direction")
    return place


def _weights(at: Float[np.ndarray, "n"], cells: int) -> Float[np.ndarray, "n cells"]:
    """Of each place in a row of cells the shares of the two around it."""
    return np.asarray(np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(cells))))


def _products(grid: Float[np.ndarray, "h w D"]) -> Float[np.ndarray, "4 4 h w"]:
    """Of each patch and those right of it, below it and right of that: all products of two of the four, 0 beyond the grid."""
    rows, columns = grid.shape[:2]
    padded = np.pad(grid, ((0, 1), (0, 1), (0, 0)))
    four = [padded[r : rows + r, c : columns + c] for r in (0, 1) for c in (0, 1)]
    out = np.empty((4, 4, rows, columns))
    for i, j in itertools.combinations_with_replacement(range(4), 2):
        out[i, j] = out[j, i] = np.einsum("hwd,hwd->hw", four[i], four[j])
    return out


def _squared_lengths(
    products: Float[np.ndarray, "4 4 h w"], down: Float[np.ndarray, "r"], across: Float[np.ndarray, "c"]
) -> Float[np.ndarray, "r c"]:
    """Of the bilinear mixture at each place of a lattice of places."""
    top, left = np.floor(down).astype(int), np.floor(across).astype(int)
    low, right = (down - top)[:, None], (across - left)[None]
    weights = [(1 - low) * (1 - right), (1 - low) * right, low * (1 - right), low * right]
    total = np.zeros((len(down), len(across)))
    for i, j in itertools.product(range(4), repeat=2):
        total += weights[i] * weights[j] * products[i, j][np.ix_(top, left)]
    return np.asarray(np.maximum(total, 0.0))
