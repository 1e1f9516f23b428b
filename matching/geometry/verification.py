"""Matches held against a geometric model: which agree with it, how much of the images they cover, and whether it could be chance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, logsumexp
from scipy.stats import binom

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.geometry.geometry import MATCHES_NEEDED, Geometry, GeometryKind, fit_geometry
from fewmatch.matching.matches import Matches

#: Coverage counts the cells of a grid of so many on each side.
COVERAGE_CELLS = 8
#: Models through the smallest number of matches that determines any: seven give up to three fundamental matrices.
_SAMPLES: dict[GeometryKind, tuple[int, int]] = {"homography": (4, 1), "affine": (3, 1), "fundamental": (7, 3)}


def verified(
    matches: Matches,
    kind: GeometryKind,
    *,
    threshold: float,
    confidence: float = 0.999,
    iterations: int = 10_000,
    seed: int = 0,
) -> Matches:
    """The same matches with the geometric model on which most agree: `geometry`, and in it which are inliers.

    Besides what `fit_geometry` finds, the `Geometry` says of the pair:

    share: of the matches, how many are inliers.
    coverage: of A and of B, the share of the cells of an 8 × 8 grid over the image in which inliers lie.
    confidence: the pair's confidence as far as inliers carry it: `matches.confidence` times their part of the sum of all matches'
        cosines (negative ones as 0).
    log_false_alarms: log10 of the number of models, among all that some matches determine, with which so many would agree if their
        points in B lay anywhere by chance (Moisan and Stival 2004): far below 0 is no chance. A model whose number is 1 or
        more is none: `reason` says so. See `log_false_alarms`.

    Where there is no model, share, coverage and confidence are 0 and log_false_alarms is None.

    Args:
        kind: one of `GEOMETRIES`.
        threshold: the largest error of an inlier, in pixels of B: `patch_length(frame_b)` for matches of patches.
        confidence, iterations, seed: see `fit_geometry`. Matches of a mirrored image are expected to be turned over.

    Raises:
        InputError: options out of their range.
    """
    geometry = fit_geometry(
        matches.xy_a,
        matches.xy_b,
        kind,
        threshold=threshold,
        confidence=confidence,
        iterations=iterations,
        seed=seed,
        mirrored=matches.mirrored,
    )
    alarms = None
    if geometry.matrix is not None:
        count = int(geometry.inliers.sum())
        alarms = log_false_alarms(count, len(matches), kind, threshold=threshold, size_b=matches.size_b)
        if alarms >= 0:
            reason = f"chance would give as much: {count} of {len(matches)} matches agree within {threshold:g} px"
            geometry, alarms = Geometry(kind, geometry.threshold, None, np.zeros(len(matches), bool), reason), None
    inliers = geometry.inliers
    cosines = np.maximum(matches.score, 0).astype(np.float64)
    total = float(cosines.sum())
    return dataclasses.replace(
        matches,
        geometry=dataclasses.replace(
            geometry,
            share=float(inliers.mean()) if len(inliers) else 0.0,
            coverage=(
                coverage(matches.xy_a[inliers], matches.size_a),
                coverage(matches.xy_b[inliers], matches.size_b),
            ),
            confidence=matches.confidence * float(cosines[inliers].sum()) / total if total > 0 else 0.0,
            log_false_alarms=alarms,
        ),
    )


def inliers_of(matches: Matches) -> Matches:
    """The matches that agree with their geometric model, none where there is no model.

    Raises:
        InputError: the matches are not `verified`.
    """
    if matches.geometry is None:
        raise InputError("expected matches with a geometry, got none: call verified(matches, …) first")
    return matches.take(matches.geometry.inliers)


def patch_length(frame: Frame) -> float:
    """The longer side of a patch in pixels of the original image.

    Patches matched rightly are not exactly the same place: the truth lies up to half a patch away in either direction, on a diagonal
    √½ of one.
    """
    return frame.patch / min(frame.scale)


def coverage(xy: Float[np.ndarray, "K 2"], size: tuple[int, int]) -> float:
    """The share of the cells of an 8 × 8 grid over an image in which points lie.

    Args:
        xy: (K, 2) pixels; those outside count for the nearest cell.
        size: width and height of the image. It covers −0.5 to width − 0.5.
    """
    cells = np.floor((np.asarray(xy, np.float64) + 0.5) / size * COVERAGE_CELLS).astype(np.int64)
    cells = np.clip(cells, 0, COVERAGE_CELLS - 1)
    return len(np.unique(cells, axis=0)) / COVERAGE_CELLS**2


def log_false_alarms(
    inliers: int, matches: int, kind: GeometryKind, *, threshold: float, size_b: tuple[int, int]
) -> float:
    """log10 of how many models would have so many inliers if the matches' points in B lay anywhere by chance, at most.

    Any s of the n matches determine r models (s, r = 4, 1 for a homography, 3, 1 for an affine map, 7, 3 for a fundamental matrix),
    with which they agree. Of the other n − s each agrees by chance with probability p: the part of image B within the threshold t of
    a point, πt², or of a line, at most 2t times the diagonal. That at least k agree is expected
    r · C(n, s) · P(Binomial(n − s, p) ≥ k − s) times.

    Args:
        inliers, matches: k and n. threshold: t in pixels. size_b: width and height of image B.

    Source: Moisan and Stival, "A probabilistic criterion to detect rigid point matches between two images and estimate the
    fundamental matrix", 2004, with a fixed threshold.
    """
    sample, models = _SAMPLES[kind]
    if not MATCHES_NEEDED[kind] <= inliers <= matches:
        raise InputError(
            f"expected from {MATCHES_NEEDED[kind]} inliers to {matches}, the number of matches, got {inliers}"
        )
    width, height = size_b
    near = 2 * threshold * math.hypot(width, height) if kind == "fundamental" else math.pi * threshold**2
    chance = min(1.0, near / (width * height))
    samples = gammaln(matches + 1) - gammaln(sample + 1) - gammaln(matches - sample + 1)
    # Summed in logarithms: far out in the tail the probability itself is 0 in floating point.
    counts = np.arange(inliers - sample, matches - sample + 1)
    tail = logsumexp(binom.logpmf(counts, matches - sample, chance)) if chance < 1 else 0.0
    return float((math.log(models) + samples + tail) / math.log(10))
