"""The options of `fewmatch match` that choose, refine and verify matches, and every file that it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

import fewmatch
from fewmatch import encoders, matching
from fewmatch.cli.main import run

Result = tuple[int, str, str]
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32")


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run(["match", *(str(argument) for argument in arguments), *MINI])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, err = command(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def only(got: Any) -> Any:
    (pair,) = got["pairs"]
    return pair


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photo, a part of it (40 px further right, 30 px further down), that part mirrored, and another photo."""
    folder = tmp_path_factory.mktemp("photos")
    astronaut = skimage.data.astronaut()
    part = astronaut[30:350, 40:400]
    pixels = {
        "whole": astronaut[:400],
        "part": part,
        "turned": part[:, ::-1],
        "cat": skimage.data.chelsea()[:, 100:300],
    }
    files = {name: folder / f"{name}.png" for name in pixels}
    for name, file in files.items():
        Image.fromarray(pixels[name]).save(file)
    return files


def errors(pair: Any) -> np.ndarray:
    """How far each match is from the truth, in pixels."""
    points = np.array([[m["xa"] - m["xb"] - 40, m["ya"] - m["yb"] - 30] for m in pair["matches"]])
    return np.asarray(np.hypot(*points.T))


def test_filters_leave_out_what_they_should(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    plain = only(as_json(capsys, *both))["matches"]
    middle = float(np.median([m["score"] for m in plain]))
    high = only(as_json(capsys, *both, "--min-score", middle))["matches"]
    assert high == [m for m in plain if m["score"] >= middle] and 0 < len(high) < len(plain)
    near = only(as_json(capsys, *both, "--max-ratio", 0.9))["matches"]
    far = only(as_json(capsys, *both, "--max-ratio", 0.9, "--exclusion", 5))["matches"]
    assert 0 < len(near) < len(far) < len(plain)
    assert all(m["ratio"] <= 0.9 for m in near)
    loose = only(as_json(capsys, *both, "--max-cycle", 2))["matches"]
    assert len(loose) > len(plain) and {m["cycle"] for m in loose} - {0} and max(m["cycle"] for m in loose) <= 2


def test_a_mirrored_image_is_seen_to_be_one(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    never = only(as_json(capsys, photos["turned"], photos["part"]))
    assert never["mirror"] is None
    for rule in ("nearest", "mutual"):
        got = only(as_json(capsys, photos["turned"], photos["part"], "--mirror", rule))
        assert got["mirror"]["mirrored"] and got["mirror"]["by"] == rule
        assert got["mirror"]["mirrored_distance"] < got["mirror"]["distance"]
        wrong = [abs(359 - m["xa"] - m["xb"]) + abs(m["ya"] - m["yb"]) for m in got["matches"]]
        assert max(wrong) < 1e-6 and len(got["matches"]) >= len(never["matches"])
    assert not only(as_json(capsys, photos["whole"], photos["part"], "--mirror", "nearest"))["mirror"]["mirrored"]


def test_points_come_out_between_patches(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    plain = only(as_json(capsys, *both))
    refined = only(as_json(capsys, *both, "--refine", "soft-argmax"))
    assert [m["score"] for m in refined["matches"]] == [m["score"] for m in plain["matches"]]
    assert errors(refined).mean() < errors(plain).mean()
    other = only(as_json(capsys, *both, "--refine", "soft-argmax", "--window", 3))
    warm = only(as_json(capsys, *both, "--refine", "soft-argmax", "--temperature", 0.2))
    assert len({json.dumps(pair["matches"]) for pair in (plain, refined, other, warm)}) == 4


def test_fine_maps_are_looked_at_around_coarse_matches(
    photos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = (photos["whole"], photos["part"])
    plain = only(as_json(capsys, *both))
    fine = only(as_json(capsys, *both, "--fine-size", 192))
    assert len(fine["matches"]) > 1.5 * len(plain["matches"])
    assert np.median(errors(fine)) < np.median(errors(plain))
    pooled = only(as_json(capsys, *both, "--size", 192, "--coarse-to-fine", 2))
    whole = only(as_json(capsys, *both, "--size", 192))
    assert pooled["matches"] != whole["matches"]
    assert np.median(errors(pooled)) <= np.median(errors(whole))
    code, _, err = command(capsys, *both, "--fine-size", 128)
    assert code == 2 and "above --size" in err


def test_a_foreground_and_masks(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    results = [only(as_json(capsys, *both))] + [
        only(as_json(capsys, *both, "--foreground", kind)) for kind in ("pca", "cls")
    ]
    assert len({json.dumps(pair["matches"]) for pair in results}) == 3
    mask = np.zeros((400, 512), np.uint8)
    mask[:, :256] = 255
    Image.fromarray(mask).save(tmp_path / "left.png")
    left = only(as_json(capsys, *both, "--mask", tmp_path / "left.png"))["matches"]
    assert left and max(m["xa"] for m in left) < 256 < max(m["xb"] for m in left) + 40 + 60
    finely = only(as_json(capsys, *both, "--mask", tmp_path / "left.png", "--fine-size", 192))["matches"]
    assert finely and max(m["xa"] for m in finely) < 256
    code, _, err = command(capsys, *both, "--mask", tmp_path / "left.png", "--foreground", "pca")
    assert code == 2 and "--mask and --foreground" in err
    code, _, err = command(capsys, photos["part"], photos["whole"], "--mask", tmp_path / "left.png")
    assert code == 2 and "left.png" in err and "360" in err


def test_a_model_says_which_agree(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    for kind in ("homography", "affine"):
        got = only(as_json(capsys, *both, "--verify", kind))
        assert got["model"]["kind"] == kind and got["model"]["inliers"] == sum(m["inlier"] for m in got["matches"])
        moved = np.array(got["model"]["matrix"]) @ [200, 200, 1]
        assert np.hypot(*(moved[:2] / moved[2] - [160, 170])) < 8
    tight = only(as_json(capsys, *both, "--verify", "homography", "--threshold", 4))
    assert tight["model"]["threshold"] == 4 and tight["model"]["inliers"] < got["model"]["inliers"]
    kept = only(as_json(capsys, *both, "--verify", "affine", "--inliers"))
    assert kept["matches"] == [m for m in got["matches"] if m["inlier"]] and kept["model"] == got["model"]
    assert only(as_json(capsys, *both, "--verify", "fundamental"))["model"]["kind"] == "fundamental"
    nothing = only(as_json(capsys, *both, "--verify", "homography", "--min-score", 0.9999))
    assert nothing["model"]["matrix"] is None and nothing["model"]["reason"]
    _, out, _ = command(capsys, *both, "--verify", "affine")
    assert "agree within" in out


def test_the_seed_of_the_samples(
    photos: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, verified = [], matching.verified

    def watched(*arguments: Any, **options: Any) -> Any:
        seeds.append(options["seed"])
        return verified(*arguments, **options)

    monkeypatch.setattr(matching, "verified", watched)
    for given in ((), ("--seed", 7)):
        as_json(capsys, photos["whole"], photos["part"], "--verify", "affine", *given)
    assert seeds == [0, 7]


def test_a_count_of_matches(photos: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    plain = only(as_json(capsys, *both))["matches"]
    spread = only(as_json(capsys, *both, "--count", 10))["matches"]
    buddies = only(as_json(capsys, *both, "--count", 10, "--select", "buddies"))["matches"]
    for chosen in (spread, buddies):
        assert len(chosen) == 10 and all(m in plain for m in chosen)
    assert spread != buddies
    assert only(as_json(capsys, *both, "--count", 10, "--select", "buddies", "--seed", 3))["matches"] != buddies
    agreeing = only(as_json(capsys, *both, "--count", 10, "--verify", "homography"))
    assert all(m["inlier"] for m in agreeing["matches"])


def test_points_of_the_first_image(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    (tmp_path / "points.csv").write_text("name,x,y\nnose,220,120\n")
    got = only(as_json(capsys, *both, "--points", "100,200.5", "--points", tmp_path / "points.csv"))
    assert [(p["xa"], p["ya"]) for p in got["points"]] == [(100, 200.5), (220, 120)]
    assert max(abs(p["xa"] - p["xb"] - 40) + abs(p["ya"] - p["yb"] - 30) for p in got["points"]) < 40
    code, out, _ = command(capsys, *both, "--points", "100,200", "-o", tmp_path / "points.png")
    assert code == 0 and "points of" in out and "back within" in out
    with Image.open(tmp_path / "points.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 30
    for wrong, words in (("600,20", "600"), ("1;2", "expected a point"), ("nan,1", "expected a point")):
        code, _, err = command(capsys, *both, "--points", wrong)
        assert code == 2 and words in err, err


def test_points_are_looked_for_finely_and_the_encoder_is_loaded_once(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    real = encoders.load

    def counted(name: str, **options: Any) -> Any:
        loads.append(name)
        return real(name, **options)

    monkeypatch.setattr(encoders, "load", counted)
    both = (photos["whole"], photos["part"])
    (tmp_path / "points.csv").write_text(
        "x,y\n" + "\n".join(f"{x},{y}" for x in (80, 180, 280) for y in (70, 170, 270))
    )

    def wrong(*more: object) -> np.ndarray:
        got = only(as_json(capsys, *both, "--points", tmp_path / "points.csv", "--no-cache", *more))["points"]
        return np.array([abs(p["xa"] - p["xb"] - 40) + abs(p["ya"] - p["yb"] - 30) for p in got])

    coarse, fine = wrong(), wrong("--fine-size", 192)
    assert np.median(fine) < np.median(coarse) and loads == ["mini"] * 2
    pooled, whole = (wrong("--size", 192, *more) for more in (("--coarse-to-fine", 2), ()))
    assert (pooled != whole).any() and np.median(pooled) <= 2 * np.median(whole)
    # A mask says where in B points are found, not which points of A may be asked for.
    mask = np.zeros((400, 512), np.uint8)
    mask[:, 400:] = 255
    Image.fromarray(mask).save(tmp_path / "right.png")
    masked = wrong("--size", 192, "--coarse-to-fine", 2, "--mask", tmp_path / "right.png")
    assert np.array_equal(masked, pooled)


def test_pairs_from_a_list(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos["whole"].parent
    table = tmp_path / "pairs.csv"
    table.write_text("a,b\nwhole.png,part.png\ncat.png,turned.png\nwhole.png,cat.png\n")
    got = as_json(capsys, folder, "--pairs", table)
    names = [Path(image["path"]).stem for image in got["images"]]
    assert [(names[p["a"]], names[p["b"]]) for p in got["pairs"]] == [
        ("whole", "part"),
        ("cat", "turned"),
        ("whole", "cat"),
    ]
    assert got["pairs"][0]["matches"] == only(as_json(capsys, photos["whole"], photos["part"]))["matches"]
    _, out, _ = command(capsys, folder, "--pairs", table)
    assert "cat.png" in out and "image" in out
    for text, words in (
        ("a,b\nwhole.png,dog.png\n", "dog.png is none"),
        ("a,b\nwhole.png,whole.png\n", "twice"),
        ("a,b\n", "no pair"),
        ("one,two\n", "columns a,b"),
        ("a,b\nwhole.png\n", "line 2"),
    ):
        table.write_text(text)
        code, _, err = command(capsys, folder, "--pairs", table)
        assert code == 2 and words in err, err
    code, _, err = command(capsys, folder, "--pairs", tmp_path / "none.csv")
    assert code == 2 and "cannot be read" in err


def test_every_file(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (photos["whole"], photos["part"])
    names = ("m.png", "m.svg", "m.html", "m.csv", "m.npz")
    outs = [argument for name in names for argument in ("-o", tmp_path / name)]
    got = as_json(capsys, *both, *outs, "--flow", tmp_path / "flow.npz", "--warp", tmp_path / "warp.png")
    assert [Path(path).name for path in got["written"]] == [*names, "flow.npz", "warp.png"]
    matches = only(got)["matches"]
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(row[k]) for k in matches[0]} for row in rows] == matches
    assert rows[0]["a"].endswith("whole.png") and rows[0]["b"].endswith("part.png")
    (pair,) = fewmatch.read_matches(tmp_path / "m.npz")
    assert pair.matches.to_json() == matches
    assert "whole.png" in (tmp_path / "m.html").read_text()
    with np.load(tmp_path / "flow.npz") as flow:
        assert flow["flow"].shape == (400, 512, 2)
        assert np.abs(np.nanmedian(flow["flow"][60:300, 80:350], axis=(0, 1)) - [-40, -30]).max() < 4
    code, _, err = command(capsys, *both, "-o", tmp_path / "m.csv")
    assert code == 5 and "--overwrite" in err
    assert command(capsys, *both, "-o", tmp_path / "m.csv", "--overwrite")[0] == 0
    assert command(capsys, *both, "--flow", tmp_path / "flow.flo")[0] == 0


def test_figures_say_what_is_asked(photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (tmp_path / "strip.png", tmp_path / "other.png")
    with Image.open(photos["whole"]) as image:
        for file, left in zip(both, (40, 80), strict=True):
            image.crop((left, 100, left + 320, 180)).save(file)  # small in a figure
    drawn = {}
    for name, options in {
        "plain": (),
        "score": ("--colour", "score"),
        "pca": ("--colour", "pca"),
        "inliers": ("--colour", "inliers", "--verify", "homography"),
        "few": ("--lines", 15),  # as many as have numbers by default
        "numbers": ("--numbered",),
    }.items():
        file = tmp_path / f"{name}.png"
        assert command(capsys, *both, "--size", 64, "-o", file, *options)[0] == 0
        drawn[name] = file.read_bytes()
    assert len(set(drawn.values())) == len(drawn)


def test_what_would_be_ignored_is_refused(
    photos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (photos["whole"], photos["part"])
    figure = ("-o", tmp_path / "m.png")
    for options, words in (
        (("--exclusion", 3), "--max-ratio"),
        (("--window", 3), "--refine"),
        (("--temperature", 0.1), "--refine"),
        (("--threshold", 3), "--verify"),
        (("--select", "spread"), "--count"),
        (("--inliers",), "--verify"),
        (("--seed", 1), "--verify"),
        (("--colour", "score"), "for a figure"),
        (("--lines", 3), "for a figure"),
        (("--numbered",), "for a figure"),
        ((*figure, "--colour", "inliers"), "--verify"),
        ((*figure, "--points", "5,5", "--lines", 3), "--points"),
        ((*figure, "--numbered", "--lines", 30), "at most 15"),
        ((*figure, "--lines", -1), "0 or more"),
        (("--count", 0), "1 or more"),
        (("--coarse-to-fine", 1), "2 patches"),
        (("--coarse-to-fine", 2, "--fine-size", 256), "one of them"),
        (("--verify", "affine", "--threshold", 0), "more than 0"),
        (("--min-score", 2), "min_score"),
        (("--max-ratio", 2), "max_ratio"),
        (("--max-cycle", -1), "max_cycle"),
        (("-o", tmp_path / "m.txt"), ".html"),
        (("--flow", tmp_path / "flow.png"), ".flo"),
        (("-o", tmp_path / "x.npz", "--flow", tmp_path / "x.npz"), "same name"),
        (("--points", "5,5", "--pairs", tmp_path / "pairs.csv"), "--pairs"),
        ((photos["cat"], "--flow", tmp_path / "flow.npz"), "one pair"),
    ):
        code, _, err = command(capsys, *both, *options)
        assert code == 2 and words in err and "Traceback" not in err, (options, err)
    assert not list(tmp_path.iterdir())
