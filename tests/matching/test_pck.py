"""PCK by hand: every benchmark's T, every average and its interval, comparisons, presets and records."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from fewmatch.errors import FewmatchError, InputError, OutputExistsError
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.pck.averages import mean_of_pairs, share_of_points
from fewmatch.matching.benchmarks.pck.compare import compare_pck
from fewmatch.matching.benchmarks.pck.convention import AVERAGES, Convention
from fewmatch.matching.benchmarks.pck.presets import CUSTOMARY, PRESETS, choose_convention
from fewmatch.matching.benchmarks.pck.records import (
    PairRecord,
    benchmark_digest,
    images_digest,
    open_pair_records,
    pair_inputs,
    run_key,
)
from fewmatch.matching.benchmarks.pck.report import PCKReport, pck
from fewmatch.matching.benchmarks.pck.scoring import pair_threshold

POINTS_A = np.array([[0.0, 0], [10, 40]])
POINTS_B = np.array([[5.0, 6], [25, 12]])
PAIR = BenchmarkPair(
    name="p",
    category="cat",
    path_a=Path("a.jpg"),
    path_b=Path("b.jpg"),
    points_a=POINTS_A,
    points_b=POINTS_B,
    box_a=(1.0, 2.0, 61.0, 42.0),
    box_b=(10.0, 20.0, 30.0, 55.0),
    size_a=(100, 80),
    size_b=(60, 90),
)


def record(name: str, category: str, errors: list[float], t: float = 100.0, **more: Any) -> PairRecord:
    return PairRecord(
        name=name,
        category=category,
        errors=np.array(errors, np.float64),
        thresholds=np.full(len(errors), t),
        own_nearest=np.array(more.pop("own", [True] * len(errors)), bool),
        **more,
    )


#: Right at 0.1: 1 of 1, 1 of 3, 0 of 2, 2 of 2; at 0.05: 1, 0, 0, 1.
RECORDS = [
    record("a1", "a", [3], own=[False], facts={"viewpoint": 0, "id": 1.25}),
    record("a2", "a", [10, 11, 50], facts={"viewpoint": 10, "id": 2.5}, twins=np.array([True, True, False])),
    record("a3", "a", [40, 20.1], t=200.0, facts={"viewpoint": 2}, moved=1),
    record("b1", "b", [0, 20], t=200.0, facts={"id": 3.0}, twins=np.array([False, False]), mirrored=1),
]
AT = Convention(alphas=(0.05, 0.1), alpha=0.1)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "forth", "back"),
    [
        ("spair", 35, 60),
        ("ap10k", 35, 60),
        ("cub", 35, 60),
        ("pf-pascal", 90, 100),
        ("tss", 90, 100),
        ("pf-willow", 20, 40),
        ("psc6k", 256, 256),
        ("hpatches", 1, 1),
    ],
)
def test_every_benchmark_measures_against_its_own_threshold(kind: str, forth: float, back: float) -> None:
    convention = choose_convention(kind)
    assert pair_threshold(PAIR, convention) == forth
    assert pair_threshold(PAIR, convention, "b-to-a") == back
    if convention.threshold.endswith("-target"):
        source = dataclasses.replace(convention, threshold=convention.threshold.replace("target", "source"))  # type: ignore[arg-type]
        assert pair_threshold(PAIR, source) == back and pair_threshold(PAIR, source, "b-to-a") == forth


def test_every_benchmark_is_covered() -> None:
    assert set(CUSTOMARY) == {"spair", "ap10k", "cub", "pf-pascal", "tss", "pf-willow", "psc6k", "hpatches"}
    assert set(PRESETS) == {"exact", "sd-dino", "geoaware", "dift", "probe3d", "hpf"}
    for kind in CUSTOMARY:
        for preset in PRESETS:
            convention = choose_convention(kind, preset)
            assert (
                convention.name == preset and convention.note and convention.threshold == CUSTOMARY[kind]["threshold"]
            )


def test_sizes_of_the_files_come_before_those_of_the_annotation() -> None:
    convention = Convention(threshold="image-target")
    bare = dataclasses.replace(PAIR, size_a=None, size_b=None, box_a=None, box_b=None)
    assert pair_threshold(bare, convention, size_b=(7, 5)) == 7
    assert pair_threshold(PAIR, convention, "b-to-a", size_a=(7, 9)) == 9
    with pytest.raises(InputError, match="p: the size of B is not known"):
        pair_threshold(bare, convention, size_a=(7, 5))
    with pytest.raises(InputError, match="p: no box of A is known for threshold bbox-target"):
        pair_threshold(bare, Convention(), "b-to-a")
    one = dataclasses.replace(PAIR, points_a=POINTS_A[:1], points_b=POINTS_B[:1])
    with pytest.raises(InputError, match="p: T by keypoints-target is 0 px"):
        pair_threshold(one, Convention(threshold="keypoints-target"))


def test_every_average_is_the_one_by_hand() -> None:
    known = pck(RECORDS, AT).averages()
    assert tuple(known) == AVERAGES
    close(known["image"].value, [(1 + 0 + 0 + 1 / 2) / 4, (1 + 1 / 3 + 0 + 1) / 4])
    close(known["point"].value, [2 / 8, 4 / 8])
    close(known["category"].value, [(1 / 6 + 1 / 2) / 2, (2 / 6 + 1) / 2])
    close(known["category-weighted"].value, [3 / 4 * 1 / 6 + 1 / 4 * 1 / 2, 3 / 4 * 2 / 6 + 1 / 4])
    close(known["category-image"].value, [(1 / 3 + 1 / 2) / 2, (4 / 9 + 1) / 2])


def test_intervals_are_those_of_their_formulas() -> None:
    known = pck(RECORDS, AT).averages()
    shares = [1, 1 / 3, 0, 1]
    mean = sum(shares) / 4
    close(known["image"].ci95[1], 1.96 * (sum((s - mean) ** 2 for s in shares) / 3) ** 0.5 / 4**0.5)
    residuals = [1 - 0.5 * 1, 1 - 0.5 * 3, 0 - 0.5 * 2, 2 - 0.5 * 2]
    close(known["point"].ci95[1], 1.96 * (4 / 3 * sum(e**2 for e in residuals)) ** 0.5 / 8)
    assert known["category"].ci95 is None and known["category-weighted"].ci95 is None  # b has a single pair
    both = [*RECORDS, record("b2", "b", [0, 90, 90])]
    known = pck(both, AT).averages()
    v_a = 3 / 2 * ((1 - 1 / 3) ** 2 + (1 - 1) ** 2 + (2 / 3) ** 2) / 6**2
    v_b = 2 * ((2 - 3 / 5 * 2) ** 2 + (1 - 3 / 5 * 3) ** 2) / 5**2
    close(known["category"].ci95[1], 1.96 * (v_a / 4 + v_b / 4) ** 0.5)
    close(known["category-weighted"].ci95[1], 1.96 * (0.6**2 * v_a + 0.4**2 * v_b) ** 0.5)
    spread_a, spread_b = np.var([1, 1 / 3, 0], ddof=1) / 3, np.var([1, 1 / 3], ddof=1) / 2
    close(known["category-image"].ci95[1], 1.96 * (spread_a + spread_b) ** 0.5 / 2)


def test_the_interval_of_points_holds_the_truth_as_often_as_it_says() -> None:
    """Points of a pair are alike, so that an interval over points as if they were independent would hold it far less often."""
    rng = np.random.default_rng(0)
    held = naive = 0
    for _ in range(400):
        n = rng.integers(2, 20, 150)
        p = rng.beta(0.5, 0.5, 150)
        right = rng.binomial(n, p)[:, None]
        estimate = share_of_points(right, n)
        assert estimate.ci95 is not None
        held += abs(estimate.value[0] - 0.5) <= estimate.ci95[0]
        naive += abs(estimate.value[0] - 0.5) <= 1.96 * 0.5 / n.sum() ** 0.5
    assert 0.92 <= held / 400 <= 0.98 and naive / 400 < 0.8


def test_equality_is_right_or_wrong() -> None:
    assert pck([record("p", "c", [10])], AT).right.tolist() == [[0, 1]]
    assert pck([record("p", "c", [10])], dataclasses.replace(AT, inclusive=False)).right.tolist() == [[0, 0]]
    assert pck([record("p", "c", [9.999])], dataclasses.replace(AT, inclusive=False)).right.tolist() == [[0, 1]]


def test_pairs_without_points_are_dropped_and_counted() -> None:
    benchmark = Benchmark("spair", "test", [PAIR], dropped=[("q", "no point in common")])
    report = pck([*RECORDS, record("z", "c", [])], AT, benchmark=benchmark)
    assert len(report) == 4 and report.dropped == (("q", "no point in common"), ("z", "no point to score"))
    data = report.to_json()
    assert data["pck"] == pck(RECORDS, AT).to_json()["pck"] and data["categories"] == 2
    assert data["dropped"] == [
        {"name": "q", "reason": "no point in common"},
        {"name": "z", "reason": "no point to score"},
    ]
    with pytest.raises(InputError, match="no pair with a point to score, of 1 pairs"):
        pck([record("z", "c", [])], AT)
    with pytest.raises(InputError, match="got two of a1"):
        pck([*RECORDS, RECORDS[0]], AT)
    one = json.loads(json.dumps(pck(RECORDS[:1], AT).to_json(), allow_nan=False))
    assert one["headline"] == {"average": "image", "alpha": 0.1, "pck": 1.0, "ci95": None}


def test_json_says_everything() -> None:
    benchmark = Benchmark("spair", "test", [PAIR], choices={"limit": 4})
    report = pck(RECORDS, dataclasses.replace(AT, average="point", dtype="float32"), benchmark=benchmark)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["benchmark"] == {
        "kind": "spair",
        "split": "test",
        "digest": benchmark_digest(benchmark),
        "images": None,
        "choices": {"limit": 4},
    }
    assert (data["pairs"], data["points"], data["categories"], data["points_outside"], data["mirrored"]) == (
        4,
        8,
        2,
        1,
        1,
    )
    assert data["headline"]["average"] == "point" and data["headline"]["pck"] == 0.5
    assert set(data["pck"]) == {"0.05", "0.1"} and set(data["pck"]["0.1"]) == set(AVERAGES)
    words = data["convention"]["in_words"]
    assert words["threshold"] == "error ≤ α·T, T = longer side of the target's box"
    assert (words["dtype"], words["average"], words["direction"]) == ("float32", "per point", "source to target")
    assert (
        words["half_patch"] == "exact centre of the patch" and words["tap"] == "last block, token, after the final norm"
    )
    assert words["size"] == "the encoder's own, keep"
    # PCK†: the only point of a1 is nearer to another's place.
    close([data["pck_dagger"]["0.1"][name]["pck"] for name in ("image", "point")], [(1 / 3 + 1) / 4, 3 / 8])
    # Twins: two points of a2 have one, of which one is right.
    assert (data["geometry_aware"]["pairs"], data["geometry_aware"]["points"]) == (1, 2)
    assert data["geometry_aware"]["pck"]["0.1"]["image"] == {"pck": 0.5, "ci95": None}
    assert data["by_category"]["a"]["pairs"] == 3 and data["by_category"]["a"]["points"] == 6
    close(data["by_category"]["a"]["pck"]["0.1"]["point"]["pck"], 2 / 6)
    close(data["by_category"]["a"]["pck"]["0.1"]["image"]["pck"], 4 / 9)
    assert list(data["by_fact"]["viewpoint"]) == ["0", "2", "10"]
    assert data["by_fact"]["viewpoint"]["10"]["pck"]["0.1"]["point"]["pck"] == 1 / 3
    assert data["per_pair"]["n"] == [1, 3, 2, 2] and data["per_pair"]["right"]["0.1"] == [1, 1, 0, 2]
    assert data["per_pair"]["name"] == ["a1", "a2", "a3", "b1"]
    untold = pck(RECORDS[:1], AT).to_json()
    assert untold["geometry_aware"] is None and untold["benchmark"] is None


def test_points_that_filters_leave_out_are_wrong_and_those_that_they_keep_are_counted_apart() -> None:
    kept = [[True], [False, True, True], [False, False], [True, False]]
    twins = RECORDS[1].twins
    records = [dataclasses.replace(r, kept=np.array(k)) for r, k in zip(RECORDS, kept, strict=True)]
    report = pck(records, dataclasses.replace(AT, max_cycle=1.0))
    whole = pck(RECORDS, AT)
    # a2's first point and b1's second were right.
    assert whole.right.tolist() == [[1, 1], [0, 1], [0, 0], [1, 2]]
    assert report.right.tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert report.n.tolist() == whole.n.tolist() and report.own_right.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1]]
    assert twins is not None and report.twin_right is not None and report.twin_right.sum() == 0
    got = report.to_json()
    assert got["per_pair"]["kept"] == [1, 2, 0, 1] and got["kept"]["points"] == 4 and got["kept"]["pairs"] == 3
    close(got["kept"]["share"], 4 / 8)
    close(got["kept"]["pck"]["0.1"]["image"]["pck"], (1 + 0 + 1) / 3)
    close(got["kept"]["pck"]["0.1"]["point"]["pck"], 2 / 4)
    assert whole.to_json()["kept"] is None and "kept" not in whole.to_json()["per_pair"]
    none = [dataclasses.replace(r, kept=np.zeros(len(r), bool)) for r in RECORDS]
    assert pck(none, dataclasses.replace(AT, min_score=1.0)).to_json()["kept"]["pck"] is None


def test_facts_of_many_values_split_nothing() -> None:
    many = [record(f"p{k}", "c", [1], facts={"id": k, "side": k % 2}) for k in range(13)]
    assert set(pck(many, AT).to_json()["by_fact"]) == {"side"}
    assert set(pck(many[:12], AT).to_json()["by_fact"]) == {"side", "id"}


def test_csv_has_a_line_per_category() -> None:
    rows = list(csv.DictReader(pck(RECORDS, AT).to_csv().splitlines()))
    assert [row["category"] for row in rows] == ["a", "b"]
    assert (rows[0]["pairs"], rows[0]["points"]) == ("3", "6")
    close(float(rows[0]["image_pck@0.1"]), 4 / 9)
    close(float(rows[0]["point_pck@0.05"]), 1 / 6)
    close(float(rows[0]["image_ci95@0.1"]), mean_of_pairs(np.array([[1], [1 / 3], [0]])).ci95)
    assert rows[1]["image_ci95@0.1"] == "" and rows[1]["image_pck@0.1"] == "1.0"


def reports(seed: int, count: int = 30) -> tuple[PCKReport, PCKReport]:
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 9, count)
    benchmark = Benchmark("spair", "test", [PAIR])
    first, second = (
        pck([record(f"p{k}", "c", rng.uniform(0, 20, m).tolist()) for k, m in enumerate(n)], AT, benchmark=benchmark)
        for _ in range(2)
    )
    return first, second


def test_a_comparison_is_that_of_the_pairs() -> None:
    first, second = reports(1)
    other = json.loads(json.dumps(second.to_json()))
    order = np.random.default_rng(0).permutation(len(second))
    for column in (other["per_pair"], other["per_pair"]["right"]):
        for name in column:
            column[name] = [column[name][k] for k in order] if name != "right" else column[name]
    got = compare_pck(first.to_json(), other)
    assert got.pairs == 30 and got.alphas == (0.05, 0.1) and got.differs == {}
    for at in range(2):
        d = [s / n - f / n for f, s, n in zip(first.right[:, at], second.right[:, at], first.n, strict=True)]
        mean = sum(d) / 30
        half = 1.96 * (sum((x - mean) ** 2 for x in d) / 29) ** 0.5 / 30**0.5
        close([got.difference["image"].value[at], got.difference["image"].ci95[at]], [mean, half])
        total = first.n.sum()
        ra, rb = first.right[:, at].sum() / total, second.right[:, at].sum() / total
        e = [
            (s - rb * n) / total - (f - ra * n) / total
            for f, s, n in zip(first.right[:, at], second.right[:, at], first.n, strict=True)
        ]
        close(got.difference["point"].value[at], rb - ra)
        close(got.difference["point"].ci95[at], 1.96 * (30 / 29 * sum(x**2 for x in e)) ** 0.5)
    data = json.loads(json.dumps(got.to_json(), allow_nan=False))
    close(
        data["pck"]["0.1"]["image"]["second"] - data["pck"]["0.1"]["image"]["first"],
        data["pck"]["0.1"]["image"]["difference"],
    )
    close(data["pck"]["0.05"]["point"]["first"], first.averages()["point"].value[0])


def test_a_result_equals_itself() -> None:
    first, _ = reports(2)
    got = compare_pck(first.to_json(), first.to_json())
    for estimate in got.difference.values():
        assert estimate.ci95 is not None and not estimate.value.any() and not estimate.ci95.any()


def test_conventions_that_differ_are_named_and_common_alphas_are_compared() -> None:
    first, second = reports(3)
    changed = dataclasses.replace(
        second,
        convention=dataclasses.replace(AT, inclusive=False, window=5, alphas=(0.1, 0.2), name="other", average="point"),
    )
    got = compare_pck(first.to_json(), changed.to_json())
    assert got.alphas == (0.1,)
    assert got.to_json()["differs"] == {"inclusive": [True, False], "window": [None, 5]}


def change(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    data = json.loads(json.dumps(data))
    *parents, last = path.split("/")
    inner = data
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("benchmark/kind", "cub", "the same benchmark, got spair and cub"),
        ("benchmark/split", "val", "the same split, got test and val"),
        ("benchmark/digest", "x", "same names and other points"),
        (
            "per_pair/name",
            ["p0", "p1", "q"],
            r"the same pairs, got p2 only in the first and q only in the second: .*--seed",
        ),
        ("per_pair/right", {"0.3": [0, 0, 0]}, "an alpha in common, got 0.05, 0.1 and 0.3"),
        ("per_pair/right", {"0.1": [0, 0]}, "second result is no JSON of a PCK run"),
        ("per_pair/right", {"0.1": [0, 0, 99]}, "second result is no JSON"),
        ("per_pair/n", [0, 1, 1], "second result is no JSON"),
        ("per_pair/n", "abc", "second result is no JSON"),
        ("per_pair/name", ["p0", "p0", "p1"], "second result is no JSON"),
        ("per_pair", None, "second result is no JSON"),
    ],
)
def test_other_results_are_refused(path: str, value: Any, message: str) -> None:
    first, second = (report.to_json() for report in reports(4, 3))
    with pytest.raises(InputError, match=message):
        compare_pck(first, change(second, path, value))
    with pytest.raises(InputError, match="first result is no JSON"):
        compare_pck({}, second)


#: Rules of papers, which have nothing to do with looking twice and with filters.
INEXACT: tuple[dict[str, Any], ...] = (
    {"source": "pixel"},
    {"target": "offset"},
    {"source": "covering", "target": "displacement"},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": "box"}, "expected threshold to be one of bbox-target, "),
        ({"source": "nearest"}, "expected source to be one of"),
        ({"resize": "crop"}, "resize crop would cut off"),
        ({"fixed": 3.0}, "pixels with threshold fixed and with no other"),
        ({"threshold": "fixed"}, "pixels with threshold fixed"),
        ({"threshold": "fixed", "fixed": 0.0}, "fixed above 0"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"alphas": ()}, "alphas of 0 or more, at least one"),
        ({"alphas": (-0.1, 0.1)}, "alphas of 0 or more"),
        ({"alphas": (0.1, 0.1)}, "alphas that differ"),
        ({"alpha": 0.2}, "headline's alpha among"),
        ({"offset": (0.5, float("nan"))}, "offset of two finite"),
        ({"window": -1}, "half-width 0 or more"),
        ({"window": 1, "target": "pixel"}, "does not go with target pixel"),
        ({"source": "covering"}, "belong together, got covering and centre"),
        ({"target": "displacement"}, "belong together"),
        ({"where": "background"}, "expected where to be one of everywhere"),
        ({"fine_size": 64, "coarse_to_fine": 2}, "fine_size and coarse_to_fine together"),
        ({"fine_size": 64, "size": 64}, "fine size above the size, which is 64, got 64"),
        ({"coarse_to_fine": 1}, "coarse_to_fine of 2 patches or more, got 1"),
        ({"max_ratio": 1.5}, "max_ratio from 0 to 1, got 1.5"),
        ({"max_cycle": -1.0}, "max_cycle of 0 patches or more"),
        *(({"fine_size": 64, **rule}, "go with exact places alone") for rule in INEXACT),
        ({"coarse_to_fine": 2, "source": "patch"}, "go with exact places alone"),
        ({"min_score": 0.5, "exclude_padding": False}, "go with exact places alone"),
        ({"max_cycle": 0.0, "window": 2, "outside": "zero"}, "go with exact places alone"),
    ],
)
def test_conventions_that_cannot_be_are_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        Convention(**change)


def test_changes_overrule_presets_and_presets_benchmarks() -> None:
    assert choose_convention("cub").average == "point" and choose_convention("cub", "geoaware").average == "point"
    assert choose_convention("cub", "probe3d").average == "category"
    assert choose_convention("spair", "dift", size=448).size == 448
    assert choose_convention("spair", alphas=(0.2, 0.1)).alpha == 0.1
    assert choose_convention("spair", alphas=(0.02, 0.3)).alpha == 0.3
    assert choose_convention("psc6k", threshold="image-target").fixed is None
    assert choose_convention("hpatches", alphas=(1.0, 2.0)).alpha == 2.0
    for arguments, message in (
        (("coco",), "no benchmark called coco: expected one of spair"),
        (("spair", "sd"), "no preset called sd: expected one of exact"),
    ):
        with pytest.raises(InputError, match=message):
            choose_convention(*arguments)
    with pytest.raises(InputError, match="a convention has no sise"):
        choose_convention("spair", sise=3)


def test_sizes_fit_the_patch() -> None:
    assert [Convention(size=840).fitted(p).size for p in (14, 16, 8)] == [840, 848, 840]
    assert Convention().fitted(14).size is None and Convention(size=3).fitted(14).size == 14


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "image-target"},
        {"threshold": "fixed", "fixed": 3.0},
        {"direction": "both"},
        {"direction": "b-to-a"},
        {"size": 28},
        {"resize": "pad"},
        {"layer": "3"},
        {"raw": True},
        {"facet": "key"},
        {"stride": 7},
        {"dtype": "bfloat16"},
        *({"source": source} for source in ("patch", "align-corners", "pixel")),
        {"source": "covering", "target": "displacement"},
        {"target": "offset"},
        {"target": "pixel"},
        {"exclude_padding": False},
        {"window": 3},
        {"flip": "mutual"},
        *({"where": where} for where in ("pca", "cls", "masks")),
        {"fine_size": 512},
        {"coarse_to_fine": 3},
        {"min_score": 0.5},
        {"max_ratio": 0.9},
        {"max_cycle": 0.0},
    ],
)
def test_whatever_moves_a_point_is_in_the_key_and_in_the_words(change: dict[str, Any]) -> None:
    benchmark = Benchmark("spair", "test", [PAIR])
    changed = Convention(**change)
    assert run_key(changed, {}, benchmark) != run_key(Convention(), {}, benchmark)
    assert changed.in_words() != Convention().in_words()


def test_counting_is_in_the_words_and_not_in_the_key() -> None:
    benchmark = Benchmark("spair", "test", [PAIR])
    for change in ({"inclusive": False}, {"average": "category-image"}):
        changed = Convention(**change)  # type: ignore[arg-type]
        assert run_key(changed, {}, benchmark) == run_key(Convention(), {}, benchmark)
        assert changed.in_words() != Convention().in_words()
    assert run_key(Convention(), {"name": "x"}, benchmark) != run_key(Convention(), {}, benchmark)
    for change in (
        {"points_b": POINTS_B + 1},
        {"box_b": None},
        {"name": "q"},
        {"category": "dog"},
        {"twins": (1, 0)},
        {"facts": {"v": 1}},
    ):
        other = Benchmark("spair", "test", [dataclasses.replace(PAIR, **change)])  # type: ignore[arg-type]
        assert benchmark_digest(other) != benchmark_digest(benchmark)
        # A run with one pair annotated otherwise is the same run: only that pair is scored again.
        assert run_key(Convention(), {}, other) == run_key(Convention(), {}, benchmark)
    for other in (
        dataclasses.replace(benchmark, kind="ap10k"),
        dataclasses.replace(benchmark, split="val"),
        dataclasses.replace(benchmark, choices={"list": "small"}),
    ):
        assert run_key(Convention(), {}, other) != run_key(Convention(), {}, benchmark)
    moved = Benchmark("spair", "test", [dataclasses.replace(PAIR, path_a=Path("elsewhere/a.jpg"))])
    assert benchmark_digest(moved) == benchmark_digest(benchmark)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_a": "other"}, "images"),
        ({"image_b": "other"}, "images"),
        ({"mask_a": np.eye(3, dtype=bool)}, "masks"),
        ({"mask_b": ~np.eye(4, dtype=bool)}, "masks"),
        ({"mask_b": None}, "masks"),
        *(
            ({"pair": dataclasses.replace(PAIR, **part)}, "annotations")  # type: ignore[arg-type]
            for part in (
                {"points_a": POINTS_B + 1},
                {"points_b": POINTS_B + 1e-9},
                {"box_a": (0.0, 0.0, 3.0, 9.0)},
                {"box_b": None},
                {"category": "dog"},
                {"twins": (1, 0)},
                {"facts": {"v": 1}},
                {"size_a": (48, 41)},
                {"size_b": None},
                {"path_b": Path("other.jpg")},
            )
        ),
    ],
)
def test_a_record_is_stale_where_anything_that_it_was_made_from_changed(
    change: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    made: dict[str, Any] = {"pair": PAIR, "image_a": "a", "image_b": "b", "mask_b": np.eye(4, dtype=bool)}
    before, after = pair_inputs(**made), pair_inputs(**made | change)
    assert sum(before[part] != after[part] for part in before) == 1
    old = dataclasses.replace(RECORDS[0], inputs=before)
    new = dataclasses.replace(RECORDS[0], errors=RECORDS[0].errors + 1, inputs=after)
    with open_pair_records(tmp_path / "pairs.jsonl", "run") as records:
        records.add(old)
        assert records.changed("a1", before) == () and records.changed("a1", after) == (kind,)
        records.add(new)
    # The last line of a pair counts.
    with open_pair_records(tmp_path / "pairs.jsonl", "run") as records:
        assert len(records) == 1 and records["a1"].errors.tolist() == new.errors.tolist()
        assert records.changed("a1", before) == (kind,) and records.changed("a1", after) == ()


def test_records_without_digests_are_stale(tmp_path: Path) -> None:
    with open_pair_records(tmp_path / "pairs.jsonl", "run") as records:
        records.add(RECORDS[0])
        assert records.changed("a1", pair_inputs(PAIR, "a", "b")) == ("images", "annotations", "masks")


def test_images_have_a_digest_where_all_records_say(tmp_path: Path) -> None:
    one, two = (
        dataclasses.replace(item, inputs=pair_inputs(PAIR, "a", name))
        for item, name in zip(RECORDS[:2], "bc", strict=True)
    )
    assert images_digest([one, two]) == images_digest([two, one]) is not None
    assert images_digest([one, dataclasses.replace(two, inputs=one.inputs)]) != images_digest([one, two])
    assert images_digest([one, RECORDS[1]]) is None
    benchmark = Benchmark("spair", "test", [PAIR])
    results = [pck([one, item], Convention(), benchmark=benchmark).to_json() for item in (two, RECORDS[1])]
    assert [result["benchmark"]["images"] for result in results] == [images_digest([one, two]), None]
    first, second = results
    other = {**first, "benchmark": {**first["benchmark"], "images": "other"}}
    for one_result, another, same in ((first, first, True), (first, other, False), (first, second, None)):
        assert compare_pck(one_result, another).same_images is same
        assert compare_pck(another, one_result).to_json()["same_images"] is same


def test_records_are_there_again(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    both = dataclasses.replace(RECORDS[1], thresholds=np.array([0.1 + 0.2, 7, 7]))
    with open_pair_records(path, "run") as records:
        assert len(records) == 0 and "a1" not in records
        for item in (RECORDS[0], both):
            records.add(item)
        with pytest.raises(InputError, match="the pair a1 is there already"):
            records.add(RECORDS[0])
    with open_pair_records(path, "run") as records:
        assert len(records) == 2 and "a1" in records
        records.add(RECORDS[3])
        got = records["a2"]
    assert got.to_json() == both.to_json()
    assert got.thresholds.tolist() == both.thresholds.tolist() and got.errors.tolist() == both.errors.tolist()
    assert got.twins is not None and got.twins.tolist() == [True, True, False]
    with open_pair_records(path, "run") as records:
        assert len(records) == 3 and records["b1"].mirrored == 1 and records["b1"].facts == {"id": 3.0}


def test_a_run_that_was_killed_at_any_byte_goes_on(tmp_path: Path) -> None:
    path, whole = tmp_path / "pairs.jsonl", tmp_path / "whole.jsonl"
    with open_pair_records(whole, "run") as records:
        for item in RECORDS:
            records.add(item)
    data = whole.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (0, 1, 20, data.index(b"\n"), data.index(b"\n") + 1, len(data) - 1, *rng.integers(0, len(data), 10)):
        path.write_bytes(data[:cut])
        with open_pair_records(path, "run") as records:
            assert len(records) == max(0, data[:cut].count(b"\n") - 1)
            for item in RECORDS:
                if item.name not in records:
                    records.add(item)
        assert path.read_bytes() == data


def test_records_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with open_pair_records(path, "run") as records:
        records.add(RECORDS[0])
        with pytest.raises(OutputExistsError, match="another process is writing"), open_pair_records(path, "run"):
            pass
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="records of another run"), open_pair_records(path, "other"):
        pass
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b'"schema":3', b'"schema":2'))
    with pytest.raises(OutputExistsError, match="records of schema 2, this fewmatch"), open_pair_records(path, "run"):
        pass
    path.write_bytes(before)
    assert path.read_bytes() == before
    for text in ("hello", "hello\n", "[]\n", '{"kind": "notes"}\n'):
        path.write_text(text)
        with pytest.raises(OutputExistsError, match="is no file of PCK records"), open_pair_records(path, "run"):
            pass
        assert path.read_text() == text
    lines = before.splitlines(keepends=True)
    for damaged in (b"{}\n", b"x\n", lines[1].replace(b'"n":1', b'"n":2'), lines[1].replace(b"100.0", b"-1.0")):
        path.write_bytes(lines[0] + damaged + lines[1])
        with pytest.raises(InputError, match="line 2: no record of a pair"), open_pair_records(path, "run"):
            pass
    with pytest.raises(FewmatchError, match="cannot be opened"), open_pair_records(tmp_path / "no" / "x", "run"):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"errors": np.array([np.nan, 1])}, "p: expected finite errors"),
        ({"errors": np.array([-1.0, 1])}, "p: expected finite errors"),
        ({"thresholds": np.array([0.0, 1])}, "p: expected finite thresholds T above 0"),
    ],
)
def test_records_hold_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(record("p", "c", [1, 2]), **change)
