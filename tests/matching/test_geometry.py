"""Geometric models: known ones are found among wrong matches, inliers are their definition, and where there is no model it says why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import jaxtyping
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Frame, encode_images
from fewmatch.errors import InputError
from fewmatch.matching import Matches, match
from fewmatch.matching.geometry.geometry import GEOMETRIES, Geometry, fit_geometry, geometry_error, project
from fewmatch.matching.geometry.verification import coverage, inliers_of, log_false_alarms, patch_length, verified

PROPERTY = settings(deadline=None, database=None, max_examples=40)
PLANAR = ("homography", "affine")


# ----------------------------------------------------------------------------------------------------------------------
# Definitions, one match at a time


def naive_map(matrix: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    u, v, w = (sum(float(matrix[i, j]) * (x, y, 1.0)[j] for j in range(3)) for i in range(3))
    return (u / w, v / w, w) if w else (math.inf, math.inf, w)


def naive_error(matrix: np.ndarray, p: Any, q: Any, kind: str) -> float:
    if kind != "fundamental":
        u, v, _ = naive_map(matrix, *p)
        return math.hypot(u - q[0], v - q[1])
    a, b, c = (sum(float(matrix[i, j]) * (*p, 1.0)[j] for j in range(3)) for i in range(3))
    return abs(a * q[0] + b * q[1] + c) / math.hypot(a, b)


def naive_turns_over(matrix: np.ndarray, p: Any) -> bool:
    """Whether a small triangle at p, anticlockwise, comes out clockwise."""
    step = 1e-3
    (ax, ay, _), (bx, by, _), (cx, cy, _) = (
        naive_map(matrix, p[0] + dx, p[1] + dy) for dx, dy in ((0, 0), (step, 0), (0, step))
    )
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0


def check_inliers(g: Geometry, a: np.ndarray, b: np.ndarray, mirrored: bool = False) -> None:
    assert g.matrix is not None
    for p, q, inlier in zip(a.tolist(), b.tolist(), g.inliers.tolist(), strict=True):
        error = naive_error(g.matrix, p, q, g.kind)
        if abs(error - g.threshold) < 1e-9 * g.threshold:
            continue  # rounding decides
        turned = g.kind != "fundamental" and naive_turns_over(g.matrix, p)
        assert inlier == (error <= g.threshold and turned == (mirrored and g.kind != "fundamental"))


# ----------------------------------------------------------------------------------------------------------------------
# Scenes


def plane(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A map of a 1000 × 700 image, turned by any angle, that keeps its points in front."""
    angle = rng.uniform(-math.pi, math.pi)
    c, s = math.cos(angle), math.sin(angle)
    m = np.array([[c, -s], [s, c]]) @ np.array([[1, rng.uniform(-0.5, 0.5)], [0, rng.uniform(0.6, 1.5)]])
    m *= rng.uniform(0.3, 3)
    h = np.eye(3)
    h[:2, :2], h[:2, 2] = m, rng.uniform(-500, 500, 2)
    if kind == "homography":
        h[2, :2] = rng.uniform(-3e-4, 3e-4, 2)
    return h


