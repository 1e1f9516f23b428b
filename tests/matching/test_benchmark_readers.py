"""Readers of benchmarks against folders made up in each official layout: coordinates by hand, and whatever was written comes back."""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import benchmark_folders as made
import numpy as np
import pytest
import scipy.io
from benchmark_folders import a_pair, plain

from fewmatch.encoders.images import read_image
from fewmatch.errors import InputError
from fewmatch.matching.benchmarks import ap10k
from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
from fewmatch.matching.benchmarks.reading import BENCHMARKS, read_benchmark

PICTURES = {name: plain(20 + n, 10 + n, 40 * n + 5) for n, name in enumerate("abcd")}


def equal(found: BenchmarkPair, written: BenchmarkPair) -> None:
    assert found.category == written.category
    assert (found.path_a.stem, found.path_b.stem) == (written.path_a.stem, written.path_b.stem)
    assert found.path_a.is_file() and found.path_b.is_file()
    assert np.array_equal(found.points_a, written.points_a) and np.array_equal(found.points_b, written.points_b)


def digits(benchmark: Benchmark) -> list[tuple[str, list[list[float]], list[list[float]]]]:
    return [(pair.name, pair.points_a.tolist(), pair.points_b.tolist()) for pair in benchmark.pairs]


# SPair-71k


def spair_pairs(rng: np.random.Generator, n: int = 5) -> list[BenchmarkPair]:
    pairs = []
    for i in range(n):
        a, b = rng.choice(list("abcd"), 2, replace=False)
        points_a, points_b = rng.integers(0, 10, (2, i % 3 + 1, 2))
        box = (1.0, 2.0, float(rng.integers(5, 9)), 9.0)
        facts = {"viewpoint_variation": i % 3, "scale_variation": 1, "truncation": 3, "occlusion": 2}
        pairs.append(
            a_pair(
                "cat" if i % 2 else "dog",
                a,
                b,
                points_a,
                points_b,
                box_b=box,
                facts=facts,
                points=[str(7 + k) for k in range(i % 3 + 1)],
            )
        )
    return pairs


@pytest.mark.parametrize("colon", [":", "_"])
def test_spair_gives_back_what_was_written(tmp_path: Path, colon: str) -> None:
    pairs = spair_pairs(np.random.default_rng(), 5)
    order = [3, 0, 4, 1]
    names = made.write_spair(tmp_path, pairs, PICTURES, layouts={"large": order, "small": [2]}, colon=colon)
    found = read_benchmark(tmp_path, "spair")
    assert [pair.name for pair in found.pairs] == [names[i] for i in order]
    for pair, i in zip(found.pairs, order, strict=True):
        equal(pair, pairs[i])
        assert pair.box_b == pairs[i].box_b and pair.points == pairs[i].points and pair.facts == pairs[i].facts
        width, height = pair.size_a or (0, 0)
        assert read_image(pair.path_a).rgb.shape == (height, width, 3)
        assert pair.box_a == (0, 0, width, height)
        # Of a cat 6 and 7, and 9 and 10, are left and right of each other, of a dog only the latter; 8 is its own mirror image.
        assert pair.twins == ((-1, 1, -1) if pair.category == "cat" else (0, 1, -1))[: i % 3 + 1]
    assert found.choices == {"list": "Layout/large/test.txt"} and not found.dropped
    assert found.notes == ("4 pairs are listed; the official list (spair, test) has 12,234",)
    small = read_benchmark(tmp_path, "spair", layout="small")
    assert [pair.name for pair in small.pairs] == [names[2]] and not small.notes
    assert small.choices == {"list": "Layout/small/test.txt"}


def test_spair_by_hand(tmp_path: Path) -> None:
    """The JSON of a pair as the official one is, under a name that says something else: the JSON counts."""
    record = {
        "pair_id": 1,
        "filename": "000001-2008_002719-2008_004100:aeroplane",
        "src_imname": "2008_002719.jpg",
        "trg_imname": "2008_004100.jpg",
        "src_imsize": [500, 375, 3],
        "trg_imsize": [500, 333, 3],
        "src_bndbox": [12, 30, 480, 300],
        "trg_bndbox": [45, 69, 475, 260],
        "category": "aeroplane",
        "src_pose": "Left",
        "trg_pose": "Unspecified",
        "src_kps": [[58, 200], [0, 374]],
        "trg_kps": [[70, 121], [499, 332]],
        "kps_ids": ["0", "22"],
        "mirror": 0,
        "viewpoint_variation": 1,
        "scale_variation": 0,
        "truncation": 2,
        "occlusion": 3,
    }
    file = tmp_path / "PairAnnotation" / "val" / "000001-2008_000000-2008_000001_bus.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record))
    for name in ("2008_002719", "2008_004100"):
        made.picture(tmp_path / "JPEGImages" / "aeroplane" / f"{name}.jpg", plain())
    (pair,) = read_benchmark(tmp_path, "spair", split="val").pairs
    assert pair.category == "aeroplane" and pair.path_a == tmp_path / "JPEGImages/aeroplane/2008_002719.jpg"
    assert pair.points_a.tolist() == [[58, 200], [0, 374]] and pair.points_b.tolist() == [[70, 121], [499, 332]]
    assert pair.box_b == (45, 69, 475, 260) and pair.size_b == (500, 333) and pair.points == ("0", "22")
    assert pair.facts == {"viewpoint_variation": 1, "scale_variation": 0, "truncation": 2, "occlusion": 3}


