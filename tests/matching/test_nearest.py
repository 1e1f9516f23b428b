"""Mutual nearest neighbours against their definition, with ties, masks and any blocks; what is refused; and how much memory it takes."""

from __future__ import annotations

import contextlib
import functools
import math
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import cv2
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fewmatch.errors import InputError
from fewmatch.matching import mutual_nearest
from fewmatch.matching.nearest import blocks, candidates
from fewmatch.matching.nearest.nearest import nearest_both_ways

Result = tuple[np.ndarray, np.ndarray, np.ndarray]
#: Dot products of dyadic vectors are exact, so that everything but the normalisation is tested on these.
by_product = functools.partial(mutual_nearest, metric="dot")
both_by_product = functools.partial(nearest_both_ways, metric="dot")
PROPERTY = settings(deadline=None, database=None, max_examples=15)


def naive(a: np.ndarray, b: np.ndarray, valid_a: Any = None, valid_b: Any = None) -> list[tuple[int, int, float]]:
    """The definition, pair by pair in float64: `max` keeps the first of equal ones."""
    products = np.array([[sum(x * y for x, y in zip(u, v, strict=True)) for v in b.tolist()] for u in a.tolist()])
    rows = [i for i in range(len(a)) if valid_a is None or valid_a[i]]
    columns = [j for j in range(len(b)) if valid_b is None or valid_b[j]]
    if not rows or not columns:
        return []
    best_column = {i: max(columns, key=lambda j: products[i, j]) for i in rows}
    best_row = {j: max(rows, key=lambda i: products[i, j]) for j in columns}
    return [(i, j, products[i, j]) for i, j in best_column.items() if best_row[j] == i]


def triples(result: Result) -> list[tuple[int, int, float]]:
    index_a, index_b, score = result
    assert index_a.dtype == index_b.dtype == np.int64 and index_a.shape == index_b.shape == score.shape
    return list(zip(index_a.tolist(), index_b.tolist(), score.tolist(), strict=True))


def dyadic(n: int, d: int, seed: int, most: int = 2) -> np.ndarray:
    """Quarters of small integers: float32 products are exact, ties and duplicates are many."""
    return np.random.default_rng(seed).integers(-most, most + 1, (n, d)) / 4


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@contextlib.contextmanager
def way(name: str) -> Iterator[Any]:
    """Small inputs on one of the ways that large ones take; gives the precision to ask for."""
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        torch.set_num_threads({"two threads": 2, "three threads": 3, "bfloat16, two threads": 2}.get(name, 1))
        stack.enter_context(mock.patch.object(blocks, "_WORTH_THREADS", 0))
        if "accelerator" in name:
            stack.enter_context(mock.patch.object(blocks, "LARGER", 1))
            for module in (blocks, candidates):
                stack.enter_context(mock.patch.object(module, "uses_numpy", lambda device: False))
        if "16" in name:
            # However many candidates, they are computed one by one; but then most blocks are, as ties are many.
            few = 2 if "in part" in name else 10**6
            stack.enter_context(mock.patch.object(candidates, "MOST_PER_LINE", few))
        yield next((p for p in ("bfloat16", "float16") if p in name), "float32")


FULL = ["one thread", "two threads", "three threads", "accelerator"]
WAYS = [
    *FULL,
    "bfloat16",
    "float16",
    "bfloat16, two threads",
    "bfloat16, accelerator",
    "float16, accelerator",
    "float16, in part",
    "bfloat16, accelerator, in part",
]
SIZES = st.one_of(st.integers(1, 4), st.integers(1, 30))


# ----------------------------------------------------------------------------------------------------------------------
# The definition


@PROPERTY
@given(SIZES, SIZES, st.integers(1, 5), st.integers(4, 40), st.integers(4, 40), st.integers(0, 2**32), st.booleans())
@example(30, 30, 1, 7, 3, 0, True)
@example(1, 30, 3, 1, 1, 1, False)
@example(29, 1, 2, 40, 40, 2, False)
def test_it_is_the_definition_whatever_the_blocks(
    n: int, m: int, d: int, height: int, width: int, seed: int, masked: bool
) -> None:
    a, b = dyadic(n, d, seed), dyadic(m, d, seed + 1)
    rng = np.random.default_rng(seed)
    valid = (rng.random(n) < 0.7, rng.random(m) < 0.7) if masked else (None, None)
    wanted = naive(a, b, *valid)
    for name in WAYS:
        with way(name) as precision:
            got = by_product(
                a.astype(np.float32),
                b.astype(np.float32),
                valid_a=valid[0],
                valid_b=valid[1],
                block=(height, width),
                precision=precision,
            )
        assert triples(got) == wanted, name


