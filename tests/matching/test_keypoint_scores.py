"""PCK and its companions, visibility thresholds, and what to label next, against their definitions."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.score import score_keypoints
from fewmatch.matching.keypoints.suggest import DOUBTFUL, image_confidence, suggest_images
from fewmatch.matching.keypoints.visibility import best_threshold, visibility_thresholds

PROPERTY = settings(deadline=None, database=None, max_examples=60)
SEEDS = st.integers(0, 2**32)


def keypoints(xy: Any, visible: Any = None, score: Any = None) -> Keypoints:
    xy = np.asarray(xy, np.float64)
    visible = np.isfinite(xy).all(axis=2) if visible is None else np.asarray(visible)
    score = np.full(visible.shape, np.nan) if score is None else np.asarray(score, np.float64)
    n, p = visible.shape
    return Keypoints(tuple(f"{i}" for i in range(n)), tuple(f"part {i}" for i in range(p)), xy, visible, score)


# ----------------------------------------------------------------------------------------------------------------------
# Scores


@PROPERTY
@given(st.integers(0, 5), st.integers(1, 4), SEEDS)
def test_scores_are_the_definition(n: int, p: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 40, (n, 2))
    truth_xy = rng.uniform(0, 5, (n, p, 2))
    truth_xy[rng.random((n, p)) < 0.3] = np.nan
    found_xy = truth_xy + rng.normal(0, 2, (n, p, 2))
    found_xy[np.isnan(found_xy)] = 1.0
    found_xy[rng.random((n, p)) < 0.2] = np.nan
    truth = keypoints(truth_xy)
    found = keypoints(found_xy, np.isfinite(found_xy).all(axis=2) & (rng.random((n, p)) < 0.7))
    got = score_keypoints(found, truth, sizes)
    every: list[tuple[float, float]] = []
    for part in range(p):
        mine = []
        for i in range(n):
            if truth.visible[i, part]:
                error = float(np.hypot(*(found_xy[i, part] - truth_xy[i, part])))
                mine.append((np.inf if np.isnan(error) else error, float(max(sizes[i]))))
        check(got.n[part], got.pck[part], got.median_error[part], mine)
        every += mine
    check(got.overall_n, got.overall_pck, got.overall_median_error, every)
    right = found.visible == truth.visible
    assert got.visible_n == n * p
    assert n == 0 or np.isclose(got.visible_accuracy, right.mean())
    if truth.visible.any() and not truth.visible.all():
        assert np.isclose(got.balanced_accuracy, (right[truth.visible].mean() + right[~truth.visible].mean()) / 2)
    else:
        assert np.isnan(got.balanced_accuracy)
    json.dumps(got.to_json(), allow_nan=False)


def check(n: Any, pck: Any, median: Any, points: list[tuple[float, float]]) -> None:
    assert n == len(points)
    if not points:
        assert np.isnan(pck).all() and np.isnan(median)
        return
    for share, alpha in zip(pck, (0.05, 0.1), strict=True):
        assert np.isclose(share, np.mean([error <= alpha * side for error, side in points]))
    errors = sorted(error for error, _ in points)
    middle = (errors[(len(errors) - 1) // 2] + errors[len(errors) // 2]) / 2
    assert median == middle or np.isclose(median, middle)


def test_a_point_on_the_border_of_alpha_counts() -> None:
    truth = keypoints([[[0.0, 0.0]]])
    sizes = np.array([[10, 20]])
    for distance, share in ((1.0, [1, 1]), (1.001, [0, 1]), (2.0, [0, 1]), (2.001, [0, 0])):
        got = score_keypoints(keypoints([[[0.0, distance]]]), truth, sizes)
        assert got.overall_pck.tolist() == share and got.overall_median_error == distance
    assert score_keypoints(keypoints([[[0.0, 3.0]]]), truth, sizes, alphas=(0.15,)).overall_pck.tolist() == [1]


def test_the_json_names_the_threshold() -> None:
    got = score_keypoints(keypoints([[[np.nan, 0.0]]]), keypoints([[[0.0, 0.0]]]), np.array([[10, 20]])).to_json()
    assert got == {
        "threshold": "max-image-side",
        "overall": {"n": 1, "pck": {"0.05": 0.0, "0.1": 0.0}, "median_error": None},
        "parts": {"part 0": {"n": 1, "pck": {"0.05": 0.0, "0.1": 0.0}, "median_error": None}},
        "visible": {"n": 1, "accuracy": 0.0, "balanced_accuracy": None},
    }


def test_other_images_parts_or_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    a, b = keypoints(np.zeros((2, 1, 2))), keypoints(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="of the same images and parts"):
        score_keypoints(a, b, np.ones((2, 2), int))
    with pytest.raises(InputError, match="of the same images and parts"):
        score_keypoints(a, a.take([1, 0]), np.ones((2, 2), int))
    with pytest.raises(InputError, match="width and height of 2 images"):
        score_keypoints(a, a, np.ones((1, 2), int))


# ----------------------------------------------------------------------------------------------------------------------
# Thresholds


@PROPERTY
@given(st.integers(1, 6), st.integers(1, 6), SEEDS)
def test_the_best_threshold_is_the_lowest_with_the_fewest_errors_to_be_expected(
    shown: int, gone: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, shown + gone) / 4
    visible = rng.permutation([True] * shown + [False] * gone)
    values = sorted(set(score.tolist()))
    best = max(
        [-np.inf, *((a + b) / 2 for a, b in itertools.pairwise(values))],
        key=lambda t: round(
            float((shown + 1) * np.mean(score[visible] >= t) + (gone + 1) * np.mean(score[~visible] < t)), 9
        ),
    )
    assert best_threshold(score, visible) == best


def test_a_part_with_enough_of_both_has_a_threshold_of_its_own_and_the_others_share_a_margin() -> None:
    score = np.array([[0.9, 0.5], [0.8, 0.6], [0.7, 0.7], [0.5, 0.1], [0.4, 0.55], [0.3, 0.65]])
    visible = np.array([[True, True]] * 3 + [[False, False], [False, True], [False, True]])
    own, shared = visibility_thresholds(score, visible)
    assert own == pytest.approx(0.6)
    # Beyond the medians 0.8 and 0.6: visible ones from −0.1 on, absent ones up to −0.3.
    assert shared == pytest.approx(0.6 - 0.2)


def test_what_is_seldom_absent_in_the_labels_is_seldom_called_so() -> None:
    """Between 0.4 and 0.6 lie two visible scores of ten and one absent one of two: in balance they would be called absent."""
    score = np.array([0.9, 0.8, 0.85, 0.7, 0.75, 0.65, 0.95, 0.6, 0.5, 0.45, 0.55, 0.1])
    visible = np.array([True] * 10 + [False] * 2)
    assert best_threshold(score, visible) == pytest.approx((0.1 + 0.45) / 2)
    assert best_threshold(score[7:], visible[7:]) == pytest.approx((0.1 + 0.45) / 2)
    assert best_threshold(score[[7, 8, 9, 10, 11, 10, 10, 10]], visible[[7, 8, 9, 10, 11, 10, 10, 10]]) > 0.55


def test_where_nothing_is_absent_in_the_labels_nothing_is_called_so() -> None:
    score = np.random.default_rng(0).random((20, 3))
    assert np.isneginf(visibility_thresholds(score, np.ones((20, 3), bool))).all()


def test_without_scores_in_images_that_show_it_a_part_is_never_absent() -> None:
    assert np.isneginf(visibility_thresholds(np.full((1, 2), np.nan), np.ones((1, 2), bool))).all()
    got = visibility_thresholds(
        np.array([[0.5, 0.2, np.nan], [0.6, 0.1, np.nan], [0.1, 0.3, np.nan]]),
        np.array([[True, False, True], [True, False, False], [False, False, False]]),
    )
    assert np.isfinite(got[0]) and np.isneginf(got[1:]).all()


# ----------------------------------------------------------------------------------------------------------------------
# What to label next


def naive_suggestions(found: Keypoints, features: np.ndarray, count: int, labelled: np.ndarray) -> list[int]:
    mean = np.mean(np.concatenate([features, labelled]), axis=0)

    def direction(v: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(v - mean)
        return (v - mean) / length if length else v * 0.0

    confidence = image_confidence(found)
    pool = sorted(range(len(found)), key=lambda i: confidence[i])[: DOUBTFUL * count]
    taken: list[int] = []
    while len(taken) < min(count, len(found)):

        def nearest(i: int) -> float:
            known = [*labelled, *features[taken]]
            return max((float(direction(features[i]) @ direction(v)) for v in known), default=-np.inf)

        taken.append(min((i for i in pool if i not in taken), key=lambda i: round(nearest(i), 9)))
    return taken


@PROPERTY
@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 3), SEEDS)
def test_suggestions_are_greedy_among_the_doubtful(n: int, count: int, labelled: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = keypoints(rng.random((n, 3, 2)), score=rng.random((n, 3)))
    features, known = rng.standard_normal((n, 4)), rng.standard_normal((labelled, 4))
    got = suggest_images(found, features, count, labelled=known if labelled else None)
    assert got.tolist() == naive_suggestions(found, features, count, known)


def test_confidence_is_the_mean_beyond_each_parts_usual_score() -> None:
    score = np.array([[0.9, 0.2], [0.8, 0.3], [0.4, np.nan], [np.nan, np.nan]])
    got = image_confidence(keypoints(np.zeros((4, 2, 2)), score=score))
    assert np.allclose(got[:3], [(0.1 - 0.05) / 2, (0 + 0.05) / 2, -0.4]) and np.isneginf(got[3])


def test_the_doubtful_come_first_and_doubles_last() -> None:
    """Image 1 is the most doubtful, image 0 its double; image 2 is sure but different."""
    found = keypoints(np.zeros((3, 1, 2)), score=[[0.2], [0.1], [0.9]])
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert suggest_images(found, features, 3).tolist() == [1, 2, 0]
    assert suggest_images(found, features, 1).tolist() == [1]
    assert suggest_images(found, features, 1, labelled=features[:1]).tolist() == [2]
    assert suggest_images(found, features, 9).tolist() == [1, 2, 0]


def test_suggestions_that_cannot_be_made_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    found = keypoints(np.zeros((3, 1, 2)))
    with pytest.raises(InputError, match="count of 0 images or more, got -1"):
        suggest_images(found, np.zeros((3, 2)), -1)
    with pytest.raises(InputError, match="one vector for each of 3 images"):
        suggest_images(found, np.zeros((2, 2)), 1)
    with pytest.raises(InputError, match=r"of the same length, got \(3, 2\) and \(1, 5\)"):
        suggest_images(found, np.zeros((3, 2)), 1, labelled=np.zeros((1, 5)))
