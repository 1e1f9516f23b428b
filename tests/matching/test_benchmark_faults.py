"""Damaged benchmarks: every fault is one line that names the file and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_folders as made
import numpy as np
import pytest
import scipy.io
from benchmark_folders import a_pair, plain

from fewmatch.errors import InputError
from fewmatch.matching.benchmarks.reading import BENCHMARKS, read_benchmark

PICTURES = {name: plain(20, 10, 40 * n) for n, name in enumerate("abcd")}


def spair(folder: Path) -> None:
    made.write_spair(folder, [a_pair("cat", "a", "b", [[1, 2]], [[3, 4]])], PICTURES, layouts={"large": [0]})


def pf_pascal(folder: Path) -> None:
    points = {"a": [[1, 2], [5, 6]], "b": [[3, 4], [7, 8]]}
    pairs = [a_pair("cat", "a", "b", points["a"], points["b"], box_a=(0, 0, 5, 5), box_b=(0, 0, 5, 5))]
    made.write_pf_pascal(folder, pairs, PICTURES)


def ncnet(folder: Path) -> None:
    made.write_pf_pascal_ncnet(folder, [a_pair("cat", "a", "b", [[1, 2]], [[3, 4]])], PICTURES)


def pf_willow(folder: Path) -> None:
    made.write_pf_willow(folder, [a_pair("car(S)", "a", "b", np.ones((10, 2)), np.ones((10, 2)))], PICTURES)


def tss(folder: Path) -> None:
    made.write_tss(folder, "JODS", "p", [plain(5, 3)] * 2, [np.ones((3, 5), bool)] * 2, [np.zeros((3, 5, 2))] * 2)


def cub(folder: Path) -> None:
    birds = {name: ("001.A", {"beak": (1.0, 2.0)}, (0.0, 0.0, 5.0, 5.0)) for name in "ab"}
    made.write_cub(folder, birds, PICTURES)


def ap10k(folder: Path) -> None:
    made.write_ap10k(folder, [a_pair("fox", "a", "b", [[1, 2]], [[3, 4]], points=["nose"])], PICTURES)


def hpatches(folder: Path) -> None:
    made.write_hpatches(folder, "v_x", [plain(20, 20)] * 6, [np.eye(3)] * 5)


def psc6k(folder: Path) -> None:
    made.write_psc6k(folder, [a_pair("ant", "a", "b", np.ones((8, 2)), np.ones((8, 2)))], PICTURES)


WRITERS = {
    "spair": spair,
    "pf-pascal": pf_pascal,
    "pf-willow": pf_willow,
    "tss": tss,
    "cub": cub,
    "ap10k": ap10k,
    "hpatches": hpatches,
    "psc6k": psc6k,
}


def refused(folder: Path, kind: str) -> str:
    with pytest.raises(InputError) as error:
        read_benchmark(folder, kind)
    message = str(error.value)
    assert "\n" not in message
    return message


def one(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_what_the_writers_write_is_whole(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path)
    assert len(read_benchmark(tmp_path, kind).pairs) >= 1


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_missing_folders_and_empty_ones(tmp_path: Path, kind: str) -> None:
    assert str(tmp_path / "none") in refused(tmp_path / "none", kind)
    assert str(tmp_path) in refused(tmp_path, kind)


MISSING = {
    "spair": ("JPEGImages/cat/a.jpg", "1 of 2 images are missing, the first is", "<category>"),
    "pf-pascal": ("JPEGImages/b.jpg", "1 of 2 images are missing, the first is", "expected them in"),
    "pf-willow": ("car(S)/a.png", "1 of 2 images are missing, the first is", "<subclass>"),
    "tss": ("JODS/p/image2.png", "1 of 7 files are missing, the first is", "in each pair's folder"),
    "cub": ("images/001.A/a.jpg", "1 of 2 images are missing, the first is", "expected them in"),
    "ap10k": ("JPEGImages/Felidae/fox/b.jpg", "1 of 2 images are missing, the first is", "<family>"),
    "hpatches": ("v_x/4.ppm", "1 of 6 images are missing, the first is", "1.ppm to 6.ppm"),
    "psc6k": ("sketch/tx_000000000000/ant/b.png", "1 of 2 images are missing, the first is", "--images"),
}


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_missing_images_are_counted_and_the_first_is_named(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path)
    name, count, advice = MISSING[kind]
    (tmp_path / name).unlink()
    message = refused(tmp_path, kind)
    assert f"{count} {tmp_path / name}" in message and advice in message


def test_several_missing_images(tmp_path: Path) -> None:
    pairs = [a_pair("cat", x, y, [[1, 2]], [[3, 4]]) for x, y in ("ab", "bc", "cd")]
    made.write_spair(tmp_path, pairs, PICTURES)
    for name in "db":
        (tmp_path / f"JPEGImages/cat/{name}.jpg").unlink()
    assert f"2 of 4 images are missing, the first is {tmp_path / 'JPEGImages/cat/b.jpg'}" in refused(tmp_path, "spair")


def in_json(pattern: str, **changes: Any) -> Callable[[Path], None]:
    """A record changed; an entry that becomes ... is removed."""

    def change(folder: Path) -> None:
        path = one(folder, pattern)
        record = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not ...}))

    return change


def in_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def content(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = one(folder, name)
        path.write_bytes(data)

    return change


def cut(name: str, bytes_left: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = one(folder, name)
        path.write_bytes(path.read_bytes()[:bytes_left])

    return change


def mat(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        scipy.io.savemat(folder / "Annotations" / "cat" / "b.mat", entries)

    return change


PAIR = "PairAnnotation/test/*.json"
IMAGE = "ImageAnnotation/*/*/b.json"
KEYPOINTS = [1, 2, 2] * 17
FAULTS: list[tuple[str, Callable[[Path], None], str]] = [
    ("spair", cut(PAIR, 100), "is no whole JSON"),
    ("spair", content(PAIR, b"\xff\xfe"), "is no UTF-8 text: expected the annotation of a pair"),
    ("spair", content(PAIR, b"[1, 2]"), "expected a JSON object, the annotation of a pair of SPair-71k, got a list"),
    ("spair", in_json(PAIR, src_kps=...), "the entry src_kps is missing"),
    ("spair", in_json(PAIR, trg_bndbox=...), "the entry trg_bndbox is missing"),
    ("spair", in_json(PAIR, category=...), "the entry category is missing"),
    ("spair", in_json(PAIR, trg_imname=""), "expected a text in trg_imname, got ''"),
    (
        "spair",
        in_json(PAIR, src_kps=[[1, 2], [3, 4]]),
        "expected as many points in the source as in the target, got 2 and 1",
    ),
    ("spair", in_json(PAIR, src_kps=[[1, 2, 3]]), "expected 2 numbers in src_kps, point 0, got 3 of them"),
    ("spair", in_json(PAIR, src_kps=[[1, "2"]]), "expected numbers in src_kps, point 0, got '2'"),
    ("spair", in_json(PAIR, trg_kps=[[1, float("nan")]]), "expected numbers in trg_kps, point 0, got nan"),
    ("spair", in_json(PAIR, trg_kps=[[10**400, 1]]), "expected numbers in trg_kps, point 0, got 1000"),
    ("spair", in_json(PAIR, trg_kps=[[True, 1]]), "expected numbers in trg_kps, point 0, got True"),
    ("spair", in_json(PAIR, trg_kps=None), "expected a list of points in trg_kps, got None"),
    ("spair", in_json(PAIR, kps_ids=["1", "2"]), "expected 1 names in kps_ids, one for each point, got 2 of them"),
    ("spair", in_json(PAIR, trg_bndbox=[1, 2, 3]), "expected 4 numbers in trg_bndbox, got 3 of them"),
    ("spair", in_json(PAIR, trg_bndbox=[5, 2, 5, 9]), "expected a box with an extent in trg_bndbox"),
    ("spair", in_json(PAIR, src_imsize=[5]), "expected width and height in src_imsize, got 1 numbers"),
    ("spair", in_json(PAIR, src_imsize=7), "expected numbers in src_imsize, got 7"),
    ("spair", in_json(PAIR, src_imsize=[5, 0.5, 3]), "expected whole pixels in src_imsize, got 5 and 0.5"),
    ("spair", in_json(PAIR, truncation="none"), "expected a number of 0 to 3 in truncation, got 'none'"),
    ("spair", in_text("Layout/large/test.txt", "000001", "000009"), "1 of the 1 pairs of"),
    ("spair", content("Layout/large/test.txt", b"\n"), "Layout/large/test.txt names no pair"),
    ("pf-pascal", cut("Annotations/cat/b.mat", 150), "b.mat is no whole MATLAB 5 file"),
    ("pf-pascal", content("Annotations/cat/b.mat", b""), "b.mat is no whole MATLAB 5 file"),
    ("pf-pascal", lambda folder: (folder / "Annotations/cat/a.mat").unlink(), "expected the annotation of an image"),
    ("pf-pascal", mat(bbox=[1, 2, 3, 4]), r"expected numbers of shape \(K, 2\) in kps, got none"),
    ("pf-pascal", mat(kps=np.zeros((2, 3))), r"expected numbers of shape \(K, 2\) in kps, got \(2, 3\)"),
    ("pf-pascal", mat(kps=[["a", "b"]]), r"expected numbers of shape \(K, 2\) in kps"),
    (
        "pf-pascal",
        mat(kps=np.zeros((3, 2))),
        "line 2: expected as many points in the source as in the target, got 2 and 3",
    ),
    ("pf-pascal", mat(kps=np.zeros((2, 2)), bbox=[1, 2, 3]), "expected 4 numbers in bbox, got 3"),
    ("pf-pascal", mat(kps=np.zeros((2, 2)), bbox=[1, 2, 1, 4]), "expected a box with an extent in bbox"),
    ("pf-pascal", in_text("test_pairs.csv", ",8", ",21"), "line 2: expected a class of 1 to 20, got 21"),
    ("pf-pascal", in_text("test_pairs.csv", ",8", ",cat"), "line 2: class: expected a number, got 'cat'"),
    ("pf-pascal", in_text("test_pairs.csv", ",8", ",1.5"), "line 2: expected a whole number in class, got '1.5'"),
    ("pf-pascal", in_text("test_pairs.csv", ",8", ""), "line 2: expected 3 values as in the header, got 2"),
    (
        "pf-pascal",
        in_text("test_pairs.csv", "PF-dataset-PASCAL/JPEGImages/a.jpg", ""),
        "expected the names of two images",
    ),
    ("pf-pascal", content("test_pairs.csv", b"a,b,class\n"), "expected a header and a row for each pair, got 1 rows"),
    ("pf-pascal", content("test_pairs.csv", b"a,b\nx,y\n"), "expected the columns source, target, class, got a, b"),
    ("pf-pascal", content("test_pairs.csv", b'a,b,class\n"x,y,1\n'), "no CSV"),
    ("ncnet", in_text("test_pairs_pf_pascal.csv", "YB", "Y2"), "expected a column YB, got"),
    (
        "ncnet",
        in_text("test_pairs_pf_pascal.csv", "2.0,3.0", "2.0;5,3.0"),
        "as many numbers in XA as in YA, got 2 and 1",
    ),
    (
        "ncnet",
        in_text("test_pairs_pf_pascal.csv", "2.0,3.0", "2.0;,3.0"),
        "as many numbers in XA as in YA, got 2 and 1",
    ),
    (
        "ncnet",
        in_text("test_pairs_pf_pascal.csv", "4.0,5.0", "4.0;7,5.0;7"),
        "in the source as in the target, got 1 and 2",
    ),
    ("ncnet", in_text("test_pairs_pf_pascal.csv", "4.0,5.0", "4.0,x"), "line 2: YB: expected a number, got 'x'"),
    ("pf-willow", in_text("test_pairs.csv", "2.0", "two"), "line 2: expected a number, got 'two'"),
    ("pf-willow", in_text("test_pairs.csv", "2.0", ""), "line 2: expected 40 numbers, got an empty cell"),
    (
        "pf-willow",
        content("test_pairs.csv", b"a,b,c\n1,2,3\n"),
        r"expected 42 columns \(two images, 10 points in each\), got 3",
    ),
    (
        "pf-willow",
        in_text("test_pairs.csv", "PF-dataset/car(S)/a.png", "a.png"),
        "expected an image as PF-dataset/<subclass>/",
    ),
    ("tss", cut("JODS/p/flow2.flo", 40), "flow2.flo cannot be read as a flow"),
    ("tss", content("JODS/p/mask1.png", b"no"), "mask1.png cannot be read as a mask"),
    ("tss", content("JODS/p/flip_gt.txt", b"maybe"), "flip_gt.txt: expected 0 or 1, got 'maybe'"),
    (
        "tss",
        lambda folder: made.picture(folder / "JODS/p/mask2.png", plain(4, 3)) and None,
        r"expected mask2.png of the size of flow2.flo, 5×3 px, got 4×3 px",
    ),
    ("cub", in_text("bounding_boxes.txt", "1 1.0", "1 x"), "bounding_boxes.txt, line 1: expected a number, got 'x'"),
    ("cub", in_text("bounding_boxes.txt", "1 1.0", "1"), "bounding_boxes.txt, line 1: expected 5 values, got 4"),
    ("cub", in_text("bounding_boxes.txt", "1 1.0", "1 nan"), "line 1: expected a number, got 'nan'"),
    (
        "cub",
        in_text("bounding_boxes.txt", "5.0 5.0\n2", "0.0 5.0\n2"),
        "line 1: expected a box with an extent in the box",
    ),
    ("cub", in_text("images.txt", "2 001.A/b.jpg\n", "x y"), "images.txt, line 2: expected a whole number, got 'x'"),
    ("cub", in_text("images.txt", "2 001.A/b.jpg\n", "2 001.A b.jpg"), "images.txt, line 2: expected 2 values, got 3"),
    ("cub", in_text("train_test_split.txt", "2 0", "2 5"), "train_test_split.txt, line 2: expected 0 or 1, got '5'"),
    (
        "cub",
        in_text("image_class_labels.txt", "2 1\n", ""),
        r"image_class_labels.txt has no line for 1 of 2 images, the first is image 2 \(001.A/b.jpg\)",
    ),
    ("cub", in_text("train_test_split.txt", "2 0\n", ""), "train_test_split.txt has no line for 1 of 2 images"),
    ("cub", in_text("parts/part_locs.txt", "2 15 0.0 0.0 0\n", ""), "expected 15 parts of image 2, got 14"),
    ("cub", in_text("parts/part_locs.txt", "2 15 0.0 0.0 0\n", "2 16 0.0 0.0 0"), "expected a part of 1 to 15, got 16"),
    ("cub", in_text("parts/part_locs.txt", "2 15 0.0 0.0 0\n", "2 15 0.0"), "expected 5 values, got 3"),
    ("cub", in_text("parts/parts.txt", "3 belly\n", ""), "expected parts numbered from 1 on, got"),
    ("cub", in_text("parts/parts.txt", "3 belly", "3"), "parts.txt, line 3: expected a number and a name, got '3'"),
    ("cub", lambda folder: (folder / "parts/part_locs.txt").unlink(), "part_locs.txt cannot be read"),
    ("ap10k", cut(PAIR, 20), "is no whole JSON"),
    ("ap10k", in_json(PAIR, trg_json_path=...), "the entry trg_json_path is missing"),
    ("ap10k", in_json(PAIR, trg_json_path="x/b.json"), "expected paths below ImageAnnotation, got 'x/b.json'"),
    (
        "ap10k",
        in_json(PAIR, trg_json_path="ImageAnnotation/c.json"),
        "c.json cannot be read .+ named in 000001-a-b:fox.json",
    ),
    ("ap10k", in_json(IMAGE, keypoints=...), "the entry keypoints is missing"),
    ("ap10k", in_json(IMAGE, keypoints=KEYPOINTS[:-1]), "expected 51 numbers in keypoints, got 50 of them"),
    ("ap10k", in_json(IMAGE, keypoints=[[1, 2]] * 17), "expected 3 numbers in keypoints, got 2 of them"),
    ("ap10k", in_json(IMAGE, keypoints=[*KEYPOINTS[:-1], 7]), "expected a visibility of 0, 1 or 2 in keypoints, got 7"),
    ("ap10k", in_json(IMAGE, keypoints=[None, *KEYPOINTS[1:]]), "expected numbers in keypoints, got None"),
    ("ap10k", in_json(IMAGE, bbox=[1, 2, 0, 4]), "expected a box with an extent in bbox"),
    ("ap10k", in_json(IMAGE, width=0), "expected whole pixels in width and height, got 0 and 10"),
    ("hpatches", content("v_x/H_1_3", b"1 0 0\n0 1 0\n"), "H_1_3: expected three rows of three numbers, got 6 values"),
    ("hpatches", content("v_x/H_1_3", b"1 0 0 0 1 0 0 0 one"), "H_1_3: expected a number, got 'one'"),
    ("hpatches", content("v_x/H_1_3", b"1 0 0 0 1 0 0 0 nan"), "H_1_3: expected three rows of three numbers"),
    ("hpatches", content("v_x/H_1_3", b"1 0 0 2 0 0 0 0 1"), "H_1_3: expected a homography that can be inverted"),
    ("hpatches", lambda folder: (folder / "v_x/H_1_6").unlink(), "1 of 5 homographies are missing"),
    ("hpatches", content("v_x/6.ppm", b"P7"), "6.ppm cannot be read as an image"),
    ("psc6k", in_text("test_pairs_ps.csv", "1.0;1.0", "1.0"), "expected 8 numbers in XA, got"),
    ("psc6k", in_text("test_pairs_ps.csv", "1.0;1.0", "1.0;"), "expected 8 numbers in XA, got"),
    ("psc6k", in_text("test_pairs_ps.csv", "1.0;1.0", "1.0;x"), "XA: expected a number, got 'x'"),
    ("psc6k", in_text("test_pairs_ps.csv", "sketch", "drawing"), "expected a column sketch, got photo, drawing"),
    (
        "psc6k",
        in_text("test_pairs_ps.csv", "photo/tx", "/photo/tx"),
        "expected the path of an image relative to Sketchy",
    ),
]


@pytest.mark.parametrize(
    ("kind", "damage", "message"), FAULTS, ids=[f"{kind}: {message[:50]}" for kind, _, message in FAULTS]
)
def test_damage_is_named(tmp_path: Path, kind: str, damage: Callable[[Path], None], message: str) -> None:
    {**WRITERS, "ncnet": ncnet}[kind](tmp_path)
    kind = kind.replace("ncnet", "pf-pascal")
    assert len(read_benchmark(tmp_path, kind).pairs) >= 1
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_benchmark(tmp_path, kind)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_pair_that_is_listed_twice(tmp_path: Path) -> None:
    pairs = [a_pair("cat", "a", "b", [[1, 2]], [[3, 4]])]
    (name,) = made.write_spair(tmp_path, pairs, PICTURES, layouts={"large": [0, 0]})
    assert f"lists the pair {name} twice (spair, test)" in refused(tmp_path, "spair")


def test_no_pair_that_counts(tmp_path: Path) -> None:
    (name,) = made.write_spair(tmp_path, [a_pair("cat", "a", "b", [], [])], PICTURES)
    message = refused(tmp_path, "spair")
    assert message.endswith(f"has no pair that can count (spair, test): {name}: no point is known in both images")


@pytest.mark.parametrize("options", [{"step": 0}, {"points": 0}, {"points": 3, "seed": -1}])
def test_densities_out_of_range(tmp_path: Path, options: dict[str, int]) -> None:
    for kind in ("tss", "hpatches"):
        WRITERS[kind](tmp_path)
        with pytest.raises(InputError, match=r"expected (step|points|seed) of (0|1) or more, got (0|-1)"):
            read_benchmark(tmp_path, kind, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"pairs": 0}, {"seed": -1}])
def test_drawings_out_of_range(tmp_path: Path, options: dict[str, int]) -> None:
    cub(tmp_path)
    with pytest.raises(InputError, match="expected 1 or more pairs a class and a seed of 0 or more, got"):
        read_benchmark(tmp_path, "cub", **options)  # type: ignore[arg-type]
