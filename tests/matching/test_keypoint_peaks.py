"""Peaks, pairs of peaks, contrast, expected places and priors against their definitions, with ties and with what is missing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.matching.keypoints.peaks import CANDIDATES, contrasted, local_maxima, paired_peaks, peaks, soft_argmax
from fewmatch.matching.keypoints.priors import log_density

PROPERTY = settings(deadline=None, database=None, max_examples=60)
SEEDS, SIDES = st.integers(0, 2**32), st.integers(1, 6)


def coarse(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Few different values, so that ties are many; some are −∞."""
    values = np.random.default_rng(seed).integers(-2, 3, shape) / 4
    values[np.random.default_rng(seed + 1).random(shape) < 0.1] = -np.inf
    return values


@PROPERTY
@given(st.integers(1, 4), SIDES, SIDES, SEEDS)
def test_a_peak_is_the_first_of_the_largest(parts: int, h: int, w: int, seed: int) -> None:
    values = coarse((parts, h, w), seed)
    for (row, column), one in zip(peaks(values), values, strict=True):
        places = [(i, j) for i in range(h) for j in range(w)]
        assert (row, column) == max(places, key=lambda place: one[place])


@PROPERTY
@given(st.integers(1, 5), SIDES, SIDES, st.sampled_from([0.0, 0.25, 1.0]), SEEDS)
def test_contrast_takes_off_a_share_of_the_best_rival(parts: int, h: int, w: int, share: float, seed: int) -> None:
    values = coarse((parts, h, w), seed)
    got = contrasted(values, share)
    for p in range(parts):
        for i in range(h):
            for j in range(w):
                rivals = [values[q, i, j] for q in range(parts) if q != p]
                assert got[p, i, j] == values[p, i, j] - share * max([0.0, *rivals])


def naive_maxima(values: np.ndarray) -> list[tuple[int, int]]:
    h, w = values.shape
    found = []
    for i in range(h):
        for j in range(w):
            around = values[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            if values[i, j] > -np.inf and values[i, j] >= around.max():
                found.append((i, j))
    return sorted(found, key=lambda place: -values[place])[:CANDIDATES]


@PROPERTY
@given(SIDES, st.integers(1, 12), SEEDS)
def test_local_maxima_are_those_that_no_neighbour_exceeds(h: int, w: int, seed: int) -> None:
    values = coarse((h, w), seed)
    assert [tuple(place) for place in local_maxima(values).tolist()] == naive_maxima(values)


@PROPERTY
@given(SIDES, st.integers(1, 8), st.sampled_from([0.0, 1.0, 2.5, 6.0, 99.0]), SEEDS)
def test_the_best_pair_that_is_far_enough_apart(h: int, w: int, apart: float, seed: int) -> None:
    left, right = coarse((2, h, w), seed)
    x, y = np.arange(w) * 1.5, np.arange(h) * 2.0
    best = None
    for a in naive_maxima(left):
        for b in naive_maxima(right):
            total = left[a] + right[b]
            far = np.hypot(x[a[1]] - x[b[1]], y[a[0]] - y[b[0]]) > apart
            if far and (best is None or total > best[0]):
                best = (total, a, b)
    got = paired_peaks(left, right, x, y, apart)
    expected = peaks(np.stack([left, right])) if best is None else np.array(best[1:])
    assert np.array_equal(got, expected)


def test_the_weaker_of_two_at_one_place_gives_way() -> None:
    left, right = np.zeros((2, 1, 9))
    left[0, [2, 7]] = 0.9, 0.5
    right[0, [2, 7]] = 0.8, 0.7
    x, y = np.arange(9.0), np.zeros(1)
    assert paired_peaks(left, right, x, y, 1.0).tolist() == [[0, 2], [0, 7]]  # 0.9 + 0.7 is more than 0.5 + 0.8


@PROPERTY
@given(SIDES, SIDES, st.sampled_from([0.01, 0.3, 5.0]), SEEDS)
def test_the_expected_place(h: int, w: int, temperature: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, x, y = rng.standard_normal((h, w)), np.sort(rng.standard_normal(w)), np.sort(rng.standard_normal(h))
    values[rng.random((h, w)) < 0.2] = -np.inf
    values[0, 0] = 0.0
    weights = [[np.exp((v - values.max()) / temperature) for v in row] for row in values]
    total = sum(map(sum, weights))
    expected = [
        sum(weights[i][j] * x[j] for i in range(h) for j in range(w)) / total,
        sum(weights[i][j] * y[i] for i in range(h) for j in range(w)) / total,
    ]
    assert np.allclose(soft_argmax(values, x, y, temperature), expected)


@PROPERTY
@given(st.integers(0, 4), st.integers(1, 3), SIDES, SIDES, SEEDS)
def test_the_density_of_known_places(n: int, parts: int, h: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 20, (n, parts, 2))
    places[rng.random((n, parts)) < 0.4] = np.nan
    x, y, sigma = np.arange(w) * 3.0, np.arange(h) * 2.0, 4.0
    got = log_density(places, x, y, sigma)
    for p in range(parts):
        known = [m for m in places[:, p] if np.isfinite(m).all()]
        for i in range(h):
            for j in range(w):
                bells = [np.exp(-((x[j] - m[0]) ** 2 + (y[i] - m[1]) ** 2) / (2 * sigma**2)) for m in known]
                assert np.isclose(got[p, i, j], np.log(np.mean(bells)) if known else 0.0, atol=1e-5)


def test_the_density_is_finite_however_far_the_places_are() -> None:
    got = log_density(np.array([[[0.0, 0.0]]]), np.array([0.0, 1e6]), np.zeros(1), 1.0)
    assert got[0, 0, 0] == 0 and np.isclose(got[0, 0, 1], np.log(1e-300), rtol=1e-6)
