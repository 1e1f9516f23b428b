"""Splits: each published layout is recognised by what it holds, checked against its published counts, and applied to tables."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.fewshot import (
    FeatureTable,
    Split,
    check_disjoint,
    missing_from,
    read_split,
    read_splits,
    restrict,
    restrict_images,
    table_of_images,
)
from fewmatch.fewshot.splits.known import CIFAR_100

CUB = [f"{i + 1:03d}.Bird_{'abcdefghij'[i // 20]}{'klmnopqrstuvwxyzabcd'[i % 20]}" for i in range(200)]
CIFAR = sorted(CIFAR_100)


def wnid(i: int) -> str:
    return f"n{i + 1000000:08d}"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def csv_of(rows: list[tuple[object, ...]], header: str | None = None) -> str:
    return "\n".join(([header] if header else []) + [",".join(map(str, row)) for row in rows]) + "\n"


def ravi(classes: int, each: int) -> str:
    rows = [(f"{wnid(c)}{i:08d}.jpg", wnid(c)) for c in range(classes) for i in range(each)]
    return csv_of(rows, "filename,label")


def test_mini_imagenet_of_ravi(tmp_path: Path) -> None:
    split = read_split(write(tmp_path / "test.csv", ravi(20, 600)))
    assert (split.name, split.kind, split.part) == ("mini-ImageNet (Ravi), test", "images", "test")
    assert (len(split.classes), len(split.images), split.warnings) == (20, 12000, ())
    assert split.images[0] == ("n0100000000000000.jpg", "n01000000")
    assert split.describe()["images"] == 12000
    small = read_split(write(tmp_path / "val.csv", ravi(16, 2)))
    assert small.warnings == ("mini-ImageNet (Ravi), val: expected 9,600 images, got 32",)
    unnamed = read_split(write(tmp_path / "list.csv", ravi(16, 600)))
    assert unnamed.part == "val" and not unnamed.warnings


def test_mini_imagenet_of_easyfsl_and_vinyals(tmp_path: Path) -> None:
    rows = [(wnid(c), f"{wnid(c)}_{i}.JPEG") for c in range(20) for i in range(3)]
    easy = read_split(write(tmp_path / "easy" / "test.csv", csv_of(rows, "class_name,image_name")))
    assert easy.name == "mini-ImageNet (easyfsl), test"
    assert easy.images[4] == ("n01000001/n01000001_1.JPEG", "n01000001")
    turned = csv_of([row[::-1] for row in rows], "filename,class")
    vinyals = read_split(write(tmp_path / "vinyals" / "test.csv", turned))
    assert vinyals.name == "mini-ImageNet (Vinyals), test"
    assert vinyals.images[4] == ("n01000001_1.JPEG", "n01000001")
    assert vinyals.warnings == ("mini-ImageNet (Vinyals), test: expected 12,001 images, got 60",)


@pytest.mark.parametrize("header", [None, "class,superclass"])
def test_tiered_class_lists(tmp_path: Path, header: str | None) -> None:
    rows = [(wnid(c), wnid(500 + c // 20)) for c in range(97)]
    split = read_split(write(tmp_path / "val.csv", csv_of(rows, header)))
    assert (split.name, split.kind) == ("tiered-ImageNet (class list), val", "classes")
    assert split.classes == tuple(wnid(c) for c in range(97)) and not split.images and not split.warnings
    short = read_split(write(tmp_path / "test.csv", csv_of(rows, header)))
    assert short.warnings == ("tiered-ImageNet (class list), test: expected 160 classes, got 97",)


def test_tiered_images_without_a_header(tmp_path: Path) -> None:
    rows = [(f"val_{c % 6}_{c}_{100 * c + i}.png", c) for c in range(97) for i in range(2)]
    split = read_split(write(tmp_path / "list.csv", csv_of(rows)))
    assert split.name == "tiered-ImageNet (SimpleShot), val" and split.numbered and not split.warnings
    assert (len(split.images), len(split.classes), split.images[2]) == (194, 97, ("val_1_1_100.png", "1"))


def test_lists_of_easyfsl(tmp_path: Path) -> None:
    names = [wnid(c) for c in range(160)]
    roots = [f"./data/tiered_imagenet/images/{name}" for name in names]
    tiered = read_split(write(tmp_path / "test.json", {"class_names": names, "class_roots": roots}))
    assert tiered.name == "tiered-ImageNet (easyfsl), test" and not tiered.warnings
    assert tiered.folders[0] == "data/tiered_imagenet/images/n01000000"
    birds = {"class_names": CUB[:30], "class_roots": [f"x/{name}" for name in CUB[:30]]}
    assert read_split(write(tmp_path / "val.json", birds)).name == "CUB (easyfsl), val"
    with pytest.raises(InputError, match="expected a root for each of 1 classes, got 0"):
        read_split(write(tmp_path / "bad.json", {"class_names": ["a"], "class_roots": []}))


def test_cifar_fs_and_fc100(tmp_path: Path) -> None:
    split = read_split(write(tmp_path / "val.txt", "\n".join(CIFAR[:16])))
    assert (split.name, split.classes, split.warnings) == ("CIFAR-FS, val", tuple(CIFAR[:16]), ())
    assert read_split(write(tmp_path / "some.txt", "\n".join(CIFAR[:64]))).name == "CIFAR-FS, train"
    assert read_split(write(tmp_path / "train.txt", "\n".join(CIFAR[:60]))).name == "FC100, train"
    assert read_split(write(tmp_path / "test.txt", "\n".join(CIFAR[:19]))).warnings
    again = read_split(write(tmp_path / "test.txt", "\n".join([*CIFAR[:19], CIFAR[0]])))
    assert again.warnings == (f"CIFAR-FS, test: 1 classes are listed more than once, such as {CIFAR[0]}",)


def test_cub_of_closerlook(tmp_path: Path) -> None:
    """All 200 names stand in each of the three files; the labels say which are meant. The paths are another machine's."""
    labels = [c for c in range(200) if c % 4 == 3 for _ in range(59)] + [3, 3, 3]
    content = {
        "label_names": CUB,
        "image_names": [f"/home/x/CUB/images/{CUB[c]}/{i}.jpg" for i, c in enumerate(labels)],
        "image_labels": labels,
    }
    split = read_split(write(tmp_path / "novel.json", content))
    assert (split.name, split.part, split.warnings) == ("CUB (CloserLook), test", "test", ())
    assert split.classes == tuple(CUB[3::4]) and len(split.images) == 2953
    assert split.images[0] == (f"/home/x/CUB/images/{CUB[3]}/0.jpg", CUB[3])


