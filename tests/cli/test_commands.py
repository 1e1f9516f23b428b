"""The commands as a user runs them: tables, JSON, files, exit codes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.main import run

ROOT = Path(__file__).parent.parent.parent
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 40)}


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 32)) -> Path:
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of seven noisy plain-coloured images; to be read only, so that they are encoded once."""
    path = tmp_path_factory.mktemp("commands") / "set"
    for name, colour in COLOURS.items():
        for i in range(7):
            draw(path / name / f"{name}-{i}.png", colour, seed=i)
    return path


@pytest.fixture(scope="module")
def queries(folder: Path) -> Path:
    for i, colour in enumerate(COLOURS.values()):
        draw(folder.parent / "new" / f"{i}.png", colour, seed=100 + i)
    return folder.parent / "new"


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "set"))


@pytest.fixture
def own_queries(queries: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(queries, tmp_path / "new"))


Result = tuple[int, str, str]


def fewmatch(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


# --- episodes


def test_episodes_on_class_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("episodes", folder, *MINI, "--ways", 3, "--queries", 2, "--episodes", 50)
    got = as_json(fewmatch(capsys, *common, "--shots", "1,5", "--center", "none,separate", "--seed", 3, "--json"))
    assert (got["schema"], got["episodes"], got["seed"], got["skipped"]) == (1, 50, 3, [])
    assert set(got["encoder"]) == {"name", "family", "digest", "identity", "dtype", "size", "layer"}
    assert (got["encoder"]["name"], got["encoder"]["size"], got["encoder"]["dtype"]) == ("mini", 64, "float32")
    assert {k: v for k, v in got["dataset"].items() if k != "digest"} == {
        "name": "set",
        "images": 21,
        "classes": 3,
        "notes": [],
    }
    assert [(r["shots"], r["center"], r["transductive"]) for r in got["results"]] == [
        (1, "none", False),
        (1, "separate", True),
        (5, "none", False),
        (5, "separate", True),
    ]
    keys = {"method", "center", "transductive", "metric", "ways", "shots", "queries", "accuracy", "ci95", "seconds"}
    assert all(keys <= set(r) and r["accuracy"] > 0.9 and 0 <= r["ci95"] < 0.1 for r in got["results"])
    code, out, _ = fewmatch(capsys, *common, "--shots", 1)
    assert code == 0 and "set: 21 images, 3 classes; mini at 64 px, float32" in out and "50 episodes, seed 0" in out


def test_episodes_agrees_over_folder_store_and_npz(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fewmatch(capsys, "encode", folder, "-o", tmp_path / "store", *MINI)[0] == 0
    from fewmatch.encoders import FeatureStore

    store = FeatureStore.open(tmp_path / "store")
    names, labels = np.unique([str(label) for label in store.labels], return_inverse=True)
    np.savez(tmp_path / "set.npz", features=store.global_repr(), labels=labels, class_names=names)
    rest = ("--ways", 3, "--shots", 2, "--queries", 3, "--episodes", 40, "--json")
    documents = [
        as_json(fewmatch(capsys, "episodes", data, *options, *rest))
        for data, options in (
            (folder, MINI),
            (tmp_path / "store", ()),
            (tmp_path / "store", MINI),
            (tmp_path / "set.npz", ()),
        )
    ]
    assert len({(d["results"][0]["accuracy"], d["results"][0]["ci95"]) for d in documents}) == 1
    assert (
        documents[0]["encoder"] == documents[1]["encoder"] == documents[2]["encoder"]
        and documents[3]["encoder"] is None
    )
    assert documents[0]["dataset"]["digest"] == documents[1]["dataset"]["digest"] != documents[3]["dataset"]["digest"]
    code, out, err = fewmatch(capsys, "episodes", tmp_path / "set.npz", "-e", "mini", *rest)
    assert code == 0 and "--encoder is not used" in err and json.loads(out)["encoder"] is None


def _accuracy(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    return as_json(fewmatch(capsys, "episodes", *arguments, "--json"))


def test_every_option_of_episodes_changes_what_it_should(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 30)
    x = (rng.normal(size=(6, 8))[labels] + rng.normal(size=(180, 8)) + 2).astype(np.float32)
    np.savez(tmp_path / "set.npz", features=x, labels=labels)
    np.savez(tmp_path / "base.npz", features=x + rng.normal(size=8).astype(np.float32), labels=labels)
    data = tmp_path / "set.npz"
    default = _accuracy(capsys, data, "--episodes", 300)
    assert [(r["shots"], r["ways"], r["queries"], r["center"]) for r in default["results"]] == [
        (1, 5, 15, "support"),
        (5, 5, 15, "support"),
    ]
    seen = {default["results"][1]["accuracy"]}
    for change in (
        ("--seed", 1),
        ("--ways", 3),
        ("--queries", 5),
        ("--center", "none"),
        ("--center", "support+query"),
        ("--center", "separate"),
        ("--center", "feature"),
        ("--center", "base", "--base", tmp_path / "base.npz"),
        ("--metric", "cosine"),
        ("--prenormalize",),
    ):
        result = _accuracy(capsys, data, "--episodes", 300, "--shots", 5, *change)["results"]
        assert len(result) == 1 and result[0]["accuracy"] not in seen, change
        seen.add(result[0]["accuracy"])
    assert _accuracy(capsys, data, "--episodes", 1, "--shots", 1)["results"][0]["ci95"] is None
    assert _accuracy(capsys, data, "--episodes", 300)["results"][1]["accuracy"] == default["results"][1]["accuracy"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--shots", 9), "class blue has 7 images, but 9 shots and 2 queries need 11 (and 2 more classes)"),
        (("--ways", 9), "expected at least 9 classes for 9 ways, got 3"),
        (("--shots", "one"), "no --shots one: expected a number"),
        (("--center", "mean"), "no centring called mean"),
        (("--center", "base"), "--center base needs --base"),
        (("--base", "set"), "--base is used with --center base and --transform only"),
        (("--size", 65), "size 65 is not a multiple of the patch size 8: try 64 or 72"),
        (("--encoder", "dinov2_vits"), "did you mean dinov2_vits14"),
        (("--device", "abacus"), "no device called abacus"),
    ],
)
def test_wrong_use_of_episodes_is_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], change: tuple[object, ...], message: str
) -> None:
    code, out, err = fewmatch(capsys, "episodes", folder, *MINI, "--ways", 3, "--queries", 2, "--episodes", 5, *change)
    assert (code, out) == (2, "") and message in err and err.startswith("fewmatch: error: ") and err.count("\n") == 1


