"""The filters of matches against their definitions: ratio with an exclusion radius, cycle distance, score."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewmatch.encoders import Frame
from fewmatch.errors import InputError
from fewmatch.matching import Matches, ambiguity, match
from fewmatch.matching import matches as matches_module
from fewmatch.matching.nearest import blocks

PROPERTY = settings(deadline=None, database=None, max_examples=15)
Place = tuple[int, int]


def frame(rows: int, columns: int, patch: int = 1, stride: int = 1) -> Frame:
    width, height = (columns - 1) * stride + patch, (rows - 1) * stride + patch
    return Frame(width, height, (rows, columns), patch=patch, stride=stride, scale=(1.0, 1.0))


def apart(one: Place, other: Place, of: Frame) -> float:
    """Patches between the centres of two."""
    return math.hypot(one[0] - other[0], one[1] - other[1]) * of.stride / of.patch


class Definition:
    """Everything pair by pair in float64."""

    def __init__(
        self, a: np.ndarray, frame_a: Frame, b: np.ndarray, frame_b: Frame, valid_a: np.ndarray, valid_b: np.ndarray
    ) -> None:
        self.frames = frame_a, frame_b
        self.places: list[list[Place]] = [
            [p for p in np.ndindex(*valid.shape) if valid[p] and x[p].any()]
            for x, valid in ((a, valid_a), (b, valid_b))
        ]

        def cosine(u: np.ndarray, v: np.ndarray) -> float:
            return float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))

        self.table = {(p, q): cosine(a[p], b[q]) for p in self.places[0] for q in self.places[1]}
        if not self.table:
            self.forth, self.back = {}, {}
            return
        self.forth = {p: max(self.places[1], key=lambda q: self.table[p, q]) for p in self.places[0]}
        self.back = {q: max(self.places[0], key=lambda p: self.table[p, q]) for q in self.places[1]}

    def cycle(self, p: Place) -> float:
        return apart(p, self.back[self.forth[p]], self.frames[0])

    def ratio(self, p: Place, q: Place, exclusion: float) -> float:
        far = [self.table[p, r] for r in self.places[1] if apart(q, r, self.frames[1]) > exclusion]
        far += [self.table[r, q] for r in self.places[0] if apart(p, r, self.frames[0]) > exclusion]
        if not far:
            return 0.0
        return max(1 - self.table[p, q], 1e-6) / max(1 - max(far), 1e-6)

    def matches(self, max_cycle: float = 0.0) -> dict[Place, Place]:
        return {p: q for p, q in self.forth.items() if self.cycle(p) <= max_cycle}


def listed(matches: Matches) -> dict[Place, Place]:
    pairs = zip(matches.patch_a.tolist(), matches.patch_b.tolist(), strict=True)
    found = {(p[0], p[1]): (q[0], q[1]) for p, q in pairs}
    assert len(found) == len(matches)
    return found


def signs(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Vectors of one, four or sixteen entries ±1, or of none: norms and cosines are exact, and ties and duplicates many."""
    x = rng.choice([-1.0, 1.0], (rows, columns, 16))
    return np.asarray(x * (np.arange(16) < rng.choice([0, 1, 4, 16], (rows, columns, 1))))


WAYS = ["float32", "float16", "accelerator", "three threads"]


def run(way: str, block: tuple[int, int], *args: Any, strips: int = 3, **options: Any) -> Matches:
    """`match` with small blocks on one of the ways that large ones take."""
    with contextlib.ExitStack() as stack:
        small = functools.partial(blocks.both_ways, block=block)
        patches = [(matches_module, "both_ways", small), (ambiguity, "BLOCK", block), (blocks, "_MOST_STRIPS", strips)]
        if way == "three threads":
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(3)
            patches += [(blocks, "_WORTH_THREADS", 0)]
        if way == "accelerator":
            patches += [(blocks, "uses_numpy", lambda device: False), (blocks, "LARGER", 1)]
        for where, name, other in patches:
            stack.enter_context(mock.patch.object(where, name, other))
        return match(*args, precision="float16" if way == "float16" else "float32", **options)


SIDES, BLOCKS = st.integers(1, 6), st.integers(4, 15)