@pytest.mark.parametrize("name", WAYS)
def test_all_ways_through_the_default_blocks_are_one(name: str) -> None:
    """Larger than a block in both directions, with hundreds of ties for every vector."""
    a, b, products = dyadic_products()
    best_column, best_row = products.argmax(axis=1), products.argmax(axis=0)
    mutual = np.flatnonzero(best_row[best_column] == np.arange(len(a)))
    with way(name) as precision:
        index_a, index_b, score = by_product(a.astype(np.float32), b.astype(np.float32), precision=precision)
    assert len(mutual) > 10 and np.array_equal(index_a, mutual)
    assert np.array_equal(index_b, best_column[mutual]) and np.array_equal(score, products[mutual, best_column[mutual]])


@functools.cache
def dyadic_products() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sets, and all products of theirs."""
    a, b = dyadic(1100, 4, 0, most=4), dyadic(1700, 4, 1, most=4)
    return a, b, a @ b.T


@functools.cache
def random_answer(n: int, m: int, d: int) -> tuple[np.ndarray, ...]:
    """Two sets, their products, the nearest of each, and the gap to the second nearest."""
    a, b = unit(n, d, n), unit(m, d, m)
    products = a @ b.T
    by_row, by_column = np.partition(products, -2, axis=1)[:, -2:], np.partition(products, -2, axis=0)[-2:]
    return a, b, products, products.argmax(axis=1), products.argmax(axis=0), np.ptp(by_row, 1), np.ptp(by_column, 0)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(("n", "m", "d"), [(300, 400, 8), (257, 129, 64), (700, 1000, 5)])
def test_random_vectors_agree_but_for_rounding(name: str, n: int, m: int, d: int) -> None:
    a, b, products, best_column, best_row, row_gap, column_gap = random_answer(n, m, d)
    close_rows, close_columns = set(np.flatnonzero(row_gap < 1e-6)), set(np.flatnonzero(column_gap < 1e-6))
    wanted = {(i, int(j)) for i, j in enumerate(best_column) if best_row[j] == i}
    with way(name) as precision:
        index_a, index_b, score = mutual_nearest(
            a.astype(np.float32), b.astype(np.float32), block=(200, 300), precision=precision
        )
    got = set(zip(index_a.tolist(), index_b.tolist(), strict=True))
    unlike = [
        (i, j)
        for i, j in got ^ wanted
        if i not in close_rows and j not in close_columns and int(best_column[i]) not in close_columns
    ]
    assert not unlike and len(got & wanted) > 20 and len(got ^ wanted) <= 0.01 * len(wanted)
    np.testing.assert_allclose(score, products[index_a, index_b], atol=1e-6)


def test_of_duplicates_the_first_ones_match() -> None:
    a, b = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0), np.repeat(np.eye(3, dtype=np.float32)[::-1], 5, axis=0)
    assert triples(mutual_nearest(a, b)) == [(0, 10, 1.0), (4, 5, 1.0), (8, 0, 1.0)]


def test_a_set_against_itself_matches_row_by_row() -> None:
    a = unit(500, 16, 0).astype(np.float32)
    index_a, index_b, score = mutual_nearest(a, a)
    assert np.array_equal(index_a, np.arange(500)) and np.array_equal(index_b, np.arange(500))
    np.testing.assert_allclose(score, 1, atol=1e-6)


def by_cosine(a: np.ndarray, b: np.ndarray) -> list[tuple[int, int, float]]:
    """The definition in float64 and in plain Python; whoever has no length takes no part."""
    lengths = [[math.sqrt(math.fsum(v * v for v in x)) for x in side.tolist()] for side in (a, b)]
    rows, columns = ([i for i, length in enumerate(side) if length] for side in lengths)
    cosines = {
        (i, j): math.fsum(u * v for u, v in zip(a[i].tolist(), b[j].tolist(), strict=True))
        / (lengths[0][i] * lengths[1][j])
        for i in rows
        for j in columns
    }
    if not cosines:
        return []
    best_column = {i: max(columns, key=lambda j: cosines[i, j]) for i in rows}
    best_row = {j: max(rows, key=lambda i: cosines[i, j]) for j in columns}
    return [(i, j, cosines[i, j]) for i, j in best_column.items() if best_row[j] == i]


def test_lengths_do_not_count_unless_dot_products_are_asked_for() -> None:
    a, b = np.array([[1.0, 0.0], [4.0, 1.0]], np.float32), np.array([[1.0, 0.0], [2.0, 0.0]], np.float32)
    assert triples(by_product(a, b)) == [(1, 1, 8.0)]  # the longest attract
    assert triples(mutual_nearest(a, b)) == [(0, 0, 1.0)]
    assert [nearest.index.tolist() for nearest in nearest_both_ways(a, b)] == [[0, 0], [0, 0]]


@pytest.mark.parametrize("name", WAYS)
def test_cosines_of_exact_vectors_and_their_ties(name: str) -> None:
    """(3, 4)/5 and the like: cosines are 1, 24/25, 4/5, 3/5 and 0, and multiples of a vector tie with it."""
    a = np.array([[3, 4], [0, 2], [0, 0], [8, 6], [9, 12]], np.float32)
    b = np.array([[0, 0], [5, 0], [40, 30], [4, 3], [0.5, 0]], np.float32)
    with way(name) as precision:
        forth, back = nearest_both_ways(a, b, precision=precision)
        pairs = triples(mutual_nearest(a, b, precision=precision))
    assert forth.index.tolist() == [2, 2, -1, 2, 2] and back.index.tolist() == [-1, 3, 3, 3, 3]
    np.testing.assert_allclose(forth.score[[0, 1, 3, 4]], [24 / 25, 3 / 5, 1, 24 / 25], atol=2e-7)
    np.testing.assert_allclose(back.score[1:], [4 / 5, 1, 1, 4 / 5], atol=2e-7)
    assert forth.score[2] == back.score[0] == -math.inf
    assert [(i, j) for i, j, _ in pairs] == [(3, 2)] and pairs[0][2] == pytest.approx(1, abs=2e-7) and pairs[0][2] <= 1


@PROPERTY
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_multiples_of_a_vector_tie_whatever_the_factor(n: int, m: int, d: int, seed: int) -> None:
    """Small integers times small factors: those that point the same way are equal after the division by their lengths."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (m, d))
    factors = [rng.choice([1, 3, 5, 7, 11, 12], (k, 1)) for k in (n, m)]
    for kind in (np.float32, np.float64):
        plain, scaled = (
            nearest_both_ways(x.astype(kind), y.astype(kind)) for x, y in ((a, b), (a * factors[0], b * factors[1]))
        )
        for one, other in zip(plain, scaled, strict=True):
            assert np.array_equal(one.index, other.index) and np.array_equal(one.score, other.score)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_vectors_of_unequal_length_match_as_everywhere_else(kind: type) -> None:
    """Against the definition and OpenCV's cross-checking matcher, on lengths that differ a thousandfold."""
    rng = np.random.default_rng(5)
    a, b = (unit(k, 12, k) * 10 ** rng.uniform(-1.5, 1.5, (k, 1)) for k in (120, 150))
    a[7] = b[3] = b[90] = 0
    wanted = by_cosine(a.astype(kind).astype(np.float64), b.astype(kind).astype(np.float64))
    got = triples(mutual_nearest(a.astype(kind), b.astype(kind)))
    assert len(got) > 25 and [pair[:2] for pair in got] == [pair[:2] for pair in wanted]
    np.testing.assert_allclose([pair[2] for pair in got], [pair[2] for pair in wanted], atol=1e-6)
    assert {pair[:2] for pair in triples(by_product(a.astype(kind), b.astype(kind)))} != {pair[:2] for pair in got}
    rows, columns = (np.flatnonzero(x.any(axis=1)) for x in (a, b))
    one, other = (
        (x[some] / np.linalg.norm(x[some], axis=1, keepdims=True)).astype(np.float32)
        for x, some in ((a, rows), (b, columns))
    )
    matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
    theirs = {(int(rows[m.queryIdx]), int(columns[m.trainIdx])) for m in matcher.match(one, other)}
    assert {pair[:2] for pair in got} == theirs


