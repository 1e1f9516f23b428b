"""Similarity at every place of a fine grid against its definition, point by point in float64; several encodings; padding, crops and holes."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.encoders.frame import Frame, crop_frame, dense_frame, padded_frame, with_stride
from fewmatch.errors import InputError
from fewmatch.matching.keypoints.maps import FINENESS, CosineField, centred_descriptors, descriptors_at, pixel_grid

ALL = slice(None)
PROPERTY = settings(deadline=None, database=None, max_examples=40)


def unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.where(norm > 0, x / np.where(norm > 0, norm, 1), 0.0)


def naive_descriptor(x: float, y: float, u: np.ndarray, frame: Frame) -> np.ndarray | None:
    """The mixture of the four patches around a point, written out; None where there is none."""
    real = frame.real
    rows, columns = np.flatnonzero(real.any(axis=1)), np.flatnonzero(real.any(axis=0))
    place = [float(v) for v in frame.to_grid(x, y)]
    half = frame.patch / frame.stride / 2
    for value, ends in zip(place, (rows, columns), strict=True):
        if not ends[0] - half - 1e-9 <= value <= ends[-1] + half + 1e-9:
            return None
    row, column = (min(max(v, float(e[0])), float(e[-1])) for v, e in zip(place, (rows, columns), strict=True))
    total = np.zeros(u.shape[2])
    for r in range(u.shape[0]):
        for c in range(u.shape[1]):
            total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * u[r, c]
    return total / np.linalg.norm(total) if np.linalg.norm(total) > 1e-3 else None


def frames_of(kind: str, width: int, height: int, size: int) -> Frame:
    if kind == "keep":
        return dense_frame(width, height, size=size, patch=4)
    if kind == "pad":
        return padded_frame(width, height, size=size, patch=4)
    if kind == "crop":
        return crop_frame(width, height, resize=size, crop=size, patch=4)
    return with_stride(dense_frame(width, height, size=size, patch=4), 2)


@PROPERTY
@given(
    st.sampled_from(["keep", "pad", "crop", "stride"]),
    st.integers(9, 40),
    st.integers(9, 40),
    st.sampled_from([8, 12, 16]),
    st.integers(0, 2**32),
)
def test_cosines_of_the_grid_are_those_of_mixed_descriptors(
    kind: str, width: int, height: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame = frames_of(kind, width, height, size)
    other = dense_frame(width, height, size=8, patch=4)  # which may have the finer patches or not
    frames = (frame, other)
    u = unit(rng.standard_normal((*frame.grid, 5)))
    u[~frame.real] = 0
    u[tuple(rng.integers(0, frame.grid))] = 0
    w = unit(rng.standard_normal((*other.grid, 5)))
    v, v2 = unit(rng.standard_normal((3, 5))), unit(rng.standard_normal((3, 5)))
    grid = pixel_grid(frames)
    got = CosineField.of(tensors(v, v2), tensors(u, w), frames).at(ALL, ALL, ALL)
    assert got.shape == (3, len(grid.y), len(grid.x))
    for _ in range(12):
        i, j = rng.integers(len(grid.y)), rng.integers(len(grid.x))
        there = [
            vectors @ d
            for vectors, maps, f in ((v, u, frame), (v2, w, other))
            if (d := naive_descriptor(grid.x[j], grid.y[i], maps, f)) is not None
        ]
        assert np.allclose(got[:, i, j], np.mean(there, axis=0) if there else -np.inf, atol=1e-9)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_part_of_the_grid_and_of_the_vectors_is_cut_out_of_all_of_it() -> None:
    rng = np.random.default_rng(1)
    frame = dense_frame(20, 31, size=12, patch=4)
    vectors, maps = unit(rng.standard_normal((4, 3))), unit(rng.standard_normal((*frame.grid, 3)))
    field = CosineField.of(tensors(vectors), tensors(maps), (frame,))
    rows, columns = slice(3, 17), slice(None, None, 4)
    whole = field.at(ALL, ALL, ALL)
    assert np.allclose(field.at(rows, columns, np.array([2, 0])), whole[[2, 0]][:, rows, columns])


@PROPERTY
@given(
    st.sampled_from(["keep", "pad", "crop", "stride"]), st.integers(9, 40), st.integers(9, 40), st.integers(0, 2**32)
)
def test_descriptors_at_points(kind: str, width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = frames_of(kind, width, height, 12)
    u = unit(rng.standard_normal((*frame.grid, 4)))
    u[~frame.real] = 0
    xy = rng.uniform(-0.5, [width - 0.5, height - 0.5], (9, 2))
    xy[4] = np.nan
    got = descriptors_at(xy, torch.from_numpy(u), frame).numpy()
    for k, (x, y) in enumerate(xy):
        expected = None if k == 4 else naive_descriptor(x, y, u, frame)
        assert np.isnan(got[k]).all() if expected is None else np.allclose(got[k], expected, atol=1e-12)


def test_the_grid_has_the_centres_of_the_finest_patches_and_places_between() -> None:
    coarse, fine = dense_frame(30, 21, size=8, patch=4), dense_frame(30, 21, size=16, patch=4)
    grid = pixel_grid((coarse, fine))
    x, y = fine.to_pixels(*np.indices(fine.grid))
    assert np.allclose(grid.x[::FINENESS], x[0]) and np.allclose(grid.y[::FINENESS], y[:, 0])
    assert np.allclose(np.diff(grid.x), grid.step[0]) and np.allclose(np.diff(grid.y), grid.step[1])
    assert np.allclose(grid.patch, (x[0, 1] - x[0, 0], y[1, 0] - y[0, 0]))
    assert (grid.width, grid.height) == (30, 21)


def test_the_grid_keeps_off_padding_and_has_one_place_for_one_patch() -> None:
    frame = padded_frame(40, 11, size=16, patch=4)
    grid = pixel_grid((frame,))
    assert grid.y.min() > -0.5 and grid.y.max() < 10.5 and len(grid.x) == 3 * FINENESS + 1
    assert len(pixel_grid((dense_frame(9, 9, size=4, patch=4),)).x) == 1


def test_beyond_a_crop_the_whole_image_counts_alone() -> None:
    rng = np.random.default_rng(3)
    crop, whole = crop_frame(48, 16, resize=16, crop=16, patch=4), dense_frame(48, 16, size=16, patch=4)
    u = tensors(*(unit(rng.standard_normal((*f.grid, 6))) for f in (whole, crop)))
    v = tensors(*(unit(rng.standard_normal((2, 6))) for _ in u))
    both = CosineField.of(v, u, (whole, crop)).at(ALL, ALL, ALL)
    alone = CosineField.of(v[:1], u[:1], (whole,)).at(ALL, ALL, ALL)
    x = pixel_grid((whole, crop)).x  # the crop is 16 to 32 of 48 pixels wide
    seen = (x >= 15.5) & (x <= 31.5)
    assert np.array_equal(both[:, :, ~seen], alone[:, :, ~seen])
    assert (both[:, :, seen] != alone[:, :, seen]).mean() > 0.99


def test_where_no_view_has_a_descriptor_is_minus_infinity() -> None:
    frame = dense_frame(12, 12, size=12, patch=4)
    u = torch.zeros(3, 3, 2)
    u[0, 0] = torch.tensor([1.0, 0.0])
    got = CosineField.of([torch.tensor([[1.0, 0.0]])], [u], (frame,)).at(ALL, ALL, ALL)[0]
    near = FINENESS - 1  # a mixture with a share of the one descriptor that is there points as it does
    assert (
        np.allclose(got[:near, :near], 1) and np.isneginf(got[FINENESS:]).all() and np.isneginf(got[:, FINENESS:]).all()
    )


@pytest.mark.parametrize("mean", ["none", "image", "given"])
@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_centred_descriptors_are_the_definition(mean: str, white: bool, dtype: type) -> None:
    rng = np.random.default_rng([len(mean), white])
    frame = padded_frame(20, 9, size=16, patch=4)
    x = (rng.standard_normal((*frame.grid, 5)) + 3).astype(dtype)
    x[tuple(np.argwhere(frame.real)[1])] = 0  # a patch without a direction takes no part in the mean
    usable = frame.real & (np.abs(x).sum(axis=2) > 0)
    taken = {"none": np.zeros(5), "image": x[usable].astype(np.float64).mean(axis=0), "given": rng.standard_normal(5)}[
        mean
    ]
    w = rng.standard_normal((5, 5))
    w = w @ w.T
    argument: Any = {"none": None, "image": "image", "given": torch.from_numpy(taken)}[mean]
    got = centred_descriptors((x, frame), argument, torch.from_numpy(w) if white else None)
    expected = x.astype(np.float64) - taken
    expected = unit(expected @ w if white else expected) * usable[..., None]
    assert np.allclose(got.numpy(), expected, atol=1e-12 if dtype is np.float64 else 1e-5)


def test_what_equals_the_mean_up_to_rounding_has_no_direction() -> None:
    frame = dense_frame(12, 12, size=12, patch=4)
    x = np.full((3, 3, 4), 0.1, np.float32)
    assert not centred_descriptors((x, frame), "image").any()
    x[1, 1] = 0.7
    got = centred_descriptors((x, frame), torch.full((4,), float(np.float32(0.1)), dtype=torch.float64))
    assert torch.allclose(got[1, 1], torch.full((4,), 0.5)) and got.count_nonzero() == 4


def test_a_large_offset_is_subtracted_exactly() -> None:
    frame = dense_frame(12, 12, size=12, patch=4)
    x = np.random.default_rng(0).integers(0, 3, (3, 3, 4)).astype(np.float32)
    far = centred_descriptors((x + 2**12, frame), torch.full((4,), 2.0**12 + 1, dtype=torch.float64))
    assert np.allclose(far.numpy(), unit(x.astype(np.float64) - 1), atol=1e-6)


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    frame = dense_frame(12, 12, size=12, patch=4)
    x = np.ones((3, 3, 4), np.float32)
    with pytest.raises(InputError, match="expected a map of 3 × 3 patches"):
        centred_descriptors((x[:2], frame), None)
    with pytest.raises(InputError, match="expected descriptors of 5 dimensions in view 2, got 4"):
        centred_descriptors((x, frame), torch.zeros(5), None, "view 2")
    with pytest.raises(InputError, match="expected descriptors of 3 dimensions in view 2, got 4"):
        centred_descriptors((x, frame), None, torch.eye(3), "view 2")
    with pytest.raises(InputError, match="one view of an image or more"):
        pixel_grid(())
    with pytest.raises(InputError, match="expected views of one image, got frames of"):
        pixel_grid((frame, dense_frame(12, 13, size=12, patch=4)))
    with pytest.raises(InputError, match="every one is padding"):
        pixel_grid((Frame(8, 8, (1, 1), 4, 4, (1.0, 1.0), (-40.0, 0.0)),))