@PROPERTY
@given(
    SIDES,
    SIDES,
    SIDES,
    SIDES,
    BLOCKS,
    BLOCKS,
    st.integers(0, 24),
    st.integers(0, 12),
    st.integers(0, 2**32),
    st.booleans(),
)
@example(1, 1, 1, 1, 1, 1, 0, 0, 0, True)
@example(6, 6, 6, 6, 5, 7, 8, 0, 1, False)
@example(4, 3, 3, 4, 1, 1, 4, 4, 3, False)
@example(6, 6, 6, 6, 36, 36, 1000, 8, 2, True)
def test_ratio_and_cycle_are_their_definitions(
    ha: int,
    wa: int,
    hb: int,
    wb: int,
    height: int,
    width: int,
    radius: int,
    longest: int,
    seed: int,
    tied: bool,
) -> None:
    """With masks, vectors of zeros, and different strides for the two images; the radius is in quarters of a patch."""
    rng = np.random.default_rng(seed)
    shapes = (ha, wa), (hb, wb)
    maps = [signs(rng, *shape) if tied else rng.standard_normal((*shape, 5)) for shape in shapes]
    frames = [frame(*shape, patch=4, stride=int(rng.choice([1, 2, 4]))) for shape in shapes]
    valid = [rng.random(shape) < 0.8 for shape in shapes]
    truth = Definition(maps[0], frames[0], maps[1], frames[1], *valid)
    inputs = maps[0].astype(np.float32), frames[0], maps[1].astype(np.float32), frames[1]
    options = {"valid_a": valid[0], "valid_b": valid[1], "exclusion": radius / 4}
    wanted, near_and_far = truth.matches(), truth.matches(longest / 4)
    ratios = {p: truth.ratio(p, q, radius / 4) for p, q in wanted.items()}
    for way in WAYS:
        got = run(way, (height, width), *inputs, **options, max_ratio=1.0)
        assert listed(got) == wanted and got.ratio is not None and got.cycle is None, way
        for ratio, (p, q) in zip(got.ratio.tolist(), listed(got).items(), strict=True):
            # A cosine is off by 4e-7 at most: so much of the distances, which are no shorter than 1e-6.
            near = max(1e-6, 1 - truth.table[p, q])
            assert ratio == pytest.approx(ratios[p], rel=1e-12 if tied else 8e-7 / near + 1e-6), way
            assert 0 <= ratio <= 1
        for max_ratio in (0.0, 0.5) if way == "float32" else ():  # of ratios that were all compared
            some = run(way, (height, width), *inputs, **options, max_ratio=max_ratio)
            assert listed(some) == listed(got.take(got.ratio <= max_ratio)), way
        followed = run(way, (height, width), *inputs, **options, max_cycle=longest / 4)
        assert listed(followed) == near_and_far and followed.ratio is None, way
        if longest:
            cycles = [truth.cycle(p) for p in listed(followed)]
            assert followed.cycle is not None and followed.cycle.tolist() == pytest.approx(cycles, abs=1e-12)
        assert followed.confidence == pytest.approx(got.confidence)


