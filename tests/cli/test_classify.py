"""`classify` beyond the plain case: methods, calibration, none of these, saved models, sorting, and streams."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli import sort
from fewmatch.cli.main import run
from fewmatch.fewshot import METHODS

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 40, 40)}
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.integers(-40, 40, (32, 40, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Images, and stores of them: three classes of four, and five queries, of which a checkerboard is none of these."""
    root = tmp_path_factory.mktemp("classify")
    for name, colour in COLOURS.items():
        for i in range(4):
            draw(root / "set" / name / f"{i}.png", colour, seed=i)
    for i, colour in enumerate(COLOURS.values()):
        draw(root / "new" / f"{i}.png", colour, seed=100 + i)
    board = np.kron(np.indices((5, 5)).sum(axis=0) % 2, np.ones((8, 8)))[..., None].repeat(3, axis=2) * 255
    (root / "new" / "odd").mkdir()
    Image.fromarray(board.astype(np.uint8)).save(root / "new" / "odd" / "board.png")
    draw(root / "new" / "odd" / "0.png", COLOURS["red"], seed=200)
    for name in ("set", "new"):
        command = ["encode", root / name, "-o", root / f"{name}-store", *MINI, "--quiet"]
        assert run([str(word) for word in command]) == 0
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted((root / "set").rglob("*.png"))]
    (root / "set.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    return {"root": root, **{name: root / name for name in ("set", "new", "set-store", "new-store", "set.csv")}}


class Command:
    """Runs `classify` with the stores unless told otherwise."""

    def __init__(self, made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
        self.made, self.capsys = made, capsys

    def run(self, *words: object) -> tuple[int, str, str]:
        code = run(["classify", *map(str, words)])
        return code, *self.capsys.readouterr()

    def __call__(self, *words: object, code: int = 0) -> Any:
        got, out, err = self.run(
            "--support", self.made["set-store"], "--query", self.made["new-store"], "--json", *words
        )
        assert got == code, err
        return json.loads(out)

    def refused(self, *words: object, support: bool = True, code: int = 2) -> str:
        first = ("--support", self.made["set-store"]) if support else ()
        got, out, err = self.run(*first, "--query", self.made["new-store"], *words)
        assert (got, out) == (code, ""), err
        assert err.startswith("fewmatch: error: ") and err.count("\n") == 1
        return err


@pytest.fixture
def classify(made: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(made, capsys)


# --- methods


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.center != "base"])
def test_every_method_labels(name: str, classify: Command) -> None:
    got = classify("--method", name)
    labels = {r["path"]: r["label"] for r in got["results"]}
    assert got["method"] == name and got["transductive"] == METHODS[name].transductive | (
        METHODS[name].center == "separate"
    )
    assert got["center"] == METHODS[name].center and got["temperature"] == METHODS[name].temperature
    assert set(got["options"]) == set(METHODS[name].options)
    assert all(sum(r["probabilities"].values()) == pytest.approx(1) for r in got["results"])
    if not METHODS[name].transductive and METHODS[name].project:
        assert [labels[f"{i}.png"] for i in range(3)] == ["blue", "green", "red"]


def test_tim_says_what_centring_does_to_its_temperature(classify: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify("--method", "tim", "--set", "tim.iterations=2")["notes"] == []
    got = classify("--method", "tim", "--set", "tim.iterations=2", "--center", "support")
    assert got["center"] == "support" and len(got["notes"]) == 1
    assert got["notes"][0].startswith("tim: the default temperature of 15 is its authors' choice")


def test_options_of_methods_change_what_they_should(classify: Command) -> None:
    seen = [classify("--method", "knn")["results"]]
    for words in (
        ("--method", "knn", "--set", "knn.k=1"),
        ("--method", "knn", "--set", "knn.temperature=0.5"),
        ("--method", "ridge"),
        ("--method", "ridge", "--set", "ridge.penalty=0.01"),
        ("--method", "ridge", "--center", "none"),
        ("--method", "ridge", "--temperature", "3"),
        ("--set", "ncm.metric=cosine"),
    ):
        seen.append(classify(*words)["results"])
        assert all(seen[-1] != before for before in seen[:-1]), words
    assert classify("--metric", "cosine")["results"] == seen[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "magic"), "no method called magic"),
        (("--method", "knn,ncm"), "expected one method, got knn,ncm"),
        (("--center", "none,support"), "expected one centring"),
        (("--set", "knn.k=1"), "knn is not among the methods ncm"),
        (("--set", "ncm.k=1"), "ncm has no option k"),
        (("--method", "knn", "--set", "knn.k=0"), "expected k to be"),
        (("--method", "ridge", "--metric", "cosine"), "--metric is for methods that compare with class means"),
        (("--temperature", "hot"), "no --temperature hot: expected auto or a number"),
        (("--temperature", "-1"), "expected a temperature above 0, got -1"),
        (("--reject", "2"), "from -1 to 1"),
        (("--reject", "maybe"), "no --reject maybe"),
        (("--reject", "auto", "--accept", "0"), "above 0 and at most 1"),
        (("--accept", "0.5"), "--accept goes with --reject auto"),
        (("--apply",), "--apply goes with --sort-into"),
        (("--link",), "--link goes with --sort-into"),
        (("--model", "m"), "--support and --model exclude each other"),
        (("--center", "separate", "--temperature", "auto"), "queries are used as a set"),
        (("--center", "separate", "--save-model", "m.safetensors"), "uses the queries as a set"),
    ],
)
def test_wrong_use_is_one_line(
    words: tuple[str, ...], message: str, classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in classify.refused(*words)
    assert not list(tmp_path.iterdir())


def test_something_to_learn_from_and_something_to_label(classify: Command) -> None:
    assert "expected either --support" in classify.refused(support=False)
    code, _, err = classify.run("--support", classify.made["set-store"])
    assert code == 2 and "expected --query" in err
    code, _, err = classify.run("--support", classify.made["set-store"], "--save-model", "x", "--out", "y")
    assert code == 2 and "need --query" in err


def test_too_many_supports_for_a_method_name_the_way_out(classify: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from fewmatch.fewshot.labelling import classifiers

    monkeypatch.setattr(classifiers, "MOST_SUPPORTS", 11)
    assert "ridge takes at most 11 supports, got 12: use method ncm" in classify.refused("--method", "ridge")
    monkeypatch.setattr(classifiers, "MOST_SUPPORTS", 12)
    monkeypatch.setattr(classifiers, "MOST_WEIGHTS", 35)
    assert "12 supports for 3 classes" in classify.refused("--method", "ridge")
    assert classify("--method", "knn")["method"] == "knn"


# --- temperature and rejection


def test_how_the_temperature_was_found_is_said(classify: Command, made: dict[str, Path], tmp_path: Path) -> None:
    for words, wanted in (((), (10.0, "default", None)), (("--temperature", 4), (4.0, "given", None))):
        got = classify(*words)
        assert (got["temperature"], got["temperature_chosen"], got["temperature_held_out"]) == wanted
    got = classify("--temperature", "auto")
    assert (
        got["temperature_chosen"] == "leave-one-out" and got["temperature_held_out"] == 12 and got["temperature"] != 10
    )
    assert (
        "(from 12 held-out supports)"
        in classify.run("--support", made["set-store"], "--query", made["new-store"], "--temperature", "auto")[1]
    )
    one = tmp_path / "one"
    for name, colour in COLOURS.items():
        draw(one / name / "a.png", colour, seed=5)
    code, _, err = classify.run("--support", one, "--query", made["new"], *MINI, "--temperature", "auto")
    assert code == 0 and "none can be held out: the temperature stays at 10" in err
    code, _, err = classify.run("--support", one, "--query", made["new"], *MINI, "--reject", "auto")
    assert code == 2 and "every class has one support only" in err and "give a number" in err
    code, out, _ = classify.run("--support", one, "--query", made["new"], *MINI, "--reject", "0.5", "--json")
    assert code == 0 and json.loads(out)["reject"]["threshold"] == 0.5


def test_what_is_none_of_these_has_no_label(classify: Command, made: dict[str, Path], tmp_path: Path) -> None:
    free = classify()
    assert free["reject"] is None and all("rejected" not in r and "similarity" not in r for r in free["results"])
    got = classify("--reject", "auto", "--out", tmp_path / "r.csv", "--figure", tmp_path / "s.svg")
    assert got["reject"]["measure"] == "similarity" and got["reject"]["chosen"] == "leave-one-out"
    assert (got["reject"]["accept"], got["reject"]["held_out"]) == (0.95, 12)
    by_path = {r["path"]: r for r in got["results"]}
    board = by_path["odd/board.png"]
    assert board["label"] is None and board["rejected"] is True and board["similarity"] < got["reject"]["threshold"]
    for before, after in zip(free["results"], got["results"], strict=True):
        assert before["probabilities"] == after["probabilities"]
        assert after["rejected"] == (after["similarity"] < got["reject"]["threshold"])
        assert after["label"] == (None if after["rejected"] else before["label"])
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "r.csv").read_text().splitlines())}
    assert (rows["odd/board.png"]["label"], rows["odd/board.png"]["rejected"]) == ("", "true")
    assert float(rows["0.png"]["similarity"]) == pytest.approx(by_path["0.png"]["similarity"], abs=1e-6)
    count = sum(r["rejected"] for r in got["results"])
    code, out, _ = classify.run("--support", made["set-store"], "--query", made["new-store"], "--reject", "auto")
    assert code == 0 and f"5 images, 3 classes, {count} none of these" in out
    assert sum("none of these" in line for line in out.splitlines()) == count + 2
    looser, stricter = (classify("--reject", "auto", "--accept", share)["reject"]["threshold"] for share in (1.0, 0.3))
    assert looser <= got["reject"]["threshold"] < stricter
    everything = classify("--reject", "1")["results"]
    assert all(r["label"] is None for r in everything) and all(
        not r["rejected"] for r in classify("--reject", "-1")["results"]
    )