def test_data_without_labels_is_refused(queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = fewmatch(capsys, "episodes", queries, *MINI)
    assert code == 2 and "has no labels: expected class folders, new/<class>/<image>" in err
    (tmp_path / "empty").mkdir()
    code, _, err = fewmatch(capsys, "episodes", tmp_path / "empty", *MINI)
    assert code == 2 and "no images in" in err
    code, _, err = fewmatch(capsys, "episodes", tmp_path / "nowhere", *MINI)
    assert code == 2 and "does not exist" in err


def test_missing_weights_exit_4_with_instructions_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ("episodes", folder),
        ("encode", folder, "-o", folder.parent / "s"),
        ("episodes", folder, "-e", "dinov2_vitb14_reg"),
    ):
        code, out, err = fewmatch(capsys, *command)
        assert (code, out) == (4, "")
        assert "https://dl.fbaipublicfiles.com/dinov2/" in err and "`-e mini` works now" in err and "curl" in err


def test_skipped_images_are_listed_and_exit_3(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folder / "red" / "broken.png").write_bytes(b"nothing")
    draw(own_folder / "stray.png", (0, 0, 0), 0)
    result = fewmatch(
        capsys, "episodes", own_folder, *MINI, "--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 5, "--json"
    )
    got = as_json(result, code=3)
    assert got["dataset"]["images"] == 21
    reasons = {entry["path"]: entry["reason"] for entry in got["skipped"]}
    assert reasons["red/broken.png"].startswith("not-an-image") and reasons["stray.png"].startswith("no-label")
    code, _, err = fewmatch(
        capsys, "episodes", own_folder, *MINI, "--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 5
    )
    assert code == 3 and "skipped red/broken.png: not-an-image" in err and "skipped stray.png: no-label" in err


def _count_forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from fewmatch.encoders import FrozenEncoder

    calls: list[int] = []
    forward = FrozenEncoder.__call__

    def counted(self: FrozenEncoder, images: Any) -> Any:
        calls.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(FrozenEncoder, "__call__", counted)
    return calls