@pytest.mark.parametrize("way", WAYS)
def test_the_ratio_of_matches_that_are_not_mutual(way: str) -> None:
    """Both directions count, and a patch elsewhere that is more like B's makes it larger than 1: such a match is ambiguous."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 8, 6)), rng.standard_normal((3, 4, 6))
    truth = Definition(a, frame(9, 8), b, frame(3, 4), np.ones((9, 8), bool), np.ones((3, 4), bool))
    inputs = a.astype(np.float32), frame(9, 8), b.astype(np.float32), frame(3, 4)
    every = run(way, (10, 5), *inputs, max_cycle=math.inf)
    assert len(every) == 72 and len(set(listed(every).values())) <= 12
    kept = run(way, (10, 5), *inputs, max_cycle=math.inf, max_ratio=1.0, exclusion=1.0)
    wanted = {p: q for p, q in truth.forth.items() if truth.ratio(p, q, 1) <= 1}
    assert listed(kept) == wanted and len(truth.matches()) < len(wanted) < 72
    assert kept.ratio is not None and kept.cycle is not None
    for ratio, (p, q) in zip(kept.ratio.tolist(), listed(kept).items(), strict=True):
        assert ratio == pytest.approx(truth.ratio(p, q, 1), rel=1e-4)


def test_the_ratio_is_the_same_in_both_directions() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((7, 8, 6)).astype(np.float32), rng.standard_normal((6, 9, 6)).astype(np.float32)
    forth, back = (
        match(a, frame(7, 8), b, frame(6, 9), max_ratio=1.0),
        match(b, frame(6, 9), a, frame(7, 8), max_ratio=1.0),
    )
    assert listed(forth) == {q: p for p, q in listed(back).items()} and len(forth) > 5
    assert forth.ratio is not None and back.ratio is not None
    np.testing.assert_allclose(np.sort(forth.ratio), np.sort(back.ratio), rtol=1e-5)


def test_a_pattern_that_repeats_is_ambiguous_and_a_single_one_is_not() -> None:
    """Columns 0 to 4 again at 5 to 9: their ratio is 1. The last two columns come once."""
    a = np.random.default_rng(0).standard_normal((6, 12, 16)).astype(np.float32)
    a[:, 5:10] = a[:, :5]
    matches = match(a, frame(6, 12), a, frame(6, 12), max_ratio=1.0, exclusion=2.0)
    assert matches.ratio is not None
    repeated = matches.patch_a[:, 1] < 10
    assert (matches.ratio[repeated] == 1).all() and (matches.ratio[~repeated] < 1e-5).all()
    assert repeated.sum() == 30 and (~repeated).sum() == 12  # of the repeated ones the first has a mutual match
    left = match(a, frame(6, 12), a, frame(6, 12), max_ratio=0.9, exclusion=2.0)
    assert len(left) == 12 and (left.patch_a[:, 1] >= 10).all()
    assert left.confidence == matches.confidence  # before the filters
    wide = match(a, frame(6, 12), a, frame(6, 12), max_ratio=1.0, exclusion=5.0)
    assert wide.ratio is not None and (wide.ratio < 1e-5).all()  # the other copy lies no farther than five patches


@pytest.mark.parametrize("way", WAYS)
def test_rounding_takes_no_mutual_match_past_a_ratio_of_1(way: str) -> None:
    """Every patch of B comes twice, and each time its products are added up in another order."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((12, 10, 96)).astype(np.float32)
    b = np.tile(a + rng.standard_normal(a.shape).astype(np.float32), (1, 2, 1))
    two = a, frame(12, 10), b, frame(12, 20)
    for maps in (two, two[2:] + two[:2]):
        every, kept = run(way, (31, 17), *maps), run(way, (31, 17), *maps, max_ratio=1.0)
        assert listed(kept) == listed(every) and len(every) > 60
        assert kept.ratio is not None and kept.ratio.max() <= 1 and kept.ratio.min() > 0.99999


def test_smooth_maps_need_the_exclusion() -> None:
    """Next to every match is one nearly as good, as in the maps of a vision transformer; farther away there is none."""
    x, y = np.meshgrid(np.linspace(0, 1, 20), np.linspace(0, 1, 16))
    a = np.stack([np.cos(3 * x), np.sin(3 * x), np.cos(3 * y), np.sin(3 * y)], axis=2)
    b = a + 0.01 * np.random.default_rng(0).standard_normal(a.shape)
    medians = []
    for exclusion in (0.0, 1.0, 3.0):
        ratio = match(a, frame(16, 20), b, frame(16, 20), max_ratio=1.0, exclusion=exclusion).ratio
        assert ratio is not None
        medians.append(np.median(ratio))
    assert medians[0] > 2 * medians[1] > 4 * medians[2]


