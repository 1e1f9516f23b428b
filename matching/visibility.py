"""Visible or absent: thresholds on the scores that parts get in labelled images which did not help to find them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

#: Of a part that no labelled image lacks, this share of the images that show it may be called absent.
MISSED = 0.05
#: Labelled images with a part, and as many without it, from which on it has a threshold of its own.
ENOUGH = 3


def visibility_thresholds(
    score: Float[np.ndarray, "N P"], visible: Bool[np.ndarray, "N P"], *, missed: float = MISSED, enough: int = ENOUGH
) -> Float[np.ndarray, "P"]:
    """For each part the score from which on it counts as visible.

    A part with `enough` images that show it and as many that do not gets the threshold of largest balanced accuracy on its own scores: half
    the share of the visible ones at or above it plus half the share of the absent ones below it. For the others, scores are compared
    with the part's usual one, the median over the images that show it, and one margin is chosen for all of them together, from all
    parts: that of largest balanced accuracy, or, where no part is absent anywhere, the `missed` quantile of the visible ones. The
    threshold is the median plus the margin. Between neighbouring scores a threshold lies midway; of equally good ones the lowest is
    taken, which calls more visible.

    Args:
        score: of each part in N labelled images, found by the others; NaN where that could not be (no other image has the part).
        visible: where the labels have it.

    Returns:
        (P,); −∞ for a part without a score in an image that shows it: it is never called absent.
    """
    known = np.isfinite(score)
    thresholds = np.full(score.shape[1], -np.inf)
    usual = np.full(score.shape[1], np.nan)
    for p in range(score.shape[1]):
        if (known & visible)[:, p].any():
            usual[p] = np.median(score[(known & visible)[:, p], p])
    beyond = score - usual
    used = np.isfinite(beyond)
    if not (used & visible).any():
        return thresholds
    if (used & ~visible).any():
        margin = best_threshold(beyond[used], visible[used])
    else:
        margin = float(np.quantile(beyond[used & visible], missed))
    for p in np.flatnonzero(np.isfinite(usual)).tolist():
        mine = known[:, p]
        there = visible[mine, p]
        if min(there.sum(), (~there).sum()) >= enough:
            thresholds[p] = best_threshold(score[mine, p], there)
        else:
            thresholds[p] = usual[p] + margin
    return thresholds


def best_threshold(score: Float[np.ndarray, "n"], visible: Bool[np.ndarray, "n"]) -> float:
    """The threshold t with the largest balanced accuracy of `score >= t`, both kinds being there; of equally good ones the lowest.

    Candidates are −∞ and the middles between neighbouring scores that differ.
    """
    values = np.unique(score)
    candidates = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2])
    kept = (score[visible] >= candidates[:, None]).mean(axis=1)
    refused = (score[~visible] < candidates[:, None]).mean(axis=1)
    return float(candidates[np.argmax(np.round(kept + refused, 12))])
