"""How far matches lie from where they should, where that is known."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def disparity_error(
    xy_a: Float[np.ndarray, "K 2"], xy_b: Float[np.ndarray, "K 2"], disparity: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "K"]:
    """The distance of each match from the true one, for a rectified stereo pair.

    The point (x, y) of the left image is (x − disparity, y) in the right one.

    Args:
        xy_a, xy_b: (K, 2) matched pixels of the left and of the right image.
        disparity: (h, w) of the left image, in pixels; not finite where unknown. It is looked up at the nearest pixel.

    Returns:
        (K,) distances in pixels of the right image; NaN where the truth is not known, points outside the left image included.
    """
    column, row = np.rint(xy_a).astype(np.int64).T
    inside = (row >= 0) & (row < disparity.shape[0]) & (column >= 0) & (column < disparity.shape[1])
    shift = np.full(len(xy_a), np.nan)
    shift[inside] = disparity[row[inside], column[inside]]
    error = np.hypot(xy_b[:, 0] - (xy_a[:, 0] - shift), xy_b[:, 1] - xy_a[:, 1])
    return np.where(np.isfinite(error), error, np.nan)


def share_within(error: Float[np.ndarray, "K"], tolerance: float) -> tuple[float, int]:
    """The share of matches whose error is at most the tolerance, among those whose error is known, and how many these are.

    The share is NaN where no error is known.
    """
    known = error[np.isfinite(error)]
    return (float(np.mean(known <= tolerance)) if len(known) else float("nan")), len(known)
