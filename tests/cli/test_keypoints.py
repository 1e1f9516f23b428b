"""`fewmatch keypoints` as a user runs it: label files in and out, every option, every error."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

import fewmatch
from fewmatch.cli.inputs import keypoint_sources
from fewmatch.cli.main import run

Result = tuple[int, str, str]
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32")
#: Where three parts are in the photo that all images are cut from.
PARTS = {"nose": (224.0, 118.0), "badge": (150.0, 380.0), "rocket": (395.0, 240.0)}
#: Left and top of each image, 400 × 400 pixels of the photo: they differ by whole patches of 20 pixels.
CUTS = {"a": (40, 40), "b": (60, 20), "c": (20, 80), "d": (80, 60), "e": (100, 100)}


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run(["keypoints", *(str(argument) for argument in arguments), *MINI])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    got, out, err = command(capsys, *arguments, "--json")
    assert got == code, err
    return json.loads(out)


def truth(image: str) -> dict[str, tuple[float, float]]:
    left, top = CUTS[image]
    return {part: (x - left, y - top) for part, (x, y) in PARTS.items()}


def write_labels(path: Path, images: str) -> Path:
    lines = ["image,part,x,y"]
    for image in images:
        lines += [f"{image}.png,{part},{x},{y}" for part, (x, y) in truth(image).items()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five cuts of one photo, and labels of two of them."""
    folder = tmp_path_factory.mktemp("frames")
    photo = skimage.data.astronaut()
    for name, (left, top) in CUTS.items():
        Image.fromarray(photo[top : top + 400, left : left + 400]).save(folder / f"{name}.png")
    write_labels(folder / "labels.csv", "ab")
    write_labels(folder / "all.csv", "abcde")
    return folder


def places(got: Any) -> dict[tuple[str, str], np.ndarray]:
    return {(Path(row["path"]).stem, row["part"]): np.array([row["x"], row["y"]], float) for row in got["keypoints"]}