# --- where supports come from, and models


def test_folders_lists_and_stores_say_the_same_with_all_of_it(classify: Command, made: dict[str, Path]) -> None:
    words = ("--method", "ridge", "--temperature", "auto", "--reject", "auto", "--json")
    found = []
    for support in ("set", "set.csv", "set-store"):
        encoder = () if support == "set-store" else MINI
        code, out, err = classify.run("--support", made[support], "--query", made["new"], *encoder, *words)
        assert code == 0, err
        found.append(json.loads(out))
    assert found[0]["results"] == found[1]["results"] == found[2]["results"]
    assert found[0]["temperature"] == found[1]["temperature"] == found[2]["temperature"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--reject", "auto", "--temperature", "auto", "--prenormalize"),
        ("--method", "knn", "--set", "knn.k=2"),
        ("--method", "logistic", "--center", "none", "--temperature", "2"),
        ("--metric", "cosine", "--center", "base", "--base"),
    ],
    ids=str,
)
def test_a_model_gives_what_its_supports_gave(words: tuple[str, ...], classify: Command, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    words = (*words, str(classify.made["new-store"])) if words[-1:] == ("--base",) else words
    first = classify(*words, "--save-model", model)
    for query in ("new-store", "new"):  # the model says by itself how images are encoded
        code, out, err = classify.run("--model", model, "--query", classify.made[query], "--device", "cpu", "--json")
        assert code == 0, err
        second = json.loads(out)
        assert second["results"] == first["results"] and second["encoder"] == first["encoder"]
        same = ("method", "options", "center", "temperature", "temperature_chosen", "reject", "prenormalize", "metric")
        assert all(second[name] == first[name] for name in same)
        assert second["model"] == str(model) and second["classes"] == 3 and "support" not in second


def test_a_model_is_saved_without_queries_and_never_over_another(classify: Command, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    words = ("--support", classify.made["set-store"], "--save-model", model)
    code, out, err = classify.run(*words)
    assert (code, out) == (0, "") and f"wrote {model}" in err
    code, _, err = classify.run(*words)
    assert code == 5 and "--overwrite" in err
    code, out, _ = classify.run(*words, "--overwrite", "--json")
    assert code == 0 and json.loads(out)["results"] == []


def test_a_model_says_what_was_decided_and_by_which_encoder(classify: Command, tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    classify("--save-model", model)
    for option in (
        ("--method", "knn"),
        ("--set", "ncm.metric=cosine"),
        ("--center", "none"),
        ("--base", "x"),
        ("--metric", "cosine"),
        ("--prenormalize",),
        ("--temperature", "3"),
        ("--reject", "auto"),
        ("--accept", "0.5"),
    ):
        assert f"{option[0]}" in classify.refused("--model", model, *option, support=False)
    code, out, _ = classify.run("--model", model, "--query", classify.made["new-store"], "--reject", "1", "--json")
    assert code == 0 and all(r["rejected"] for r in json.loads(out)["results"])
    code, _, err = classify.run("--model", model, "--query", classify.made["new"], "--device", "cpu", "--size", "72")
    assert code == 2 and "encoded differently (preprocessing resize was 64, now 72)" in err
    from fewmatch.fewshot.labelling.model_file import load_labeller, save_labeller

    labeller, key = load_labeller(model)
    assert key is not None
    save_labeller(labeller, model, key | {"encoder": key["encoder"] | {"digest": "0" * 64}})
    code, _, err = classify.run("--model", model, "--query", classify.made["new"], "--device", "cpu")
    assert code == 2 and "made with another encoder (encoder digest was 000" in err
    own = key["encoder"] | {"name": "mine"}  # as `-e dinov2_reg:mine.pth` makes it
    save_labeller(labeller, model, key | {"encoder": own})
    code, _, err = classify.run("--model", model, "--query", classify.made["new"], "--device", "cpu")
    assert (
        code == 2
        and "made with mine, weights of your own with the SHA-256 1f8a37fd5aa8…: name their file with -e dinov2_reg:PATH"
        in err
    )
    for broken in (None, {}, key | {"layer": 3}, key | {"encoder": {"name": "mini"}}, key | {"preprocessing": []}):
        save_labeller(labeller, model, broken)
        assert "does not say which encoder" in classify.refused("--model", model, support=False)
    model.write_bytes(b"nothing")
    assert "cannot be used as a model" in classify.refused("--model", model, support=False)


# --- sorting


def test_sorting_is_planned_first_and_done_when_told(classify: Command, tmp_path: Path) -> None:
    into = tmp_path / "sorted"
    words = ("--reject", "auto", "--sort-into", into)
    got = classify(*words)
    plan = got["sort"]
    assert not into.exists() and plan["applied"] is False and {f["action"] for f in plan["files"]} == {"copy"}
    label = {r["path"]: r["label"] or "_none" for r in got["results"]}
    wanted = {f"{folder}/{path}" for path, folder in label.items()}
    assert {f["to"] for f in plan["files"]} == wanted and sum(plan["folders"].values()) == 5
    code, out, _ = classify.run("--support", classify.made["set-store"], "--query", classify.made["new-store"], *words)
    assert code == 0 and "nothing is written yet" in out and "to copy" in out and not into.exists()
    assert classify(*words, "--apply")["sort"]["applied"] is True
    files = {p.relative_to(into).as_posix(): p for p in into.rglob("*") if p.is_file()}
    assert set(files) == wanted
    for name, path in files.items():
        source = classify.made["new"] / name.split("/", 1)[1]
        assert path.read_bytes() == source.read_bytes() and not path.samefile(source)
    files["_none/odd/board.png"].unlink()  # as after an interruption
    again = classify(*words, "--apply")["sort"]
    assert sorted(f["action"] for f in again["files"]) == ["copy", "there", "there", "there", "there"]
    assert files["_none/odd/board.png"].exists()


def test_sorting_never_replaces_anything(classify: Command, tmp_path: Path) -> None:
    into = tmp_path / "sorted"
    target = into / "blue" / "0.png"
    target.parent.mkdir(parents=True)
    target.write_text("precious")
    got = classify("--sort-into", into, code=3)
    assert [f["to"] for f in got["sort"]["files"] if f["action"] == "conflict"] == ["blue/0.png"]
    code, _, err = classify.run(
        "--support", classify.made["set-store"], "--query", classify.made["new-store"], "--sort-into", into, "--apply"
    )
    assert code == 5 and "is another file" in err
    assert target.read_text() == "precious" and [p for p in into.rglob("*") if p.is_file()] == [target]
    (tmp_path / "file").touch()
    assert "is no folder" in classify.refused("--sort-into", tmp_path / "file")
    code, _, err = classify.run(
        "--support",
        classify.made["set-store"],
        "--query",
        classify.made["new"],
        *MINI,
        "--sort-into",
        classify.made["new"] / "x",
    )
    assert code == 2 and "choose another folder" in err


def test_links_instead_of_copies(classify: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--sort-into", tmp_path / "s", "--link", "--apply")
    plan = classify(*words)["sort"]
    assert {f["action"] for f in plan["files"]} == {"link"} and plan["link"] is True
    assert all((tmp_path / "s" / f["to"]).samefile(classify.made["new"] / f["path"]) for f in plan["files"])
    assert {f["action"] for f in classify(*words)["sort"]["files"]} == {"there"}

    def across(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    assert "leave --link out to copy" in classify.refused("--sort-into", tmp_path / "t", "--link", "--apply", code=1)
    assert classify("--sort-into", tmp_path / "t", "--apply")["sort"]["applied"]  # copies need no links
    assert len([p for p in (tmp_path / "t").rglob("*") if p.is_file()]) == 5


def test_sorting_does_not_leave_its_folder(classify: Command, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s" / "blue").symlink_to(tmp_path / "elsewhere")
    assert "leads out of" in classify.refused("--sort-into", tmp_path / "s", "--apply")
    assert not list((tmp_path / "elsewhere").iterdir())


HOSTILE = ["../x", "a/b", "CON", "con.txt", "", ".", "..", " ", "x" * 300, "caf\udce9", "_none", "a\nb", "a\\b"]
HOSTILE += ["dog.", ".dog", "Dog", "dog", "é" * 90]


def test_class_names_become_safe_folders(tmp_path: Path) -> None:
    folders = sort.class_folders([*HOSTILE, "plain name", "Zürich"])
    assert folders["plain name"] == "plain name" and folders["Zürich"] == "Zürich"
    assert len({name.casefold() for name in folders.values()}) == len(folders)
    for name in folders.values():
        (tmp_path / name).mkdir()
        assert (tmp_path / name).resolve().parent == tmp_path.resolve()
        assert (
            len(name.encode()) < 150 and name.isprintable() and not name.startswith(".") and name == name.rstrip(". ")
        )
        assert not set(name) & set('<>:"/\\|?*') and name.split(".")[0].casefold() != "con"
    assert "_none" not in folders.values()
    assert sort.class_folders(HOSTILE)["../x"] == folders["../x"]  # the same in every run


def test_files_keep_their_paths_and_stay_below(tmp_path: Path) -> None:
    names = ["a.png", "b/a.png", "../a.png", "../../a.png", "b/../a.png", "..", "x/.hidden"]
    for name in ("a.png", "b/a.png", "x/.hidden"):
        draw(tmp_path / "q" / "r" / "s" / f"{name}.png", (1, 2, 3), seed=0)
    plan = sort.SortPlan(tmp_path / "into", ["../up"], link=False)
    for name in names:
        plan.add({"root": str(tmp_path / "q" / "r" / "s"), "path": name}, "../up")
    targets = [file.target for file in plan.files]
    assert len(set(targets)) == len(names)
    assert all(os.path.normpath(t).startswith(str(tmp_path / "into") + os.sep) and ".." not in t.parts for t in targets)
    assert {file.action for file in plan.files} == {"gone"}


def test_a_half_made_copy_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    source = draw(tmp_path / "q" / "a.png", (1, 2, 3), seed=0)

    def stopped(_: Path, to: Path) -> None:
        Path(to).write_bytes(source.read_bytes()[:9])
        raise KeyboardInterrupt

    row = {"root": str(tmp_path / "q"), "path": "a.png"}
    plan = sort.SortPlan(tmp_path / "into", ["dog"], link=False)
    plan.add(row, "dog")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", stopped)
        with pytest.raises(KeyboardInterrupt):
            plan.apply()
    assert not list((tmp_path / "into" / "dog").iterdir())
    plan.apply()
    assert [p.name for p in (tmp_path / "into" / "dog").iterdir()] == ["a.png"]


def test_images_that_are_gone_are_listed(classify: Command, tmp_path: Path) -> None:
    for i, colour in enumerate(COLOURS.values()):
        draw(tmp_path / "q" / f"{i}.png", colour, seed=i)
    assert run(["encode", str(tmp_path / "q"), "-o", str(tmp_path / "store"), *MINI, "--quiet"]) == 0
    (tmp_path / "q" / "1.png").unlink()
    code, out, err = classify.run(
        "--support", classify.made["set-store"], "--query", tmp_path / "store", "--sort-into", tmp_path / "s", "--apply"
    )
    assert code == 3 and "not sorted: 1.png: it is gone" in err and "copied" in out
    assert len([p for p in (tmp_path / "s").rglob("*") if p.is_file()]) == 2


# --- streams


def big_store(path: Path, count: int, key: dict[str, Any], shard: int = 256) -> Path:
    """A store of made-up vectors, as `encode` would have written it."""
    import torch

    from fewmatch.encoders.store.store import Shard, key_digest, write_manifest, write_meta

    path.mkdir()
    write_meta(path, key)
    rng, lines = np.random.default_rng(0), []
    frame = {"grid": [1, 1]}
    for number, start in enumerate(range(0, count, shard)):
        name = f"shard-{number:05d}-{'0' * 16}.safetensors"
        rows = [
            {
                "path": f"{i}.png",
                "size": 1,
                "mtime_ns": 1,
                "sha256": "",
                "status": "ok",
                "reason": None,
                "note": None,
                "frame": frame,
            }
            for i in range(start, min(start + shard, count))
        ]
        vectors = torch.from_numpy(rng.normal(size=(len(rows), key["encoder"]["embed_dim"])).astype(np.float32))
        Shard(rows, vectors).write(path / name, key_digest(key))
        lines += [row | {"root": "/", "label": None, "shard": name, "row": i} for i, row in enumerate(rows)]
    write_manifest(path, lines)
    return path


def test_a_long_stream_keeps_only_what_it_shows(classify: Command, tmp_path: Path) -> None:
    from fewmatch.encoders import FeatureStore

    key = FeatureStore.open(classify.made["set-store"]).key
    beyond = []
    for count in (512, 1_024, 2_560):  # the first only warms up
        store = big_store(tmp_path / str(count), count, key)
        words = ("--query", store, "--reject", "0", "--out", tmp_path / f"{count}.csv")
        tracemalloc.start()
        rows = FeatureStore.open(store).rows
        manifest = tracemalloc.get_traced_memory()[0]
        del rows
        tracemalloc.reset_peak()
        code, out, _ = classify.run("--support", classify.made["set-store"], *words)
        beyond.append(tracemalloc.get_traced_memory()[1] - manifest)
        tracemalloc.stop()
        assert code == 0 and f"{count:,} images" in out
        lines = list(csv.DictReader((tmp_path / f"{count}.csv").read_text().splitlines()))
        assert len(lines) == count and lines[-1]["path"] == f"{count - 1}.png"
    # The manifest is read whole, and its text beside it for a moment; vectors (1 kB an image) and results (600 bytes) are not kept.
    assert beyond[2] - beyond[1] < 1_536 * 300, beyond


def test_sorting_and_rejection_stream_too(classify: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fewmatch.cli.commands import classify as command

    whole = classify("--reject", "auto", "--sort-into", tmp_path / "s")
    monkeypatch.setattr(command, "STREAM_QUERIES", 3)
    code, out, _ = classify.run(
        "--support", classify.made["set-store"], "--query", classify.made["new-store"], "--json", "--reject", "auto",
        "--sort-into", tmp_path / "s",
    )  # fmt: skip
    first, *lines, last = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and first["stream"] is True and first["reject"] == whole["reject"]
    assert [(r["label"], r["rejected"]) for r in lines] == [(r["label"], r["rejected"]) for r in whole["results"]]
    assert last == {"sort": whole["sort"]}
    code, out, _ = classify.run(
        "--support", classify.made["set-store"], "--query", classify.made["new-store"], "--reject", "auto"
    )
    count = sum(r["rejected"] for r in whole["results"])
    assert code == 0 and any(line.split() == ["none", "of", "these", str(count)] for line in out.splitlines())
    assert "needs all queries at once" in classify.refused(
        "--method", "pt-map"
    ) and "use --method ncm" in classify.refused("--method", "pt-map")