#: Which of a category's points are on the right (2), on the left (1) or in the middle (0): another list of GeoAware-SC than that of pairs.
SIDES = {
    "aeroplane": "0000212121212121212121000",
    "bicycle": "00210021021000",
    "bird": "02102102102121210",
    "boat": "02121212121210",
    "bottle": "1212121212",
    "bus": "212102100022222221211111112121",
    "car": "212100210022222221211111112121",
    "cat": "212121210212100",
    "chair": "21212121212121",
    "cow": "212121210212100212121",
    "dog": "2121210002121000",
    "horse": "21212121002121002121",
    "motorbike": "2121000000000",
    "person": "21210000212121212121",
    "pottedplant": "201021201",
    "sheep": "212121210212100212121",
    "train": "121212121212121212",
    "tvmonitor": "2012201120122011",
}


@pytest.mark.parametrize("category", SIDES)
def test_spair_knows_the_left_and_right_of_each_category(tmp_path: Path, category: str) -> None:
    sides = SIDES[category]
    numbers = [str(k) for k in range(len(sides))]
    places = np.arange(2 * len(sides)).reshape(-1, 2)
    pairs = [
        a_pair(category, "a", "b", places, places, points=numbers),
        a_pair(category, "b", "a", places[: -1 or None], places[:-1], points=numbers[:-1]),
        a_pair(category, "c", "d", places[:1], places[:1], points=[str(len(sides))]),
    ]
    made.write_spair(tmp_path, pairs, PICTURES)
    whole, without_last, beyond = read_benchmark(tmp_path, "spair").pairs
    twins = whole.twins or ()
    assert all(twins[twins[k]] == k and (twins[k] == k) == (side == "0") for k, side in enumerate(sides))
    assert all({sides[k], sides[twins[k]]} == {"1", "2"} for k, side in enumerate(sides) if side != "0")
    assert without_last.twins == tuple(-1 if k == len(sides) - 1 else k for k in twins[:-1])
    assert beyond.twins is None  # a number that the category does not have


def test_of_other_categories_and_names_nothing_is_known(tmp_path: Path) -> None:
    pairs = [
        a_pair("mouse", "a", "b", [[1, 2]], [[3, 4]], points=["0"]),
        a_pair("cat", "c", "d", [[1, 2]], [[3, 4]], points=["left ear"]),
    ]
    made.write_spair(tmp_path, pairs, PICTURES)
    assert [pair.twins for pair in read_benchmark(tmp_path, "spair").pairs] == [None, None]


def test_spair_without_lists_is_in_the_order_of_names_and_train_is_trn(tmp_path: Path) -> None:
    pairs = spair_pairs(np.random.default_rng(), 3)
    names = made.write_spair(tmp_path, pairs, PICTURES, split="trn")
    found = read_benchmark(tmp_path, "spair", split="train")
    assert [pair.name for pair in found.pairs] == names
    assert found.split == "trn" and found.choices == {"list": "PairAnnotation/trn, by name"}


def test_spair_with_a_layout_that_is_not_there(tmp_path: Path) -> None:
    made.write_spair(tmp_path, spair_pairs(np.random.default_rng(), 2), PICTURES)
    for layout in ("small", "large"):
        with pytest.raises(InputError, match=f"Layout/{layout}/test.txt cannot be read"):
            read_benchmark(tmp_path, "spair", layout=layout)


def test_pairs_without_common_points_are_dropped(tmp_path: Path) -> None:
    pairs = [
        a_pair("cat", "a", "b", [[1, 2]], [[3, 4]]),
        a_pair("cat", "b", "c", [], []),
        a_pair("dog", "c", "d", [[1, 1]], [[2, 2]]),
    ]
    names = made.write_spair(tmp_path, pairs, PICTURES)
    found = read_benchmark(tmp_path, "spair")
    assert [pair.name for pair in found.pairs] == [names[0], names[2]]
    assert found.dropped == ((names[1], "no point is known in both images"),)
    assert found.notes == ("3 pairs are listed; the official list (spair, test) has 12,234",)


# Proposal Flow


