"""Transforms of feature tables against NumPy and scikit-learn."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.decomposition import PCA, FastICA

from fewmatch.errors import InputError
from fewmatch.fewshot.ensemble import concatenate
from fewmatch.fewshot.transforms import Transforms, fit_transforms


def some(n: int, d: int, seed: int | None = None) -> np.ndarray:
    """Features whose coordinates depend on each other and share an offset."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 5 * rng.standard_normal(d)).astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rows", [1, 7])
def test_each_word(rows: int) -> None:
    all_features = some(60 + rows, 5)
    base, x = all_features[:60], all_features[60:]
    b, z = base.astype(np.float64), x.astype(np.float64)
    expected = {
        "relu": np.maximum(z, 0),
        "relu,power": np.sqrt(np.maximum(z, 0) + 1e-6),
        "relu,power=0.3": (np.maximum(z, 0) + 1e-6) ** 0.3,
        "signed-power": np.sign(z) * np.sqrt(np.abs(z)),
        "signed-power=2": np.sign(z) * z**2,
        "unit": unit(z),
        "center": z - b.mean(axis=0),
        "center,unit": unit(z - b.mean(axis=0)),
        "unit,center": unit(z) - unit(b).mean(axis=0),
        "unit,center,unit": unit(unit(z) - unit(b).mean(axis=0)),
        "relu,power,unit,center": unit(np.sqrt(np.maximum(z, 0) + 1e-6))
        - unit(np.sqrt(np.maximum(b, 0) + 1e-6)).mean(axis=0),
    }
    for words, result in expected.items():
        transforms = fit_transforms(words, base)
        for features in (x, torch.from_numpy(x), z):
            out = transforms(features)
            assert out.dtype == np.float32
            np.testing.assert_allclose(out, result, rtol=1e-6, atol=1e-6)


def test_the_order_counts() -> None:
    base = some(40, 6)
    results = [fit_transforms(words, base)(base) for words in ("unit,center", "center,unit", "center", "unit")]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert np.abs(one - other).max() > 1e-2


def test_pca_is_scikit_learns() -> None:
    base, x = some(50, 8, seed=1), some(9, 8, seed=2)
    for n in (1, 3, 8):
        expected = PCA(n, svd_solver="full").fit(base.astype(np.float64))
        out = fit_transforms(f"pca={n}", base)(x)
        signs = np.sign((out * expected.transform(x.astype(np.float64))).sum(axis=0))
        np.testing.assert_allclose(out * signs, expected.transform(x.astype(np.float64)), rtol=1e-5, atol=1e-4)


def test_the_largest_loading_of_a_component_is_positive() -> None:
    for seed in range(3):
        base = some(30, 6, seed)
        for words in ("pca=4", "whiten"):
            matrix = fit_transforms(words, base).steps[0].arrays["matrix"]
            assert (np.take_along_axis(matrix, np.abs(matrix).argmax(axis=0)[None], axis=0) > 0).all()


def test_whitening() -> None:
    """Pure whitening is scikit-learn's; shrunken whitening makes the shrunken covariance the identity."""
    base, x = some(80, 6, seed=3), some(9, 6, seed=4)
    pca = PCA(whiten=True, svd_solver="full").fit(base.astype(np.float64))
    expected, out = pca.transform(x.astype(np.float64)), fit_transforms("whiten", base)(x)
    np.testing.assert_allclose(out * np.sign((out * expected).sum(axis=0)), expected, rtol=1e-4, atol=1e-4)
    covariance = np.cov(fit_transforms("whiten=0", base)(base), rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(6), atol=1e-4)
    shrunken = 0.7 * np.cov(base.astype(np.float64), rowvar=False)
    shrunken += 0.3 * np.trace(np.cov(base.astype(np.float64), rowvar=False)) / 6 * np.eye(6)
    matrix = fit_transforms("whiten=0.3", base).steps[0].arrays["matrix"]
    np.testing.assert_allclose(matrix.T @ shrunken @ matrix, np.eye(6), atol=1e-9)
    matrix = fit_transforms("whiten=1", base).steps[0].arrays["matrix"]
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(6) * (matrix[:, 0] @ matrix[:, 0]), atol=1e-9)


def test_whitening_of_fewer_vectors_than_dimensions() -> None:
    """Directions in which the base set does not vary are left out, unless shrinkage gives them a variance."""
    base, x = some(5, 9, seed=5), some(3, 9, seed=6)
    assert fit_transforms("whiten", base)(x).shape == (3, 4)
    assert fit_transforms("whiten=0.1", base)(x).shape == (3, 9)
    np.testing.assert_allclose(np.cov(fit_transforms("whiten", base)(base), rowvar=False), np.eye(4), atol=1e-4)