def test_parts_are_found_where_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the default sizes, which are smaller ones here: those for small encoders are seven times as many patches."""
    monkeypatch.setattr(keypoint_sources, "SMALL_SIZES", (136, 160))
    got = as_json(capsys, folder / "labels.csv", folder, "--score", folder / "all.csv")
    assert got["labelled"] == 2 and got["parts"] == list(PARTS) and got["encoder"]["sizes"] == [136, 160]
    assert {Path(row["path"]).stem for row in got["keypoints"]} == {"c", "d", "e"}  # labelled ones are left out
    found = places(got)
    errors = [float(np.hypot(*(place - truth(image)[part]))) for (image, part), place in found.items()]
    assert sum(error < 12 for error in errors) >= 7
    assert got["score"]["threshold"] == "max-image-side"
    assert got["score"]["overall"]["n"] == 9 and got["score"]["overall"]["pck"]["0.05"] == np.mean(
        np.array(errors) <= 0.05 * 400
    )
    assert got["score"]["overall"]["median_error"] == pytest.approx(float(np.median(errors)))
    # No label lacks a part, so that none is called absent.
    assert all(row["visible"] for row in got["keypoints"]) and set(got["thresholds"].values()) == {None}
    code, out, err = command(capsys, folder / "labels.csv", folder, "--score", folder / "all.csv")
    assert code == 0 and "PCK@0.05" in out and "badge" in out and "2 labelled images among them are left out" in err


def test_the_default_sizes() -> None:
    encoder = fewmatch.load("mini", device="cpu", dtype="float32")
    assert keypoint_sources.parse_sizes(None, encoder) == [256, 384]
    own = SimpleNamespace(preprocessing=SimpleNamespace(dense=448))
    assert keypoint_sources.parse_sizes(None, own) == [448]


def test_every_option_changes_what_it_should(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (folder / "labels.csv", folder / "c.png", "--sizes", "128")
    plain = as_json(capsys, *both)
    assert plain["encoder"]["sizes"] == [128]
    seen = {json.dumps(plain["keypoints"])}
    for options, name, value in (
        (("--prototypes", "nearest"), "prototypes", "nearest"),
        (("--center", "none"), "center", "none"),
        (("--center", "image"), "center", "image"),
        (("--whitening", 0), "whitening", None),
        (("--whitening", 1), "whitening", 1.0),
        (("--window", 1), "half_width", 1.0),
        (("--temperature", 0.5), "temperature", 0.5),
        (("--position-prior",), "position_prior", True),
    ):
        got = as_json(capsys, *both, *options)
        assert got["options"][name] == value
        assert json.dumps(got["keypoints"]) not in seen, options
        seen.add(json.dumps(got["keypoints"]))
    never = as_json(capsys, *both, "--contrast", 0.9, "--video", "--left-right", "nose:badge", "--threshold", 2)
    others = {"contrast": 0.9, "video": True, "left_right": [[0, 1]]}
    assert {name: never["options"][name] for name in others} == others
    assert not any(plain["options"][name] == value for name, value in others.items())
    assert not any(row["visible"] for row in never["keypoints"]) and places(never).keys() == places(plain).keys()
    two = as_json(capsys, *both[:2], "--sizes", "160,128")
    assert two["encoder"]["sizes"] == [128, 160] and two["keypoints"] != plain["keypoints"]


def test_a_threshold_counts_where_labels_give_none(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = (write_labels(tmp_path / "one.csv", "a"), folder / "c.png", "--images-root", folder, "--sizes", "128")
    got = as_json(capsys, *one)
    assert all(row["visible"] for row in got["keypoints"]) and set(got["thresholds"].values()) == {None}
    middle = float(np.median([row["score"] for row in got["keypoints"]]))
    told = as_json(capsys, *one, "--threshold", middle)
    assert [row["visible"] for row in told["keypoints"]] == [row["score"] >= middle for row in got["keypoints"]]
    assert set(told["thresholds"].values()) == {middle}


def test_suggestions_and_corrections(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (folder / "labels.csv", folder, "--sizes", "128")
    got = as_json(capsys, *both, "--suggest", 2)
    assert len(set(got["suggested"])) == 2 and {Path(name).stem for name in got["suggested"]} < {"c", "d", "e"}
    assert "label next: " in command(capsys, *both, "--suggest", 1)[1]
    write_labels(tmp_path / "more.csv", "c")
    more = as_json(capsys, *both, "--corrections", tmp_path / "more.csv", "--images-root", folder)
    assert more["labelled"] == 3 and {Path(row["path"]).stem for row in more["keypoints"]} == {"d", "e"}


def test_every_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (folder / "labels.csv", folder / "c.png", folder / "d.png", "--sizes", "128")
    files = {"--out": "found.csv", "--overlays": "overlays", "--sheet": "sheet.png", "--review": "review.html"}
    options = [word for option, name in files.items() for word in (option, tmp_path / name)]
    got = as_json(capsys, *both, *options)
    assert [Path(path).name for path in got["written"]] == list(files.values())
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = {
            (Path(row["image"]).stem, row["part"]): (float(row["x"]), float(row["y"])) for row in csv.DictReader(file)
        }
    assert {key: tuple(place) for key, place in places(got).items()} == rows
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 2
    assert "nose" in (tmp_path / "review.html").read_text()
    for option, name in files.items():
        code, _, err = command(capsys, *both, option, tmp_path / name)
        assert code == 5 and "--overwrite" in err, err
    before = (tmp_path / "sheet.png").read_bytes()
    small = tmp_path / "one.html"
    one = ("--sheet", tmp_path / "sheet.png", "--sheet-images", 1, "--review", small, "--review-images", 1)
    assert command(capsys, *both, *one, "--overwrite")[0] == 0
    assert (tmp_path / "sheet.png").read_bytes() != before
    assert small.stat().st_size < (tmp_path / "review.html").stat().st_size


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.json", ()),
        ("x.csv", ("--format", "deeplabcut")),
        ("x.csv", ("--format", "csv")),
        ("x.csv", ("--format", "deeplabcut", "--no-likelihood")),
    ],
)
def test_formats_read_back(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...]
) -> None:
    got = as_json(capsys, folder / "labels.csv", folder, "--sizes", "128", "-o", tmp_path / name, *options)
    back = fewmatch.read_labels(tmp_path / name).keypoints
    assert back.parts == tuple(PARTS)
    found = places(got)
    for n, path in enumerate(back.paths):
        for p, part in enumerate(back.parts):
            if back.visible[n, p]:
                assert tuple(back.xy[n, p]) == tuple(found[Path(path).stem, part])
    text = (tmp_path / name).read_text()
    assert ("likelihood" in text) == (options == ("--format", "deeplabcut"))


def test_a_store_and_a_video(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["encode", str(folder), "-o", str(tmp_path / "store"), "--keep", "patches", "--size", "128", *MINI]) == 0
    capsys.readouterr()
    got = as_json(capsys, folder / "labels.csv", tmp_path / "store")
    assert places(got).keys() == {(image, part) for image in "cde" for part in PARTS}
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (400, 400))
    for name in CUTS:
        film.write(np.asarray(Image.open(folder / f"{name}.png"))[..., ::-1])
    film.release()
    moving = (folder / "labels.csv", tmp_path / "film.avi", "--sizes", "128")
    every = as_json(capsys, *moving, "--review", tmp_path / "film.html")
    assert len(every["keypoints"]) == 15 and "film_frame00004" in (tmp_path / "film.html").read_text()
    some = as_json(capsys, *moving, "--start", 1, "--stop", 4, "--every", 2)
    assert {row["path"] for row in some["keypoints"]} == {"film_frame00001", "film_frame00003"}
    still = places(as_json(capsys, folder / "labels.csv", folder / "d.png", "--sizes", "128"))
    for part in PARTS:
        assert np.abs(places(some)["film_frame00003", part] - still["d", part]).max() < 1
    code, _, err = command(capsys, *moving, "--suggest", 1)
    assert code == 2 and "--suggest" in err


def test_faulty_labels_are_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_labels(tmp_path / "labels.csv", "ab")
    labels.write_text(labels.read_text() + "c.png,nose,5000,3\nmissing.png,nose,3,3\n")
    got = as_json(capsys, labels, folder, "--images-root", folder, "--sizes", "128", code=3)
    assert {row["path"] for row in got["skipped"]} == {"c.png", "missing.png"} and got["labelled"] == 2
    code, _, err = command(capsys, labels, folder, "--images-root", folder, "--sizes", "128")
    assert code == 3 and "missing.png" in err and "c.png" in err
    for text, words in (
        ("image,part,x,y\n", "labels.csv"),
        ("image,part,x,y\na.png,nose,,\n", "no point"),
        ("what,is,this\n1,2,3\n", "labels.csv"),
        ('{"images": [', "labels.csv"),
    ):
        labels.write_text(text)
        code, out, err = command(capsys, labels, folder, "--images-root", folder)
        assert code == 2 and words in err and not out and "Traceback" not in err, err


def test_wrong_use_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (folder / "labels.csv", folder)
    for options, words in (
        (("--left-right", "nose:ear"), "nose, badge, rocket"),
        (("--sizes", "big"), "256,384"),
        (("--suggest", 0), "1 or more"),
        (("--start", 3), "for a video"),
        (("--format", "coco"), "--out"),
        (("--likelihood",), "--out"),
        (("--sheet-images", 3), "--sheet"),
        (("--review-images", 3), "--review"),
        (("-o", tmp_path / "x.txt"), ".csv"),
        (("-o", tmp_path / "x.csv", "--format", "coco"), ".json"),
        (("-o", tmp_path / "x.csv", "--likelihood"), "deeplabcut"),
        (("--review", tmp_path / "x.png"), ".html"),
        (("--temperature", 0), "temperature"),
    ):
        code, _, err = command(capsys, *both, *options)
        assert code == 2 and words in err and "Traceback" not in err, (options, err)
    code, _, err = command(capsys, folder / "labels.csv", folder / "a.png", "--sizes", "128")
    assert code == 2 and "labelled" in err
    code, _, err = command(
        capsys, *both, "--sizes", "128", "--score", write_labels(tmp_path / "ab.csv", "ab"), "--images-root", folder
    )
    assert code == 2 and "none of the images" in err
    assert not [path for path in tmp_path.iterdir() if path.name != "ab.csv"]
