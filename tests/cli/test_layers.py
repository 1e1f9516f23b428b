"""Layers, facets and strides on the command line: every one changes what it should, and stores remember them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.main import run

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: tuple[int, str, str], code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of four pictures; read only, so that each choice encodes them once."""
    root = tmp_path_factory.mktemp("layers")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        for i in range(4):
            path = root / "set" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((level + rng.integers(-50, 50, (48, 64, 3))).astype(np.uint8)).save(path)
    return root / "set"


CHOICES = [
    ((), "last"),
    (("--layer", "3"), "3"),
    (("--layer", "-5", "--raw"), "3, raw"),
    (("--layer", "last2"), "6+7"),
    (("--layer", "3", "--facet", "key"), "3, key"),
    (("--facet", "value"), "7, value"),
]


def test_every_choice_changes_matches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = ("match", folder / "dark" / "0.png", folder / "dark" / "1.png", *MINI, "--json")
    seen = []
    for options, layer in CHOICES:
        got = as_json(command(capsys, *pair, *options))
        assert got["encoder"]["layer"] == layer and got["encoder"]["name"] == "mini"
        seen.append(json.dumps(got["pairs"]))
    denser = as_json(command(capsys, *pair, "--stride", 4))
    assert denser["encoder"]["stride"] == 4 and denser["images"][0]["grid"] == [15, 21]
    assert len({*seen, json.dumps(denser["pairs"])}) == len(CHOICES) + 1


@pytest.mark.parametrize("name", ["episodes", "plane", "classify"])
def test_every_choice_reaches_few_shot_commands(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: dict[str, tuple[object, ...]] = {
        "episodes": (folder, "--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 20),
        "plane": (folder, "--ways", 2, "--shots", 1, "--queries", 2),
        "classify": ("--support", folder, "--query", folder / "dark"),
    }
    results = set()
    for options, layer in (*CHOICES, (("--stride", "4"), "last")):
        got = as_json(command(capsys, name, *words[name], *MINI, "--json", *options))
        assert got["encoder"]["layer"] == layer
        results.add(json.dumps(got["queries"] if name == "plane" else got["results"]))
    assert name == "episodes" or len(results) == len(CHOICES) + 1  # accuracies may agree by chance


def test_a_store_remembers_and_decides_for_the_rest(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    options = ("--layer", "3", "--facet", "key", "--stride", "4")
    made = as_json(command(capsys, "encode", folder, "-o", store, *MINI, *options, "--json"))
    assert (made["encoder"]["layer"], made["encoder"]["stride"]) == ("3, key", 4)
    by_store = as_json(command(capsys, "classify", "--support", store, "--query", folder / "dark", "--json"))
    by_folder = as_json(
        command(capsys, "classify", "--support", folder, "--query", folder / "dark", *MINI, *options, "--json")
    )
    assert by_store["results"] == by_folder["results"] and by_store["encoder"] == by_folder["encoder"]
    fine = ("--layer", "3", "--facet", "key", "--stride", "4", "-e", "mini")
    ways = ("--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5)
    assert command(capsys, "episodes", store, *ways, *fine)[0] == 0
    for option, value in (("--layer", "4"), ("--facet", "query"), ("--stride", "2"), ("--layer", "last")):
        code, _, err = command(capsys, "episodes", store, *ways, option, value)
        assert code == 2 and f"was made with {option} " in err and f"not {value}" in err
    code, _, err = command(capsys, "episodes", store, *ways, "--raw")
    assert code == 2 and "--raw" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer", "8"), "no layer 8: the encoder has blocks 0 to 7 (or -8 to -1)"),
        (("--layer", "some"), "expected last, last4, a block such as 8 or -4"),
        (("--facet", "key", "--raw"), "leave out --raw"),
        (("--stride", "9"), "expected a stride from 1 to the patch size 8, got 9"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    got = command(capsys, "match", folder / "dark" / "0.png", folder / "dark" / "1.png", *MINI, *options)
    assert got[0] == 2 and got[1] == "" and message in got[2] and len(got[2].splitlines()) == 1


def test_a_weights_file_may_have_any_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    from fewmatch.encoders import catalogue

    place = catalogue.find("mini").location()
    assert place is not None
    shutil.copy(place[1], tmp_path / "my_stride_4x.safetensors")
    store = tmp_path / "store"
    options = ("-e", tmp_path / "my_stride_4x.safetensors", "--size", 64)
    assert command(capsys, "encode", folder, "-o", store, *options, "--dtype", "float32")[0] == 0
    got = as_json(
        command(capsys, "episodes", store, "--ways", 2, "--shots", 1, "--queries", 2, "--episodes", 5, "--json")
    )
    assert got["encoder"]["name"] == "my_stride_4x" and "stride" not in got["encoder"]
