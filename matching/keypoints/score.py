"""How near found keypoints are to labelled ones: PCK, the median error, and whether visible and absent are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints

#: The shares of the longer image side within which a point counts as found.
ALPHAS = (0.05, 0.1)


@dataclass(frozen=True, eq=False)
class KeypointScores:
    """How well keypoints were found, for each of P parts and over all.

    parts: (P,) names. alphas: (A,) thresholds as shares of T, the longer side of each image.
    n: (P,) labelled points that were looked for. pck: (P, A) share of them within alpha·T; NaN where n is 0.
    median_error: (P,) pixels of the original images; NaN where n is 0, inf where half of the points have no place.
    overall_n, overall_pck (A,), overall_median_error: over the points of all parts together.
    visible_n: visible and absent ones together; visible_accuracy: the share of them called rightly; balanced_accuracy: the mean of that
        share among visible and that among absent ones; NaN where there are none of a kind.
    """

    parts: tuple[str, ...]
    alphas: tuple[float, ...]
    n: Int[np.ndarray, "P"]
    pck: Float[np.ndarray, "P A"]
    median_error: Float[np.ndarray, "P"]
    overall_n: int
    overall_pck: Float[np.ndarray, "A"]
    overall_median_error: float
    visible_n: int
    visible_accuracy: float
    balanced_accuracy: float

    def to_json(self) -> dict[str, Any]:
        """All of it by name: `threshold` says what T is, PCK by its alpha as `0.05`; null for what there is not."""

        def entry(n: Any, pck: Float[np.ndarray, "A"], error: float) -> dict[str, Any]:
            named = {f"{alpha:g}": _number(share) for alpha, share in zip(self.alphas, pck, strict=True)}
            return {"n": int(n), "pck": named, "median_error": _number(error)}

        rows = zip(self.n, self.pck, self.median_error, strict=True)
        return {
            "threshold": "max-image-side",
            "overall": entry(self.overall_n, self.overall_pck, self.overall_median_error),
            "parts": {name: entry(*row) for name, row in zip(self.parts, rows, strict=True)},
            "visible": {
                "n": self.visible_n,
                "accuracy": _number(self.visible_accuracy),
                "balanced_accuracy": _number(self.balanced_accuracy),
            },
        }


def score_keypoints(
    found: Keypoints, truth: Keypoints, sizes: Int[np.ndarray, "N 2"], *, alphas: Sequence[float] = ALPHAS
) -> KeypointScores:
    """Compare found keypoints with labelled ones of the same images.

    A point counts if `truth` has it visible; it is found within alpha if its distance is at most alpha·T, T the longer side of its image in
    pixels. Where a part was found counts even if it was called absent; one without a place is found nowhere, infinitely far off.

    Args:
        found, truth: with the same images and parts in the same order.
        sizes: width and height of the original images.

    Raises:
        InputError: other images or parts in the two, or sizes that do not fit.
    """
    if found.paths != truth.paths or found.parts != truth.parts:
        raise InputError("expected found and labelled keypoints of the same images and parts in the same order")
    sizes = np.asarray(sizes)
    if sizes.shape != (len(truth), 2):
        raise InputError(f"expected width and height of {len(truth)} images, got an array of shape {sizes.shape}")
    error = np.linalg.norm(found.xy - truth.xy, axis=2)
    error = np.where(np.isfinite(error), error, np.inf)
    share = error / sizes.max(axis=1, initial=1)[:, None]
    alpha = np.asarray(alphas, np.float64)

    def of(mask: Any) -> tuple[int, Float[np.ndarray, "A"], float]:
        if not mask.any():
            return 0, np.full(len(alpha), np.nan), float("nan")
        within = (share[mask][:, None] <= alpha).mean(axis=0)
        # The upper of the two middle ones where half of the points have no place: inf − inf is no number.
        ordered = np.sort(error[mask])
        low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
        return int(mask.sum()), within, float((low + high) / 2)

    columns = [of(truth.visible & (np.arange(len(truth.parts)) == p)) for p in range(len(truth.parts))]
    n, pck, overall_error = of(truth.visible)
    right = found.visible == truth.visible
    kinds = [right[truth.visible], right[~truth.visible]]
    return KeypointScores(
        parts=truth.parts,
        alphas=tuple(float(a) for a in alpha),
        n=np.array([c[0] for c in columns], np.int64),
        pck=np.array([c[1] for c in columns], np.float64).reshape(-1, len(alpha)),
        median_error=np.array([c[2] for c in columns], np.float64),
        overall_n=n,
        overall_pck=pck,
        overall_median_error=overall_error,
        visible_n=right.size,
        visible_accuracy=float(right.mean()) if right.size else float("nan"),
        balanced_accuracy=float(np.mean([kind.mean() for kind in kinds]))
        if all(kind.size for kind in kinds)
        else float("nan"),
    )


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
