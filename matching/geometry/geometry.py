"""Geometric models between two images, fitted to matches that may be wrong: homography, affine map, fundamental matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from fewmatch.errors import InputError

#: What can relate the pixels of two images.
GeometryKind = Literal["homography", "affine", "fundamental"]
GEOMETRIES: tuple[GeometryKind, ...] = get_args(GeometryKind)
#: So many matches determine one model. (Seven leave up to three fundamental matrices.)
MATCHES_NEEDED: dict[GeometryKind, int] = {"homography": 4, "affine": 3, "fundamental": 8}

_Points = Float[np.ndarray, "K 2"] | Int[np.ndarray, "K 2"]

#: What is called in a message.
_NAMES = {"homography": "homography", "affine": "affine map", "fundamental": "fundamental matrix"}
#: Where the inliers do not determine one model.
_MANY = {
    "homography": "many homographies agree: all matches but one lie on one line",
    "fundamental": "many fundamental matrices agree: the scene is a plane, or the camera did not move",
}
#: A map that stretches one inlier's surroundings in one direction so many times as much as another's in some other is none that a
#: camera gives: 85° of slant make 11, and five times the distance makes 55 of that.
_STRETCH = 100.0
#: Least squares over the inliers, and who they are, settle in a few rounds.
_ROUNDS = 10
#: OpenCV works in single precision: its points are brought to this root mean square distance from their mean.
_SPREAD = 256.0


@dataclass(frozen=True, eq=False)
class Geometry:
    """A geometric model of a pair of images, or why there is none.

    kind: which model. threshold: how far from it, in pixels of the original image B, an inlier may lie.
    matrix: (3, 3), from pixels (x, y, 1) of A to those of B for a homography or an affine map; for a fundamental matrix F,
        (xb, yb, 1) · F · (xa, ya, 1) = 0. None where no model was found.
    inliers: (K,) which matches agree with it; none do where there is no model.
    reason: why there is no model; None where there is one.
    share, coverage, confidence, log_false_alarms: the pair's, see `fewmatch.verified`; None from `fit_geometry`.
    """

    kind: GeometryKind
    threshold: float
    matrix: Float[np.ndarray, "3 3"] | None
    inliers: Bool[np.ndarray, "K"]
    reason: str | None = None
    share: float | None = None
    coverage: tuple[float, float] | None = None
    confidence: float | None = None
    log_false_alarms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything, with the number of inliers in place of which they are; the matrix as three rows."""
        return {
            "kind": self.kind,
            "matrix": None if self.matrix is None else self.matrix.tolist(),
            "inliers": int(self.inliers.sum()),
            "threshold": self.threshold,
            "reason": self.reason,
            "share": self.share,
            "coverage": None if self.coverage is None else list(self.coverage),
            "confidence": self.confidence,
            "log_false_alarms": self.log_false_alarms,
        }