def test_the_score_is_a_filter_of_its_own() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((8, 8, 4)).astype(np.float32), rng.standard_normal((8, 8, 4)).astype(np.float32)
    every = match(a, frame(8, 8), b, frame(8, 8))
    least = float(every.score[len(every) // 2])
    some = match(a, frame(8, 8), b, frame(8, 8), min_score=least)
    assert listed(some) == listed(every.take(every.score >= least)) and len(some) == len(every) // 2 + 1
    assert some.confidence == every.confidence
    assert len(match(a, frame(8, 8), -a, frame(8, 8), min_score=-1.0)) == len(match(a, frame(8, 8), -a, frame(8, 8)))


def test_all_filters_together_are_one_after_the_other() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((10, 9, 5))
    b = a[::-1] + 0.3 * rng.standard_normal(a.shape)
    truth = Definition(a, frame(10, 9, 4, 2), b, frame(10, 9, 4, 2), np.ones((10, 9), bool), np.ones((10, 9), bool))
    wanted = {p: q for p, q in truth.matches(1.5).items() if truth.table[p, q] >= 0.8 and truth.ratio(p, q, 1.5) <= 0.6}
    got = match(
        a, frame(10, 9, 4, 2), b, frame(10, 9, 4, 2), min_score=0.8, max_ratio=0.6, exclusion=1.5, max_cycle=1.5
    )
    assert listed(got) == wanted and 5 < len(wanted) < len(truth.matches(1.5))
    assert (np.diff(got.score) <= 0).all()
    assert set(got.to_json()[0]) == {"xa", "ya", "xb", "yb", "score", "ratio", "cycle"}


@pytest.mark.parametrize("empty", ["map", "mask"])
def test_where_nothing_may_match_no_filter_stumbles(empty: str) -> None:
    a = np.zeros((2, 3, 4)) if empty == "map" else np.ones((2, 3, 4))
    valid = np.zeros((2, 3), bool) if empty == "mask" else None
    got = match(
        a, frame(2, 3), np.ones((2, 3, 4)), frame(2, 3), valid_a=valid, max_ratio=1.0, max_cycle=1.0, min_score=0.0
    )
    assert len(got) == 0 and got.ratio is not None and got.cycle is not None
    assert got.ratio.shape == got.cycle.shape == (0,) and got.confidence == 0


def test_filters_that_leave_nothing() -> None:
    a = np.ones((3, 3, 2))
    got = match(a, frame(3, 3), a, frame(3, 3), max_ratio=0.5, exclusion=1.0)
    assert len(got) == 0 and got.confidence == pytest.approx(1 / 9)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("min_score", 1.5, "min_score from -1 to 1, got 1.5"),
        ("min_score", math.nan, "min_score from -1 to 1, got nan"),
        ("max_ratio", 1.01, "max_ratio from 0 to 1, got 1.01"),
        ("max_ratio", -0.1, "max_ratio from 0 to 1, got -0.1"),
        ("exclusion", -1.0, "exclusion of 0 patches or more, got -1.0"),
        ("exclusion", math.nan, "exclusion of 0 patches or more, got nan"),
        ("max_cycle", -0.5, "max_cycle of 0 patches or more, got -0.5"),
        ("max_cycle", math.nan, "max_cycle of 0 patches or more, got nan"),
    ],
)
def test_thresholds_out_of_range_are_refused(option: str, value: float, expected: str) -> None:
    a = np.ones((2, 2, 2))
    with pytest.raises(InputError, match=f"expected {expected}"):
        match(a, frame(2, 2), a, frame(2, 2), **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_precision(dtype: torch.dtype) -> None:
    a = torch.from_numpy(signs(np.random.default_rng(5), 5, 6)).to(dtype)
    b = torch.from_numpy(signs(np.random.default_rng(6), 5, 6)).to(dtype)
    wanted = match(a.float(), frame(5, 6), b.float(), frame(5, 6), max_ratio=1.0, exclusion=1.0)
    got = match(a, frame(5, 6), b, frame(5, 6), max_ratio=1.0, exclusion=1.0)
    assert listed(got) == listed(wanted) and len(got) > 3 and got.ratio is not None and wanted.ratio is not None
    np.testing.assert_allclose(got.ratio, wanted.ratio, rtol=1e-12)


def test_only_strips_near_a_match_are_multiplied_again() -> None:
    """The others have their maxima from the search, so that a small radius costs little and no radius much."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20, 10, 8)).astype(np.float32)
    b = (a + 0.1 * rng.standard_normal(a.shape)).astype(np.float32)
    inputs = a, frame(20, 10), b, frame(20, 10)
    counted = []
    for exclusion in (0.0, 2.0, 100.0):
        entries = []
        original = torch.Tensor.masked_fill_

        def counting(
            x: torch.Tensor, *args: Any, entries: list[int] = entries, original: Any = original
        ) -> torch.Tensor:
            entries.append(x.numel())
            return original(x, *args)  # type: ignore[no-any-return]

        with mock.patch.object(torch.Tensor, "masked_fill_", counting):
            assert len(run("float32", (20, 10), *inputs, strips=32, max_ratio=1.0, exclusion=exclusion)) > 150
        counted.append(sum(entries) / (2 * 200 * 200))
    assert counted[0] <= counted[1] < 0.35 and counted[2] > 0.8