def views(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a deep scene in two views, and their fundamental matrix K'^-T [t]× R K^-1."""
    k = np.array([[800.0, 0, 500], [0, 820, 350], [0, 0, 1]])
    turn, t = cv2.Rodrigues(rng.normal(size=3) * 0.1)[0], rng.normal(size=3)
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    scene = np.column_stack([rng.uniform(-3, 3, (n, 2)), rng.uniform(6, 14, n)])
    a, b = scene @ k.T, (scene @ turn.T + t) @ k.T
    f = np.linalg.inv(k).T @ cross @ turn @ np.linalg.inv(k)
    return a[:, :2] / a[:, 2:], b[:, :2] / b[:, 2:], f / np.linalg.norm(f)


def scene(
    kind: str, rng: np.random.Generator, n: int, wrong: int, away: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """n matches of which the first `wrong` lie more than `away` pixels from where they should; the truth, and which are right."""
    if kind == "fundamental":
        a, b, truth = views(rng, n)
    else:
        a, truth = rng.uniform(0, [1000, 700], (n, 2)), plane(rng, kind)
        b = np.array([naive_map(truth, *p)[:2] for p in a.tolist()])
    low, high = b.min(axis=0), b.max(axis=0)
    for i in range(wrong):
        while naive_error(truth, a[i], b[i], kind) <= away:
            b[i] = rng.uniform(low, high)
    return a, b, truth, np.arange(n) >= wrong


# ----------------------------------------------------------------------------------------------------------------------
# Recovery


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize(("n", "wrong"), [(12, 0), (60, 20), (300, 180)])
def test_a_known_model_is_found_among_wrong_matches(kind: Any, n: int, wrong: int) -> None:
    for seed in range(3):
        a, b, truth, right = scene(kind, np.random.default_rng(seed), n, wrong, away=20)
        g = fit_geometry(a, b, kind, threshold=2.0)
        assert g.reason is None and g.kind == kind and g.threshold == 2.0 and g.matrix is not None
        assert np.array_equal(g.inliers, right)
        check_inliers(g, a, b)
        errors = [naive_error(g.matrix, p, q, kind) for p, q in zip(a[right], b[right], strict=True)]
        assert max(errors) < 1e-6
        if kind == "fundamental":
            assert min(np.abs(g.matrix - truth).max(), np.abs(g.matrix + truth).max()) < 1e-6
            assert abs(np.linalg.det(g.matrix)) < 1e-15 and np.linalg.norm(g.matrix) == pytest.approx(1)
            assert g.matrix.flat[np.abs(g.matrix).argmax()] > 0
        else:
            np.testing.assert_allclose(g.matrix, truth, rtol=1e-6, atol=1e-6)
            assert g.matrix[2, 2] == 1


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_the_fit_is_least_squares_over_its_inliers(kind: Any) -> None:
    """No small change of the model brings its inliers nearer. (OpenCV's answer alone, weighted, would fail this.)"""
    rng = np.random.default_rng(3)
    a, b, _, right = scene(kind, rng, 200, 60, away=100)
    b = b + rng.uniform(-8, 8, b.shape)
    g = fit_geometry(a, b, kind, threshold=12.0)
    assert g.matrix is not None and (g.inliers == right).mean() > 0.97
    check_inliers(g, a, b)
    a, b = a[g.inliers], b[g.inliers]

    def cost(matrix: np.ndarray) -> float:
        return sum(naive_error(matrix, p, q, kind) ** 2 for p, q in zip(a, b, strict=True))

    best = cost(g.matrix)
    to_b = np.array([[200.0, 0, b.mean(0)[0]], [0, 200, b.mean(0)[1]], [0, 0, 1]])
    for _ in range(60):
        change = rng.normal(size=(3, 3)) * 3e-3
        if kind == "fundamental":  # rank two is kept by a multiplication
            moved = np.linalg.inv(to_b).T @ (np.eye(3) + change) @ to_b.T @ g.matrix
        else:
            moved = to_b @ (np.eye(3) + change * [[1], [1], [kind == "homography"]]) @ np.linalg.inv(to_b) @ g.matrix
        assert cost(moved) > (0.97 if kind == "fundamental" else 0.9999) * best  # rank 2 is imposed after the fit


def test_a_homography_is_least_squares_under_strong_perspective_too() -> None:
    """Against a general optimiser of the sum of squared transfer errors: near and far points differ by a factor of four in scale."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0, [1000, 700], (150, 2))
    truth = np.array([[1.0, 0.2, 10], [0, 1.5, -20], [0, -1 / 950, 1]])
    b = project(truth, a) + rng.uniform(-10, 10, (150, 2))
    g = fit_geometry(a, b, "homography", threshold=20.0)
    assert g.matrix is not None and g.inliers.all()

    def off(entries: np.ndarray) -> np.ndarray:
        return (project(np.append(entries, 1).reshape(3, 3), a) - b).ravel()

    start = g.matrix.ravel()[:8]
    best = scipy.optimize.least_squares(off, start, x_scale=np.maximum(np.abs(start), 1e-5), xtol=1e-15, ftol=1e-15)
    assert (off(start) ** 2).sum() < 1.002 * (best.fun**2).sum()


def test_patches_give_a_map_no_worse_than_least_squares_on_the_right_ones() -> None:
    """Points in B are rounded to the centres of patches of 32 pixels; half the matches are wrong."""
    rng = np.random.default_rng(0)
    corners = np.array([[0.0, 0], [1000, 0], [1000, 700], [0, 700]])
    errors = []
    for _ in range(10):
        a, b, truth, right = scene("affine", rng, 200, 100, away=150)
        b = (np.floor(b / 32) + 0.5) * 32
        g = fit_geometry(a, b, "affine", threshold=32.0)
        assert g.matrix is not None
        x = np.column_stack([a[right], np.ones(right.sum())])
        best = np.vstack([np.linalg.lstsq(x, b[right], rcond=None)[0].T, [0, 0, 1]])
        there = project(truth, corners)
        errors.append([np.hypot(*(project(m, corners) - there).T).mean() for m in (g.matrix, best)])
    ours, best = np.mean(errors, axis=0)
    assert ours < 1.1 * best


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_units_do_not_matter(kind: Any, factor: float) -> None:
    a, b, _, right = scene(kind, np.random.default_rng(5), 80, 30, away=30)
    g = fit_geometry(a * factor, b * factor, kind, threshold=3 * factor)
    assert np.array_equal(g.inliers, right)
    check_inliers(g, a * factor, b * factor)


@pytest.mark.parametrize("kind", PLANAR)
def test_far_from_the_origin(kind: Any) -> None:
    rng = np.random.default_rng(6)
    a = rng.uniform(0, 1000, (50, 2))
    b = a @ np.array([[0.8, 0.1], [-0.1, 0.9]])
    b[:20] = rng.uniform(0, 1000, (20, 2)) + 3000
    g = fit_geometry(a + 1e8, b - 1e8, kind, threshold=1.0)
    assert np.array_equal(g.inliers, np.arange(50) >= 20)


def test_whole_numbers_are_points_too() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 500, (40, 2))
    b = 2 * a[:, ::-1] * [1, -1] + [3, 900]  # turned by 90°
    g = fit_geometry(a, b, "affine", threshold=1.0)
    assert g.matrix is not None and g.inliers.all()
    np.testing.assert_allclose(g.matrix, [[0, 2, 3], [-2, 0, 900], [0, 0, 1]], atol=1e-9)


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_the_same_input_gives_the_same_answer(kind: Any) -> None:
    a, b, _, _ = scene(kind, np.random.default_rng(8), 120, 90, away=5)
    b += np.random.default_rng(9).normal(size=b.shape)
    one, other = (fit_geometry(a, b, kind, threshold=3.0, seed=7) for _ in range(2))
    assert one.matrix is not None and other.matrix is not None
    assert one.matrix.tobytes() == other.matrix.tobytes() and np.array_equal(one.inliers, other.inliers)


def test_seed_iterations_and_confidence_reach_the_search() -> None:
    """A quarter of the matches are right: few samples miss the homography now and then, and many find it."""
    found: dict[str, list[bool]] = {"few": [], "many": [], "unsure": []}
    answers = set()
    for seed in range(8):
        a, b, _, right = scene("homography", np.random.default_rng(1), 60, 44, away=20)
        options = {
            "few": {"iterations": 60},
            "many": {"iterations": 20_000},
            "unsure": {"iterations": 20_000, "confidence": 1e-6},
        }
        for name, some in options.items():
            g = fit_geometry(a, b, "homography", threshold=2.0, seed=seed, **some)
            found[name].append(np.array_equal(g.inliers, right))
            if name == "few":
                answers.add(g.inliers.tobytes() + (b"" if g.matrix is None else g.matrix.tobytes()))
    assert all(found["many"]) and not all(found["few"]) and not all(found["unsure"])
    assert len(answers) > 1


def test_the_threshold_is_in_pixels_of_b() -> None:
    """B is ten times as large as A: errors of 20 of its pixels are within 30, and outside 10."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 100, (60, 2))
    angle = rng.uniform(0, 2 * math.pi, 60)
    off = np.where(np.arange(60) < 20, 20.0, 0.0)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    b = 10 * a + off
    for kind in PLANAR:
        assert fit_geometry(a, b, kind, threshold=30.0).inliers.all()
        g = fit_geometry(a, b, kind, threshold=10.0)
        assert np.array_equal(g.inliers, np.arange(60) >= 20)
        back = fit_geometry(b, a, kind, threshold=1.0)
        assert np.array_equal(back.inliers, np.arange(60) >= 20)


# ----------------------------------------------------------------------------------------------------------------------
# Where there is no model


def no_model(g: Geometry, words: str, n: int) -> None:
    assert g.matrix is None and g.inliers.shape == (n,) and not g.inliers.any()
    assert g.reason is not None and words in g.reason, g.reason


NEEDED = {"homography": 4, "affine": 3, "fundamental": 8}


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_too_few_matches(kind: Any, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    name = {"affine": "affine map", "fundamental": "fundamental matrix"}.get(kind, kind)
    for n in range(NEEDED[kind]):
        a, b = rng.uniform(0, 100, (2, n, 2))
        no_model(fit_geometry(a, b, kind, threshold=1.0), f"a {name} needs {NEEDED[kind]} matches or more", n)
        again = np.resize(a, (50, 2)) if n else a, np.resize(b, (50, 2)) if n else b
        words = f"and there are {n} different ones among 50" if n else "and there are 0"
        no_model(fit_geometry(*again, kind, threshold=1.0), words, len(again[0]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_as_few_as_determine_one(kind: Any) -> None:
    n = NEEDED[kind]
    for seed in range(5):
        a, b, _, _ = scene(kind, np.random.default_rng(seed), n, 0, away=1)
        g = fit_geometry(a, b, kind, threshold=0.5)
        assert g.inliers.all() and len(g.inliers) == n, g.reason


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("offset", [0, 12345.678])
def test_points_on_one_line_or_point(kind: Any, offset: float, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    free = rng.uniform(0, 100, (30, 2))
    x = rng.uniform(0, 100, 30)
    line = np.column_stack([x, 0.3 * x]) + offset
    point = np.full((30, 2), 7.5) + offset
    for a, b, words in (
        (line, free, "all matched points of A lie on one line"),
        (free, line, "all matched points of B lie on one line"),
        (line, line * 2, "all matched points of A lie on one line"),
        (point, free, "all matched points of A lie on one point"),
        (free, point, "all matched points of B lie on one point"),
    ):
        no_model(fit_geometry(a, b, kind, threshold=2.0), words, 30)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", PLANAR)
def test_inliers_on_one_line(kind: Any, capfd: Any) -> None:
    """In B they lie within the threshold of one: what the model does across it is anything."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1000, 40)
    a = np.column_stack([x, rng.uniform(0, 10, 40)])
    no_model(fit_geometry(a, a * 1.1, kind, threshold=20.0), "lie on one line of B within 20 px", 40)
    assert fit_geometry(a, a * 1.1, kind, threshold=2.0).inliers.all()
    no_model(fit_geometry(a / 100, a / 100, kind, threshold=20.0), "lie on one point of B within 20 px", 40)
    assert capfd.readouterr() == ("", "")


def test_all_but_one_on_a_line() -> None:
    x = np.arange(1.0, 31)
    a = np.column_stack([10 * x, 5 * x])
    a[0] = (100, 400)
    words = "many homographies agree: all matches but one lie on one line"
    no_model(fit_geometry(a, a * 1.5 + 2, "homography", threshold=1.0), words, 30)
    assert fit_geometry(a, a * 1.5 + 2, "affine", threshold=1.0).inliers.all()


@pytest.mark.parametrize("kind", PLANAR)
def test_a_mirrored_image(kind: Any) -> None:
    """Turned over, matches agree with no map, unless they are said to be mirrored; then those that are not do not."""
    rng = np.random.default_rng(2)
    a, b, truth, right = scene(kind, rng, 80, 30, away=40)
    flipped = np.array([[-1.0, 0, 999], [0, 1, 0], [0, 0, 1]])
    seen = a * [-1, 1] + [999, 0]
    g = fit_geometry(seen, b, kind, threshold=2.0, mirrored=True)
    assert np.array_equal(g.inliers, right) and g.matrix is not None
    check_inliers(g, seen, b, mirrored=True)
    expected = truth @ flipped
    np.testing.assert_allclose(g.matrix, expected / expected[2, 2], rtol=1e-6, atol=1e-6)
    for matches, mirrored in ((seen, False), (a, True)):
        wrong = fit_geometry(matches, b, kind, threshold=2.0, mirrored=mirrored)
        assert (wrong.inliers & right).sum() < 8
    if kind == "affine":
        exact = fit_geometry(a[right] * [-1, 1], b[right], kind, threshold=2.0)
        no_model(exact, "turns the image over, as a mirror does", 50)
        exact = fit_geometry(a[right], b[right], kind, threshold=2.0, mirrored=True)
        no_model(exact, "does not turn the image over, as a mirror would", 50)


def test_a_fundamental_matrix_tells_no_mirror() -> None:
    a, b, _, right = scene("fundamental", np.random.default_rng(2), 80, 30, away=40)
    g = fit_geometry(a * [-1, 1], b, "fundamental", threshold=1.0, mirrored=True)
    assert np.array_equal(g.inliers, right)
    check_inliers(g, a * [-1, 1], b, mirrored=True)


def test_points_beyond_the_horizon_are_no_inliers() -> None:
    """The formula gives them a place all the same, mirrored through the vanishing point."""
    rng = np.random.default_rng(0)
    h = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1 / 500, 1]])  # the horizon is y = 500
    a = np.column_stack([rng.uniform(0, 1000, 80), np.r_[rng.uniform(0, 400, 60), rng.uniform(600, 900, 20)]])
    b = np.array([naive_map(h, *p)[:2] for p in a.tolist()])
    g = fit_geometry(a, b, "homography", threshold=1.0)
    assert g.matrix is not None and np.array_equal(g.inliers, np.arange(80) < 60)
    assert (geometry_error(g.matrix, a, b, "homography") < 1e-6).all()
    check_inliers(g, a, b)


@pytest.mark.parametrize("kind", PLANAR)
def test_a_map_that_squeezes_the_image_is_none(kind: Any) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 10_000, (60, 2))
    no_model(
        fit_geometry(a, a * [1, 0.005] + [0, 3], kind, threshold=1.0),
        "stretches one place more than 100 times as much as another",
        60,
    )
    assert fit_geometry(a, a * [1, 0.02], kind, threshold=1.0).inliers.all()


def test_matches_of_a_plane_leave_the_fundamental_matrix_open(capfd: Any) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 64, (200, 2)) * 8.0
    truth = plane(rng, "homography")
    for b in (a, a + np.array([16, 8]), np.array([naive_map(truth, *p)[:2] for p in a.tolist()])):
        no_model(fit_geometry(a, b, "fundamental", threshold=1.0), "many fundamental matrices agree", 200)
        b = b + rng.uniform(-0.5, 0.5, b.shape)  # not exactly
        b[:2] = rng.uniform(0, 500, (2, 2))  # any two places off the plane are on some matrix's lines
        no_model(fit_geometry(a, b, "fundamental", threshold=1.0), "many fundamental matrices agree", 200)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_no_data_make_it_fail_or_print(kind: Any, capfd: Any) -> None:
    """Few different values, so that points fall together, lie on lines and repeat."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, values = int(rng.integers(0, 30)), int(rng.integers(1, 6))
        a, b = rng.integers(0, values, (2, n, 2)) * 10.0 ** rng.integers(-3, 6)
        threshold = float(rng.choice([1e-3, 1.0, 1e3]))
        g = fit_geometry(a, b, kind, threshold=threshold, iterations=500)
        assert (g.matrix is None) == (g.reason is not None)
        if g.matrix is None:
            no_model(g, "", n)
        else:
            assert np.isfinite(g.matrix).all() and g.inliers.sum() >= NEEDED[kind]
            check_inliers(g, a, b)
    assert capfd.readouterr() == ("", "")


@PROPERTY
@given(st.sampled_from(GEOMETRIES), st.integers(0, 40), st.integers(0, 2**32), st.booleans())
def test_every_answer_keeps_its_definition(kind: Any, n: int, seed: int, mirrored: bool) -> None:
    rng = np.random.default_rng(seed)
    a = rng.uniform(-50, 50, (n, 2))
    b = a * rng.uniform(0.5, 2) + rng.normal(size=(n, 2)) * rng.choice([0, 1, 30])
    g = fit_geometry(a, b, kind, threshold=2.0, iterations=300, mirrored=mirrored)
    if g.matrix is None:
        no_model(g, "", n)
    else:
        check_inliers(g, a, b, mirrored)
        assert g.inliers.sum() >= NEEDED[kind]
    assert json.loads(json.dumps(g.to_json())) == g.to_json()


def test_what_cannot_be_asked(monkeypatch: Any) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    a = np.random.default_rng(0).uniform(0, 10, (20, 2))
    bad = a.copy()
    bad[3, 1] = np.nan
    for xy, options, words in (
        ((a, a[:-1]), {}, r"expected matched points of shape \(K, 2\) twice, got \(20, 2\) and \(19, 2\)"),
        ((a[:, :1], a[:, :1]), {}, "of shape"),
        ((a, bad), {}, "expected finite points, got row 3 of xy_b"),
        ((bad, a), {}, "row 3 of xy_a"),
        ((a, a), {"kind": "similarity"}, "expected a geometry of homography, affine, fundamental, got 'similarity'"),
        ((a, a), {"threshold": 0.0}, "expected a threshold above 0 pixels, got 0.0"),
        ((a, a), {"threshold": math.nan}, "threshold"),
        ((a, a), {"threshold": math.inf}, "threshold"),
        ((a, a), {"confidence": 1.0}, "expected a confidence above 0 and below 1, got 1.0"),
        ((a, a), {"iterations": 0}, "expected 1 or more iterations, got 0"),
        ((a, a), {"seed": -1}, "expected a seed from 0 to 2³¹ − 1, got -1"),
        ((a, a), {"seed": 2**31}, "seed"),
    ):
        with pytest.raises(InputError, match=words):
            fit_geometry(*xy, **({"kind": "affine", "threshold": 1.0} | options))


# ----------------------------------------------------------------------------------------------------------------------
# Errors and places


def test_errors_are_their_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 100, (2, 50, 2))
    for kind in GEOMETRIES:
        matrix = rng.normal(size=(3, 3))
        expected = [naive_error(matrix, p, q, kind) for p, q in zip(a, b, strict=True)]
        np.testing.assert_allclose(geometry_error(matrix, a, b, kind), expected, rtol=1e-9)
        assert geometry_error(matrix, a[:0], b[:0], kind).shape == (0,)


def test_errors_where_there_is_no_place_or_line() -> None:
    h = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, -5]])
    a = np.array([[5.0, 3], [6, 3]])
    assert not np.isfinite(project(h, a)[0]).any()
    assert geometry_error(h, a, a, "homography").tolist() == [math.inf, 0.0]
    f = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # rows of equal y
    f_at_epipole = f @ np.array([[1.0, 0, -5], [0, 1, -3], [0, 0, 1]])
    f_at_epipole[:, 2] = -f_at_epipole[:, :2] @ [5, 3]
    assert geometry_error(f_at_epipole, a[:1], a[:1], "fundamental").tolist() == [math.inf]


# ----------------------------------------------------------------------------------------------------------------------
# Pixel centres, through images


def maps(folder: Path, image: np.ndarray, name: str, size: int) -> tuple[np.ndarray, Frame]:
    Image.fromarray(image).save(folder / f"{name}.png")
    encoder = PatchLocalEncoder(embed_dim=64, patch_size=4, size=size)
    store = encode_images([folder / f"{name}.png"], encoder, out=folder / name, keep="patches")
    return store.feature_map(0), store.frame(0)


def test_half_a_pixel(tmp_path: Path) -> None:
    """Twice as large an image has x' = 2x + ½ where pixel centres are integers, and x' = 2x where corners are."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    matches = match(*maps(tmp_path, image, "a", 40), *maps(tmp_path, large, "b", 40))
    assert len(matches) == 150
    for kind in PLANAR:
        g = verified(matches, kind, threshold=1.0).geometry
        assert g is not None and g.matrix is not None and g.inliers.all()
        np.testing.assert_allclose(g.matrix, [[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]], atol=1e-6)


def test_the_length_of_a_patch(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (101, 67, 3), np.uint8)
    _, frame = maps(tmp_path, image, "a", 40)
    rows, columns = frame.grid
    assert patch_length(frame) == pytest.approx(max(101 / rows, 67 / columns))
    xs, ys = frame.to_pixels(np.array([0, 1]), np.array([0, 1]))
    assert patch_length(frame) == pytest.approx(max(xs[1] - xs[0], ys[1] - ys[0]))


# ----------------------------------------------------------------------------------------------------------------------
# What is said of a pair


def some_matches(a: np.ndarray, b: np.ndarray, seed: int = 0, **fields: Any) -> Matches:
    n = len(a)
    score = np.sort(np.random.default_rng(seed).uniform(-0.2, 1, n))[::-1].astype(np.float32)
    patches = np.zeros((n, 2), np.int64)
    sizes = {"size_a": (1000, 700), "size_b": (1000, 700)}
    return Matches(a, b, score, patches, patches, **({"confidence": 0.6, **sizes} | fields))


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_verified_keeps_all_matches_and_marks_the_inliers(kind: Any) -> None:
    a, b, _, _ = scene(kind, np.random.default_rng(0), 100, 40, away=150)
    matches = some_matches(a, b)
    got = verified(matches, kind, threshold=2.0)
    plain = fit_geometry(a, b, kind, threshold=2.0)
    assert got.geometry is not None and got.geometry.matrix is not None and plain.matrix is not None
    assert len(got) == 100 and got.xy_a is matches.xy_a and matches.geometry is None
    assert got.geometry.matrix.tobytes() == plain.matrix.tobytes()
    assert np.array_equal(got.geometry.inliers, plain.inliers)
    assert got.geometry.share == plain.inliers.mean() > 0.55
    cells = [
        len({(int((x + 0.5) / 1000 * 8), int((y + 0.5) / 700 * 8)) for x, y in np.clip(xy, 0, [999, 699])}) / 64
        for xy in (a[plain.inliers], b[plain.inliers])
    ]
    assert got.geometry.coverage == tuple(cells)
    cosines = np.maximum(matches.score.astype(float), 0)
    assert got.geometry.confidence == pytest.approx(0.6 * cosines[plain.inliers].sum() / cosines.sum(), abs=1e-12)
    assert got.confidence == 0.6
    assert got.geometry.log_false_alarms == log_false_alarms(
        int(plain.inliers.sum()), 100, kind, threshold=2.0, size_b=(1000, 700)
    )
    assert got.geometry.log_false_alarms < -20
    kept = inliers_of(got)
    assert len(kept) == plain.inliers.sum() and np.array_equal(kept.xy_a, a[plain.inliers])
    assert kept.geometry is not None and kept.geometry.inliers.all() and kept.geometry.share == got.geometry.share


def test_the_options_of_verified_are_those_of_the_fit() -> None:
    a, b, _, _ = scene("homography", np.random.default_rng(1), 150, 110, away=20)
    matches = some_matches(a, b)
    for options in (
        {"threshold": 1.0},
        {"threshold": 40.0},
        {"threshold": 2.0, "iterations": 1, "seed": 3},
        {"threshold": 2.0, "iterations": 1, "seed": 4},
        {"threshold": 2.0, "confidence": 1e-6, "seed": 5},
    ):
        got, plain = verified(matches, "homography", **options).geometry, fit_geometry(a, b, "homography", **options)
        assert got is not None and got.threshold == options["threshold"]
        if got.matrix is not None:
            assert np.array_equal(got.inliers, plain.inliers)
        else:
            assert plain.reason in (None, got.reason)


def test_matches_of_a_mirrored_image_are_turned_over() -> None:
    a, b, _, right = scene("affine", np.random.default_rng(2), 80, 30, away=150)
    matches = some_matches(a * [-1, 1] + [999, 0], b, mirrored=True)
    got = verified(matches, "affine", threshold=2.0).geometry
    assert got is not None and np.array_equal(got.inliers, right) and got.matrix is not None
    assert np.linalg.det(got.matrix[:2, :2]) < 0


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_chance_is_no_model(kind: Any) -> None:
    """Random matches always have a best model: it is told from a real one by how many agree."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a, b = rng.uniform(0, [1000, 700], (2, 120, 2))
        best = fit_geometry(a, b, kind, threshold=25.0)
        looked_at = verified(some_matches(a, b), kind, threshold=25.0)
        g = looked_at.geometry
        assert g is not None and g.matrix is None and not g.inliers.any() and g.reason is not None
        if best.reason is None:
            assert g.reason == (f"chance would give as much: {best.inliers.sum()} of 120 matches agree within 25 px")
        assert g.share == g.confidence == 0 and g.coverage == (0, 0) and g.log_false_alarms is None
        assert len(inliers_of(looked_at)) == 0


def test_four_matches_prove_no_homography_and_six_do() -> None:
    rng = np.random.default_rng(0)
    for n, proven in ((4, False), (6, True)):
        a, b, _, _ = scene("homography", rng, n, 0, away=1)
        assert fit_geometry(a, b, "homography", threshold=3.0).inliers.all()
        got = verified(some_matches(a, b), "homography", threshold=3.0).geometry
        assert got is not None and (got.reason is None) == proven
        assert proven or got.reason == "chance would give as much: 4 of 4 matches agree within 3 px"


def test_no_matches_at_all() -> None:
    got = verified(some_matches(np.zeros((0, 2)), np.zeros((0, 2))), "homography", threshold=3.0)
    assert len(got) == 0 and got.geometry is not None
    assert got.geometry.to_json() == {
        "kind": "homography",
        "matrix": None,
        "inliers": 0,
        "threshold": 3.0,
        "reason": "a homography needs 4 matches or more, and there are 0",
        "share": 0.0,
        "coverage": [0.0, 0.0],
        "confidence": 0.0,
        "log_false_alarms": None,
    }


def test_cosines_that_are_all_negative_give_no_confidence() -> None:
    a, b, _, _ = scene("affine", np.random.default_rng(0), 20, 0, away=1)
    matches = some_matches(a, b)
    got = verified(
        Matches(a, b, -np.abs(matches.score), matches.patch_a, matches.patch_b, 0.0, (1000, 700), (1000, 700)),
        "affine",
        threshold=1.0,
    ).geometry
    assert got is not None and got.matrix is not None and got.confidence == 0


def test_inliers_of_matches_without_a_geometry() -> None:
    with pytest.raises(InputError, match="expected matches with a geometry"):
        inliers_of(some_matches(np.zeros((0, 2)), np.zeros((0, 2))))


def test_json_of_a_model() -> None:
    a, b, _, _ = scene("affine", np.random.default_rng(0), 30, 10, away=150)
    g = verified(some_matches(a, b), "affine", threshold=2.0).geometry
    assert g is not None and g.matrix is not None and g.coverage is not None
    assert json.loads(json.dumps(g.to_json())) == {
        "kind": "affine",
        "matrix": g.matrix.tolist(),
        "inliers": 20,
        "threshold": 2.0,
        "reason": None,
        "share": 20 / 30,
        "coverage": list(g.coverage),
        "confidence": g.confidence,
        "log_false_alarms": g.log_false_alarms,
    }


def test_coverage_counts_cells() -> None:
    assert coverage(np.zeros((0, 2)), (80, 40)) == 0
    assert coverage(np.array([[-0.5, -0.5], [79.4, 39.4]]), (80, 40)) == 2 / 64
    assert coverage(np.array([[9.4, 0.0], [9.6, 0.0]]), (80, 40)) == 2 / 64  # a cell's edge is at 9.5
    assert coverage(np.array([[9.4, 4.4], [0.0, 0.0]]), (80, 40)) == 1 / 64
    assert coverage(np.array([[9.4, 4.6], [0.0, 0.0]]), (80, 40)) == 2 / 64
    assert coverage(np.array([[-3.0, 50.0], [0.0, 39.0]]), (80, 40)) == 1 / 64  # outside: the nearest cell
    ys, xs = np.mgrid[:40, :80]
    assert coverage(np.column_stack([xs.ravel(), ys.ravel()]).astype(float), (80, 40)) == 1


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_false_alarms_are_their_definition(kind: Any) -> None:
    samples, models = {"homography": (4, 1), "affine": (3, 1), "fundamental": (7, 3)}[kind]
    for k, n, t in ((8, 8, 5.0), (9, 12, 5.0), (20, 40, 20.0), (12, 40, 1.0)):
        area = 2 * t * math.hypot(300, 200) if kind == "fundamental" else math.pi * t * t
        p = min(1.0, area / (300 * 200))
        tail = sum(
            math.comb(n - samples, j) * p**j * (1 - p) ** (n - samples - j) for j in range(k - samples, n - samples + 1)
        )
        expected = math.log10(models * math.comb(n, samples) * tail)
        assert log_false_alarms(k, n, kind, threshold=t, size_b=(300, 200)) == pytest.approx(expected, abs=1e-9)
    assert log_false_alarms(9, 30, kind, threshold=1e4, size_b=(300, 200)) == pytest.approx(
        math.log10(models * math.comb(30, samples))
    )
    far = log_false_alarms(2000, 3000, kind, threshold=10.0, size_b=(300, 200))
    assert -math.inf < far < -500


def test_false_alarms_of_numbers_that_cannot_be() -> None:
    for k, n in ((3, 10), (11, 10)):
        with pytest.raises(InputError, match="expected from 4 inliers to 10, the number of matches, got"):
            log_false_alarms(k, n, "homography", threshold=1.0, size_b=(10, 10))