def test_ica_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(600, 3))
    base = (sources @ rng.standard_normal((3, 7)) + 2).astype(np.float32)
    out = fit_transforms("ica=3", base)(base)
    ica = FastICA(3, whiten="unit-variance", random_state=0, max_iter=1000)
    np.testing.assert_allclose(out, ica.fit_transform(base.astype(np.float64)), atol=1e-3)
    agreement = np.abs(np.corrcoef(out.T, sources.T)[:3, 3:])
    assert (agreement.max(axis=0) > 0.97).all()
    np.testing.assert_array_equal(out, fit_transforms("ica=3", base)(base))


def test_ica_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewmatch.fewshot.transform_fits._ICA_STEPS", 1)
    with pytest.raises(InputError, match=r"ica=4: no independent components found in 1 steps .* take fewer"):
        fit_transforms("ica=4", some(60, 6))


@pytest.mark.parametrize(
    "words",
    ["relu,power=0.25", "unit,center,unit", "pca=3,signed-power", "whiten=0.05,unit", "ica=2", "center,pca=4,whiten"],
)
def test_kept_and_taken_up_again(words: str) -> None:
    base, x = np.random.default_rng(8).laplace(size=(90, 6)).astype(np.float32), some(5, 6)
    transforms = fit_transforms(words, base)
    arrays = {"other": np.zeros(3), **transforms.to_arrays()}
    assert all(array.dtype.kind in "fiu" for array in arrays.values())
    again = Transforms.from_arrays(load(save(arrays)))
    np.testing.assert_array_equal(again(x), transforms(x))
    assert again.words == transforms.words and again.describe() == transforms.describe()


def test_damaged_arrays_are_errors() -> None:
    arrays = fit_transforms("unit,pca=2,center", some(20, 4)).to_arrays()
    with pytest.raises(InputError, match="expected the arrays words and base of transforms, got 1\\.mean"):
        Transforms.from_arrays({"1.mean": arrays["1.mean"]})
    with pytest.raises(InputError, match="no transform called"):
        Transforms.from_arrays({**arrays, "words": np.array([255, 254], np.uint8)})
    with pytest.raises(InputError, match="expected an array 1\\.matrix of float64 for pca=2, got none"):
        Transforms.from_arrays({k: v for k, v in arrays.items() if k != "1.matrix"})
    with pytest.raises(InputError, match="expected an array 1\\.matrix of 4 rows for pca=2, got \\(3, 2\\) of float64"):
        Transforms.from_arrays({**arrays, "1.matrix": np.zeros((3, 2))})
    with pytest.raises(InputError, match="expected an array 2\\.mean of 2 rows for center, got \\(4,\\) of float64"):
        Transforms.from_arrays({**arrays, "2.mean": np.zeros(4)})
    with pytest.raises(InputError, match="expected an array 2\\.mean of float64 for center, got \\(2,\\) of float32"):
        Transforms.from_arrays({**arrays, "2.mean": np.zeros(2, np.float32)})


def test_what_results_say() -> None:
    transforms = fit_transforms("unit, center ,pca=2,whiten", some(20, 4))
    assert transforms.describe() == {
        "words": "unit,center,pca=2,whiten=0",
        "base": 20,
        "fitted": [
            {"word": "pca=2", "dimensions": 4, "components": 2},
            {"word": "whiten=0", "dimensions": 2, "components": 2},
        ],
    }
    assert fit_transforms("relu").describe() == {"words": "relu", "base": 0, "fitted": []}


