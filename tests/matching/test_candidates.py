"""Candidates in half precision: their bound holds, they find what half precision cannot tell apart, and when they are used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewmatch.errors import InputError
from fewmatch.matching import mutual_nearest
from fewmatch.matching.nearest import blocks, candidates
from fewmatch.matching.nearest.nearest import nearest_both_ways

HALVES = ["bfloat16", "float16"]
PROPERTY = settings(deadline=None, database=None, max_examples=40)


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def definition(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int]]:
    products = a.astype(np.float64) @ b.astype(np.float64).T
    forth, back = products.argmax(axis=1), products.argmax(axis=0)
    return [(i, int(j)) for i, j in enumerate(forth) if back[j] == i]


def pairs(a: np.ndarray, b: np.ndarray, precision: str) -> list[tuple[int, int]]:
    index_a, index_b, _ = mutual_nearest(a, b, metric="dot", precision=precision, block=(50, 70))  # type: ignore[arg-type]
    return list(zip(index_a.tolist(), index_b.tolist(), strict=True))


@pytest.fixture(params=["numpy", "torch"])
def looked_through(request: pytest.FixtureRequest) -> Iterator[str]:
    """Blocks are looked through as on a CPU, and as on an accelerator."""
    on_cpu = request.param == "numpy"
    with contextlib.ExitStack() as stack:
        for module in (blocks, candidates):
            stack.enter_context(mock.patch.object(module, "uses_numpy", lambda device: on_cpu))
        yield request.param


# ----------------------------------------------------------------------------------------------------------------------
# The bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@PROPERTY
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 300), st.integers(-60, 60), st.integers(0, 2**32))
@example(20, 20, 300, 0, 0)
@example(1, 1, 1, -60, 1)
def test_no_product_is_further_off_than_the_bound(
    dtype: torch.dtype, n: int, m: int, d: int, power: int, seed: int
) -> None:
    """Vectors of very different lengths and entries, which half precision could not hold as they are."""
    rng = np.random.default_rng(seed)
    a, b = (
        (rng.standard_normal((k, d)) * 2.0 ** rng.integers(-12, 1, (k, d)) * 2.0**power).astype(np.float32)
        for k in (n, m)
    )
    low = candidates.halves(torch.from_numpy(a), torch.from_numpy(b), dtype)
    products = (low.a @ low.b.T).double().numpy()
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    assert np.isfinite(products).all() and (np.abs(products - low.scale * exact) <= low.error).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.012), (torch.float16, 0.0015)])
def test_the_bound_is_small_enough_to_be_of_use(dtype: torch.dtype, most: float) -> None:
    """Relative to products of 1."""
    a, b = (torch.from_numpy(unit(300, 384, seed)).float() for seed in (0, 1))
    low = candidates.halves(a, b, dtype)
    error = np.abs((low.a @ low.b.T).double().numpy() - low.scale * (a.double() @ b.double().T).numpy())
    assert error.max() <= low.error < most * low.scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_zeros_and_the_smallest_numbers_round_to_something_finite(dtype: torch.dtype) -> None:
    for value in (0.0, 1e-45, 1e-300, 5e-324):
        low = candidates.halves(torch.full((2, 3), value).double(), torch.full((4, 3), value).double(), dtype)
        assert torch.isfinite(low.a).all() and np.isfinite([low.scale, low.error]).all()
        assert pairs(np.full((2, 3), value), np.full((4, 3), value), str(dtype).removeprefix("torch.")) == [(0, 0)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_candidates_must_reach_is_rounded_down_and_not_far(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    bound = torch.from_numpy(rng.uniform(-1.1, 1.1, 10_000) * 10.0 ** rng.integers(-9, 1, 10_000))
    low = candidates._rounded_down(bound, dtype)
    assert low.dtype == dtype and (low.double() <= bound).all()
    assert (low.double() >= bound - 2 * torch.finfo(dtype).eps * bound.abs() - 1e-4).all()


# ----------------------------------------------------------------------------------------------------------------------
# The answer


@pytest.mark.parametrize(("precision", "noise"), [("bfloat16", 1e-2), ("bfloat16", 2e-3), ("float16", 2e-3)])
def test_what_half_precision_cannot_tell_apart_is_found(looked_through: str, precision: str, noise: float) -> None:
    """Six versions of each vector, with products that differ by less than half precision resolves."""
    rng = np.random.default_rng(3)
    centres = unit(40, 24, 0).repeat(6, axis=0)
    a, b = ((centres + noise * rng.standard_normal(centres.shape)).astype(np.float32) for _ in range(2))
    b = b[rng.permutation(len(b))]
    wanted = definition(a, b)
    low = [torch.from_numpy(x).to(getattr(torch, precision)) for x in (a, b)]
    rounded = (low[0] @ low[1].T).double().numpy()
    assert (rounded.argmax(axis=1) != (a.astype(np.float64) @ b.astype(np.float64).T).argmax(axis=1)).sum() > 5
    products = a.astype(np.float64) @ b.astype(np.float64).T
    assert all(np.diff(np.sort(s, axis=1)[:, -2:]).min() > 1e-6 for s in (products, products.T))
    for most in (candidates.MOST_PER_LINE, 10**6):
        with mock.patch.object(candidates, "MOST_PER_LINE", most):
            assert pairs(a, b, precision) == wanted


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("block", [(20, 300), (300, 300), (70, 70)])
def test_products_whose_order_is_lost_in_half_precision(
    looked_through: str, precision: str, d: int, block: tuple[int, int]
) -> None:
    """Hundreds of vectors have almost the same product with one, and rounding orders them at random.

    The other of the two is longer, so that no product with the first is the largest of its column (or row), and is a candidate as such.
    """
    rng = np.random.default_rng(d)
    one = rng.uniform(0.5, 1, d)
    many = rng.standard_normal((300, d))
    many += (10 + 1e-4 * np.arange(300) - many @ one)[:, None] * one / (one @ one)
    two, many = np.stack([one, 1.5 * one]).astype(np.float32), many.astype(np.float32)
    low = [torch.from_numpy(x).to(getattr(torch, precision)) for x in (many, two)]
    exact = many.astype(np.float64) @ two[0].astype(np.float64)
    assert (low[0] @ low[1].T)[:, 0].argmax() != exact.argmax()
    with mock.patch.object(candidates, "MOST_PER_LINE", 10**6), mock.patch.object(blocks, "LARGER", 1):
        for order in (np.arange(300), rng.permutation(300)):
            some = many[order]
            forth, _ = nearest_both_ways(two, some, metric="dot", precision=precision, block=block)  # type: ignore[arg-type]
            _, back = nearest_both_ways(some, two, metric="dot", precision=precision, block=block)  # type: ignore[arg-type]
            assert forth.index[0] == back.index[0] == exact[order].argmax()


@pytest.mark.parametrize("precision", HALVES)
def test_long_and_short_vectors_together(looked_through: str, precision: str) -> None:
    """The bound is that of the longest, so short ones have many candidates; the answer is the same."""
    rng = np.random.default_rng(1)
    a, b = ((unit(n, 12, n) * 10.0 ** rng.uniform(-3, 3, (n, 1))).astype(np.float32) for n in (150, 170))
    wanted = definition(a, b)
    assert pairs(a, b, precision) == wanted
    with mock.patch.object(candidates, "MOST_PER_LINE", 10**6):
        assert pairs(a, b, precision) == wanted


@pytest.mark.parametrize("precision", HALVES)
def test_two_doubles_are_compared_as_doubles(precision: str) -> None:
    a = np.array([[0.3, 0.1]])
    b = np.array([[0.3, 0.1], [0.3, 0.1 + 1e-12]])
    assert pairs(a, b, precision) == [(0, 1)]


def test_of_duplicates_the_first_ones_match(looked_through: str) -> None:
    a, b = unit(9, 33, 0).repeat(20, axis=0).astype(np.float32), unit(9, 33, 0).repeat(17, axis=0).astype(np.float32)
    with mock.patch.object(candidates, "MOST_PER_LINE", 10**6):
        for precision in HALVES:
            assert pairs(a, b, precision) == [(20 * k, 17 * k) for k in range(9)]


# ----------------------------------------------------------------------------------------------------------------------
# When they are used


def full_products(a: np.ndarray, b: np.ndarray, precision: str) -> int:
    """How many blocks were computed in full."""
    with mock.patch.object(blocks, "_first_maxima", wraps=blocks._first_maxima) as full:
        assert pairs(a, b, precision) == definition(a, b)
    return int(full.call_count)


def test_only_blocks_with_too_many_candidates_are_computed_in_full(looked_through: str) -> None:
    a, b = unit(100, 16, 0).astype(np.float32), unit(140, 16, 1).astype(np.float32)
    if looked_through == "torch":
        with mock.patch.object(blocks, "LARGER", 1):
            assert full_products(a, b, "float16") == 0 and full_products(a, b, "float32") == 4
    else:
        assert full_products(a, b, "float16") == 0 and full_products(a, b, "float32") == 4
        a[50:], b[70:] = np.float32(0.25), np.float32(0.25)  # a sky: one corner of four
        assert full_products(a, b, "float16") == 1
    with mock.patch.object(candidates, "MOST_PER_LINE", 0):
        assert full_products(a, b, "float16") >= 1


@pytest.mark.parametrize(
    ("device", "native", "dtype", "worth", "wanted"),
    [
        ("cuda", True, torch.float32, True, torch.float16),
        ("cuda", False, torch.float32, True, torch.float16),
        ("cuda", True, torch.float32, False, None),
        ("cuda", True, torch.float64, True, None),
        ("cpu", True, torch.float32, True, torch.bfloat16),
        ("cpu", False, torch.float32, True, None),
        ("cpu", True, torch.float32, False, None),
        ("mps", True, torch.float32, True, None),
    ],
)
def test_auto_is_what_the_device_has_hardware_for(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    native: bool,
    dtype: torch.dtype,
    worth: bool,
    wanted: torch.dtype | None,
) -> None:
    monkeypatch.setattr(candidates, "multiplies_bfloat16", lambda device: native)
    assert candidates.half_dtype("auto", torch.device(device), dtype, worth) is wanted


def test_what_is_asked_for_is_used_whether_it_is_worth_it_or_not() -> None:
    for device in ("cpu", "cuda"):
        where = torch.device(device), torch.float64, False
        assert candidates.half_dtype("bfloat16", *where) is torch.bfloat16
        assert candidates.half_dtype("float16", *where) is torch.float16
        assert candidates.half_dtype("float32", *where) is None
    with pytest.raises(InputError, match="expected vectors on a CPU or CUDA for precision float16, got mps"):
        candidates.half_dtype("float16", torch.device("mps"), torch.float32, True)


def test_sums_in_half_precision_are_off_during_the_search_and_as_before_after_it() -> None:
    matmul = torch.backends.cuda.matmul
    names = "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"
    before = [getattr(matmul, name) for name in names]
    seen = []

    def watching(*args: object) -> object:
        seen.append([getattr(matmul, name) for name in names])
        return original(*args)

    original = candidates.block_maxima
    with mock.patch.object(blocks, "block_maxima", watching):
        pairs(unit(4, 3, 0), unit(5, 3, 1), "float16")
    assert seen == [[False, False]] and [getattr(matmul, name) for name in names] == before