def test_cub_of_tim_and_feat(tmp_path: Path) -> None:
    rows = [(f"{CUB[c]}/a_{i}.jpg", c // 2) for c in range(0, 200, 2) for i in range(2)]
    tim = read_split(write(tmp_path / "train.csv", csv_of(rows)))
    assert tim.name == "CUB (TIM), train" and not tim.numbered
    assert tim.classes == tuple(CUB[::2]) and tim.images[3] == (f"{CUB[2]}/a_1.jpg", CUB[2])
    assert tim.warnings == ("CUB (TIM), train: expected 5,885 images, got 200",)
    birds = [(f"White_Sparrow_{i:04d}_{129041 + i}.jpg", CUB[i % 50], 7, 14, 15) for i in range(100)]
    feat = read_split(write(tmp_path / "test.csv", csv_of(birds, "filename, label, concept_label")))
    assert feat.name == "CUB (FEAT), test" and feat.images[1] == ("White_Sparrow_0001_129042.jpg", CUB[1])
    assert feat.warnings == ("CUB (FEAT), test: expected 2,965 images, got 100",)


def test_class_splits_of_meta_dataset(tmp_path: Path) -> None:
    content = {"train": CUB[:140], "test": CUB[140:170], "valid": CUB[170:]}
    splits = read_splits(write(tmp_path / "cu_birds_splits.json", content))
    assert [s.name for s in splits] == [f"CUB (Meta-Dataset), {part}" for part in ("train", "test", "val")]
    assert [len(s.classes) for s in splits] == [140, 30, 30] and not any(s.warnings for s in splits)
    assert read_split(tmp_path / "cu_birds_splits.json", "valid") == splits[2]
    assert read_split(tmp_path / "cu_birds_splits.json", "val") == splits[2]
    with pytest.raises(InputError, match="holds train, test, val: say which"):
        read_split(tmp_path / "cu_birds_splits.json")
    with pytest.raises(InputError, match="holds train, test, val: expected one part trainval"):
        read_split(tmp_path / "cu_birds_splits.json", "trainval")
    shared = {"train": ["a", "b", "c"], "valid": [], "test": ["c", "d"]}
    overlapping = read_splits(write(tmp_path / "some_splits.json", shared))
    line = "some_splits, train and some_splits, test share 1 class (c)"
    assert [s.warnings for s in overlapping] == [(line,), (line,)] and check_disjoint(overlapping) == [line]


def test_splits_of_coop_and_cross_modal(tmp_path: Path) -> None:
    rows = {
        part: [[f"{c}/{part}{i}.jpg", i % 2, c] for i, c in enumerate(["cat", "dog"] * 2)]
        for part in ("train", "val", "test")
    }
    splits = read_splits(write(tmp_path / "split_zhou_Pets.json", rows))
    assert [s.name for s in splits] == [f"split_zhou_Pets (CoOp), {part}" for part in rows]
    assert splits[1].images[1] == ("dog/val1.jpg", "dog") and not any(s.warnings for s in splits)
    # Classes are shared by design; check_disjoint says so when it is asked.
    assert check_disjoint(splits[:2]) == [
        "split_zhou_Pets (CoOp), train and split_zhou_Pets (CoOp), val share 2 classes (cat, dog)"
    ]
    rows["test"].append(rows["train"][0])
    leaking = read_splits(write(tmp_path / "split_zhou_Pets.json", rows))
    assert "train and split_zhou_Pets (CoOp), test share 1 image (cat/train0.jpg)" in leaking[0].warnings[0]
    assert leaking[1].warnings == () and leaking[2].warnings == leaking[0].warnings
    rows["val"][0][2] = "dog"
    assert read_splits(write(tmp_path / "x.json", rows))[1].warnings == (
        "x (CoOp), val: labels and class names do not pair up",
    )
    data = [{"impath": "./data/dtd/images/a/1.jpg", "label": 0, "classname": "a"}]
    cross = {"train": {"data": data, "indices": [8]}, "val": {"data": data, "indices": [9]}}
    pair = read_splits(write(tmp_path / "shot_1-seed_1.json", cross))
    assert [s.name for s in pair] == [f"shot_1-seed_1 (cross-modal), {part}" for part in ("train", "val")]
    assert pair[0].images == (("data/dtd/images/a/1.jpg", "a"),)
    assert pair[0].warnings == pair[1].warnings and "share 1 image" in pair[0].warnings[0]


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_folders(tmp_path: Path) -> None:
    names = [f"{part}/{c}/{i}.png" for part in ("meta-train", "novel") for c in ("ox", "ape") for i in range(2)]
    splits = read_splits(make(tmp_path / "set", *names, "val/1.jpg", "notes/readme.txt"))
    assert [(s.part, s.classes) for s in splits] == [("train", ("ape", "ox")), ("test", ("ape", "ox"))]
    assert splits[0].images[0] == ("meta-train/ape/0.png", "ape") and splits[0].name == "set, train"
    assert splits[0].warnings[0] == "set/val has no class folders, so it is left out"
    assert splits[0].warnings[1] == "set, train and set, test share 2 classes (ape, ox)"
    plain = read_split(make(tmp_path / "plain", "a/1.jpg", "a/x/2.jpg", "b/1.jpg"))
    assert (plain.part, plain.classes, len(plain.images)) == (None, ("a", "b"), 3)
    with pytest.raises(InputError, match=r"1\.jpg lies in no class folder"):
        read_split(make(tmp_path / "flat", "1.jpg", "a/1.jpg"))


@pytest.mark.parametrize(("sizes", "name"), [((64, 16, 20), "CIFAR-FS"), ((60, 20, 20), "FC100")])
def test_folders_of_cifar(tmp_path: Path, sizes: tuple[int, ...], name: str) -> None:
    """`train` is a class of CIFAR-100 as well as the name of a part."""
    bounds = np.cumsum([0, *sizes])
    for part, first, last in zip(("train", "val", "test"), bounds, bounds[1:], strict=False):
        make(tmp_path, *(f"{part}/{c}/1.png" for c in CIFAR[first:last]))
    splits = read_splits(tmp_path)
    assert sorted(s.name for s in splits) == sorted(f"{name}, {part}" for part in ("train", "val", "test"))
    assert not any(s.warnings for s in splits)
    inner = read_split(tmp_path / next(p for p in ("train", "val", "test") if (tmp_path / p / "train").is_dir()))
    assert "train" in inner.classes and inner.part in ("train", "val", "test")


@pytest.mark.parametrize(
    ("header", "order", "separator"),
    [
        (None, (0, 1), ","),
        ("path,label", (0, 1), ","),
        ("class_name , file", (1, 0), ","),
        ("a,b", (0, 1), ","),
        (None, (1, 0), " , "),
        ("file\tclass", (0, 1), "\t"),
        (None, (0, 1), "\t"),
        (None, (0, 1), " "),
    ],
)
def test_the_same_list_in_every_way_of_writing_it(
    tmp_path: Path, header: str | None, order: tuple[int, int], separator: str
) -> None:
    rows = [(f"x/im age{i}.jpg", ["cat", "dog"][i % 2]) for i in range(6)]
    lines = [separator.join((row[order[0]], row[order[1]])) for row in rows]
    text = "\ufeff" + "\r\n".join(([header] if header else []) + [*lines, "", ""])
    split = read_split(write(tmp_path / "list.csv", text))
    assert split.images == tuple(rows) and split.classes == ("cat", "dog")
    assert (split.name, split.part, split.kind) == ("list", None, "images")


def test_paths_alone_take_their_label_from_the_folder(tmp_path: Path) -> None:
    split = read_split(write(tmp_path / "base.txt", "./cat/1.jpg\nx\\dog\\2.jpg\n"))
    assert split.images == (("cat/1.jpg", "cat"), ("x/dog/2.jpg", "dog")) and split.part == "train"


def test_numbers_become_folders_only_where_they_pair_up(tmp_path: Path) -> None:
    pairs = [("cat/1.jpg", 0), ("dog/1.jpg", 1), ("cat/2.jpg", 0)]
    assert read_split(write(tmp_path / "a.csv", csv_of(pairs))).classes == ("cat", "dog")
    mixed = read_split(write(tmp_path / "b.csv", csv_of([*pairs, ("cat/3.jpg", 1)])))
    assert mixed.classes == ("0", "1") and mixed.numbered
    assert check_disjoint([mixed, replace(mixed, name="other", images=())]) == []
    one = read_split(write(tmp_path / "c.csv", csv_of([("x/1.jpg", 0), ("x/2.jpg", 1)])))
    assert one.classes == ("0", "1") and one.numbered


def test_duplicates_are_counted(tmp_path: Path) -> None:
    split = read_split(write(tmp_path / "a.csv", csv_of([("1.jpg", "a"), ("./1.jpg", "a"), ("2.jpg", "b")])))
    assert split.warnings == ("a: 1 images are listed more than once, such as 1.jpg",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pkl", pickle.dumps({"data": 1}), "is a pickle, which can run code"),
        ("a.csv", pickle.dumps({"data": 1}), "is a pickle"),
        ("a.csv", pickle.dumps({"data": 1}, protocol=0), "is a pickle"),
        ("a.pkl", b"1.jpg,cat\n", "is a pickle"),
        ("a.npz", b"PK\x03\x04\0\0", "is no text"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n \n", "is empty"),
        ("a.csv", b"a,b\nc,d\n", "no column of image names, and is no list of classes"),
        ("a.csv", b"n01000000,n01000001,x\n", "no column of image names"),
        ("a.csv", b"1.jpg,cat\n2.jpg\n", "row 2: expected an image and its label, got 2.jpg"),
        ("a.csv", b"f,label\n1.jpg,cat\nx,dog\n", "no column of image names|row 3: expected an image"),
        ("a.txt", b"label\n", "holds no class"),
        ("a.txt", b"1.jpg\n", "row 1: expected an image and its label"),
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[]", "none of the known JSON splits"),
        ("a.json", b"{}", "none of the known JSON splits"),
        ("a.json", b'{"train": [], "test": []}', "holds no class and no image in train, test"),
        ("a.json", b'{"class_names": [], "class_roots": []}', "holds no class"),
        ("a.json", b'{"train": 3}', "none of the known JSON splits"),
        ("a.json", b'{"train": [[1]]}', "none of the known JSON splits"),
        ("a.json", b'{"train": {"x": 1}}', "none of the known JSON splits"),
        ("a.json", b'{"label_names": ["a"], "image_names": ["1.jpg"], "image_labels": [1]}', "none of the known"),
        ("a.json", b'{"label_names": ["a"], "image_names": [], "image_labels": [0]}', "none of the known"),
        ("a.json", b'[{"Support": [], "Query": []}]', "holds episodes, not a split"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (path := tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_split(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_splits(tmp_path / "missing.csv")


def a_table(paths: bool = True) -> FeatureTable:
    names = ["train/cat/1.jpg", "train/dog/1.jpg", "test/emu/2.jpg", "train/cat/2.jpg", "test/ox/9.jpg"]
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    table = table_of_images(features, ["cat", "dog", "emu", "cat", "ox"], names, "zoo")
    return table if paths else replace(table, paths=None)


@pytest.mark.parametrize("paths", [True, False])
def test_a_split_of_classes_restricts_classes(paths: bool) -> None:
    table = a_table(paths)
    split = Split("mine, val", "classes", "val", ("ox", "cat"))
    part = restrict(table, split)
    assert part.class_names == ["cat", "ox"] and part.labels.tolist() == [0, 0, 1]
    assert np.array_equal(part.features, table.features[[0, 3, 4]]) and part.name == "zoo, mine, val"
    assert part.paths == (["train/cat/1.jpg", "train/cat/2.jpg", "test/ox/9.jpg"] if paths else None)
    assert len({part.digest, table.digest, restrict(table, replace(split, classes=("ox",))).digest}) == 3
    assert restrict(table, replace(split, classes=("cat", "ox"))).digest == part.digest
    more = replace(split, classes=("ox", "gnu", "elk", "yak", "bat"))
    with pytest.raises(InputError, match=r"mine, val: zoo does not have 4 classes \(gnu, elk, yak, …\)"):
        restrict(table, more)
    assert restrict(table, more, allow_missing=True).class_names == ["ox"]
    assert missing_from(table, more) == ["gnu", "elk", "yak", "bat"]
    with pytest.raises(InputError, match="zoo has nothing of it"):
        restrict(table, replace(split, classes=("gnu",)), allow_missing=True)


def test_classes_are_found_by_their_folder_too() -> None:
    split = Split("easy", "classes", None, ("House cat", "ox"), folders=("data/images/cat/", "x/bull"))
    assert restrict(a_table(), split).class_names == ["cat", "ox"]


def test_a_split_of_images_restricts_images_and_gives_labels() -> None:
    """In the table's order, so the order of a list does not matter."""
    table = a_table()
    images = (("/data/zoo/test/ox/9.jpg", "b"), ("dog/1.jpg", "a"), ("train/cat/2.jpg", "b"))
    split = Split("mine", "images", None, ("a", "b"), images)
    part = restrict(table, split)
    assert part.class_names == ["a", "b"] and part.labels.tolist() == [0, 1, 1]
    assert np.array_equal(part.features, table.features[[1, 3, 4]])
    assert part.paths == ["train/dog/1.jpg", "train/cat/2.jpg", "test/ox/9.jpg"]
    assert restrict(table, replace(split, images=images[::-1])).digest == part.digest
    assert restrict(table, replace(split, images=images[:2])).digest != part.digest
    assert [(p, label) for p, label in zip(part.paths, ["a", "b", "b"], strict=True)] == restrict_images(
        [(p, table.class_names[c]) for p, c in zip(table.paths or [], table.labels, strict=True)], split
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("1.jpg", "a")], r"mine: 1.jpg may be 2 images of zoo, such as train/cat/1.jpg and train/dog/1.jpg"),
        ([("cat/1.jpg", "a"), ("cat/7.jpg", "a")], r"mine: zoo does not have 1 image \(cat/7.jpg\)"),
        ([("cat/1.jpg", "a"), ("train/cat/1.jpg", "b")], "mine: train/cat/1.jpg is of class b, but its image was of a"),
    ],
)
def test_images_that_do_not_fit_are_named(images: list[tuple[str, str]], message: str) -> None:
    split = Split("mine", "images", None, ("a", "b"), tuple(images))
    with pytest.raises(InputError, match=message):
        restrict(a_table(), split)


def test_missing_images_may_be_allowed() -> None:
    split = Split("mine", "images", None, ("a",), (("cat/1.jpg", "a"), ("cat/7.jpg", "a"), ("8.jpg", "a")))
    assert restrict(a_table(), split, allow_missing=True).paths == ["train/cat/1.jpg"]
    assert missing_from(a_table(), split) == ["cat/7.jpg", "8.jpg"]
    with pytest.raises(InputError, match="mine lists images, but zoo has no paths"):
        restrict(a_table(paths=False), split)
    listed = [("1.jpg", "x"), ("cat/2.jpg", "y")]
    assert restrict_images(listed, split, allow_missing=True) == [("1.jpg", "a")]


def test_what_splits_share(tmp_path: Path) -> None:
    a = Split("a", "images", None, ("x", "y"), (("x/1.jpg", "x"), ("y/1.jpg", "y")))
    b = Split("b", "images", None, ("y", "z"), (("./x/1.jpg", "y"), ("z/1.jpg", "z")))
    c = Split("c", "classes", None, ("z",))
    assert check_disjoint([a, b, c]) == [
        "a and b share 1 image (x/1.jpg)",
        "a and b share 1 class (y)",
        "b and c share 1 class (z)",
    ]
    assert check_disjoint([a, c]) == [] == check_disjoint([])
