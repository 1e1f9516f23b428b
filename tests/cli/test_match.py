"""`fewmatch match` as a user runs it: JSON, table, figure, stores, every option, every error."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

import fewmatch
from fewmatch.cli.main import run

Result = tuple[int, str, str]
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32")


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photo, a part of it, another photo (portrait format), two strips (small in figures), and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    astronaut = skimage.data.astronaut()
    pixels = {
        "whole": astronaut[:400],
        "part": astronaut[40:360, 60:420],
        "cat": skimage.data.chelsea()[:, 100:300],
        "strip": astronaut[100:180, 40:360],
        "other": astronaut[100:180, 80:400],
    }
    files = {name: folder / f"{name}.png" for name in pixels}
    for name, file in files.items():
        Image.fromarray(pixels[name]).save(file)
    files["bad"] = folder / "bad.png"
    files["bad"].write_text("no image")
    return files


def test_json_holds_what_the_functions_give(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    got = as_json(command(capsys, "match", photos["whole"], photos["part"], photos["cat"], *MINI, "--json"))
    assert set(got) == {
        "schema",
        "version",
        "encoder",
        "images",
        "steps",
        "pairs",
        "figure",
        "written",
        "skipped",
        "image_notes",
        "not_drawn",
        "not_written",
    }
    assert (got["schema"], got["figure"], got["skipped"]) == (1, None, [])
    assert {k: v for k, v in got["encoder"].items() if k not in ("digest", "identity")} == {
        "name": "mini",
        "family": "dinov2_reg",
        "dtype": "float32",
        "size": 128,
        "layer": "last",
        "resize": "keep",
    }
    names = ("whole", "part", "cat")
    assert [image["path"] for image in got["images"]] == [photos[name].as_posix() for name in names]
    assert [(image["width"], image["height"]) for image in got["images"]] == [(512, 400), (360, 320), (200, 300)]
    assert [(pair["a"], pair["b"], pair["model"]) for pair in got["pairs"]] == [(0, 1, None), (0, 2, None)]
    encoder = fewmatch.load("mini", device="cpu", dtype="float32")
    store = fewmatch.encode_images([photos[name] for name in names], encoder, keep="patches")
    place = {name: i for i, name in enumerate(store.names)}
    maps = [(store.feature_map(place[f"{name}.png"]), store.frame(place[f"{name}.png"])) for name in names]
    for pair, other in zip(got["pairs"], maps[1:], strict=True):
        wanted = fewmatch.match(*maps[0], *other)
        assert pair["matches"] == wanted.to_json() and pair["confidence"] == wanted.confidence
        scores = [match["score"] for match in pair["matches"]]
        assert scores == sorted(scores, reverse=True) and 0 < pair["confidence"] < 1
    assert [tuple(image["grid"]) for image in got["images"]] == [frame.grid for _, frame in maps]
    # The part lies 60 and 40 pixels from the corner of the whole: most matches say so, to within two patches.
    shift = np.array([[m["xa"] - m["xb"], m["ya"] - m["yb"]] for m in got["pairs"][0]["matches"]])
    assert np.mean(np.abs(shift - [60, 40]).max(axis=1) < 45) > 0.8
    assert got["pairs"][0]["confidence"] > got["pairs"][1]["confidence"]


def test_the_table_and_the_figure(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "out" / "match.png"
    code, out, err = command(capsys, "match", photos["whole"], photos["part"], photos["cat"], *MINI, "-o", figure)
    assert code == 0 and err == f"wrote {figure}\n"
    assert "16 × 20 patches; mini at 128 px, float32" in out
    assert "part.png" in out and "cat.png" in out and "confidence" in out
    with Image.open(figure) as image:
        assert image.size[0] == 1200
        assert np.asarray(image.convert("RGB")).std() > 30
    code, _, err = command(capsys, "match", photos["whole"], photos["part"], *MINI, "-o", figure)
    assert code == 5 and "--overwrite" in err
    before = figure.read_bytes()
    got = as_json(
        command(capsys, "match", photos["whole"], photos["part"], *MINI, "-o", figure, "--overwrite", "--json")
    )
    assert got["figure"] == str(figure) and figure.read_bytes() != before


def test_every_option_changes_what_it_should(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ("match", photos["whole"], photos["cat"], *MINI)
    plain = as_json(command(capsys, *pair, "--json"))
    small = as_json(command(capsys, *pair, "--size", 64, "--json"))
    assert small["images"][0]["grid"] == [8, 10] and small["encoder"]["size"] == 64
    grids = {"keep": [16, 20], "crop": [16, 16], "pad": [16, 16], "squash": [16, 16]}
    results = {}
    for rule, grid in grids.items():
        got = as_json(command(capsys, *pair, "--resize", rule, "--json"))
        assert got["images"][0]["grid"] == grid and got["encoder"]["resize"] == rule
        points = np.array([[m["xa"], m["ya"], m["xb"], m["yb"]] for m in got["pairs"][0]["matches"]])
        assert (points > -0.5).all() and (points < [511.5, 399.5, 199.5, 299.5]).all()  # padding never matches
        results[rule] = got["pairs"]
    assert results["keep"] == plain["pairs"]
    assert len({json.dumps(pairs) for pairs in results.values()}) == 4
    whole, cat = photos["whole"], photos["cat"]
    half = as_json(command(capsys, "match", whole, cat, "-e", "mini", "--size", 64, "--dtype", "bfloat16", "--json"))
    assert half["encoder"]["dtype"] == "bfloat16" and half["pairs"] != small["pairs"]
    assert half["images"] == small["images"]
    # An SVG draws letters as shapes, with the text beside them as a comment.
    drawn = []
    strips = ("match", photos["strip"], photos["other"], "--size", 64, *MINI)
    for lines in (0, 5, 500):
        command(capsys, *strips, "--lines", lines, "-o", tmp_path / f"{lines}.svg")
        drawn.append((tmp_path / f"{lines}.svg").read_text())
    assert [len(re.findall("5 of them drawn", text)) for text in drawn] == [0, 1, 0]
    assert "0 of them drawn" in drawn[0] and "of them drawn" not in drawn[2] and len({len(text) for text in drawn}) == 3
    for quiet in ((), ("--quiet",)):
        _, out, err = command(capsys, *pair, *quiet, "-o", tmp_path / "quiet.csv", "--overwrite")
        assert (err == "") == bool(quiet) and "matched with" in out

    from fewmatch.encoders.loading import FrozenEncoder

    seen = []
    forward = FrozenEncoder.__call__
    monkeypatch.setattr(
        FrozenEncoder, "__call__", lambda self, x, /, **o: (seen.append(len(x)), forward(self, x, **o))[1]
    )
    assert as_json(command(capsys, *pair, "--json")) == plain and seen == []  # from the cache
    assert as_json(command(capsys, *pair, "--no-cache", "--json")) == plain and sum(seen) == 2


def test_an_image_matches_itself_everywhere(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    got = as_json(command(capsys, "match", photos["cat"], photos["cat"], *MINI, "--json"))
    assert [image["path"] for image in got["images"]] == [photos["cat"].as_posix()] * 2
    matches = got["pairs"][0]["matches"]
    assert len(matches) == got["images"][0]["grid"][0] * got["images"][0]["grid"][1]
    assert all(match["xa"] == match["xb"] and match["ya"] == match["yb"] for match in matches)
    assert got["pairs"][0]["confidence"] == pytest.approx(1, abs=1e-5)


def test_a_store_or_a_folder_gives_the_same(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number, name in enumerate(("whole", "part", "cat")):
        shutil.copy(photos[name], folder / f"{number}.png")
    plain = as_json(command(capsys, "match", photos["whole"], photos["part"], photos["cat"], *MINI, "--json"))
    by_folder = as_json(command(capsys, "match", folder, *MINI, "--json"))
    assert by_folder["pairs"] == plain["pairs"]
    assert [image["path"] for image in by_folder["images"]] == [f"{folder}/{i}.png" for i in range(3)]
    store = tmp_path / "store"
    assert command(capsys, "encode", folder, "-o", store, *MINI, "--keep", "patches")[0] == 0
    by_store = as_json(command(capsys, "match", store, "--json", "-o", tmp_path / "store.svg"))
    assert by_store["pairs"] == plain["pairs"] and by_store["encoder"] == plain["encoder"]
    assert (tmp_path / "store.svg").is_file()

    (folder / "0.png").unlink()
    code, _, err = command(capsys, "match", store, "-o", tmp_path / "gone.png")
    assert code == 1 and "not drawn" in err and "gone.png is not written" in err
    assert (
        as_json(command(capsys, "match", store, "--json"))["pairs"] == plain["pairs"]
    )  # nothing but the picture is missing
    for option in (("-e", "dinov2_vits14"), ("--size", 192), ("--resize", "pad"), ("--dtype", "bfloat16")):
        code, _, err = command(capsys, "match", store, *option)
        assert code == 2 and f"was made with {'--encoder' if option[0] == '-e' else option[0]}" in err
    code, _, err = command(capsys, "match", store, photos["cat"])
    assert code == 2 and "give it alone" in err


def test_a_store_without_patches_is_refused(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "encode", photos["cat"], "-o", tmp_path / "store", *MINI)
    code, out, err = command(capsys, "match", tmp_path / "store")
    assert (code, out) == (2, "") and "--keep patches" in err


def test_images_that_cannot_be_used(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = as_json(command(capsys, "match", photos["whole"], photos["bad"], photos["cat"], *MINI, "--json"), code=3)
    assert len(got["images"]) == 2 and len(got["pairs"]) == 1
    assert got["skipped"][0]["path"] == photos["bad"].as_posix() and "not-an-image" in got["skipped"][0]["reason"]
    code, out, err = command(capsys, "match", photos["whole"], photos["bad"], photos["cat"], *MINI)
    assert code == 3 and f"skipped {photos['bad']}" in err and "cat.png" in out
    code, out, err = command(capsys, "match", photos["bad"], photos["whole"], photos["cat"], *MINI)
    assert (code, out) == (2, "") and "cannot be used" in err.splitlines()[-1]
    code, out, err = command(capsys, "match", photos["whole"], photos["bad"], *MINI)
    assert (code, out) == (2, "") and "expected two images or more, got 1" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere.png", "cat"), 2, "does not exist"),
        (("cat",), 2, "expected two images or more, got 1"),
        (
            ("cat", "whole", "-o", "match.gif"),
            2,
            "no output of type .gif: expected a name ending in .png, .svg, .pdf, .html, .csv, .npz",
        ),
        (("cat", "whole", "--lines", "-1", "-o", "match.png"), 2, "expected --lines of 0 or more"),
        (("cat", "whole", "--size", "100"), 2, "not a multiple of the patch size 8: try 96 or 104"),
        (("cat", "whole", "-e", "dinov2_vits14"), 4, "-e mini"),
    ],
)
def test_wrong_use_is_one_line(
    photos: dict[str, Path], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    encoder = () if "-e" in arguments else MINI
    got = command(capsys, "match", *(photos.get(word, word) for word in arguments), *encoder)
    assert got[0] == code and got[1] == ""
    assert message in got[2] and "Traceback" not in got[2]
    if code == 2:
        assert len(got[2].splitlines()) == 1


def test_names_that_are_no_text_pass(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "caf\udce9 $x_1$.png"
    shutil.copy(photos["part"], odd)
    got = as_json(command(capsys, "match", photos["whole"], odd, *MINI, "--json", "-o", tmp_path / "odd.png"))
    assert got["images"][1]["path"] == odd.as_posix() and (tmp_path / "odd.png").is_file()
