"""Parts of benchmarks drawn with a seed, and left and right among the names of points."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import AP10K, a_pair

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.left_right import twins_by_number, twins_of
from fewmatch.matching.benchmarks.limiting import limited
from fewmatch.matching.benchmarks.pair import Benchmark


def benchmark(categories: str) -> Benchmark:
    pairs = [a_pair(c, f"{i:03d}", "x", [[i, 0]], [[0, i]]) for i, c in enumerate(categories)]
    return Benchmark("spair", "test", pairs, (("gone", "why"),), {"list": "l"}, ("note",))


def names(found: Benchmark) -> list[str]:
    return [pair.name for pair in found.pairs]


def test_pairs_are_those_of_the_benchmark_in_its_order() -> None:
    full = benchmark("abacbbcaab" * 3)
    for seed in range(20):
        found = limited(full, 7, seed)
        assert len(found.pairs) == 7 and names(found) == sorted(names(found))
        assert all(any(pair is other for other in full.pairs) for pair in found.pairs)
        assert found.choices == {"list": "l", "limit": 7, "limit_seed": seed, "limit_of": 30}
        assert (found.kind, found.split, found.dropped, found.notes) == ("spair", "test", full.dropped, full.notes)
        assert names(limited(full, 7, seed)) == names(found)
    assert len({tuple(names(limited(full, 7, seed))) for seed in range(20)}) > 15


def test_a_smaller_limit_is_part_of_a_larger_one() -> None:
    full = benchmark("abacbbcaab" * 3)
    for per_category in (False, True):
        for n in range(1, 12):
            some, more = (set(names(limited(full, k, 4, per_category=per_category))) for k in (n, n + 1))
            assert some < more or (per_category and some <= more)


def test_every_pair_is_as_likely() -> None:
    full = benchmark("aab")
    drawn = Counter(name for seed in range(600) for name in names(limited(full, 1, seed)))
    assert len(drawn) == 3 and all(140 < count < 260 for count in drawn.values())  # 200 each, the deviation is 11.5


def test_per_category() -> None:
    full = benchmark("a" * 9 + "b" * 2 + "caca" * 2)
    found = limited(full, 3, 1, per_category=True)
    assert Counter(pair.category for pair in found.pairs) == {"a": 3, "b": 2, "c": 3}
    assert names(found) == sorted(names(found))
    assert found.choices == {"list": "l", "limit_per_category": 3, "limit_seed": 1, "limit_of": 19}


def test_a_limit_above_all() -> None:
    full = benchmark("ab")
    assert names(limited(full, 5)) == names(full)
    assert limited(full, 5).choices == {"list": "l", "limit": 5, "limit_seed": 0, "limit_of": 2}


@pytest.mark.parametrize(("n", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_limits_out_of_range(n: int, seed: int) -> None:
    with pytest.raises(InputError, match="expected a limit of 1 or more and a seed of 0 or more, got"):
        limited(benchmark("ab"), n, seed)


def test_twins() -> None:
    assert twins_of(["left_eye", "nose", "right_eye", "left wing"]) == (2, 1, 0, -1)
    assert twins_of([]) == () and twins_of(["left"]) == (-1,) and twins_of(["nose"]) == (0,)
    assert twins_of(["Left Paw", "right paw", "copyright", "copyleft", "upright"]) == (1, 0, 2, 3, 4)
    assert twins_of(["left-right", "right-left"]) == (1, 0)
    assert twins_by_number([4, 7, 5, 9], [(4, 5), (8, 9)]) == (2, 1, 0, -1)
    assert twins_by_number([], [(0, 1)]) == () and twins_by_number([2, 1], []) == (0, 1)
    found = twins_of(AP10K)
    assert [found[k] for k in found] == list(range(17)) and sum(k == n for n, k in enumerate(found)) == 3
    shuffled = np.random.default_rng().permutation(AP10K).tolist()
    for name, k in zip(shuffled, twins_of(shuffled), strict=True):
        assert shuffled[k] == AP10K[found[AP10K.index(name)]]


def test_pictures_of_made_up_benchmarks_keep_their_pixels(tmp_path: Path) -> None:
    from benchmark_folders import picture

    from fewmatch.encoders.images import read_image

    rgb = np.random.default_rng().integers(0, 256, (5, 7, 3), np.uint8)
    for name, ending in (("a.jpg", ".png"), ("a.png", ".png"), ("a.ppm", ".ppm")):
        assert np.array_equal(read_image(picture(tmp_path / name, rgb, ending)).rgb, rgb)