def test_pf_pascal_matlab(tmp_path: Path) -> None:
    nan = np.nan
    points = {
        "a": [[0, 0], [nan, nan], [4.25, 5], [7, 8]],
        "b": [[1, 1], [2, 2], [nan, nan], [6.5, 0.125]],
        "c": [[nan, nan], [3, 3], [nan, nan], [nan, nan]],
    }
    boxes = {"a": (0.0, 1.0, 9.0, 8.0), "b": (2.0, 0.0, 3.0, 8.5), "c": (0.0, 0.0, 5.0, 5.0)}
    pairs = [
        a_pair("bus", x, y, points[x], points[y], box_a=boxes[x], box_b=boxes[y])
        for x, y in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "b"))
    ]
    made.write_pf_pascal(tmp_path, pairs, PICTURES)
    found = read_benchmark(tmp_path, "pf-pascal")
    forth, back, third = found.pairs
    assert forth.points_a.tolist() == [[0, 0], [7, 8]] and forth.points_b.tolist() == [[1, 1], [6.5, 0.125]]
    assert back.points_a.tolist() == forth.points_b.tolist() and forth.points == ("0", "3")
    assert third.points == ("1",) and third.points_b.tolist() == [[2, 2]]
    assert forth.category == "bus" and (forth.box_a, forth.box_b) == (boxes["a"], boxes["b"])
    assert forth.path_a == tmp_path / "JPEGImages" / "a.jpg" and forth.size_a is None
    assert [name for name, _ in found.dropped] == ["00002-a-c"]
    assert found.choices == {"list": "test_pairs.csv"}
    assert found.notes == ("4 pairs are listed; the official list (pf-pascal, test) has 299",)


def test_pf_pascal_by_hand(tmp_path: Path) -> None:
    """MATLAB's (1, 1) is the first pixel; names without an ending, class 7 of VOC."""
    folder = tmp_path / "Annotations" / "car"
    folder.mkdir(parents=True)
    scipy.io.savemat(
        folder / "x.mat", {"kps": np.array([[1.0, 1], [10, 20]]), "bbox": np.array([[1, 2, 11, 42]], np.uint16)}
    )
    scipy.io.savemat(folder / "y.mat", {"kps": np.array([[3.5, 2], [1, 2]])})
    for name in "xy":
        made.picture(tmp_path / "JPEGImages" / f"{name}.jpg", plain())
    (tmp_path / "val_pairs.csv").write_text("source_image,target_image,class\nJPEGImages/x,y.jpg,7.0\n")
    (pair,) = read_benchmark(tmp_path, "pf-pascal", split="val").pairs
    assert pair.points_a.tolist() == [[0, 0], [9, 19]] and pair.points_b.tolist() == [[2.5, 1], [0, 1]]
    assert pair.box_a == (0, 1, 10, 41) and pair.box_b is None and pair.category == "car"


@pytest.mark.parametrize("flips", [[0, 1, 0], [1, 0, 0]])
def test_pf_pascal_mirrored_rows_of_the_training_list_do_not_count(tmp_path: Path, flips: list[int]) -> None:
    points = {"a": [[0, 0]], "b": [[1, 1]], "c": [[2, 2]]}
    pairs = [a_pair("cow", x, y, points[x], points[y]) for x, y in ("ab", "bc", "ca")]
    made.write_pf_pascal(tmp_path, pairs, PICTURES, split="trn", flips=flips)
    found = read_benchmark(tmp_path, "pf-pascal", split="train")
    assert [pair.name[6:] for pair in found.pairs] == [p.name for p, flip in zip(pairs, flips, strict=True) if not flip]
    assert [(name[6:], reason[:9]) for name, reason in found.dropped] == [(pairs[flips.index(1)].name, "flip is 1")]


def test_pf_pascal_flip_is_the_fourth_column_whatever_its_name(tmp_path: Path) -> None:
    pairs = [a_pair("cow", "a", "b", [[0, 0]], [[1, 1]]), a_pair("cow", "b", "a", [[1, 1]], [[0, 0]])]
    made.write_pf_pascal(tmp_path, pairs, PICTURES, split="trn", flips=[0, 1])
    path = tmp_path / "trn_pairs.csv"
    path.write_text(path.read_text().replace("source_image,target_image,class,flip", "s,t,c,f"))
    assert [pair.name for pair in read_benchmark(tmp_path, "pf-pascal", split="trn").pairs] == ["00000-a-b"]


