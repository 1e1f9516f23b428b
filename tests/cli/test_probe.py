"""`fewmatch probe` as a user runs it: small tables of features, and small folders of images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.main import run
from fewmatch.errors import InputError
from fewmatch.fewshot import ProbeSet, hold_out, knn_probe, logistic_probe

Result = tuple[int, str, str]
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


def fewmatch(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


def table(path: Path, n: int, seed: int, classes: int = 6) -> ProbeSet:
    """Overlapping classes around the same means, written as an .npz with names."""
    means = np.random.default_rng(99).normal(size=(classes, 5))
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = means[labels] * 2 + 1.3 * rng.normal(size=(n, 5))
    names = np.array([f"class-{c}" for c in range(classes)])
    np.savez(path, features=x, labels=labels, class_names=names)
    return ProbeSet(x, labels)


@pytest.fixture
def tables(tmp_path: Path) -> tuple[ProbeSet, ProbeSet, Path, Path]:
    train, test = table(tmp_path / "train.npz", 90, 0), table(tmp_path / "test.npz", 70, 1)
    return train, test, tmp_path / "train.npz", tmp_path / "test.npz"


@pytest.fixture
def short_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few values of C, so that tests of something else are quick."""
    monkeypatch.setattr("fewmatch.fewshot.probes.probes.C_GRID", (0.001, 0.01, 0.1, 1.0))


Tables = tuple[ProbeSet, ProbeSet, Path, Path]


