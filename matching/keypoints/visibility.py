"""Visible or absent: thresholds on the scores that parts get in labelled images which did not help to find them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

#: Labelled images with a part, and as many without it, from which on it has a threshold of its own.
ENOUGH = 3


def visibility_thresholds(
    score: Float[np.ndarray, "N P"], visible: Bool[np.ndarray, "N P"], *, enough: int = ENOUGH
) -> Float[np.ndarray, "P"]:
    """For each part the score from which on it counts as visible.

    A part with `enough` images that show it and as many that do not gets the threshold of its own scores that makes the fewest errors (see
    `best_threshold`). For the others, scores are compared with the part's usual one, the median over the images that show it, and
    one margin is chosen for all of them together, from the scores of all parts; the threshold is the median plus the margin. Where no part is
    absent anywhere, nothing is known of absent ones, and none is ever called so.

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
    if not (used & visible).any() or not (used & ~visible).any():
        return thresholds
    margin = best_threshold(beyond[used], visible[used])
    for p in np.flatnonzero(np.isfinite(usual)).tolist():
        mine = known[:, p]
        there = visible[mine, p]
        if min(there.sum(), (~there).sum()) >= enough:
            thresholds[p] = best_threshold(score[mine, p], there)
        else:
            thresholds[p] = usual[p] + margin
    return thresholds


def best_threshold(score: Float[np.ndarray, "n"], visible: Bool[np.ndarray, "n"]) -> float:
    """The threshold t of `score >= t` with which the fewest errors are to be expected, both kinds being there; of equally good ones the lowest.

    Of n scores, v of visible ones, a part is taken to be visible with the probability (v + 1)/(n + 2), Laplace's rule of succession: a few
    labels that happen to lack no part, or hardly any, do not say that it is never absent. The expected accuracy is that probability times the
    share of visible ones at or above t, plus the rest times the share of absent ones below.

    Candidates are −∞ and the middles between neighbouring scores that differ.
    """
    values = np.unique(score)
    candidates = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2])
    kept = (score[visible] >= candidates[:, None]).mean(axis=1)
    refused = (score[~visible] < candidates[:, None]).mean(axis=1)
    shown = (visible.sum() + 1) / (len(visible) + 2)
    return float(candidates[np.argmax(np.round(shown * kept + (1 - shown) * refused, 12))])
