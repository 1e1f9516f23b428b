"""Quantised descriptors against the definition written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewmatch.errors import InputError
from fewmatch.matching import quantization
from fewmatch.matching.quantization import QuantizedDescriptors, cosine_error, quantize


def drawn(rng: np.random.Generator, sizes: list[int], dims: int) -> list[np.ndarray]:
    """Unit vectors with a common part and decaying spread, as descriptors have."""
    spread = 0.93 ** np.arange(dims)
    raw = [(rng.normal(size=(n, dims)) + 0.5) * spread for n in sizes]
    return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in raw]


def naive_error(
    x: list[np.ndarray], quantized: QuantizedDescriptors, valid: list[np.ndarray]
) -> tuple[float, float, int]:
    seen = []
    places = [(i, p) for i, mask in enumerate(valid) for p in np.flatnonzero(mask)]
    step = quantized.step.astype(np.float64)
    for n, (i, p) in enumerate(places):
        for j, q in places[:n]:
            cosine = float(np.dot(x[i][p].astype(np.float64), x[j][q]))
            seen.append(abs(cosine - float(np.dot(quantized.codes[i][p] * step, quantized.codes[j][q] * step))))
    return max(seen, default=0.0), float(np.mean(seen)) if seen else 0.0, len(seen)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 2**32))
def test_the_error_is_that_of_all_pairs(sizes: list[int], dims: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = drawn(rng, sizes, dims)
    valid = [rng.random(n) > 0.2 for n in sizes]
    quantized = quantize(x, int(rng.integers(1, dims + 3)))
    largest, mean, pairs = cosine_error(x, quantized, valid)
    expected = naive_error(x, quantized, valid)
    assert pairs == expected[2]
    assert np.allclose([largest, mean], expected[:2], rtol=0, atol=1e-6)


def test_the_error_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(np.random.default_rng(1), [13, 7, 30], 20)
    valid = [np.arange(len(part)) % 5 != 2 for part in x]
    quantized = quantize(x, 6)
    whole = cosine_error(x, quantized, valid)
    monkeypatch.setattr(quantization, "_BLOCK", 40)
    blocks = cosine_error(x, quantized, valid)
    assert blocks.pairs == whole.pairs and np.allclose(blocks, whole, rtol=1e-6)


def test_with_all_dimensions_only_rounding_is_left() -> None:
    x = drawn(np.random.default_rng(2), [40, 25], 16)
    quantized = quantize(x, 16)
    assert quantized.dimensions == 16 and quantized.step.shape == (16,)
    # Each coordinate is off by half a step at most, so a product of a and b by Σ step/2 · (|a| + |b| + step/2).
    step = quantized.step.astype(np.float64)
    worst = float((step / 2 * (2 * 127 * step + step / 2)).sum())
    error = cosine_error(x, quantized, [np.ones(len(part), bool) for part in x])
    assert 0 < error.largest < worst and error.mean < 0.01


def test_the_directions_are_those_that_keep_most_of_the_products() -> None:
    x = drawn(np.random.default_rng(3), [60, 50], 30)
    everything = np.concatenate(x).astype(np.float64)
    gram = everything @ everything.T
    quantized = quantize(x, 8)
    small = np.concatenate([codes * quantized.step.astype(np.float64) for codes in quantized.codes])
    values = np.linalg.svd(everything, compute_uv=False)
    least = np.sqrt((values[8:] ** 4).sum())  # of all matrices of rank 8 (Eckart and Young)
    off = np.linalg.norm(gram - small @ small.T)
    assert least < off < 1.05 * least


def test_every_direction_uses_all_of_its_range() -> None:
    quantized = quantize(drawn(np.random.default_rng(4), [50, 3], 10), 5)
    assert quantized.codes[0].dtype == np.int8
    assert (np.abs(np.concatenate(quantized.codes).astype(int)).max(axis=0) == 127).all()


def test_the_products_are_those_of_codes_and_steps() -> None:
    x = drawn(np.random.default_rng(5), [6, 9], 12)
    quantized = quantize(x, 7)
    a, b = (codes * quantized.step.astype(np.float64) for codes in quantized.codes)
    assert np.allclose(quantized.cosines(0, np.array([4, 1]), 1), a[[4, 1]] @ b.T, rtol=0, atol=1e-6)


def test_zero_stays_zero() -> None:
    x = drawn(np.random.default_rng(6), [5, 4], 8)
    x[1][2] = 0
    quantized = quantize(x, 8)
    assert not quantized.codes[1][2].any() and quantized.codes[1][1].any()
    nothing = quantize([np.zeros((3, 4), np.float32), np.zeros((0, 4), np.float32)], 4)
    assert nothing.step.tolist() == [0.0] and not nothing.codes[0].any() and nothing.codes[1].shape == (0, 1)


def test_one_patch_needs_one_direction() -> None:
    x = drawn(np.random.default_rng(7), [1], 9)
    quantized = quantize(x, 64)
    assert quantized.codes[0].shape == (1, 1) and quantized.dimensions == 9
    assert float(quantized.cosines(0, np.array([0]), 0)[0, 0]) == pytest.approx(1, abs=1e-6)
    assert cosine_error(x, quantized, [np.ones(1, bool)]) == (0.0, 0.0, 0)


def test_no_more_directions_than_hold_anything() -> None:
    flat = drawn(np.random.default_rng(8), [20], 5)[0]
    x = [np.concatenate([flat, np.zeros((20, 15), np.float32)], axis=1)]
    quantized = quantize(x, 64)
    assert quantized.step.shape == (5,) and quantized.dimensions == 20


@pytest.mark.parametrize(
    ("x", "dimensions", "message"),
    [
        ([], 4, "expected images with descriptors of one and the same dimension, got no images"),
        (
            [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)],
            4,
            r"of one and the same dimension, got \[3, 4\]",
        ),
        ([np.zeros((2, 3), np.float32)], 0, "expected 1 dimension or more, got 0"),
    ],
)
def test_what_does_not_fit(x: list[np.ndarray], dimensions: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        quantize(x, dimensions)


@pytest.mark.parametrize("length", [0.5, 2.0, np.nan])
def test_descriptors_that_are_not_of_unit_length_are_refused(length: float) -> None:
    x = drawn(np.random.default_rng(0), [4, 3], 5)
    quantized = quantize(x, 3)
    x[1] = x[1] * np.array([[1], [length], [1]], np.float32)
    with pytest.raises(InputError, match="expected descriptors of length 1, or 0, got one of length"):
        quantize(x, 3)
    with pytest.raises(InputError, match=f"got one of length {length:g}"):
        cosine_error(x, quantized, [np.ones(len(part), bool) for part in x])