def test_json_holds_what_the_library_gives_and_every_parameter(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test, *paths = tables
    got = as_json(fewmatch(capsys, "probe", *paths, "--json", "--k", "5,40,200"))
    knn = knn_probe(train, test, classes=6, ks=(5, 40, 200))
    held = hold_out(train.labels, 0.1, 0)
    rest, val = (ProbeSet(train.features[m], train.labels[m]) for m in (~held, held))
    expected = [*knn, logistic_probe(rest, test, classes=6, val=val)]
    assert got["results"] == [json.loads(json.dumps(one.to_json())) for one in expected]
    assert [r.get("k") for r in got["results"]] == [5, 40, 90, None]
    assert got["results"][2]["k_asked"] == [200]
    last = got["results"][3]
    assert (last["val_images"], last["train_images"], last["refit"], len(last["c_grid"])) == (6, 90, "train+val", 45)
    assert {k: v for k, v in got.items() if k not in ("results", "version", "train", "test")} == {
        "schema": 1, "encoder": None, "val": None, "val_share": 0.1, "held_out": 6, "method": "both", "k": [5, 40, 200],
        "temperature": 0.07, "normalize": False, "per_class": None, "tries": None, "seed": 0, "std_ddof": None,
        "shared_images": [], "skipped": [], "image_notes": [],
    }  # fmt: skip
    assert (got["train"]["images"], got["test"]["images"], got["train"]["classes"]) == (90, 70, 6)


@pytest.mark.usefixtures("short_grid")
def test_the_table_says_what_was_done(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    *_, train, test = tables
    code, out, err = fewmatch(capsys, "probe", train, test, "--k", "5,200")
    assert code == 0 and "90 training and 70 test images, 6 classes; given features" in out
    assert "exp(cosine/0.07)" in out and "raw vectors, L2, C chosen on 6 images, fitted to train+val" in out
    assert "1 of 2 k are above the 90 training images: clipped to 90" in err
    assert "top-5 %" in out and "k 90" in out and "k 200" not in out
    code, out, err = fewmatch(capsys, "probe", train, test, "--k", "5", "--method", "knn", "--quiet")
    assert code == 0 and "logistic" not in out and err == ""


@pytest.mark.usefixtures("short_grid")
def test_every_option_changes_what_it_should(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, train, test = tables

    def results(*options: object) -> Any:
        return as_json(fewmatch(capsys, "probe", train, test, *options, "--json"))["results"]

    knn = results("--method", "knn")
    assert [r["method"] for r in knn] == ["knn"] * 3  # 10, 20 and all of 90
    assert [r["accuracy"] for r in results("--method", "knn", "--temperature", "5")] != [r["accuracy"] for r in knn]
    assert [r["k"] for r in results("--method", "knn", "--k", "3")] == [3]
    plain = results("--method", "logistic")
    assert [r["method"] for r in plain] == ["logistic"]
    for change in (("--normalize",), ("--val-share", "0.5"), ("--seed", "4")):
        changed = results("--method", "logistic", *change)
        assert changed != plain, change
    assert results("--method", "logistic", "--val-share", "0.5")[0]["val_images"] == 42
    table(tmp_path / "val.npz", 30, 2)
    given = results("--method", "logistic", "--val", tmp_path / "val.npz")[0]
    assert (given["val_images"], given["train_images"], given["refit"]) == (30, 120, "train+val")


@pytest.mark.usefixtures("short_grid")
def test_a_few_images_of_each_class(tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, train, test = tables
    common = ("probe", train, test, "--per-class", "1,8", "--k", "3,10", "--tries", "3")
    got = as_json(fewmatch(capsys, *common, "--json", "--out", tmp_path / "classes.csv"))
    assert [(r["per_class"], r["method"], r.get("k"), r["train_images"]) for r in got["results"]] == [
        (1, "knn", 3, 6), (1, "knn", 6, 6), (1, "logistic", None, 6),
        (8, "knn", 3, 48), (8, "knn", 10, 48), (8, "logistic", None, 48),
    ]  # fmt: skip
    assert (got["val_share"], got["held_out"], got["tries"], got["std_ddof"]) == (0.01, 6, 3, 1)
    for r in got["results"]:
        accuracies = [one["accuracy"] for one in r["tries"]]
        assert len(accuracies) == 3 and r["accuracy"] == pytest.approx(np.mean(accuracies))
        assert r["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert got["results"][2]["refit"] == "train" and got["results"][2]["val_images"] == 6
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert len(rows) == 6 * 3 * 6 and {row["class"] for row in rows} == {f"class-{c}" for c in range(6)}
    first = [row for row in rows if (row["per_class"], row["k"], row["try"]) == ("1", "3", "0")]
    assert sum(int(row["right"]) for row in first) / 70 == got["results"][0]["tries"][0]["accuracy"]
    # The images that one method learns from do not depend on which others run.
    alone = as_json(fewmatch(capsys, *common, "--method", "knn", "--json"))["results"]
    assert alone == [r for r in got["results"] if r["method"] == "knn"]
    assert as_json(fewmatch(capsys, *common, "--seed", "5", "--method", "knn", "--json"))["results"] != alone
    code, out, _ = fewmatch(capsys, *common, "--method", "knn")
    assert code == 0 and "3 tries; std with ddof 1, ± is Student's t·s/√n" in out and "per class" in out
    one_try = as_json(fewmatch(capsys, *common[:-1], 1, "--method", "knn", "--json"))["results"][0]
    assert one_try["std"] is None and one_try["ci95_t"] is None and len(one_try["tries"]) == 1


def test_images_that_are_in_both_are_reported(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test, train_path, _ = tables
    leaking = np.concatenate([test.features, train.features[[3, 7]]])
    names = np.array([f"class-{c}" for c in range(6)])
    labels = np.concatenate([test.labels, train.labels[[3, 7]]])
    np.savez(tmp_path / "leak.npz", features=leaking, labels=labels, class_names=names)
    command = ("probe", train_path, tmp_path / "leak.npz", "--method", "knn", "--k", "5")
    got = as_json(fewmatch(capsys, *command, "--json"))
    assert got["shared_images"] == [{"first": "TRAIN", "second": "TEST", "images": ["row 70", "row 71"]}]
    code, out, err = fewmatch(capsys, *command)
    assert code == 0 and "2 images of TEST are in TRAIN as well (row 70, …): accuracies are too high" in err
    assert "images are shared between the sets" in out


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (32, 40, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 40)}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for part, count, start in (("train", 5, 0), ("test", 3, 50)):
        for name, colour in COLOURS.items():
            for i in range(count):
                draw(tmp_path / part / name / f"{part}-{i}.png", colour, start + i)
    return tmp_path / "train", tmp_path / "test"


@pytest.mark.usefixtures("short_grid")
def test_folders_lists_and_stores_give_the_same(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = folders
    rest = ("--k", "3", "--json")
    got = as_json(fewmatch(capsys, "probe", train, test, *MINI, *rest))
    assert got["encoder"]["name"] == "mini" and got["shared_images"] == [] and len(got["results"]) == 2
    assert all(r["accuracy"] > 0.8 and r["top5"] is None for r in got["results"])
    assert fewmatch(capsys, "encode", train, "-o", tmp_path / "store", *MINI)[0] == 0
    with (tmp_path / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([(path.relative_to(tmp_path), path.parent.name) for path in sorted(test.rglob("*.png"))])
    again = as_json(fewmatch(capsys, "probe", tmp_path / "store", tmp_path / "test.csv", "--device", "cpu", *rest))
    assert again["results"] == got["results"] and again["encoder"] == got["encoder"]
    other = as_json(fewmatch(capsys, "probe", train, test, *MINI, "--layer", "2", *rest))
    assert other["encoder"]["layer"] != got["encoder"]["layer"]
    assert fewmatch(capsys, "encode", test, "-o", tmp_path / "other", *MINI[:-1], 96)[0] == 0
    code, _, err = fewmatch(capsys, "probe", tmp_path / "store", tmp_path / "other", *rest)
    assert code == 2 and "TRAIN and TEST were encoded differently (preprocessing crop was 64, now 96)" in err


def test_leaks_of_images_are_found_by_file_and_by_content(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = folders
    shutil.copy(train / "red" / "train-2.png", test / "red" / "another name.png")
    got = as_json(fewmatch(capsys, "probe", train, test, *MINI, "--method", "knn", "--k", "3", "--json"))
    assert got["shared_images"] == [{"first": "TRAIN", "second": "TEST", "images": ["red/another name.png"]}]
    code, _, err = fewmatch(capsys, "probe", train, train, *MINI, "--method", "knn", "--k", "3")
    assert code == 0 and "15 images of TEST are in TRAIN as well" in err


def test_images_that_cannot_be_used_give_exit_code_3(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = folders
    (train / "red" / "broken.png").write_bytes(b"no image")
    command = ("probe", train, test, *MINI, "--method", "knn", "--k", "3")
    got = as_json(fewmatch(capsys, *command, "--json"), code=3)
    assert [row["path"] for row in got["skipped"]] == ["red/broken.png"] and got["train"]["images"] == 15
    code, _, err = fewmatch(capsys, *command)
    assert code == 3 and "skipped red/broken.png" in err


def test_one_image_a_class_leaves_none_to_choose_c_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path / "train.npz", 6, 3)
    table(tmp_path / "test.npz", 30, 4)
    command = ("probe", tmp_path / "train.npz", tmp_path / "test.npz", "--method", "logistic")
    got = as_json(fewmatch(capsys, *command, "--json"))
    assert (got["results"][0]["c"], got["held_out"], got["results"][0]["train_images"]) == (1.0, 0, 6)
    assert "C is not chosen but 1: give --val" in fewmatch(capsys, *command)[2]


def test_what_does_not_fit_is_an_error_of_one_line(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, train, test = tables
    table(tmp_path / "more.npz", 40, 5, classes=8)
    np.savez(
        tmp_path / "wide.npz", features=np.ones((3, 9)), labels=np.zeros(3, int), class_names=np.array(["class-0"])
    )
    (tmp_path / "there.csv").touch()
    for arguments, message in (
        ((train, tmp_path / "more.npz"), r"2 of 8 classes in .*more.npz are not in .*train.npz \(class-6, class-7\)"),
        ((train, tmp_path / "wide.npz"), "expected features of 5 dimensions in .*wide.npz as in TRAIN, got 9"),
        ((train, test, "--k", "ten"), "no --k ten"),
        ((train, test, "--k", "0"), "expected --k of 1 or more, got 0"),
        ((train, test, "--tries", 3), "--tries is used with --per-class N only"),
        ((train, test, "--per-class", "1", "--tries", 0), "expected 1 try or more, got 0"),
        ((train, test, "--per-class", "15"), "class class-0 has 14 images to draw from, expected 15"),
        ((train, test, "--val", test, "--val-share", "0.2"), "with --val nothing of it is held out"),
        ((train, test, "--val-share", "1"), "expected --val-share between 0 and 1, got 1"),
        ((train, test, "--temperature", "0"), "expected a temperature above 0, got 0"),
        ((train, test, "--seed", "-1"), "expected --seed of 0 or more, got -1"),
        ((train, tmp_path / "none", "-e", "mini"), "none does not exist"),
    ):
        code, out, err = fewmatch(capsys, "probe", *arguments)
        assert code == 2 and out == "" and re.search(message, err), (arguments, err)
        assert "Traceback" not in err
    code, _, err = fewmatch(capsys, "probe", train, test, "--out", tmp_path / "there.csv")
    assert code == 5 and "--overwrite" in err
    code, _, _ = fewmatch(
        capsys, "probe", train, test, "--method", "knn", "--out", tmp_path / "there.csv", "--overwrite"
    )
    assert code == 0 and (tmp_path / "there.csv").read_text().startswith("method,k,per_class,try,class,images,right")


def test_every_option_of_encoding_arrives(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[EncodingChoice] = []

    def stop(path: Path, choice: EncodingChoice) -> None:
        seen.append(choice)
        raise InputError("seen")

    monkeypatch.setattr("fewmatch.cli.commands.probe.read_table", stop)
    options = (
        "-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64", "--layer", "2", "--raw", "--facet", "key",
        "--stride", "4", "--no-cache", "--trust-digest", "--fast-decode", "--compile", "--range", "auto",
    )  # fmt: skip
    assert fewmatch(capsys, "probe", "a", "b", *options)[0] == 2
    assert fewmatch(capsys, "probe", "a", "b")[0] == 2
    assert seen == [
        EncodingChoice(
            "mini",
            "cpu",
            "float32",
            64,
            False,
            True,
            layer="2",
            raw=True,
            facet="key",
            stride=4,
            fast_decode=True,
            compile=True,
            value_range="auto",
        ),
        EncodingChoice(),
    ]
