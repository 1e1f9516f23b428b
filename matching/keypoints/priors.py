"""Where a part is expected before an image is looked at: near its labelled places, or near its place in the frame before."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

#: Densities below this count as this much: their logarithm is finite.
LEAST = 1e-300


def log_density(
    places: Float[np.ndarray, "N P 2"], x: Float[np.ndarray, "w"], y: Float[np.ndarray, "h"], sigma: float
) -> Float[np.ndarray, "P h w"]:
    """The logarithm of how near the points (x[j], y[i]) are to the known places of each part.

    log of max(10⁻³⁰⁰, the mean over the part's places μ of exp(−|z − μ|² / 2σ²)) at the point z: a Gaussian kernel density without
    its constant. 0 is the most there can be; a part without a place has 0 everywhere.

    Args:
        places: pixels; NaN where none is known. sigma: pixels.
    """
    out = np.zeros((places.shape[1], len(y), len(x)), np.float32)
    for p in range(places.shape[1]):
        mine = places[np.isfinite(places[:, p]).all(axis=1), p]
        if len(mine):
            # A Gaussian is a product of one over x and one over y, so that their sum over places is a product of matrices.
            across = np.exp(-0.5 * ((x - mine[:, :1]) / sigma) ** 2)
            down = np.exp(-0.5 * ((y - mine[:, 1:]) / sigma) ** 2)
            out[p] = np.log(np.maximum(down.T @ across / len(mine), LEAST))
    return out
