"""Similarity of points to patches: naive cosines, one answer with the transfer of points, brightness as it is defined."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from fewmatch.encoders import Frame
from fewmatch.encoders.frame import padded_frame
from fewmatch.errors import InputError
from fewmatch.matching.similarity import SHARPENINGS, sharpened, similarity_maps
from fewmatch.matching.transfer import transfer_points


def frame_of(rows: int, columns: int) -> Frame:
    return Frame(columns * 8, rows * 8, (rows, columns), 8, 8, scale=(1.0, 1.0))


def made(seed: int) -> tuple[Float[np.ndarray, "h w D"], Frame, Float[np.ndarray, "i j D"], Frame]:
    rng = np.random.default_rng(seed)
    frame_b = padded_frame(50, 90, size=72, patch=8)
    return rng.normal(size=(5, 7, 6)), frame_of(5, 7), rng.normal(size=(*frame_b.grid, 6)), frame_b


@pytest.mark.parametrize("seed", range(4))
def test_maps_are_cosines_of_the_bilinear_descriptor(seed: int) -> None:
    map_a, frame_a, map_b, frame_b = made(seed)
    map_b[4, 3] = 0
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(4, 51, 6), rng.uniform(4, 35, 6)])
    points[0] = frame_a.to_pixels(2, 3)
    valid = rng.uniform(size=frame_b.grid) < 0.8
    got = similarity_maps(points, map_a, frame_a, map_b, frame_b, valid_b=valid)
    unit = map_a / np.linalg.norm(map_a, axis=2, keepdims=True)
    for (x, y), found in zip(points, got, strict=True):
        row, column = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
        mixed = np.zeros(6)
        for r in range(5):
            for c in range(7):
                mixed += max(0, 1 - abs(r - row)) * max(0, 1 - abs(c - column)) * unit[r, c]
        for r in range(frame_b.grid[0]):
            for c in range(frame_b.grid[1]):
                b = map_b[r, c]
                if not frame_b.real[r, c] or not valid[r, c] or not b.any():
                    assert np.isnan(found[r, c])
                else:
                    wanted = mixed @ b / np.linalg.norm(mixed) / np.linalg.norm(b)
                    assert found[r, c] == pytest.approx(wanted, abs=1e-9)


def test_the_largest_is_where_the_point_is_transferred_to() -> None:
    map_a, frame_a, map_b, frame_b = made(9)
    points = np.random.default_rng(9).uniform(0, 1, (20, 2)) * [55, 39]
    maps = similarity_maps(points, torch.from_numpy(map_a).float(), frame_a, map_b.astype(np.float32), frame_b)
    sent = transfer_points(points, map_a.astype(np.float32), frame_a, map_b.astype(np.float32), frame_b)
    best = [np.unravel_index(np.nanargmax(m), m.shape) for m in maps]
    assert np.array_equal(best, sent.patch_b)
    np.testing.assert_allclose([m[b] for m, b in zip(maps, best, strict=True)], sent.score, atol=1e-5)


def test_points_and_maps_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    map_a, frame_a, map_b, frame_b = made(0)
    with pytest.raises(InputError, match="is not in image A"):
        similarity_maps([(500, 3)], map_a, frame_a, map_b, frame_b)
    with pytest.raises(InputError, match="expected maps of one length of descriptor, got 6 and 4"):
        similarity_maps([(5, 3)], map_a, frame_a, map_b[..., :4], frame_b)
    assert similarity_maps([], map_a, frame_a, map_b, frame_b).shape == (0, *frame_b.grid)


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=30), st.sampled_from([0.01, 0.05, 1.0]))
def test_brightness_is_its_definition(values: list[float], temperature: float) -> None:
    cosines = np.array(values)[None]
    known = cosines[np.isfinite(cosines)]
    soft, straight = (sharpened(cosines, rule, temperature=temperature) for rule in SHARPENINGS)
    for got in (soft, straight):
        assert got.shape == cosines.shape and got.min() >= 0 and got.max() <= 1
        assert (got[np.isnan(cosines)] == 0).all()
        assert not len(known) or (got[cosines == known.max()] == 1).all()
    if not len(known):
        return
    share = np.exp((known - known.max()) / temperature)
    np.testing.assert_allclose(soft[np.isfinite(cosines)], share, rtol=1e-12)
    low, high = np.median(known), known.max()
    wanted = np.clip((known - low) / (high - low), 0, 1) if high > low else (known == high) * 1.0
    np.testing.assert_allclose(straight[np.isfinite(cosines)], wanted, rtol=1e-6, atol=1e-9)


def test_unknown_sharpenings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="no sharpening called sigmoid: expected one of softmax, percentile"):
        sharpened(np.zeros((2, 2)), "sigmoid")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a temperature above 0, got 0"):
        sharpened(np.zeros((2, 2)), temperature=0.0)