def test_vectors_of_zeros_have_no_cosine_and_a_product_of_zero() -> None:
    zeros, ones = np.zeros((3, 2), np.float32), np.ones((2, 2), np.float32)
    assert triples(mutual_nearest(zeros, ones)) == triples(mutual_nearest(ones, zeros)) == []
    assert triples(mutual_nearest(zeros, zeros)) == []
    assert triples(by_product(zeros, ones)) == [(0, 0, 0.0)]
    assert triples(by_product(zeros, -ones)) == [(0, 0, 0.0)]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [-1, 1])
def test_very_long_and_very_short_vectors_have_cosines_too(kind: type, size: int) -> None:
    """Their squares over- and underflow."""
    tiny = {np.float32: 1e-42, np.float64: 1e-320}[kind]
    factor = 0.9 * float(np.finfo(kind).max) if size > 0 else tiny
    a = (np.array([[1, 0], [0, 1]]) * factor).astype(kind)
    b = np.array([[0, 3], [2, 0]], kind)
    assert triples(mutual_nearest(a, b)) == [(0, 1, 1.0), (1, 0, 1.0)]
    assert triples(mutual_nearest(b, a)) == [(0, 1, 1.0), (1, 0, 1.0)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cosines_need_finite_vectors(value: float) -> None:
    x = np.ones((7, 3), np.float32)
    x[5, 1] = value
    with pytest.raises(InputError, match=r"vector 5 of b is not finite$"):
        mutual_nearest(np.ones((2, 3), np.float32), x)


def test_an_unknown_metric_is_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match="no metric called euclidean: expected one of cosine, dot"):
        mutual_nearest(np.ones((2, 2)), np.ones((2, 2)), metric="euclidean")  # type: ignore[arg-type]