def test_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are worked on in portions, none of which may show, not even in what is fitted or in the number of a bad row."""
    base, x = some(23, 5), some(11, 5)
    whole = fit_transforms("unit,center,pca=3", base)(x)
    monkeypatch.setattr("fewmatch.fewshot.transforms._ROWS", 4)
    np.testing.assert_allclose(fit_transforms("unit,center,pca=3", base)(x), whole, rtol=1e-5, atol=1e-6)
    assert fit_transforms("unit,center,pca=3", base)(x[:0]).shape == (0, 3)
    x[9] = 0
    with pytest.raises(InputError, match="feature vector 9 is zero"):
        fit_transforms("unit")(x)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no transform called nothing: expected some of relu, power\\[=β\\], .*, ica=N, separated by commas"),
        ("unit,,center", "no transform called nothing"),
        ("unit,centre", "no transform called centre"),
        ("relu=1", "transform relu takes no number, got relu=1"),
        ("pca", "expected pca with a whole number of 1 or more, as pca=64, got pca"),
        ("ica=2.5", "expected ica with a whole number of 1 or more, as ica=64, got ica=2.5"),
        ("pca=0", "expected pca with a whole number"),
        ("pca=many", "expected pca with a whole number .* got pca=many"),
        ("pca=inf", "expected pca with a whole number .* got pca=inf"),
        ("power=0", "expected power with a number above 0, got power=0"),
        ("signed-power=nan", "expected signed-power with a number above 0, got signed-power=nan"),
        ("whiten=1.5", "expected whiten with a number from 0 to 1, got whiten=1.5"),
        ("whiten=", "expected whiten with a number from 0 to 1, got whiten="),
    ],
)
def test_words_that_are_none(words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_transforms(words, some(9, 4))


@pytest.mark.parametrize("words", ["center", "unit,pca=2", "whiten", "ica=2"])
def test_a_base_set_is_needed(words: str) -> None:
    with pytest.raises(InputError, match="is fitted on a base set: give base features"):
        fit_transforms(words)
    with pytest.raises(InputError, match="expected base features of one image or more, got none"):
        fit_transforms(words, np.zeros((0, 3), np.float32))


def test_features_that_steps_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    base = some(9, 6)
    with pytest.raises(InputError, match=r"pca=7: expected 6 components or fewer, .* vary in 6 directions, got 7"):
        fit_transforms("pca=7", base)
    with pytest.raises(
        InputError, match="ica=3: expected 2 components or fewer, since the 3 base features of 6 dimensions"
    ):
        fit_transforms("ica=3", base[:3])
    for equal in (base[:1], np.tile(base[:1], (50, 1)), np.zeros((4, 6))):
        for words in ("pca=1", "whiten", "whiten=0.5", "ica=1"):
            with pytest.raises(InputError, match="the base features are all the same"):
                fit_transforms(words, equal)
    one_direction = base[:1].astype(np.float64) * np.random.default_rng().uniform(0.1, 9, (60, 1))
    assert 0 < np.ptp(unit(one_direction), axis=0).max() < 1e-15  # the same but for rounding
    with pytest.raises(InputError, match="pca=1: the base features are all the same"):
        fit_transforms("unit,pca=1", one_direction)
    with pytest.raises(InputError, match="feature vector 0 after center is zero"):
        fit_transforms("unit,center,unit", one_direction)(one_direction)
    with pytest.raises(InputError, match="expected features of 6 dimensions after unit as the base set's, got 5"):
        fit_transforms("unit,center", base)(base[:, :5])
    positive = np.abs(base)
    positive[4, 2] = -0.5
    with pytest.raises(
        InputError, match=r"feature vector 4 has -0.5, and power is for features of zero or more: put relu"
    ):
        fit_transforms("power")(positive)
    with pytest.raises(InputError, match=r"base vector 4 has -0.5"):
        fit_transforms("power,center", positive)
    with pytest.raises(InputError, match="feature vector 0 after center is zero, so it has no direction"):
        fit_transforms("center,unit", np.tile(base[:1], (7, 1)) + 1e6)(base[:1] + np.float32(1e6))
    with pytest.raises(InputError, match="feature vector 0 after pca=2 is zero, so it has no direction"):
        fit_transforms("pca=2,unit", base.astype(np.float64))(base.mean(axis=0, dtype=np.float64)[None])
    with pytest.raises(InputError, match="not finite"):
        fit_transforms("relu")(np.full((2, 3), np.nan))
    with pytest.raises(InputError, match="expected features of shape"):
        fit_transforms("relu")(np.zeros(3))


def test_concatenated_features_count_the_same() -> None:
    a, b = some(6, 4), 1000 * some(6, 3).astype(np.float64)
    out = concatenate([a, torch.from_numpy(b), 7 * a])
    np.testing.assert_allclose(
        out, np.hstack([unit(a.astype(np.float64)), unit(b), unit(a.astype(np.float64))]), atol=1e-6
    )
    assert out.dtype == np.float32 and out.shape == (6, 11)
    np.testing.assert_allclose(concatenate([a]), unit(a), atol=1e-6)


def test_features_that_cannot_be_concatenated() -> None:
    a = some(6, 4)
    with pytest.raises(InputError, match="expected features of one encoder or more to join, got none"):
        concatenate([])
    with pytest.raises(InputError, match="of the same images, got tables of 6, 5 rows"):
        concatenate([a, a[:5]])
    zero = a.copy()
    zero[3] = 0
    with pytest.raises(InputError, match="feature vector \\(of table 1\\) 3 is zero"):
        concatenate([a, zero])
