"""Class names with two spellings in Unicode, at the command line: one class in every command, said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.main import run
from fewmatch.cli.sort import class_folders

NFC, NFD = "caf\u00e9", "cafe\u0301"
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


def command(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    got = run([str(word) for word in words])
    out, err = capsys.readouterr()
    assert got == code, err
    return out, err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    return json.loads(command(capsys, *words, "--json")[0])


def features(path: Path, names: list[str], seed: int = 0, each: int = 6) -> Path:
    """Classes of random vectors; the same for the same seed, whatever the names are."""
    rng = np.random.default_rng(seed)
    labels = np.arange(len(names) * each) % len(names)
    x = 3 * np.random.default_rng(9).normal(size=(8, 5))[labels] + rng.normal(size=(len(labels), 5))
    np.savez(path, features=x, labels=np.array(names)[labels])
    return path


def draw(path: Path, colour: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60, (32, 32, 3)) + np.eye(3, dtype=int)[colour] * 180
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_classify_takes_two_folders_of_one_name_as_one_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate((NFD, NFC, "dog", "dog")):
        draw(tmp_path / "two" / name / f"{seed}.png", int(name == "dog"), seed)
        draw(tmp_path / "one" / ("cafe" if name != "dog" else name) / f"{seed}.png", int(name == "dog"), seed)
    query = draw(tmp_path / "new" / "q.png", 0, 7)
    words = ("classify", "--query", query, *MINI)
    got = as_json(capsys, *words, "--support", tmp_path / "two")
    plain = as_json(capsys, *words, "--support", tmp_path / "one")
    (result,), (expected,) = got["results"], plain["results"]
    assert got["support"]["classes"] == 2 and result["label"] == NFD
    assert list(result["probabilities"].values()) == list(expected["probabilities"].values())
    assert len(got["support"]["notes"]) == 1 and plain["support"]["notes"] == []
    _, err = command(capsys, *words, "--support", tmp_path / "two")
    assert err.count("one class") == 1
    # A class's folder that is there already is used, however it is spelled.
    sorted_into = tmp_path / "sorted"
    (sorted_into / NFC).mkdir(parents=True)
    command(capsys, *words, "--support", tmp_path / "two", "--sort-into", sorted_into, "--apply")
    assert [path.relative_to(sorted_into).as_posix() for path in sorted_into.rglob("*.png")] == [f"{NFC}/q.png"]
    assert len(set(class_folders([NFC, NFD]).values())) == 2


def test_probe_compares_classes_of_train_and_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = features(tmp_path / "train.npz", [NFC, "dog"])
    tests = [features(tmp_path / f"{i}.npz", [name, "dog"], seed=1) for i, name in enumerate((NFC, NFD))]
    first, second = (as_json(capsys, "probe", train, test, "--method", "knn", "--k", "3") for test in tests)
    assert first["results"] == second["results"]


def test_plane_finds_classes_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = features(tmp_path / "data.npz", [NFD, "dog", "ant"])
    got = as_json(capsys, "plane", data, "--classes", f"{NFC},dog", "--shots", "2", "--queries", "2")
    assert got["classes"] == [NFD, "dog"]
    _, err = command(capsys, "plane", data, "--classes", f"{NFC},{NFD}", "-o", tmp_path / "x.png", code=2)
    assert "twice" in err


def test_episodes_refuse_to_fit_on_classes_that_are_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = features(tmp_path / "data.npz", [NFD, "dog", "ant"])
    other = features(tmp_path / "other.npz", [NFC, "emu", "fox"])
    words = ("--ways", "2", "--shots", "1", "--queries", "1", "--episodes", "10")
    _, err = command(capsys, "episodes", data, "--val", other, *words, code=2)
    assert "classes that are evaluated" in err


def test_pairs_are_found_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [draw(tmp_path / f"{name}.png", 0, seed) for seed, name in enumerate((NFD, "b"))]
    (tmp_path / "pairs.csv").write_text(f"a,b\nb.png,{NFC}.png\n")
    got = as_json(capsys, "match", *paths, "--pairs", tmp_path / "pairs.csv", *MINI)
    assert len(got["pairs"]) == 1