def test_products_may_all_be_negative() -> None:
    a, b = np.array([[1.0], [2.0]], np.float32), np.array([[-1.0], [-3.0]], np.float32)
    assert triples(by_product(a, b)) == [(0, 0, -1.0)]


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_where_there_is_nothing_nothing_matches(name: str, n: int, m: int) -> None:
    with way(name) as precision:
        for kind in (np.float32, np.float64):
            result = by_product(np.ones((n, 2), kind), np.ones((m, 2), kind), precision=precision)
            assert triples(result) == [] and result[2].dtype == kind


@PROPERTY
@given(SIZES, SIZES, st.integers(5, 40), st.integers(0, 2**32), st.booleans())
@example(3, 4, 5, 0, True)
@example(3, 4, 1, 0, False)
def test_both_ways_are_all_maxima(n: int, m: int, width: int, seed: int, masked: bool) -> None:
    """Not only of mutual pairs; what may not match has none and is nobody's."""
    a, b = dyadic(n, 3, seed), dyadic(m, 3, seed + 1)
    rng = np.random.default_rng(seed)
    valid = [rng.random(k) < 0.6 if masked else np.ones(k, bool) for k in (n, m)]
    wanted: list[list[tuple[int, float]]] = [[], []]
    for best, one, other, kept, others in zip(wanted, (a, b), (b, a), valid, valid[::-1], strict=True):
        for i, vector in enumerate(one):
            rivals = [j for j in range(len(other)) if others[j]] if kept[i] else []
            j = max(rivals, key=lambda j: float(vector @ other[j])) if rivals else -1
            best.append((j, float(vector @ other[j]) if rivals else -math.inf))
    for name in WAYS:
        with way(name) as precision:
            got = both_by_product(
                a.astype(np.float32),
                b.astype(np.float32),
                valid_a=valid[0],
                valid_b=valid[1],
                block=(9, width),
                precision=precision,
            )
        for best, found in zip(wanted, got, strict=True):
            assert list(zip(found.index.tolist(), found.score.tolist(), strict=True)) == best, name
            assert found.index.dtype == np.int64 and found.score.dtype == np.float32


# ----------------------------------------------------------------------------------------------------------------------
# Masks


@pytest.mark.parametrize("which", ["valid_a", "valid_b"])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_no_row_may_match(which: str, kind: Callable[[np.ndarray], Any]) -> None:
    x = unit(6, 3, 0).astype(np.float32)
    assert triples(mutual_nearest(x, x, **{which: kind(np.zeros(6, bool))})) == []
    assert len(mutual_nearest(x, x, **{which: kind(np.ones(6, bool))})[0]) == 6


