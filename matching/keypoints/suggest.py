"""Which images are most worth labelling next: those that the search is unsure of, and no two of a kind."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints

#: For each image that is asked for, so many doubtful ones are considered.
DOUBTFUL = 4


def image_confidence(found: Keypoints) -> Float[np.ndarray, "N"]:
    """The mean score of an image's parts, after each part's median over all images is subtracted from its scores.

    So a part that always scores low makes no image doubtful. Parts without a score do not count; an image without any has −∞.
    """
    known = np.isfinite(found.score)
    usual = np.array([np.median(s[k]) if k.any() else 0.0 for s, k in zip(found.score.T, known.T, strict=True)])
    beyond = np.where(known, found.score - usual, 0.0)
    count = known.sum(axis=1)
    return np.where(count > 0, beyond.sum(axis=1) / np.maximum(count, 1), -np.inf)


def suggest_images(
    found: Keypoints,
    features: Float[np.ndarray, "N D"],
    count: int,
    *,
    labelled: Float[np.ndarray, "L D"] | None = None,
) -> Int[np.ndarray, "n"]:
    """The images most worth labelling next, most urgent first.

    Of the 4 · count images of lowest `image_confidence`, one is taken after the other: each time the one whose nearest image among the
    labelled and those already taken is farthest, by the cosine of their vectors minus the mean of all (greedy k-centre). Without
    labelled vectors the first is that of lowest confidence. Of equal ones the less confident is taken, then the first.

    Args:
        found: the search's result. features: one vector for each of its images. count: how many are wanted.
        labelled: vectors of the labelled images.

    Returns:
        (min(count, N),) indices into `found`, no two equal.

    Raises:
        InputError: vectors that do not fit the images, or a count below 0.
    """
    if count < 0:
        raise InputError(f"expected a count of 0 images or more, got {count}")
    features = np.asarray(features, np.float64)
    others = np.zeros((0, features.shape[-1])) if labelled is None else np.asarray(labelled, np.float64)
    if features.ndim != 2 or len(features) != len(found) or others.shape[1:] != features.shape[1:]:
        raise InputError(
            f"expected one vector for each of {len(found)} images, and labelled ones of the same length, got {features.shape} "
            f"and {others.shape}"
        )
    count = min(count, len(found))
    if count == 0:
        return np.zeros(0, np.int64)
    mean = np.concatenate([features, others]).mean(axis=0)
    pool = np.argsort(image_confidence(found), kind="stable")[: DOUBTFUL * count]
    candidates, known = _unit(features[pool] - mean), _unit(others - mean)
    nearest = (candidates @ known.T).max(axis=1) if len(known) else np.full(len(pool), -np.inf)
    taken: list[int] = []
    for _ in range(count):
        # argmin takes the first, the less confident one, of equal cosines; what is taken never comes again.
        best = int(np.argmin(nearest))
        taken.append(best)
        nearest = np.maximum(nearest, candidates @ candidates[best])
        nearest[taken] = np.inf
    return pool[taken].astype(np.int64)


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)