def fit_geometry(
    xy_a: _Points,
    xy_b: _Points,
    kind: GeometryKind,
    *,
    threshold: float,
    confidence: float = 0.999,
    iterations: int = 10_000,
    seed: int = 0,
    mirrored: bool = False,
) -> Geometry:
    """The model with which most matches agree, however many of the others are wrong.

    OpenCV's USAC with MAGSAC scores (Barath et al. 2020) finds it; then it is the least-squares fit to its inliers, in float64,
    found in turn with them for up to 10 rounds, as long as they do not become fewer (of a fundamental matrix nearly: its rank is made 2
    after the fit). MAGSAC's own weights favour matches that are nearly exact, and matches of patches are not. The same input
    gives the same answer.

    A match is an inlier if its `geometry_error` is at most the threshold and, for a homography or an affine map, the map does not
    turn its surroundings over (with `mirrored`: does), so none beyond the horizon is one. There is no model, and a reason, where
    the matches are too few or, all of them or the inliers, lie on one point or one line (in B: within the threshold of one);
    where nothing is found; where a map turns the image over or stretches one place more than 100 times as much as another; and
    where many models agree: homographies, if all matches but one lie on a line; fundamental matrices, if a homography within the threshold
    takes all inliers but two or fewer, as with a plane.

    Args:
        xy_a, xy_b: (K, 2) matched pixels of the two original images, x then y, pixel centres at integers.
        kind: one of `GEOMETRIES`.
        threshold: the largest error of an inlier, in pixels of B; for matches of patches, `patch_length` of B's frame.
        confidence: when to stop looking: the probability that a sample without wrong matches has been drawn, above 0 and below 1.
        iterations: samples to draw at most.
        seed: of the samples, from 0 to 2³¹ − 1.
        mirrored: whether one of the images shows the scene as in a mirror. A fundamental matrix does not tell.

    Raises:
        InputError: points that do not fit together or are not finite, or options out of their range.
    """
    a, b = _checked(xy_a, xy_b, kind, threshold, confidence, iterations, seed)

    def nothing(reason: str) -> Geometry:
        return Geometry(kind, float(threshold), None, np.zeros(len(a), bool), reason)

    name, needed = _NAMES[kind], MATCHES_NEEDED[kind]
    different = len(np.unique(np.hstack([a, b]), axis=0))
    if different < needed:
        of_these = "" if different == len(a) else f" different ones among {len(a)}"
        return nothing(f"a {name} needs {needed} matches or more, and there are {different}{of_these}")
    for points, image in ((a, "A"), (b, "B")):
        if shape := _flat(points, 0.0):
            return nothing(f"all matched points of {image} lie on one {shape}")
    if _open(a, b, kind):
        return nothing(_MANY[kind])
    matrix = _consensus(a, b, kind, threshold, confidence, iterations, seed, mirrored)
    if matrix is None:
        return nothing(f"no {name} was found that {needed} matches agree with")
    matrix, inliers = _refitted(matrix, a, b, kind, threshold, mirrored)
    if reason := _objection(matrix, a, b, inliers, kind, threshold, mirrored):
        return nothing(reason)
    if kind == "fundamental":
        # A plane and two places off it leave a fundamental matrix, and any two wrong matches will do for these (Chum et al. 2005).
        plane = fit_geometry(
            a[inliers],
            b[inliers],
            "homography",
            threshold=threshold,
            confidence=confidence,
            iterations=iterations,
            seed=seed,
            mirrored=mirrored,
        )
        if plane.inliers.sum() >= inliers.sum() - 2:
            return nothing(_MANY[kind])
    return Geometry(kind, float(threshold), matrix, inliers)


def geometry_error(
    matrix: Float[np.ndarray, "3 3"], xy_a: _Points, xy_b: _Points, kind: GeometryKind
) -> Float[np.ndarray, "K"]:
    """How far matches lie from a model, in pixels of B.

    For a homography or an affine map the distance of b from the place where it takes a (the transfer error); for a fundamental
    matrix the distance of b from the epipolar line F·a. Infinite where there is no such place or line.

    Args:
        matrix: as in `Geometry`. xy_a, xy_b: (K, 2) matched pixels.
    """
    b = np.asarray(xy_b, np.float64)
    if kind != "fundamental":
        there = project(matrix, xy_a)
        error = np.hypot(there[:, 0] - b[:, 0], there[:, 1] - b[:, 1])
    else:
        line = _homogeneous(xy_a) @ matrix.T
        with np.errstate(all="ignore"):
            error = np.abs((_homogeneous(b) * line).sum(axis=1)) / np.hypot(line[:, 0], line[:, 1])
    return np.where(np.isfinite(error), error, np.inf)


def project(matrix: Float[np.ndarray, "3 3"], xy: _Points) -> Float[np.ndarray, "K 2"]:
    """Where a homography or an affine map takes points; not finite for those that it takes to infinity."""
    x = _homogeneous(xy) @ matrix.T
    with np.errstate(all="ignore"):
        return np.asarray(x[:, :2] / x[:, 2:])


# ----------------------------------------------------------------------------------------------------------------------
# Before the search