def test_masked_rows_are_as_if_they_were_not_there() -> None:
    """Neither do they match, nor stand in another's way, nor need they be numbers."""
    a, b = unit(40, 4, 0).astype(np.float32), unit(50, 4, 1).astype(np.float32)
    valid_a, valid_b = np.arange(40) % 3 != 0, np.arange(50) % 4 != 1
    a[~valid_a], b[~valid_b] = 100, np.nan
    index_a, index_b, score = mutual_nearest(a, b, valid_a=valid_a, valid_b=torch.from_numpy(valid_b))
    alone = mutual_nearest(a[valid_a], b[valid_b])
    assert len(score) > 3 and np.array_equal(index_a, np.flatnonzero(valid_a)[alone[0]])
    assert np.array_equal(index_b, np.flatnonzero(valid_b)[alone[1]]) and np.array_equal(score, alone[2])


# ----------------------------------------------------------------------------------------------------------------------
# What may be given


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("other", [torch.float16, torch.float32, torch.float64])
def test_every_precision(dtype: torch.dtype, other: torch.dtype) -> None:
    a, b = dyadic(20, 3, 0), dyadic(30, 3, 1)
    got = by_product(torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(other))
    assert triples(got) == naive(a, b)
    assert got[2].dtype == (np.float64 if dtype == other == torch.float64 else np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_and_tensors(dtype: type) -> None:
    a, b = dyadic(20, 3, 2).astype(dtype), dyadic(30, 3, 3).astype(dtype)
    wanted = naive(a.astype(np.float64), b.astype(np.float64))
    for first, second in [(a, b), (torch.from_numpy(a), torch.from_numpy(b)), (a, torch.from_numpy(b))]:
        assert triples(by_product(first, second)) == wanted


@pytest.mark.parametrize("name", WAYS)
def test_two_doubles_are_compared_as_doubles(name: str) -> None:
    a, b = np.array([[1.0]]), np.array([[1.0], [1.0 + 1e-12]])
    with way(name) as precision:
        assert triples(by_product(a, b, precision=precision)) == [(0, 1, 1.0 + 1e-12)]
        assert triples(by_product(a, b.astype(np.float32), precision=precision)) == [(0, 0, 1.0)]


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "reversed": lambda x: x[::-1].copy()[::-1],
    "columns reversed": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "transposed": lambda x: np.asfortranarray(x),
    "wider": lambda x: np.hstack([x, x])[:, : x.shape[1]],
    "transposed tensor": lambda x: torch.from_numpy(np.ascontiguousarray(x.T)).T,
    "tensor with steps": lambda x: torch.from_numpy(np.repeat(x, 3, axis=1))[:, ::3],
    "with gradient": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
    "inferred": lambda x: inferred(x),
}


def inferred(x: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return torch.from_numpy(x.copy()) * 1


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["two threads", "accelerator"])
def test_views_of_all_kinds(view: str, name: str) -> None:
    a, b = dyadic(20, 4, 4).astype(np.float32), dyadic(30, 4, 5).astype(np.float32)
    wanted = naive(a.astype(np.float64), b.astype(np.float64))
    with way(name) as precision:
        assert triples(by_product(VIEWS[view](a), VIEWS[view](b), block=(6, 7), precision=precision)) == wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_given_stays_as_it_is(dtype: type) -> None:
    a, b = unit(30, 4, 0).astype(dtype), unit(40, 4, 1).astype(dtype)
    valid_a, valid_b = np.arange(30) % 3 > 0, np.arange(40) % 5 > 0
    given = [a, b, valid_a, valid_b]
    copies = [x.copy() for x in given]
    first = mutual_nearest(a, b, valid_a=valid_a, valid_b=valid_b)
    assert all(np.array_equal(x, y) for x, y in zip(given, copies, strict=True))
    for x in given:
        x.flags.writeable = False
    second = mutual_nearest(a, b, valid_a=valid_a, valid_b=valid_b)
    assert triples(first) == triples(second)


