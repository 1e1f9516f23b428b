"""Known truth: distances of matches from where they should be, and the classical matcher that ours is compared with."""

from __future__ import annotations

import cv2
import numpy as np
import skimage.data

from fewmatch.matching import disparity_error, share_within, sift_matches


def test_disparity_error_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    disparity = rng.uniform(0, 20, (30, 40))
    disparity[rng.random((30, 40)) < 0.2] = np.inf
    disparity[0, 0] = np.nan
    xy_a = np.stack([rng.uniform(-3, 43, 300), rng.uniform(-3, 33, 300)], axis=1)
    xy_a[0] = (0.4, 0.4)
    xy_b = xy_a + rng.normal(size=(300, 2)) * 5
    got = disparity_error(xy_a, xy_b, disparity)
    for (xa, ya), (xb, yb), error in zip(xy_a, xy_b, got, strict=True):
        column, row = round(xa), round(ya)
        known = 0 <= column < 40 and 0 <= row < 30 and np.isfinite(disparity[row, column])
        if known:
            assert np.isclose(error, np.sqrt((xb - (xa - disparity[row, column])) ** 2 + (yb - ya) ** 2))
        else:
            assert np.isnan(error)
    assert np.isnan(got).any() and np.isfinite(got).any()
    assert disparity_error(np.zeros((0, 2)), np.zeros((0, 2)), disparity).shape == (0,)


def test_share_within_counts_what_is_known() -> None:
    share, known = share_within(np.array([0.0, 1.0, 2.0, np.nan, np.inf]), 1.0)
    assert (share, known) == (2 / 3, 3)
    share, known = share_within(np.array([np.nan]), 1.0)
    assert np.isnan(share) and known == 0


def test_sift_finds_a_shift() -> None:
    photo = skimage.data.astronaut()
    xy_a, xy_b = sift_matches(photo[20:300, 40:400], photo[10:290, 25:385])
    assert len(xy_a) > 100 and xy_a.shape == xy_b.shape
    shift = xy_b - xy_a
    assert np.mean(np.abs(shift - [15, 10]).max(axis=1) < 0.5) > 0.9
    assert np.array_equal(np.median(np.rint(shift), axis=0), [15, 10])


def test_sift_is_mutual_and_best_first() -> None:
    photo = skimage.data.chelsea()
    a, b = photo, cv2.resize(photo, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    xy_a, xy_b = sift_matches(a, b)
    back_b, back_a = sift_matches(b, a)
    assert {(*p, *q) for p, q in zip(xy_a.tolist(), xy_b.tolist(), strict=True)} == {
        (*p, *q) for p, q in zip(back_a.tolist(), back_b.tolist(), strict=True)
    }
    error = np.hypot(*((xy_a + 0.5) * 0.7 - 0.5 - xy_b).T)
    half = len(error) // 2
    assert np.mean(error[:half] < 2) > np.mean(error[half:] < 2)


def test_sift_on_blank_pictures_finds_nothing() -> None:
    blank = np.full((40, 50, 3), 128, np.uint8)
    for pair in ((blank, blank), (skimage.data.astronaut(), blank)):
        xy_a, xy_b = sift_matches(*pair)
        assert xy_a.shape == xy_b.shape == (0, 2)