def test_the_second_run_has_no_forward_pass_unless_told(
    own_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count_forward_passes(monkeypatch)
    command = ("episodes", own_folder, *MINI, "--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 5)
    for extra, wanted in (((), 21), ((), 0), (("--no-cache",), 21), (("--no-cache",), 21), ((), 0)):
        calls.clear()
        assert fewmatch(capsys, *command, *extra)[0] == 0
        assert sum(calls) == wanted


# --- encode


def test_encode_resumes_and_refuses_what_is_not_its_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count_forward_passes(monkeypatch)
    out = tmp_path / "store"
    got = as_json(fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--json"))
    assert (got["images"], got["encoded"], got["skipped"], got["finished"], got["keep"]) == (21, 21, [], True, "global")
    assert sum(calls) == 21
    code, text, _ = fewmatch(capsys, "encode", folder, "-o", out, *MINI)
    assert code == 0 and sum(calls) == 21 and "21 images, 3 classes, 0 skipped, mini at 64 px, float32" in text
    for change in (("--keep", "patches"), ("--size", 72), ("--dtype", "bfloat16")):
        code, _, err = fewmatch(capsys, "encode", folder, "-o", out, *MINI, *change)
        assert code == 5 and "holds features made differently" in err and "--overwrite" in err
    draw(tmp_path / "others" / "red" / "other.png", (9, 9, 9), seed=1)
    code, _, err = fewmatch(capsys, "encode", tmp_path / "others", "-o", out, *MINI)
    assert code == 5 and "holds features of other images (such as blue/blue-0.png)" in err and sum(calls) == 21
    code, _, _ = fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--size", 72, "--overwrite")
    assert code == 0 and sum(calls) == 42
    code, _, err = fewmatch(capsys, "encode", folder, "-o", folder, *MINI)
    assert code == 5 and "is not empty and no feature store" in err


def test_encode_patches_tells_the_room_it_needs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = fewmatch(capsys, "encode", folder, "-o", tmp_path / "store", *MINI, "--keep", "patches")
    assert code == 0 and "21 images will take about" in err and "are free there" in err
    from fewmatch.encoders import FeatureStore

    assert FeatureStore.open(tmp_path / "store").feature_map(0).shape == (8, 10, 256)


def test_encode_refuses_patches_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # type: ignore[attr-defined]
    code, _, err = fewmatch(capsys, "encode", folder, "-o", tmp_path / "store", *MINI, "--keep", "patches")
    assert code == 1 and "not enough room" in err and not (tmp_path / "store").exists()


def test_encode_in_parts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "store"
    got = as_json(fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--shard", "2/2", "--json"))
    assert (got["finished"], got["images"]) == (False, 0) or got["finished"]
    code, _, err = fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--shard", "3/2")
    assert code == 2 and "no part 3/2" in err
    code, _, err = fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--shard", "half")
    assert code == 2 and "no part half" in err
    assert as_json(fewmatch(capsys, "encode", folder, "-o", out, *MINI, "--shard", "1/2", "--json"))["finished"]


def test_encode_strict_stops_with_exit_1_and_the_path(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "red" / "broken.png").write_bytes(b"nothing")
    code, _, err = fewmatch(capsys, "encode", own_folder, "-o", tmp_path / "store", *MINI, "--strict")
    assert code == 1 and "not-an-image" in err and str(own_folder / "red" / "broken.png") in err
    code, _, err = fewmatch(capsys, "encode", own_folder, "-o", tmp_path / "store", *MINI)
    assert code == 3 and "skipped red/broken.png: not-an-image" in err


def test_nothing_usable_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code, _, err = fewmatch(capsys, "encode", tmp_path / "bad.png", "-o", tmp_path / "store", *MINI)
    assert code == 2 and "none of the 1 images could be used" in err and "skipped bad.png: not-an-image" in err


def test_a_mismatched_store_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fewmatch(capsys, "encode", folder, "-o", tmp_path / "store", *MINI)[0] == 0
    for option, value in (("-e", "dinov2_vits14"), ("--size", 128), ("--dtype", "bfloat16")):
        code, _, err = fewmatch(capsys, "episodes", tmp_path / "store", option, value)
        assert code == 2 and f"not {value}: leave" in err


# --- classify


def test_classify_labels_with_probabilities(
    folder: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = as_json(fewmatch(capsys, "classify", "--support", folder, "--query", queries, *MINI, "--json"))
    assert (got["schema"], got["method"], got["center"], got["temperature"], got["queries"]) == (
        1,
        "ncm",
        "support",
        10.0,
        3,
    )
    assert [r["label"] for r in got["results"]] == ["blue", "green", "red"] and got["skipped"] == []
    for result in got["results"]:
        assert sorted(result["probabilities"]) == ["blue", "green", "red"]
        assert sum(result["probabilities"].values()) == pytest.approx(1)
        assert (
            result["probability"] == max(result["probabilities"].values()) == result["probabilities"][result["label"]]
        )
    code, out, err = fewmatch(
        capsys, "classify", "--support", folder, "--query", queries, *MINI, "--out", tmp_path / "r.csv"
    )
    assert code == 0 and "3 images, 3 classes" in out and f"wrote {tmp_path / 'r.csv'}" in err
    rows = read_csv(tmp_path / "r.csv")
    assert [row["label"] for row in rows] == ["blue", "green", "red"] and list(rows[0])[:4] == [
        "path",
        "label",
        "probability",
        "skipped",
    ]
    assert sum(float(rows[0][f"p({name})"]) for name in COLOURS) == pytest.approx(1, abs=1e-5)


def test_classify_takes_several_queries_and_a_store(
    folder: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(queries.iterdir())
    wanted = ["blue", "green", "red"]
    several = as_json(fewmatch(capsys, "classify", "--support", folder, *MINI, "--json", "--query", *files))
    assert [r["label"] for r in several["results"]] == wanted
    assert fewmatch(capsys, "encode", folder, "-o", tmp_path / "support", *MINI)[0] == 0
    assert fewmatch(capsys, "encode", queries, "-o", tmp_path / "queries", *MINI)[0] == 0
    for query in (queries, tmp_path / "queries"):  # a support store says by itself how the queries are encoded
        got = as_json(fewmatch(capsys, "classify", "--support", tmp_path / "support", "--query", query, "--json"))
        assert [r["label"] for r in got["results"]] == wanted and got["encoder"]["size"] == 64
    got = as_json(fewmatch(capsys, "classify", "--support", folder, "--query", tmp_path / "queries", "--json"))
    assert [r["label"] for r in got["results"]] == wanted  # so does a store of queries
    assert fewmatch(capsys, "encode", queries, "-o", tmp_path / "other", *MINI, "--size", 72)[0] == 0
    code, _, err = fewmatch(capsys, "classify", "--support", tmp_path / "support", "--query", tmp_path / "other")
    assert code == 2 and "encoded differently (preprocessing crop was 64, now 72)" in err


def test_every_option_of_classify_changes_what_it_should(
    folder: Path, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def results(*extra: object) -> Any:
        command = ("classify", "--support", folder, "--query", queries, *MINI, "--json", *extra)
        return as_json(fewmatch(capsys, *command))["results"]

    seen = [results()]
    for change in (
        ("--center", "none"),
        ("--center", "support+query"),
        ("--center", "separate"),
        ("--center", "feature"),
        ("--center", "base", "--base", queries),
        ("--metric", "cosine"),
        ("--temperature", 3),
        ("--prenormalize",),
        ("--size", 72),
        ("--dtype", "bfloat16"),
        ("--top", 2),
    ):
        seen.append(results(*change))
        assert all(seen[-1] != before for before in seen[:-1]), change
    assert all(len(r["probabilities"]) == 2 for r in seen[-1])


def test_classify_skips_and_says_so(
    own_folder: Path, own_queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_queries / "1b.png").write_bytes(b"nothing")
    (own_folder / "red" / "empty.png").touch()
    got = as_json(
        fewmatch(capsys, "classify", "--support", own_folder, "--query", own_queries, *MINI, "--json"), code=3
    )
    assert got["support"]["skipped"] == [{"path": "red/empty.png", "reason": "empty: the file has no content"}]
    assert [r["path"] for r in got["results"]] == ["0.png", "1.png", "2.png"]
    assert [s["path"] for s in got["skipped"]] == ["1b.png"] and got["skipped"][0]["reason"].startswith("not-an-image")
    code, _, _ = fewmatch(
        capsys, "classify", "--support", own_folder, "--query", own_queries, *MINI, "--out", tmp_path / "r.csv"
    )
    rows = read_csv(tmp_path / "r.csv")
    assert (
        code == 3
        and rows[2]["path"] == "1b.png"
        and rows[2]["skipped"].startswith("not-an-image")
        and rows[2]["label"] == ""
    )


def test_classify_works_with_one_image_per_class_and_refuses_one_class(
    folder: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in COLOURS.items():
        draw(tmp_path / "one" / name / "only.png", colour, seed=1)
    got = as_json(fewmatch(capsys, "classify", "--support", tmp_path / "one", "--query", queries, *MINI, "--json"))
    assert [r["label"] for r in got["results"]] == ["blue", "green", "red"]
    draw(tmp_path / "single" / "red" / "a.png", COLOURS["red"], seed=1)
    code, _, err = fewmatch(capsys, "classify", "--support", tmp_path / "single", "--query", queries, *MINI)
    assert code == 2 and "at least two classes in the support set, got 1 (red)" in err


def test_many_classes_stream_json_lines(own_queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for i in range(51):
        draw(
            tmp_path / "many" / f"class-{i:02d}" / "a.png",
            tuple(int(v) for v in rng.integers(50, 200, 3)),
            seed=i,
            size=(16, 16),
        )
    (own_queries / "bad.png").write_bytes(b"nothing")
    command = ("classify", "--support", tmp_path / "many", "--query", own_queries, *MINI)
    code, out, _ = fewmatch(capsys, *command, "--json")
    first, *lines = [json.loads(line) for line in out.splitlines()]
    assert code == 3 and first["schema"] == 1 and first["stream"] is True and first["queries"] == 4 and len(lines) == 4
    assert [len(line["probabilities"]) for line in lines[:3]] == [5, 5, 5]
    assert lines[3]["path"] == "bad.png" and lines[3]["reason"].startswith("not-an-image")
    code, out, _ = fewmatch(capsys, *command, "--json", "--top", 2)
    assert len(json.loads(out.splitlines()[1])["probabilities"]) == 2
    code, out, _ = fewmatch(capsys, *command, "--out", tmp_path / "r.csv")
    rows = read_csv(tmp_path / "r.csv")
    assert "3 images" in out and list(rows[0])[4:6] == ["label_2", "probability_2"] and len(rows) == 4
    code, _, err = fewmatch(capsys, *command, "--center", "separate")
    assert code == 2 and "needs all queries at once" in err


def test_many_queries_stream(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewmatch.cli.commands import classify

    monkeypatch.setattr(classify, "STREAM_QUERIES", 5)
    for i in range(6):
        draw(tmp_path / "q" / f"{i}.png", COLOURS["red"], seed=i)
    code, out, _ = fewmatch(capsys, "classify", "--support", folder, "--query", tmp_path / "q", *MINI, "--json")
    assert code == 0 and len(out.splitlines()) == 7
    code, out, _ = fewmatch(capsys, "classify", "--support", folder, "--query", tmp_path / "q", *MINI)
    assert "6 images" in out and "red" in out and "--json or --out list every image" in out


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_classify_draws_a_sheet(
    folder: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    target = tmp_path / f"sheet{suffix}"
    command = ("classify", "--support", folder, "--query", queries, *MINI, "--figure", target)
    code, _, err = fewmatch(capsys, *command)
    assert code == 0 and f"wrote {target}" in err and target.stat().st_size > 1000
    code, _, err = fewmatch(capsys, *command)
    assert code == 5 and "--overwrite" in err
    if suffix == ".svg":
        assert fewmatch(capsys, *command, "--overwrite")[0] == 0


def test_outputs_that_exist_or_have_no_type_are_refused_before_any_work(
    folder: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.csv").write_text("precious")
    command = ("classify", "--support", folder, "--query", queries, *MINI)
    code, _, err = fewmatch(capsys, *command, "--out", tmp_path / "r.csv")
    assert code == 5 and (tmp_path / "r.csv").read_text() == "precious" and "exists" in err
    code, _, err = fewmatch(capsys, *command, "--figure", tmp_path / "sheet.doc")
    assert code == 2 and "no figure of type .doc" in err
    code, _, err = fewmatch(capsys, *command, "--top", 0)
    assert code == 2 and "--top of 1 or more" in err
    assert fewmatch(capsys, *command, "--out", tmp_path / "r.csv", "--overwrite")[0] == 0


# --- the rest


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    got = as_json(fewmatch(capsys, "doctor", "--json"))
    assert got["problems"] == [] and got["packages"]["torch"] and got["weights"]["mini"].startswith("bundled")
    assert "nothing is wrong" in fewmatch(capsys, "doctor")[1]
    from fewmatch.cli.commands import doctor

    version = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda package: "1" if package == "opencv-python-headless" else version(package)
    )
    code, _, err = fewmatch(capsys, "doctor")
    assert code == 1 and "several OpenCV packages" in err


def test_demo_makes_its_folder_and_refreshes_only_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("x")
    code, _, err = fewmatch(capsys, "demo", "-o", tmp_path / "mine")
    assert code == 5 and "is no demo's" in err and (tmp_path / "mine" / "precious.txt").exists()


def shell(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "fewmatch", *map(str, arguments)],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_names_that_are_no_text_pass_through_any_locale(folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 [red] \n.png")
    draw(tmp_path / "q" / "x.png", COLOURS["red"], seed=1).rename(tmp_path / "q" / name)
    common = ("classify", "--support", folder, "--query", tmp_path / "q", *MINI)
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "COLUMNS": "200"}
    done = shell(*common, "--out", tmp_path / "r.csv", **locale)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"1 images" in done.stdout and b"caf\xe9 [red] \n.png" in (tmp_path / "r.csv").read_bytes()
    done = shell(*common, "--json", "--quiet", **locale)
    assert done.returncode == 0 and done.stderr == b""  # what others import is quiet as well
    got = json.loads(done.stdout)
    assert got["schema"] == 1 and got["results"][0]["path"] == name


def test_errors_are_one_line_and_debug_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = fewmatch(capsys, "encode", tmp_path / "nowhere", "-o", tmp_path / "s", "-e", "mini")
    assert code == 2 and "Traceback" not in err and err.count("\n") == 1
    # As a process of its own: a command that fails before anything large is imported.
    for flags, traceback in (((), False), (("--debug",), True)):
        done = shell("encoders", "nothing-of-this-name", *flags)
        assert done.returncode != 0 and (b"Traceback" in done.stderr) is traceback
        assert traceback or (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m fewmatch encoders --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, cwd=ROOT, check=False)
    assert b"Traceback" not in done.stderr and done.stdout == b"{\n"


def test_narrow_terminals_get_the_whole_content(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    few = ("--ways", 3, "--shots", 1, "--queries", 2, "--episodes", 5)
    code, out, _ = fewmatch(capsys, "episodes", folder, *MINI, *few)
    assert code == 0 and "ncm" in out


def test_completion_script_can_be_shown() -> None:
    done = shell("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and b"_FEWMATCH_COMPLETE" in done.stdout
    done = shell(_FEWMATCH_COMPLETE="complete_bash", COMP_WORDS="fewmatch enc", COMP_CWORD="1")
    assert done.stdout.split() == [b"encoders", b"encode"]
    done = shell(_FEWMATCH_COMPLETE="complete_bash", COMP_WORDS="fewmatch encode -e dinov2_vitb", COMP_CWORD="3")
    assert done.stdout.split() == [b"dinov2_vitb14", b"dinov2_vitb14_reg"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_says_so_and_leaves_no_half_file(tmp_path: Path, number: int, code: int) -> None:
    for i in range(300):
        draw(tmp_path / "set" / f"{i:03d}.png", COLOURS["red"], seed=i)
    store = tmp_path / "store"
    command = [
        sys.executable,
        "-m",
        "fewmatch",
        "encode",
        str(tmp_path / "set"),
        "-o",
        str(store),
        *map(str, MINI),
        "--size",
        "256",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    for _ in range(600):  # until it has begun to work
        if (store / "meta.json").exists():
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and b"Traceback" not in err
    assert [path.name for path in store.iterdir()] == ["meta.json"]


def test_an_encoder_from_a_file_is_the_one_of_its_store(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.symlink_to(ROOT / "encoders" / "weights" / "mini.safetensors")
    mine = ("-e", weights, "--device", "cpu", "--dtype", "float32", "--size", 64)
    assert fewmatch(capsys, "encode", folder, "-o", tmp_path / "store", *mine)[0] == 0
    got = as_json(
        fewmatch(
            capsys, "episodes", tmp_path / "store", "-e", weights, "--ways", 3, "--shots", 1, "--queries", 2, "--json"
        )
    )
    assert got["encoder"]["name"] == "mine"