def test_pf_pascal_ncnet(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    pairs = [
        a_pair("cat", "a", "b", *rng.uniform(0, 9, (2, 4, 2))),
        a_pair("dog", "c", "d", *rng.uniform(0, 9, (2, 1, 2))),
    ]
    made.write_pf_pascal_ncnet(tmp_path, pairs, PICTURES, split="val")
    found = read_benchmark(tmp_path, "pf-pascal", split="val")
    for pair, expected in zip(found.pairs, pairs, strict=True):
        assert pair.category == expected.category and pair.points is None and pair.box_b is None
        np.testing.assert_allclose(pair.points_a, expected.points_a, atol=1e-14)
        np.testing.assert_allclose(pair.points_b, expected.points_b, atol=1e-14)
    (tmp_path / "test_pairs_pf_pascal.csv").write_text(
        "source_image,target_image,class,XA,YA,XB,YB\n"
        "PF-dataset-PASCAL/JPEGImages/a.jpg,PF-dataset-PASCAL/JPEGImages/b.jpg,2,1;5.5;nan,2;3;4,10;11;12,20;21;22\n"
    )
    (by_hand,) = read_benchmark(tmp_path, "pf-pascal").pairs
    assert by_hand.points_a.tolist() == [[0, 1], [4.5, 2]] and by_hand.points_b.tolist() == [[9, 19], [10, 20]]
    assert by_hand.category == "bicycle"


def test_pf_pascal_takes_the_list_with_matlab_files_first(tmp_path: Path) -> None:
    made.write_pf_pascal_ncnet(tmp_path, [a_pair("cat", "a", "b", [[1, 2]], [[3, 4]])], PICTURES)
    assert read_benchmark(tmp_path, "pf-pascal").choices == {"list": "test_pairs_pf_pascal.csv"}
    made.write_pf_pascal(tmp_path, [a_pair("dog", "a", "b", [[5, 6]], [[7, 8]])], PICTURES)
    found = read_benchmark(tmp_path, "pf-pascal")
    assert found.choices == {"list": "test_pairs.csv"} and found.pairs[0].category == "dog"


@pytest.mark.parametrize("name", ["test_pairs.csv", "test_pairs_pf.csv"])
def test_pf_willow(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng()
    pairs = [
        a_pair("car(G)", "a", "b", *rng.integers(0, 64, (2, 10, 2)) / 4),
        a_pair("winebottle(woC)", "d", "c", *rng.integers(0, 64, (2, 10, 2)) / 4),
    ]
    made.write_pf_willow(tmp_path, pairs, PICTURES, name=name)
    found = read_benchmark(tmp_path, "pf-willow")
    for pair, expected in zip(found.pairs, pairs, strict=True):
        equal(pair, expected)
        assert pair.box_b is None and len(pair.points or ()) == 10
    assert found.pairs[0].path_a == tmp_path / "car(G)" / "a.png"
    assert [pair.facts for pair in found.pairs] == [{"class": "car"}, {"class": "winebottle"}]
    assert found.notes == ("2 pairs are listed; the official list (pf-willow, test) has 900",)
    assert found.choices == {"list": name}


def test_pf_willow_by_hand(tmp_path: Path) -> None:
    for name in "xy":
        made.picture(tmp_path / "duck(S)" / f"{name}.png", plain())
    header = ",".join(["imageA", "imageB", *(f"c{i}" for i in range(40))])
    row = ",".join(["PF-dataset/duck(S)/x.png", "PF-dataset/duck(S)/y.png", *map(str, range(1, 41))])
    (tmp_path / "test_pairs.csv").write_text(f"{header}\n{row}\n")
    (pair,) = read_benchmark(tmp_path, "pf-willow").pairs
    assert pair.points_a[0].tolist() == [0, 10] and pair.points_a[9].tolist() == [9, 19]
    assert pair.points_b[0].tolist() == [20, 30] and pair.points_b[9].tolist() == [29, 39]


# TSS


def test_tss_by_hand(tmp_path: Path) -> None:
    """Image 1 is 5×3, image 2 is 4×4; each mask has a pixel whose flow is unknown, and flow is known beside the masks."""
    nan = np.nan
    mask1, mask2 = np.zeros((3, 5), bool), np.zeros((4, 4), bool)
    flow1, flow2 = np.full((3, 5, 2), 0.5), np.full((4, 4, 2), nan)
    mask1[0, 4] = mask1[2, 1] = mask1[1, 1] = True
    flow1[0, 4], flow1[2, 1], flow1[1, 1] = (-3, 1), (2.5, -0.25), nan
    mask2[3, 0] = mask2[0, 0] = True
    flow2[3, 0] = (10, -3)  # ends outside of image 1, and counts
    made.write_tss(tmp_path, "JODS", "p", [plain(5, 3), plain(4, 4)], [mask1, mask2], [flow1, flow2], flip=1)
    found = read_benchmark(tmp_path, "tss")
    assert digits(found) == [
        ("JODS/p/1-2", [[4, 0], [1, 2]], [[1, 1], [3.5, 1.75]]),
        ("JODS/p/2-1", [[0, 3]], [[10, 0]]),
    ]
    forth, back = found.pairs
    assert (forth.size_a, forth.size_b) == ((5, 3), (4, 4)) == (back.size_b, back.size_a)
    assert forth.facts == {"flip_gt": 1, "direction": "1 to 2"} and back.facts == {"flip_gt": 1, "direction": "2 to 1"}
    assert forth.path_a.name == "image1.png" == back.path_b.name and forth.category == "JODS"
    assert found.choices == {"step": 1}


def test_tss_order_steps_and_drawn_points(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    for subset, name in (("PASCAL", "x"), ("FG3DCar", "b"), ("FG3DCar", "a")):
        flows = [rng.normal(size=(7, 9, 2)).astype(np.float32) for _ in range(2)]
        flows[0][rng.random((7, 9)) < 0.3] = np.nan
        made.write_tss(tmp_path, subset, name, [plain(9, 7)] * 2, [rng.random((7, 9)) < 0.8 for _ in range(2)], flows)
    full = read_benchmark(tmp_path, "tss")
    names = [f"{p}/{d}" for p in ("FG3DCar/a", "FG3DCar/b", "PASCAL/x") for d in ("1-2", "2-1")]
    assert [pair.name for pair in full.pairs] == names
    for step in (2, 3):
        stepped = read_benchmark(tmp_path, "tss", step=step)
        assert stepped.choices == {"step": step}
        first = (step - 1) // 2
        dropped = dict(stepped.dropped)
        left = {pair.name: pair for pair in stepped.pairs}
        for pair in full.pairs:
            kept = [
                (a, b)
                for a, b in zip(pair.points_a.tolist(), pair.points_b.tolist(), strict=True)
                if a[0] % step == first and a[1] % step == first
            ]
            assert (
                pair.name in dropped
                if not kept
                else kept
                == list(zip(left[pair.name].points_a.tolist(), left[pair.name].points_b.tolist(), strict=True))
            )
    drawn = read_benchmark(tmp_path, "tss", points=5, seed=3)
    assert drawn.choices == {"step": 1, "points": 5, "seed": 3}
    for some, every in zip(drawn.pairs, full.pairs, strict=True):
        both = np.hstack([every.points_a, every.points_b]).tolist()
        places = [both.index(row) for row in np.hstack([some.points_a, some.points_b]).tolist()]
        assert len(places) == 5 and places == sorted(set(places))
    assert digits(drawn) == digits(read_benchmark(tmp_path, "tss", points=5, seed=3))
    assert digits(drawn) != digits(read_benchmark(tmp_path, "tss", points=5, seed=4))
    assert digits(full) == digits(read_benchmark(tmp_path, "tss", points=10_000))


# CUB


def cub(
    folder: Path, images: int = 4, *, seed: int = 0
) -> dict[str, tuple[str, dict[str, tuple[float, float]], made.Box]]:
    rng = np.random.default_rng(seed)
    birds = {}
    for c in ("002.Crow", "001.Auk"):
        for n in range(images):
            parts = {name: tuple((rng.integers(0, 64, 2) / 4).tolist()) for name in made.BIRD if rng.random() < 0.7}
            birds[f"{c[4:]}_{n}"] = (c, {**parts, "beak": (3.0 + n, 2.0)}, (1.0, 2.0 + n, 7.5, 6.0 + n))
    made.write_cub(folder, birds, dict.fromkeys(birds, plain()), training=[n for n in birds if n.endswith("_0")])
    return birds


def test_cub_gives_back_what_was_written_and_every_ordered_pair(tmp_path: Path) -> None:
    birds = cub(tmp_path)
    found = read_benchmark(tmp_path, "cub", pairs=6)  # 3 test images a class: 3 · 2 ordered pairs
    test = {c: [n for n in birds if birds[n][0] == c and not n.endswith("_0")] for c in ("001.Auk", "002.Crow")}
    for category, names in test.items():
        of_class = [(p.path_a.stem, p.path_b.stem) for p in found.pairs if p.category == category]
        assert sorted(of_class) == sorted(itertools.permutations(names, 2))
    assert [p.category for p in found.pairs] == ["001.Auk"] * 6 + ["002.Crow"] * 6
    for pair in found.pairs:
        (_, parts_a, box_a), (_, parts_b, box_b) = birds[pair.path_a.stem], birds[pair.path_b.stem]
        names = [name for name in made.BIRD if name in parts_a and name in parts_b]
        assert list(pair.points or ()) == names and pair.path_a.is_file()
        assert pair.points_a.tolist() == [list(parts_a[name]) for name in names]
        assert pair.points_b.tolist() == [list(parts_b[name]) for name in names]
        assert pair.box_a == box_a and pair.box_b == box_b
        for k, name in enumerate(names):
            other = name.replace("left", "R").replace("right", "left").replace("R", "right")
            assert (pair.twins or ())[k] == (names.index(other) if other in names else -1)
    assert found.choices == {"pairs_per_class": 6, "seed": 0}


def test_cub_draws_with_the_seed(tmp_path: Path) -> None:
    cub(tmp_path, images=7)
    some = read_benchmark(tmp_path, "cub", pairs=3, seed=5)
    assert [p.category for p in some.pairs] == ["001.Auk"] * 3 + ["002.Crow"] * 3
    assert len({p.name for p in some.pairs}) == 6 and all(p.path_a != p.path_b for p in some.pairs)
    assert digits(some) == digits(read_benchmark(tmp_path, "cub", pairs=3, seed=5))
    assert digits(some) != digits(read_benchmark(tmp_path, "cub", pairs=3, seed=6))
    assert len(read_benchmark(tmp_path, "cub").pairs) == 20  # 10 a class unless told


def test_cub_splits(tmp_path: Path) -> None:
    birds = cub(tmp_path, images=3)
    assert {p.path_a.stem[-1] for p in read_benchmark(tmp_path, "cub").pairs} == {"1", "2"}
    every = read_benchmark(tmp_path, "cub", split="all", pairs=99)
    assert {p.path_a.stem for p in every.pairs} == set(birds) and len(every.pairs) == 2 * 3 * 2
    with pytest.raises(InputError, match="no pair that can count"):  # one training image a class
        read_benchmark(tmp_path, "cub", split="trn")


def test_cub_by_hand_and_pairs_without_a_common_part(tmp_path: Path) -> None:
    """A line of the real list: image 2 has the box 139, 30, 153, 264. Its first pixel is (138, 29)."""
    box = (138.0, 29.0, 291.0, 293.0)
    birds = {"x": ("001.A", {"tail": (11.0, 12.0)}, box), "y": ("001.A", {"beak": (1.0, 2.0)}, box)}
    birds |= {"z": ("001.A", {"tail": (5.0, 6.0), "beak": (7.0, 8.0)}, box)}
    made.write_cub(tmp_path, birds, dict.fromkeys(birds, plain()))
    assert "1 139.0 30.0 153.0 264.0" in (tmp_path / "bounding_boxes.txt").read_text()
    assert "1 14 12.0 13.0 1" in (tmp_path / "parts/part_locs.txt").read_text().splitlines()
    found = read_benchmark(tmp_path, "cub", pairs=6)
    assert sorted(name for name, _ in found.dropped) == ["x-y", "y-x"]
    pair = next(p for p in found.pairs if p.name == "x-z")
    assert pair.points_a.tolist() == [[11, 12]] and pair.points_b.tolist() == [[5, 6]] and pair.points == ("tail",)
    assert pair.box_a == box


# AP-10K


@pytest.mark.parametrize("colon", [":", "_"])
def test_ap10k_gives_back_what_was_written(tmp_path: Path, colon: str) -> None:
    names = ["left_eye", "nose", "right_eye", "left_hip"]
    places = {"a": [[1, 2], [3, 4], [5, 6], [7, 8]], "b": [[2, 2], [4, 4], [6, 6], [8, 8]]}
    pairs = [
        a_pair("king cheetah", "a", "b", places["a"], places["b"], points=names, box_b=(1, 2, 9, 8)),
        a_pair("king cheetah", "b", "a", places["b"][1:], places["a"][1:], points=names[1:], box_a=(1, 2, 9, 8)),
    ]
    made.write_ap10k(tmp_path, pairs, PICTURES, colon=colon)
    found = read_benchmark(tmp_path, "ap10k")
    # an image has one annotation: what one pair knows of it all pairs know
    assert [pair.points for pair in found.pairs] == [("left_eye", "right_eye", "nose", "left_hip")] * 2
    forth, back = found.pairs
    assert forth.twins == (1, 0, 2, -1) and forth.category == "king cheetah"
    order = [0, 2, 1, 3]
    assert forth.points_a.tolist() == [places["a"][k] for k in order] == back.points_b.tolist()
    assert forth.points_b.tolist() == [places["b"][k] for k in order] == back.points_a.tolist()
    assert forth.path_a == tmp_path / "JPEGImages/Felidae/king cheetah/a.jpg" and forth.path_a.is_file()
    assert forth.size_a == (20, 10) and forth.size_b == (21, 11)
    assert forth.name == "000001-a-b:king cheetah" and forth.facts["species_b"] == "king cheetah"


def test_ap10k_by_hand(tmp_path: Path) -> None:
    """Boxes are left, top, width, height; a point of visibility 0 in either image does not count."""
    keypoints = {"x": [0.0] * 51, "y": [0.0] * 51}
    keypoints["x"][6:9], keypoints["x"][48:51] = [30, 40, 2], [7, 9, 2]
    keypoints["y"][6:9], keypoints["y"][48:51], keypoints["y"][0:3] = [3, 4, 1], [1, 1, 0], [5, 5, 2]
    for name, species in (("x", "wolf"), ("y", "fox")):
        file = tmp_path / "ImageAnnotation" / "Canidae" / species / f"{name}.json"
        file.parent.mkdir(parents=True)
        points = np.array(keypoints[name]).reshape(17, 3).tolist() if name == "x" else keypoints[name]
        file.write_text(json.dumps({"bbox": [10, 20, 30, 41.5], "keypoints": points}))
        made.picture(tmp_path / "JPEGImages" / "Canidae" / species / f"{name}.jpg", plain())
    pair_file = tmp_path / "PairAnnotation" / "test_cross_species" / "000000-x-y:Canidae.json"
    pair_file.parent.mkdir(parents=True)
    roots = ("data/ap-10k/ImageAnnotation/Canidae/wolf/x.json", "elsewhere\\ImageAnnotation\\Canidae\\fox\\y.json")
    pair_file.write_text(json.dumps(dict(zip(("src_json_path", "trg_json_path"), roots, strict=True))))
    (pair,) = read_benchmark(tmp_path, "ap10k", split="test_cross_species").pairs
    assert pair.points == ("nose",) and pair.points_a.tolist() == [[30, 40]] and pair.points_b.tolist() == [[3, 4]]
    assert pair.box_a == (10, 20, 40, 61.5) and pair.size_a is None and pair.category == "Canidae"
    assert pair.facts == {"species_a": "wolf", "species_b": "fox"} and pair.twins == (0,)


def test_ap10k_names_are_in_the_official_order() -> None:
    assert list(ap10k.POINTS) == made.AP10K


# HPatches


def test_hpatches_by_hand(tmp_path: Path) -> None:
    """A shift of (2, -1) scaled by -3, which is the same one; and one that brings only points behind the camera into the image."""
    shift = -3 * np.array([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]])
    scale = np.diag([2.0, 2, 1])
    turned = np.array([[0.0, -1, 5], [1, 0, 0], [0, 0, 1]])
    behind = np.array([[1.0, 0, -6], [0, 1, 0], [-0.5, 0, 1]])  # (5, 0) to (2/3, 0), from x = 2 on behind the camera
    perspective = np.array([[1.0, 0, 0], [0, 1, 0], [-0.25, 0, 1]])
    pictures = [plain(6, 4, k) for k in range(5)] + [plain(3, 4)]
    made.write_hpatches(tmp_path, "v_x", pictures, [shift, scale, turned, behind, perspective])
    found = read_benchmark(tmp_path, "hpatches", step=1)
    assert [pair.name for pair in found.pairs] == ["v_x/1-2", "v_x/1-3", "v_x/1-4", "v_x/1-6"]
    assert [name for name, _ in found.dropped] == ["v_x/1-5"]
    by_shift, by_scale, by_turn, by_perspective = found.pairs
    assert by_shift.points_a.tolist() == [[x, y] for y in (1, 2, 3) for x in (0, 1, 2, 3)]
    assert (by_shift.points_b - by_shift.points_a == [2, -1]).all()
    assert by_scale.points_a.tolist() == [[x, y] for y in (0, 1) for x in (0, 1, 2)]
    assert by_scale.points_b.tolist() == [[2 * x, 2 * y] for y in (0, 1) for x in (0, 1, 2)]
    assert by_turn.points_b.tolist() == [[5 - y, x] for x, y in by_turn.points_a.astype(int).tolist()]
    # (x, y) / (1 - x / 4): x = 0 stays, 1 goes to 4/3, 2 to 4, which lies outside of three columns; from x = 4 on: behind the camera
    assert by_perspective.points_a.tolist() == [[x, y] for y in (0, 1, 2) for x in (0, 1)] + [[0, 3]]
    np.testing.assert_allclose(by_perspective.points_b[1], [4 / 3, 0])
    assert by_perspective.size_b == (3, 4) and by_perspective.category == "viewpoint"
    assert by_perspective.facts == {"sequence": "v_x", "target": 6}


def test_hpatches_lattice_points_and_sequences(tmp_path: Path) -> None:
    same = [np.eye(3)] * 5
    for name in ("v_b", "i_dc", "i_a"):
        made.write_hpatches(tmp_path, name, [plain(40, 33)] * 6, same)
    found = read_benchmark(tmp_path, "hpatches")
    assert [p.facts["sequence"] for p in found.pairs] == ["i_a"] * 5 + ["v_b"] * 5
    assert found.pairs[0].category == "illumination"
    assert found.pairs[0].points_a.tolist() == [[x, y] for y in (7, 23) for x in (7, 23, 39)]
    assert found.choices == {"all_sequences": False, "step": 16}
    assert found.notes == ("10 pairs are listed; the official list (hpatches, test) has 540",)
    every = read_benchmark(tmp_path, "hpatches", all_sequences=True, step=8)
    assert [p.facts["sequence"] for p in every.pairs][5:10] == ["i_dc"] * 5 and len(every.pairs[0].points_a) == 5 * 4
    assert every.notes == ("15 pairs are listed; the official list (hpatches, test) has 580",)
    few = read_benchmark(tmp_path, "hpatches", step=1, points=30, seed=1)
    for pair in few.pairs:
        rows = (pair.points_a @ [1, 40]).tolist()
        assert len(rows) == 30 and rows == sorted(set(rows)) and (pair.points_a == pair.points_b).all()
    assert few.choices == {"all_sequences": False, "step": 1, "points": 30, "seed": 1}
    assert digits(few) != digits(read_benchmark(tmp_path, "hpatches", step=1, points=30))


# PSC6K


def psc_pairs(rng: np.random.Generator) -> list[BenchmarkPair]:
    return [
        a_pair("wolf", "a", "b", *rng.uniform(0, 255, (2, 8, 2))),
        a_pair("airplane", "c", "d", *rng.uniform(0, 255, (2, 8, 2))),
    ]


@pytest.mark.parametrize("both_ways", [True, False])
def test_psc6k_counts_both_directions(tmp_path: Path, both_ways: bool) -> None:
    pairs = psc_pairs(np.random.default_rng())
    made.write_psc6k(tmp_path / "PSC6K", pairs, PICTURES, images=tmp_path / "sketchy", both_ways=both_ways)
    found = read_benchmark(tmp_path / "PSC6K", "psc6k", images=tmp_path / "sketchy")
    for pair, forth, back in zip(pairs, found.pairs[::2], found.pairs[1::2], strict=True):
        equal(forth, pair)
        assert np.array_equal(back.points_a, pair.points_b) and np.array_equal(back.points_b, pair.points_a)
        assert (forth.path_a, forth.path_b) == (back.path_b, back.path_a) and forth.path_b.suffix == ".png"
        assert forth.size_a == forth.size_b == (256, 256) and back.category == pair.category
        assert (forth.facts["direction"], back.facts["direction"]) == ("photo to sketch", "sketch to photo")
    assert len({pair.name for pair in found.pairs}) == 4
    assert found.choices == {"list": f"test_pairs_{'ps' if both_ways else 'st'}.csv"}


def test_psc6k_by_hand(tmp_path: Path) -> None:
    """XA is horizontal. Two classes in one folder go by their numbers, and so does a class in two folders."""
    for name in ("p.jpg", "q.png"):
        made.picture(tmp_path / "all" / name, plain())
    numbers = ["1;2;3;4;5;6;7;8", "11;12;13;14;15;16;17;18", "0.5;0;0;0;0;0;0;0", "255;0;0;0;0;0;0;0"]
    rows = [f"all/p.jpg,all/q.png,{index},{','.join(numbers)}" for index in (3, 4)]
    (tmp_path / "test_pairs_ps.csv").write_text("\n".join(["photo,sketch,class,XA,YA,XB,YB", *rows]))
    found = read_benchmark(tmp_path, "psc6k")
    assert [pair.category for pair in found.pairs] == ["3", "3", "4", "4"]
    for folder in ("x", "y"):
        made.picture(tmp_path / folder / "p.jpg", plain())
    split_rows = [f"{folder}/p.jpg,all/q.png,3,{','.join(numbers)}" for folder in ("x", "y")]
    (tmp_path / "two" / "test_pairs_ps.csv").parent.mkdir()
    (tmp_path / "two" / "test_pairs_ps.csv").write_text("\n".join(["photo,sketch,class,XA,YA,XB,YB", *split_rows]))
    two = read_benchmark(tmp_path / "two", "psc6k", images=tmp_path)
    assert [pair.category for pair in two.pairs] == ["3"] * 4 and len({pair.name for pair in two.pairs}) == 4
    assert found.pairs[0].points_a[:2].tolist() == [[1, 11], [2, 12]]
    assert found.pairs[0].points_b[0].tolist() == [0.5, 255] == found.pairs[1].points_a[0].tolist()


# All kinds


def test_kinds_and_their_options(tmp_path: Path) -> None:
    assert BENCHMARKS == ("spair", "pf-pascal", "pf-willow", "tss", "cub", "ap10k", "hpatches", "psc6k")
    with pytest.raises(InputError, match="no benchmark called spear: expected one of spair, pf-pascal"):
        read_benchmark(tmp_path, "spear")
    with pytest.raises(InputError, match="pf-willow has no split val: expected test"):
        read_benchmark(tmp_path, "pf-willow", split="val")
    with pytest.raises(InputError, match="spair has no split all: expected one of trn, val, test"):
        read_benchmark(tmp_path, "spair", split="all")
    with pytest.raises(InputError, match="no layout called huge: expected one of large, small"):
        (tmp_path / "PairAnnotation" / "test").mkdir(parents=True)
        read_benchmark(tmp_path, "spair", layout="huge")
    options = {"layout": "large", "images": "x", "pairs": 3, "seed": 1, "step": 2, "points": 5, "all_sequences": True}
    takes = {"spair": ["layout"], "psc6k": ["images"], "cub": ["pairs", "seed"], "tss": ["seed", "step", "points"]}
    takes["hpatches"] = [*takes["tss"], "all_sequences"]
    for kind, name in itertools.product(BENCHMARKS, options):
        if name not in takes.get(kind, []):
            with pytest.raises(
                InputError, match=f"{kind} has no option {name.replace('_', ' ')}: only .+ (has|have) it"
            ):
                read_benchmark(tmp_path, kind, **{name: options[name]})  # type: ignore[arg-type]
    for kind in ("tss", "hpatches"):
        with pytest.raises(InputError, match=f"nothing of {kind} is drawn with a seed"):
            read_benchmark(tmp_path, kind, seed=1)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_every_module_declares_its_coordinates(kind: str) -> None:
    import importlib

    module = importlib.import_module(f"fewmatch.matching.benchmarks.{kind.replace('-', '_')}")
    assert module.ORIGIN in (0, 1) and module.CENTRE in (0.0, 0.5)
    assert "test" in module.SPLITS


def test_flow_files_are_middlebury_ones(tmp_path: Path) -> None:
    """The writer of these tests does not lean on the reader: 12 bytes, then x and y of every pixel."""
    flow = np.arange(12, dtype=np.float64).reshape(2, 3, 2)
    where = made.write_tss(tmp_path, "JODS", "p", [plain(3, 2)] * 2, [np.ones((2, 3), bool)] * 2, [flow] * 2)
    data = (where / "flow1.flo").read_bytes()
    assert data[:4] == b"PIEH" and struct.unpack("<ii", data[4:12]) == (3, 2)
    assert struct.unpack("<12f", data[12:]) == tuple(range(12))
