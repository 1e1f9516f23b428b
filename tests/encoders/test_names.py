"""Names with several spellings in Unicode are one name: in tables, splits, paths, labellers, masks and benchmarks."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmatch.encoders import list_images
from fewmatch.errors import InputError
from fewmatch.fewshot import (
    Labeller,
    Split,
    check_disjoint,
    evaluate,
    load_labeller,
    missing_from,
    read_npz,
    read_split,
    restrict,
    restrict_images,
    sample_episodes,
    sample_variable_episodes,
    save_labeller,
    table_of_images,
)
from fewmatch.fewshot.splits.path_index import PathIndex
from fewmatch.matching import find_masks
from fewmatch.matching.benchmarks.pair import BenchmarkPair
from fewmatch.matching.benchmarks.records import finished
from fewmatch.names import DiskNames, distinct_labels, distinct_names, same_name, spelling_notes

#: Composed, as keyboards write it, and decomposed, as macOS does.
NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_names_are_compared_composed_and_shown_as_first_written() -> None:
    assert NFC != NFD and same_name(NFC) == same_name(NFD) == NFC
    assert same_name("\uac00") == same_name("\u1100\u1161")  # Hangul
    assert same_name("cafe") != same_name(NFC) and same_name("Caf\u00e9") != same_name(NFC)
    assert same_name("\ufb01") == "\ufb01"  # a ligature is another character, not another spelling
    assert same_name("a\udcff") == "a\udcff"  # bytes that are no UTF-8
    names, index = distinct_names(["zebra", NFD, "cafz", NFC, "cafa"])
    # By code points the decomposed é would come before z and after a as well, but also before the f of "caff".
    assert names == ["cafa", "cafz", NFD, "zebra"] and index.tolist() == [3, 2, 1, 2, 0]
    assert distinct_names([NFC, NFD])[0] == [NFC] and distinct_names([])[0] == []
    (line,) = spelling_notes([NFC, "dog", NFD, NFC], "one class")
    assert "'caf\\xe9' and 'cafe\\u0301' are one class" in line


def test_classes_of_tables_and_their_digest() -> None:
    features = np.arange(8, dtype=np.float32).reshape(4, 2)
    paths = [f"{name}/{i}.png" for i, name in enumerate((NFD, NFC, "dog", NFD))]
    table = table_of_images(features, [NFD, NFC, "dog", NFD], paths, "set")
    assert table.class_names == [NFD, "dog"] and table.labels.tolist() == [0, 0, 1, 0] and len(table.notes) == 1
    composed = table_of_images(features, [NFC, NFC, "dog", NFC], list(map(same_name, paths)), "set")
    assert composed.digest == table.digest and composed.labels.tolist() == [0, 0, 1, 0] and not composed.notes


def test_classes_of_npz_files(tmp_path: Path) -> None:
    features = np.eye(4, dtype=np.float32)
    np.savez(tmp_path / "names.npz", features=features, labels=np.array([NFC, "dog", NFD, "ant"]))
    table = read_npz(tmp_path / "names.npz")
    assert [table.class_names[i] for i in table.labels][1::2] == ["dog", "ant"]
    assert len(table.class_names) == 3 and table.labels[0] == table.labels[2] and len(table.notes) == 1
    np.savez(tmp_path / "index.npz", features=features, labels=[2, 0, 1, 0], class_names=[NFC, "dog", NFD])
    table = read_npz(tmp_path / "index.npz")
    assert table.class_names == [NFC, "dog"] and table.labels.tolist() == [0, 0, 1, 0]


def test_labellers_and_saved_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    support, query = rng.normal(size=(6, 5)), rng.normal(size=(7, 5))
    mixed = Labeller(support, [NFC, "dog", NFD, "dog", NFC, "ant"])
    plain = Labeller(support, ["cafe", "dog", "cafe", "dog", "cafe", "ant"])
    assert mixed.class_names == ["ant", NFC, "dog"]
    np.testing.assert_array_equal(mixed.probabilities(query), plain.probabilities(query))
    with pytest.raises(InputError, match="two classes"):
        Labeller(support[:2], [NFC, NFD])
    # A model in which one class counts as two cannot be used.
    twice = Labeller.from_fitted(dataclasses.replace(mixed.fitted, class_names=("ant", NFC, NFD)))
    with pytest.raises(InputError, match="two or more different"):
        load_labeller(save_labeller(twice, tmp_path / "model.safetensors"))


def test_episodes_of_labels_by_name() -> None:
    features = np.random.default_rng(0).normal(size=(12, 4))
    mixed, plain = [NFC, "dog", NFD, "ant"] * 3, ["cafe", "dog", "cafe", "ant"] * 3
    words = {"ways": 3, "shots": 1, "queries": 2, "episodes": 20, "seed": 1}
    drawn, expected = sample_episodes(mixed, **words), sample_episodes(plain, **words)
    np.testing.assert_array_equal(drawn.support, expected.support)
    np.testing.assert_array_equal(drawn.classes, expected.classes)
    assert evaluate(features, mixed, drawn).accuracy == evaluate(features, plain, expected).accuracy
    varied = [sample_variable_episodes(labels, episodes=5, min_ways=2, seed=0) for labels in (mixed, plain)]
    np.testing.assert_array_equal(varied[0].query, varied[1].query)
    assert distinct_labels([3, 1, 3])[1].tolist() == [1, 0, 1]


def test_paths_in_files_of_splits_and_episodes() -> None:
    index = PathIndex([f"a/{NFD}.png", "b/x.png", f"c/{NFC}.png"])
    assert index.candidates(f"a/{NFC}.png") == [0] and index.candidates(f"c/{NFD}.png") == [2]
    assert index.candidates(f"/home/me/a/{NFC}.png") == [0]
    assert index.candidates(f"{NFC}.png") == [2]  # of two the one that is spelled like it
    # Two files of one folder that differ in nothing else are two images.
    both = PathIndex([f"{NFC}.png", f"{NFD}.png"])
    assert both.candidates(f"{NFC}.png") == [0] and both.candidates(f"x/{NFD}.png") == [1]
    assert both.candidates(unicodedata.normalize("NFKC", f"{NFC}.PNG")) == []


def test_splits(tmp_path: Path) -> None:
    table = table_of_images(
        np.eye(3, dtype=np.float32), [NFD, "dog", "ant"], [f"{NFD}/1.png", "dog/1.png", "ant/1.png"], "t"
    )
    classes = Split("s", "classes", "test", (NFC, "ant"))
    assert restrict(table, classes).class_names == ["ant", NFD] and missing_from(table, classes) == []
    images = Split("s", "images", "test", (NFC, "dog"), ((f"{NFC}/1.png", NFC), ("dog/1.png", "dog")))
    assert restrict(table, images).paths == [f"{NFD}/1.png", "dog/1.png"] and missing_from(table, images) == []
    assert restrict_images([(f"{NFD}/1.png", NFD)], Split("s", "classes", None, (NFC,))) == [(f"{NFD}/1.png", NFD)]
    other = Split("o", "images", "train", (NFD,), ((f"{NFD}/1.png", NFD),))
    assert check_disjoint([images, other]) == [
        f"s and o share 1 image ({NFC}/1.png)",
        f"s and o share 1 class ({NFC})",
    ]
    listed = tmp_path / "split.json"
    listed.write_text(json.dumps({"test": [[f"{NFC}/1.png", 0, NFC], [f"{NFD}/2.png", 0, NFD]]}))
    split = read_split(listed)
    assert split.classes == (NFC,) and not split.warnings
    (tmp_path / "list.csv").write_text(f"{NFC}/1.png,{NFC}\n{NFD}/2.png,{NFD}\ndog/1.png,dog\n")
    assert read_split(tmp_path / "list.csv").classes == (NFC, "dog")
    (tmp_path / "classes.txt").write_text(f"{NFC}\n{NFD}\n")
    assert any("listed more than once" in line for line in read_split(tmp_path / "classes.txt").warnings)


def test_lists_name_files_as_the_disk_spells_them(tmp_path: Path) -> None:
    for name in (f"{NFD}/{NFD}.png", f"two/{NFC}.png", f"two/{NFD}.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,label\n{NFC}/{NFC}.png,{NFC}\n{NFD}/{NFC}.png,{NFD}\ntwo/{NFC}.png,x\ntwo/{NFD}.png,y\n")
    found = list_images([listed])
    assert [image.name for image in found] == [f"{NFD}/{NFD}.png", f"two/{NFC}.png", f"two/{NFD}.png"]
    assert [image.label for image in found] == [NFC, "x", "y"] and all(image.path.is_file() for image in found)
    assert len(list_images([tmp_path / "two"])) == 2
    disk = DiskNames()
    assert disk.find(tmp_path / NFC) == tmp_path / NFD and disk.find(tmp_path / NFC / "none.png") is None
    assert disk.find(tmp_path / "none" / NFC) is None
    # Neither of two spellings is a third one.
    three = "e\u0301\u0323"
    for name in ("\u1eb9\u0301", "e\u0323\u0301"):
        (tmp_path / "two" / name).touch()
    assert same_name(three) == "\u1eb9\u0301" and DiskNames().find(tmp_path / "two" / three) is None


def test_masks_and_benchmarks(tmp_path: Path) -> None:
    mask = tmp_path / "masks" / f"{NFD}.png"
    mask.parent.mkdir()
    mask.touch()
    assert find_masks([mask.parent], [tmp_path / "images" / f"{NFC}.jpg"]) == [mask]
    with pytest.raises(InputError, match="is the mask of both"):
        find_masks([mask.parent], [tmp_path / "images" / f"{name}.jpg" for name in (NFD, NFC)])
    (tmp_path / f"{NFD}.jpg").touch()
    points = np.zeros((1, 2))
    pairs = [
        BenchmarkPair(str(i), name, tmp_path / f"{NFC}.jpg", tmp_path / f"{NFD}.jpg", points, points)
        for i, name in enumerate((NFC, NFD))
    ]
    found = finished("spair", "test", pairs, tmp_path, choices={})
    assert [(pair.category, pair.path_a.name) for pair in found.pairs] == [(NFC, f"{NFD}.jpg")] * 2
