"""Prototypes against their definition in float64: the means, the whitening, the descriptors at points, and the mean of shots."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch

from fewmatch.encoders.frame import Frame, dense_frame, padded_frame
from fewmatch.errors import InputError
from fewmatch.matching.keypoints.maps import View
from fewmatch.matching.keypoints.prototypes import part_prototypes

CENTERS = ["none", "image", "labelled"]


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def labelled(seed: int, dtype: type = np.float64) -> tuple[list[View], np.ndarray]:
    """Three images of other shapes, one of them with padding, and points at the centres of patches of two parts."""
    rng = np.random.default_rng(seed)
    frames = [
        dense_frame(20, 12, size=12, patch=4),
        dense_frame(12, 16, size=12, patch=4),
        padded_frame(16, 8, size=16, patch=4),
    ]
    views = [((rng.standard_normal((*f.grid, 5)) * [1, 2, 3, 1, 1] + 2).astype(dtype), f) for f in frames]
    xy = np.array([[place(f, 1, 2), place(f, 2, 1)] for f in frames])
    xy[1, 0] = np.nan
    return views, xy


def place(frame: Frame, row: int, column: int) -> list[float]:
    x, y = frame.to_pixels(row, column)
    return [float(x), float(y)]


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("whitening", [None, 0.1, 2.0])
def test_shots_are_the_definition(center: str, whitening: float | None) -> None:
    views, xy = labelled(0)
    real = [np.asarray(m)[f.real] for m, f in views]
    mean = {
        "none": [np.zeros(5)] * 3,
        "image": [r.mean(axis=0) for r in real],
        "labelled": [np.concatenate(real).mean(axis=0)] * 3,
    }[center]
    white = np.eye(5)
    if whitening is not None:
        patches = np.concatenate([r - m for r, m in zip(real, mean, strict=True)])
        about = patches - patches.mean(axis=0)
        covariance = sum(np.outer(p, p) for p in about) / len(about)
        values, axes = np.linalg.eigh(covariance + whitening * np.trace(covariance) / 5 * np.eye(5))
        white = axes @ np.diag(values**-0.5) @ axes.T
    got = part_prototypes(views, xy, center=center, whitening=whitening)
    for i, (m, _) in enumerate(views):
        for p, (row, column) in enumerate([(1, 2), (2, 1)]):
            expected = unit((m[row, column] - mean[i]) @ white)
            if (i, p) == (1, 0):
                assert torch.isnan(got.shots[i, p]).all()
            else:
                assert np.allclose(got.shots[i, p].numpy(), expected, atol=1e-6)
    new = np.random.default_rng(9).standard_normal((3, 5, 5))
    frame = dense_frame(20, 12, size=12, patch=4)
    taken = new.reshape(-1, 5).mean(axis=0) if center == "image" else mean[0]
    assert np.allclose(got.descriptors((new, frame)).numpy(), unit((new - taken) @ white), atol=1e-6)


def test_the_mean_of_shots_is_that_of_the_images_that_are_used() -> None:
    views, xy = labelled(1)
    got = part_prototypes(views, xy)
    shots = got.shots.numpy().astype(np.float64)

    def mean(*used: bool) -> np.ndarray:
        return got.vectors("mean", np.array(used) if used else None)[0].numpy()

    assert np.allclose(mean()[0], unit(shots[[0, 2], 0].mean(axis=0)), atol=1e-6)
    assert np.allclose(mean()[1], unit(shots[:, 1].mean(axis=0)), atol=1e-6)
    assert np.allclose(mean(False, True, True)[0], shots[2, 0], atol=1e-6)
    assert np.isnan(mean(False, True, False)[0]).all()
    nearest = got.vectors("nearest", np.array([False, True, True])).numpy()
    assert np.array_equal(nearest, shots[1:], equal_nan=True)


def test_shots_that_cancel_out_give_zeros() -> None:
    frame = dense_frame(8, 8, size=8, patch=4)
    m = np.zeros((2, 2, 3))
    m[0, 0], m[1, 1] = [1, 2, 2], [3, 0, 4]
    got = part_prototypes([(m, frame), (-m, frame)], np.array([[[1.5, 1.5]], [[1.5, 1.5]]]), center="none")
    assert not got.vectors("mean").any()


def test_patches_that_are_all_the_same_are_not_whitened() -> None:
    frame = dense_frame(8, 8, size=8, patch=4)
    got = part_prototypes([(np.ones((2, 2, 3)), frame)], np.array([[[1.5, 1.5]]]), center="none", whitening=0.1)
    assert got.whitening is None and np.allclose(got.shots.numpy(), 3**-0.5)


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    views, xy = labelled(2)
    with pytest.raises(InputError, match="expected center to be one of none, image, labelled, got 'base'"):
        part_prototypes(views, xy, center="base")
    with pytest.raises(InputError, match="expected a whitening above 0, got 0"):
        part_prototypes(views, xy, whitening=0.0)
    with pytest.raises(InputError, match="a view of each labelled image, got 2 for 3 images"):
        part_prototypes(views[:2], xy)
    with pytest.raises(InputError, match="got 0 for 0 images"):
        part_prototypes([], xy[:0])
    other = (views[1][0][:, :, :4], views[1][1])
    for center in CENTERS:
        with pytest.raises(InputError, match="dimensions in labelled image 2, got 4"):
            part_prototypes([views[0], other, views[2]], xy, center=center)
    with pytest.raises(InputError, match="no patch of the labelled images has a descriptor other than zero"):
        part_prototypes([(np.zeros((3, 5, 5)), views[0][1])], xy[:1])
    same = [(np.ones((3, 5, 5)), views[0][1])]
    with pytest.raises(InputError, match=r"b\.png: no descriptor at .*do not differ from the mean"):
        part_prototypes(same, xy[:1], names=["b.png"])