def test_the_threads_are_as_before() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with mock.patch.object(blocks, "_WORTH_THREADS", 0):
            mutual_nearest(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shape checks of the tests, as users have it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_refused_by_its_row(value: float, which: int) -> None:
    x = [np.ones((7, 3), np.float32), np.ones((9, 3), np.float32)]
    x[which][5, 1] = value
    with pytest.raises(InputError, match=f"vector 5 of {'ab'[which]} is not finite, or too long"):
        by_product(x[0], x[1])
    valid = [np.arange(len(part)) > 2 for part in x]
    with pytest.raises(InputError, match=f"vector 5 of {'ab'[which]} is not finite"):
        by_product(x[0], x[1], valid_a=valid[0], valid_b=valid[1])


def test_doubles_may_be_longer_than_floats() -> None:
    a = np.array([[1e20, 0.0], [0.0, 1e20]])
    assert triples(by_product(a, a)) == [(0, 0, 1e40), (1, 1, 1e40)]
    with pytest.raises(InputError, match="vector 0 of a is not finite, or too long"):
        by_product(a, a.astype(np.float32))


@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((3, 2), (3, 4)), ((3,), (3, 2)), ((3, 2), (2,)), ((1, 3, 2), (3, 2)), ((3, 0), (3, 0))]
)
def test_shapes_that_do_not_fit_are_refused(
    unchecked: None, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"expected vectors of shape \(N, D\) and \(M, D\), got \(") as caught:
        mutual_nearest(np.ones(shape_a, np.float32), np.ones(shape_b, np.float32))
    assert str(shape_a) in str(caught.value) and str(shape_b) in str(caught.value)


@pytest.mark.parametrize("which", ["valid_a", "valid_b"])
@pytest.mark.parametrize("mask", [np.ones(4, bool), np.ones(3, int), np.ones((3, 1), bool), np.ones(3, np.uint8)])
def test_masks_that_do_not_fit_are_refused(unchecked: None, which: str, mask: np.ndarray) -> None:
    x = np.ones((3, 2), np.float32)
    with pytest.raises(InputError, match=f"expected {which} of 3 booleans, got "):
        mutual_nearest(x, x, **{which: mask})


@pytest.mark.parametrize("block", [(0, 5), (5, 0), (-1, 5)])
def test_blocks_of_nothing_are_refused(block: tuple[int, int]) -> None:
    x = np.ones((3, 2), np.float32)
    with pytest.raises(InputError, match="expected blocks of 1 or more rows and columns"):
        mutual_nearest(x, x, block=block)


@pytest.mark.parametrize("count", [0, 3])
def test_an_unknown_precision_is_refused(unchecked: None, count: int) -> None:
    x = np.ones((count, 2), np.float32)
    with pytest.raises(InputError, match="expected a precision of auto, float32, bfloat16, float16, got 'int8'"):
        mutual_nearest(x, x, precision="int8")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------------------
# Memory


class Largest(TorchDispatchMode):
    """The most bytes of any tensor that an operation of this thread gives."""

    bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and only to keep torch's compiler out it would be imported, for seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, list | tuple) else [result]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("name", ["one thread", "accelerator", "float16", "float16, accelerator"])
def test_memory_does_not_grow_with_the_product_of_the_sizes(unchecked: None, name: str) -> None:
    peaks = {}
    height, width = 200, 300
    with way(name) as precision, Largest():  # what is imported at first use is no memory of the search
        mutual_nearest(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), precision=precision)
    for n in (600, 1800):
        a, b = (torch.from_numpy(unit(n, 4, seed)).float() for seed in (0, 1))
        with way(name) as precision, Largest() as largest:
            tracemalloc.start()
            mutual_nearest(a, b, block=(height, width), precision=precision)
            arrays = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert largest.bytes >= height * width * (2 if "16" in name else 4)
        assert largest.bytes <= max(height * width * 8, n * 4 * 4)  # a block of products or of places, or an input
        peaks[n] = arrays
    assert 1800 * 8 * 2 < peaks[1800] < 1800 * 1800 / 4  # one boolean for each pair would be 1800 * 1800
    assert peaks[1800] < 3 * peaks[600]


@given(st.integers(1, 10_000), st.integers(1, 3000))
@settings(deadline=None, database=None)
def test_blocks_are_even_and_no_more_than_needed(length: int, most: int) -> None:
    part = blocks._even(length, most)
    assert 1 <= part <= most and math.ceil(length / part) == math.ceil(length / most)
    assert part == 1 or math.ceil(length / (part - 1)) > math.ceil(length / most)