def _checked(
    xy_a: Any, xy_b: Any, kind: str, threshold: float, confidence: float, iterations: int, seed: int
) -> tuple[Float[np.ndarray, "K 2"], Float[np.ndarray, "K 2"]]:
    a, b = np.asarray(xy_a, np.float64), np.asarray(xy_b, np.float64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[1] != 2:
        raise InputError(f"expected matched points of shape (K, 2) twice, got {a.shape} and {b.shape}")
    for points, name in ((a, "xy_a"), (b, "xy_b")):
        if not np.isfinite(points).all():
            raise InputError(
                f"expected finite points, got row {np.flatnonzero(~np.isfinite(points).all(1))[0]} of {name}"
            )
    if kind not in GEOMETRIES:
        raise InputError(f"expected a geometry of {', '.join(GEOMETRIES)}, got {kind!r}")
    if not 0 < threshold < math.inf:
        raise InputError(f"expected a threshold above 0 pixels, got {threshold}")
    if not 0 < confidence < 1:
        raise InputError(f"expected a confidence above 0 and below 1, got {confidence}")
    if not 1 <= iterations < 2**31:
        raise InputError(f"expected 1 or more iterations, got {iterations}")
    if not 0 <= seed < 2**31:
        raise InputError(f"expected a seed from 0 to 2³¹ − 1, got {seed}")
    return a, b


def _flat(points: Float[np.ndarray, "n 2"], tolerance: float) -> str | None:
    """'point' or 'line' where all points lie that close to one, rounding aside; else None."""
    centred = points - points.mean(axis=0)
    along, across = np.abs(centred @ np.linalg.svd(centred, full_matrices=False)[2].T).max(axis=0)
    tolerance = max(tolerance, 8 * np.finfo(float).eps * float(np.abs(points).max()))
    if along <= tolerance:
        return "point"
    return "line" if across <= max(tolerance, 1e-9 * along) else None


def _open(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"], kind: GeometryKind) -> bool:
    """Whether many models fit the matches as well as any, rounding aside: their equations leave more than one open."""
    if kind == "affine":
        return False  # three points that are not on one line determine it
    rows = _equations(project(_conditioning(a, 1.0), a), project(_conditioning(b, 1.0), b), kind)
    values = np.linalg.svd(np.linalg.qr(rows, mode="r"), compute_uv=False)
    return bool(values[7] <= 1e-9 * values[0])


# ----------------------------------------------------------------------------------------------------------------------
# The search


def _homogeneous(xy: Any) -> Float[np.ndarray, "K 3"]:
    x = np.asarray(xy, np.float64)
    return np.column_stack([x, np.ones(len(x))])


def _conditioning(xy: Float[np.ndarray, "n 2"], spread: float, mirrored: bool = False) -> Float[np.ndarray, "3 3"]:
    """The similarity that brings points to mean zero and root mean square distance `spread`, or its mirror image (Hartley 1997)."""
    centre = xy.mean(axis=0)
    scale = spread / math.sqrt(float(((xy - centre) ** 2).sum(axis=1).mean()))
    across = -scale if mirrored else scale
    return np.array([[across, 0, -across * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])


def _consensus(
    a: Float[np.ndarray, "K 2"],
    b: Float[np.ndarray, "K 2"],
    kind: GeometryKind,
    threshold: float,
    confidence: float,
    iterations: int,
    seed: int,
    mirrored: bool,
) -> Float[np.ndarray, "3 3"] | None:
    """What USAC finds, in pixels. It takes no homography that turns the plane over, so mirrored points are turned first."""
    to_a, to_b = _conditioning(a, _SPREAD, mirrored), _conditioning(b, _SPREAD)
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.sampler = cv2.SAMPLING_UNIFORM
    params.final_polisher = cv2.LSQ_POLISHER
    params.threshold = threshold * to_b[1, 1]
    params.confidence = confidence
    params.maxIterations = int(iterations)
    params.randomGeneratorState = int(seed)
    params.isParallel = False
    find: Any = {
        "homography": cv2.findHomography,
        "affine": cv2.estimateAffine2D,
        "fundamental": cv2.findFundamentalMat,
    }[kind]
    try:
        found, _ = find(project(to_a, a), project(to_b, b), params)
    except cv2.error:  # it gives up on some sets without a model instead of returning none
        return None
    if found is None or found.shape[0] < 2 or not np.isfinite(found).all():
        return None
    matrix = np.vstack([found, [0, 0, 1]]) if kind == "affine" else found[:3]
    return _in_pixels(matrix, to_a, to_b, kind)


def _in_pixels(
    matrix: Float[np.ndarray, "3 3"], to_a: Float[np.ndarray, "3 3"], to_b: Float[np.ndarray, "3 3"], kind: GeometryKind
) -> Float[np.ndarray, "3 3"] | None:
    """A model of conditioned points as one of pixels, in the scale in which it is usually written."""
    if kind == "fundamental":
        matrix = to_b.T @ matrix @ to_a
        length = float(np.linalg.norm(matrix))
        length = math.copysign(length, matrix.flat[np.abs(matrix).argmax()])
    else:
        matrix = np.linalg.solve(to_b, matrix @ to_a)
        length = float(matrix[2, 2]) or float(np.linalg.norm(matrix))
    if not math.isfinite(length) or length == 0:
        return None
    matrix = matrix / length
    return matrix if np.isfinite(matrix).all() else None


def _refitted(
    matrix: Float[np.ndarray, "3 3"],
    a: Float[np.ndarray, "K 2"],
    b: Float[np.ndarray, "K 2"],
    kind: GeometryKind,
    threshold: float,
    mirrored: bool,
) -> tuple[Float[np.ndarray, "3 3"], Bool[np.ndarray, "K"]]:
    """Least squares over the inliers, and the inliers of that, in turn."""
    inliers = _agreeing(matrix, a, b, kind, threshold, mirrored)
    for _ in range(_ROUNDS):
        if inliers.sum() < MATCHES_NEEDED[kind] or _flat(a[inliers], 0.0) or _flat(b[inliers], 0.0):
            break
        better = _least_squares(a[inliers], b[inliers], kind, matrix)
        if better is None:
            break
        agreeing = _agreeing(better, a, b, kind, threshold, mirrored)
        if agreeing.sum() < inliers.sum():
            break
        matrix, inliers = better, agreeing
    return matrix, inliers


def _agreeing(
    matrix: Float[np.ndarray, "3 3"],
    a: Float[np.ndarray, "K 2"],
    b: Float[np.ndarray, "K 2"],
    kind: GeometryKind,
    threshold: float,
    mirrored: bool,
) -> Bool[np.ndarray, "K"]:
    """The inliers, by their definition."""
    inliers = geometry_error(matrix, a, b, kind) <= threshold
    if kind == "fundamental":
        return np.asarray(inliers)
    # The sign of the map's Jacobian, det(H) / w³.
    turned = np.linalg.det(matrix) * (_homogeneous(a) @ matrix[2])
    return np.asarray(inliers & (turned < 0 if mirrored else turned > 0))


def _least_squares(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"], kind: GeometryKind, before: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "3 3"] | None:
    """The model with the smallest squared errors; for two of the three kinds as nearly as its predecessor's weights make it."""
    to_a, to_b = _conditioning(a, 1.0), _conditioning(b, 1.0)
    rows = _equations(project(to_a, a), project(to_b, b), kind)
    if kind == "affine":
        solution = np.vstack([np.linalg.lstsq(rows, project(to_b, b), rcond=None)[0].T, [0, 0, 1]])
    else:
        # An equation states the error times this: divided by it, it states the error.
        denominator = (
            np.tile(_homogeneous(a) @ before[2], 2)
            if kind == "homography"
            else np.linalg.norm((_homogeneous(a) @ before.T)[:, :2], axis=1)
        )
        if not denominator.all():
            return None
        weight = 1 / denominator
        triangle = np.linalg.qr(rows * (weight / np.abs(weight).max())[:, None], mode="r")
        solution = np.linalg.svd(triangle)[2][-1].reshape(3, 3)
    if kind == "fundamental":
        left, values, right = np.linalg.svd(solution)
        solution = left @ np.diag([*values[:2], 0.0]) @ right
    return _in_pixels(solution, to_a, to_b, kind)


def _equations(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"], kind: GeometryKind
) -> Float[np.ndarray, "m unknowns"]:
    """The rows of the linear equations for the model's entries, row by row (the direct linear transformation)."""
    x, y = _homogeneous(a), _homogeneous(b)
    if kind == "affine":
        return x
    if kind == "homography":
        none = np.zeros_like(x)
        return np.vstack([np.hstack([x, none, -b[:, :1] * x]), np.hstack([none, x, -b[:, 1:] * x])])
    return np.asarray((y[:, :, None] * x[:, None, :]).reshape(-1, 9))


# ----------------------------------------------------------------------------------------------------------------------
# After the search


def _objection(
    matrix: Float[np.ndarray, "3 3"],
    a: Float[np.ndarray, "K 2"],
    b: Float[np.ndarray, "K 2"],
    inliers: Bool[np.ndarray, "K"],
    kind: GeometryKind,
    threshold: float,
    mirrored: bool,
) -> str | None:
    """Why the model found is none, in words."""
    name, needed = _NAMES[kind], MATCHES_NEEDED[kind]
    a, b, others = a[inliers], b[inliers], _agreeing(matrix, a, b, kind, threshold, not mirrored)
    if len(a) < needed:
        if others.sum() >= needed:
            turns = (
                "does not turn the image over, as a mirror would"
                if mirrored
                else "turns the image over, as a mirror does"
            )
            return f"the {name} that agrees best {turns}"
        return f"no {name} was found that {needed} matches agree with"
    for points, image, tolerance in ((a, "A", 0.0), (b, "B", threshold)):
        if shape := _flat(points, tolerance):
            near = f" within {threshold:g} px" if tolerance else ""
            return f"the matches that agree with the best {name} lie on one {shape} of {image}{near}"
    if kind == "fundamental":
        return None
    w = (_homogeneous(a) @ matrix[2])[:, None, None]
    jacobians = (matrix[:2, :2] - project(matrix, a)[:, :, None] * matrix[2, :2]) / w
    stretches = np.linalg.svd(jacobians, compute_uv=False)
    if not stretches.max() <= _STRETCH * stretches.min():
        return f"the {name} that agrees best stretches one place more than {_STRETCH:g} times as much as another"
    return None
