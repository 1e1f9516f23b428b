"""A few matches that stand for all: one of each cluster of pairs that look alike, as best buddies are picked."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import Matches, unit_descriptors

#: k-means starts so often from k-means++ and keeps the tightest clusters.
STARTS = 10


def best_buddies(
    matches: Matches,
    map_a: Any,
    frame_a: Frame,
    map_b: Any,
    frame_b: Frame,
    count: int,
    *,
    weights: Float[np.ndarray, "K"] | None = None,
    seed: int = 0,
) -> Matches:
    """At most `count` matches that show different things, best first.

    The two unit descriptors of a match, one after the other, make one vector of length one; k-means (scikit-learn, 10 starts of k-means++)
    puts these vectors into `count` clusters, and of each cluster the match with the largest weight stays. Of equal weights that of
    the earlier patch in A stays. With no more matches than `count` all stay. The result does not depend on the order of the matches.
    `Matches.spread` looks at places alone, this at descriptors alone.

    Args:
        matches: of these two maps.
        map_a, map_b: (h, w, D) feature maps, NumPy or torch. frame_a, frame_b: their geometry.
        count: how many clusters, 0 or more.
        weights: (K,) what a match is worth; Amir et al. take the mean of the two patches' saliency. None is the score.
        seed: of k-means.

    Raises:
        InputError: maps, frames and matches that do not fit together, weights that are not finite, or a negative count.

    Source: deep ViT features as dense visual descriptors (Amir et al. 2021); docs/matching.md.
    """
    if count < 0:
        raise InputError(f"expected a count of 0 or more, got {count}")
    worth = np.asarray(matches.score if weights is None else weights, np.float64)
    if worth.shape != (len(matches),) or not np.isfinite(worth).all():
        raise InputError(f"expected {len(matches)} finite weights, one for each match, got an array of {worth.shape}")
    sides = [
        _rows(feature_map, frame, patch, name)
        for feature_map, frame, patch, name in (
            (map_a, frame_a, matches.patch_a, "a"),
            (map_b, frame_b, matches.patch_b, "b"),
        )
    ]
    kept = np.arange(len(matches))
    if count == 0:
        kept = kept[:0]
    elif count < len(matches):
        # Row by row of A, then of B: clusters and ties must not hang on the order in which the matches come.
        order = np.lexsort([*matches.patch_b.T[::-1], *matches.patch_a.T[::-1]])
        pairs = np.concatenate(sides, axis=1)[order] / np.sqrt(2)
        cluster = _clusters(pairs, count, seed)
        ranked = np.lexsort((np.arange(len(order)), -worth[order]))
        _, first = np.unique(cluster[ranked], return_index=True)
        kept = order[ranked[first]]
    return matches.take(kept[np.lexsort((kept, -matches.score[kept]))])


def _rows(feature_map: Any, frame: Frame, patch: Any, name: str) -> Float[np.ndarray, "K D"]:
    """The unit descriptors of some patches."""
    vectors, usable = unit_descriptors(feature_map, frame, None, name)
    rows, columns = frame.grid
    if len(patch) and not ((patch >= 0).all() and (patch < (rows, columns)).all()):
        raise InputError(f"the matches are not of map_{name}: expected patches of {rows} × {columns}")
    index = patch[:, 0] * columns + patch[:, 1]
    if not usable[index].all():
        raise InputError(f"the matches are not of map_{name}: one of its patches is padding or zero")
    return np.asarray(vectors[torch.from_numpy(index)].cpu().double().numpy())


def _clusters(points: Float[np.ndarray, "n d"], count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(), threadpool_limits(1, user_api="openmp"):  # threads sum up in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # of points that coincide: there are fewer clusters then
        return np.asarray(KMeans(count, n_init=STARTS, random_state=seed).fit(points).labels_)
