"""`fewmatch pck` as a user runs it: every kind of benchmark, every option, going on, comparing, errors."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import benchmark_folders as made
import numpy as np
import pytest
from benchmark_folders import a_pair
from PIL import Image

import fewmatch.cli.commands.pck
import fewmatch.matching.benchmarks.pck.scoring
from fewmatch.cli.commands.pck import pck as pck_command
from fewmatch.cli.main import run
from fewmatch.matching.benchmarks.hpatches import LARGE
from fewmatch.matching.benchmarks.pck.convention import (
    AVERAGES,
    DIRECTIONS,
    FLIPS,
    OUTSIDES,
    SOURCE_RULES,
    TARGET_RULES,
    THRESHOLDS,
)
from fewmatch.matching.benchmarks.pck.presets import PRESETS
from fewmatch.matching.benchmarks.reading import BENCHMARKS, read_benchmark

Result = tuple[int, str, str]
#: At a small size, since most runs encode anew.
MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", 32)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def as_json(result: Result, code: int = 0) -> Any:
    assert result[0] == code, result[2]
    return json.loads(result[1])


def noise(seed: int, width: int = 48, height: int = 40) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


PICTURES = {name: noise(seed) for seed, name in enumerate("abcd")}
SIZE = (48, 40)


def two_pairs(category: str = "cat", count: int = 5, points: Sequence[str] | None = None) -> list[Any]:
    rng = np.random.default_rng(3)
    return [
        a_pair(
            category,
            a,
            b,
            *rng.integers(2, 38, (2, count, 2)),
            points=points,
            box_a=(1, 1, 37, 30),
            box_b=(2, 3, 40, 38),
            size_a=SIZE,
            size_b=SIZE,
        )
        for a, b in (("a", "b"), ("c", "d"))
    ]


def write(kind: str, folder: Path) -> Path:
    """A folder of this kind with two pairs (hpatches: five, of one sequence)."""
    rng = np.random.default_rng(1)
    if kind == "spair":
        made.write_spair(folder, two_pairs(), PICTURES, layouts={"large": [0, 1], "small": [1]})
    elif kind == "pf-pascal":
        made.write_pf_pascal(folder, two_pairs(), PICTURES)
    elif kind == "pf-willow":
        made.write_pf_willow(folder, two_pairs(count=10), PICTURES)
    elif kind == "tss":
        masks, flows = [np.ones((40, 48), bool)] * 2, [np.zeros((40, 48, 2), np.float32)] * 2
        made.write_tss(folder, "JODS", "one", [PICTURES["a"], PICTURES["b"]], masks, flows)
    elif kind == "cub":
        parts = {name: tuple(rng.integers(2, 38, 2).astype(float)) for name in made.BIRD[:6]}
        made.write_cub(folder, dict.fromkeys("ab", ("001.Bird", parts, (1.0, 1.0, 41.0, 36.0))), PICTURES)
    elif kind == "ap10k":
        made.write_ap10k(folder, two_pairs(points=made.AP10K[:5]), PICTURES)
    elif kind == "hpatches":
        made.write_hpatches(folder, "v_one", [noise(n) for n in range(6)], [np.eye(3)] * 5)
    else:
        made.write_psc6k(folder, two_pairs(count=8), {name: noise(8, 256, 256) for name in "abcd"})
    return folder


@pytest.fixture
def spair(tmp_path: Path) -> Path:
    return write("spair", tmp_path / "spair")


def test_choices_are_those_of_the_library() -> None:
    parameters = inspect.signature(pck_command, eval_str=True).parameters
    for name, wanted in {
        "kind": BENCHMARKS,
        "preset": tuple(PRESETS),
        "threshold": THRESHOLDS,
        "direction": DIRECTIONS,
        "average": AVERAGES,
        "source": SOURCE_RULES,
        "target": TARGET_RULES,
        "outside": OUTSIDES,
        "flip": FLIPS,
    }.items():
        found = [
            value
            for part in (parameters[name].annotation, *get_args(parameters[name].annotation))
            for inner in (part, *get_args(part))
            for value in get_args(inner)
            if isinstance(value, str)
        ]
        assert set(found) == set(wanted), name


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_every_kind_is_read_and_counted(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"tss": ("--points", 9), "hpatches": ("--points", 3), "cub": ("--pairs", 1)}.get(kind, ())
    got = as_json(command(capsys, "pck", write(kind, tmp_path), "--kind", kind, *MINI, *more, "--json"))
    assert got["schema"] == 1 and got["encoder"]["name"] == "mini"
    assert got["benchmark"]["kind"] == kind and got["pairs"] == len(got["per_pair"]["name"]) >= 1
    assert got["convention"]["size"] == 32 and got["convention"]["dtype"] == "float32"
    for averages in got["pck"].values():
        assert set(averages) == set(AVERAGES) and all(0 <= entry["pck"] <= 1 for entry in averages.values())
    if kind in ("tss", "hpatches"):
        assert set(got["per_pair"]["n"]) == {more[1]}


@pytest.mark.slow
def test_every_option_changes_the_convention_or_the_pairs(spair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def convention(*more: object) -> Any:
        return as_json(command(capsys, "pck", spair, "--kind", "spair", *MINI, *more, "--json"))["convention"]

    plain = convention()
    for more, wanted in (
        (("--threshold", "image-source"), {"threshold": "image-source"}),
        (("--threshold-px", 7), {"threshold": "fixed", "fixed": 7.0}),
        (("--alpha", 0.2, "--alpha", 0.3), {"alphas": [0.2, 0.3], "alpha": 0.3}),
        (("--strict",), {"inclusive": False}),
        (("--direction", "both"), {"direction": "both"}),
        (("--average", "point"), {"average": "point"}),
        (("--source", "patch"), {"source": "patch"}),
        (("--target", "offset", "--offset", 0.5, -0.5), {"target": "offset", "offset": [0.5, -0.5]}),
        (("--padding",), {"exclude_padding": False}),
        (
            ("--window", 1, "--temperature", 0.1, "--outside", "zero"),
            {"window": 1, "temperature": 0.1, "outside": "zero"},
        ),
        (("--refine", "soft-argmax"), {"window": 1}),
        (("--flip", "nearest"), {"flip": "nearest"}),
        (("--min-score", 0.5), {"min_score": 0.5}),
        (("--max-ratio", 0.9, "--exclusion", 1), {"max_ratio": 0.9, "exclusion": 1.0}),
        (("--max-cycle", 1), {"max_cycle": 1.0}),
        (("--resize", "pad"), {"resize": "pad"}),
        (("--layer", "0"), {"layer": "0"}),
        (("--raw",), {"raw": True}),
        (("--facet", "key"), {"facet": "key"}),
        (("--stride", 4), {"stride": 4}),
    ):
        got = convention(*more)
        changed = {name: got[name] for name in got if name != "in_words" and got[name] != plain[name]}
        assert changed == wanted, more
    bare = convention("--preset", "geoaware", "--refine", "none", "--flip", "none")
    assert (bare["window"], bare["flip"]) == (None, "none") and convention("--preset", "geoaware")["window"] == 5
    sized = as_json(command(capsys, "pck", spair, "--kind", "spair", *MINI, "--size", 64, "--json"))
    assert sized["convention"]["size"] == sized["encoder"]["size"] == 64
    preset = convention("--preset", "sd-dino", "--no-raw", "--inclusive", "--no-padding")
    assert preset["name"] == "sd-dino" and preset["offset"] == [0.5, -0.5] and preset["resize"] == "pad"
    assert (preset["raw"], preset["inclusive"], preset["exclude_padding"], preset["size"]) == (False, True, True, 32)

    def names(*more: object) -> list[str]:
        got = as_json(command(capsys, "pck", spair, "--kind", "spair", *MINI, *more, "--json"))
        assert got["benchmark"]["choices"] != {}
        return list(got["per_pair"]["name"])

    both = names()
    assert len(both) == 2 and names("--layout", "small") == both[1:]
    drawn = {tuple(names("--limit", 1, "--seed", seed)) for seed in range(6)}
    assert drawn == {(name,) for name in both} and len(names("--limit-per-category", 1)) == 1


def write_mirrored(kind: str, folder: Path) -> Path:
    """A picture and its mirror image, in which what looks like a left paw is a right one: points change places with their twins."""
    names = {
        "spair": ["0", "1", "2", "3", "8"],
        "ap10k": ["left_eye", "right_eye", "left_hip", "right_hip", "nose"],
        "cub": ["left eye", "right eye", "left leg", "right leg", "beak"],
    }[kind]
    a = np.random.default_rng(4).integers(4, 36, (5, 2)).astype(float)
    b = a[[1, 0, 3, 2, 4]] * (-1, 1) + (47, 0)
    pictures = {"a": PICTURES["a"], "b": PICTURES["a"][:, ::-1].copy()}
    box = (0, 0, 48, 40)
    if kind == "cub":
        places = [dict(zip(names, map(tuple, xy.tolist()), strict=True)) for xy in (a, b)]
        made.write_cub(folder, {n: ("001.Bird", xy, box) for n, xy in zip("ab", places, strict=True)}, pictures)
        return folder
    pairs = [a_pair("cat", "a", "b", a, b, points=names, box_a=box, box_b=box, size_a=SIZE, size_b=SIZE)]
    (made.write_spair if kind == "spair" else made.write_ap10k)(folder, pairs, pictures)
    return folder


@pytest.mark.parametrize("kind", ["spair", "ap10k", "cub"])
def test_left_and_right_change_places_in_mirror_images(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = (
        "pck",
        write_mirrored(kind, tmp_path),
        "--kind",
        kind,
        *MINI,
        "--size",
        64,
        "--preset",
        "geoaware",
        "--json",
    )
    got = as_json(command(capsys, *base))
    assert got["mirrored"] == got["pairs"] and got["pck"]["0.1"]["point"]["pck"] == 1
    assert got["geometry_aware"]["points"] == 4 * got["pairs"]
    assert got["geometry_aware"]["pck"]["0.1"]["point"]["pck"] == 1
    as_it_is = as_json(command(capsys, *base, "--flip", "none"))
    assert as_it_is["mirrored"] == 0 and as_it_is["pck"]["0.1"]["point"]["pck"] < 1


@pytest.mark.parametrize("kind", ["pf-pascal", "pf-willow", "tss", "hpatches", "psc6k"])
def test_no_mirror_image_where_left_and_right_are_not_known(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (("--preset", "geoaware"), ("--flip", "mutual")):
        code, out, err = command(capsys, "pck", write(kind, tmp_path), "--kind", kind, *MINI, *more)
        assert code == 2 and not out and "left and right of each other is not known" in err and "--flip none" in err
        assert "Traceback" not in err


def test_what_finds_points_otherwise_finds_them_elsewhere(
    spair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records hold how far off each point was found: every option that moves points moves some of these, and masks hold them in."""

    def found(*more: object) -> tuple[dict[str, Any], list[Any]]:
        records = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        base = ("pck", spair, "--kind", "spair", *MINI, "--size", 64, "--json", "--records", records)
        convention = as_json(command(capsys, *base, *more))["convention"]
        return convention, [json.loads(line)["errors"] for line in records.read_text().splitlines()[1:]]

    masks = tmp_path / "masks"
    masks.mkdir()
    left = np.zeros((40, 48), np.uint8)
    left[:, :16] = 255
    for name in "abcd":
        Image.fromarray(left).save(masks / f"{name}.png")
    _, plain = found()
    for more, wanted in (
        (("--foreground", "pca"), {"where": "pca"}),
        (("--foreground", "cls"), {"where": "cls"}),
        (("--fine-size", 128), {"fine_size": 128}),
        (("--coarse-to-fine", 2), {"coarse_to_fine": 2}),
        (("--refine", "soft-argmax", "--window", 2, "--temperature", 0.5), {"window": 2, "temperature": 0.5}),
    ):
        convention, moved = found(*more)
        assert moved != plain and convention | wanted == convention, more
    assert found("--min-score", 0.999)[1] == plain  # left out, not moved
    convention, within = found("--mask", masks)
    assert convention["where"] == "masks"
    rights = [pair.points_b[:, 0] for pair in read_benchmark(spair, "spair").pairs]
    for errors, x in zip(within, rights, strict=True):
        assert (np.array(errors) >= x - 16).all()  # nothing is found right of the mask
    Image.fromarray(left * 0).save(masks / "b.png")
    code, _, err = command(capsys, "pck", spair, "--kind", "spair", *MINI, "--mask", masks)
    assert code == 0 and "1 of 4 images take part whole" in err and "b.jpg" in err


def test_points_kept_are_counted_in_the_table(spair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("pck", spair, "--kind", "spair", *MINI, "--max-cycle", 0)
    got = as_json(command(capsys, *base, "--json"))["kept"]
    code, out, _ = command(capsys, *base)
    words = f"points kept by the filters: {got['points']} of 10 ({100 * got['share']:.1f} %)"
    assert code == 0 and words in out and "of points kept, per image" in out and 0 < got["points"] < 10
    nothing = command(capsys, *base, "--min-score", 1, "--figure", spair / "none.png")
    assert nothing[0] == 0 and "of points kept" not in nothing[1] and (spair / "none.png").is_file()


def test_benchmarks_take_their_own_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def result(kind: str, folder: Path, *more: object) -> Any:
        return as_json(command(capsys, "pck", folder, "--kind", kind, *MINI, *more, "--json"))

    tss = write("tss", tmp_path / "tss")
    assert set(result("tss", tss, "--step", 8)["per_pair"]["n"]) == {5 * 6}
    hpatches = write("hpatches", tmp_path / "hpatches")
    made.write_hpatches(hpatches, "v_wall", [noise(n) for n in range(6)], [np.eye(3)] * 5)
    hidden = next(iter(LARGE))
    made.write_hpatches(hpatches, hidden, [noise(n) for n in range(6)], [np.eye(3)] * 5)
    usual, every = (result("hpatches", hpatches, "--points", 2, *more) for more in ((), ("--all-sequences",)))
    assert usual["pairs"] == 10 and every["pairs"] == 15
    sketches = write("psc6k", tmp_path / "psc6k")
    (tmp_path / "pictures").mkdir()
    for path in list(sketches.iterdir()):
        if path.is_dir():
            path.rename(tmp_path / "pictures" / path.name)
    moved = result("psc6k", sketches, "--images", tmp_path / "pictures")
    assert moved["pairs"] == 4


def test_encoding_options_reach_the_encoder(
    spair: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as in every command; what they do is tested there."""
    given: list[Any] = []
    real = fewmatch.cli.commands.pck.run_pck

    def seen(chosen: Any, convention: Any, choice: Any, *more: Any) -> Any:
        given.append(choice)
        return real(chosen, convention, dataclasses.replace(choice, compile=False), *more)

    monkeypatch.setattr(fewmatch.cli.commands.pck, "run_pck", seen)
    base = ("pck", spair, "--kind", "spair", *MINI, "--json")
    plain = as_json(command(capsys, *base))
    fast = as_json(
        command(capsys, *base, "--fast-decode", "--compile", "--trust-digest", "--no-cache", "--range", "auto")
    )
    assert fast["encoder"]["fast_decode"] is True and "fast_decode" not in plain["encoder"]
    assert fast["encoder"]["range"] == "auto" and "range" not in plain["encoder"]
    names = ("fast_decode", "compile", "trust_digest", "cache", "value_range")
    assert [[getattr(choice, name) for name in names] for choice in given] == [
        [False, False, False, True, None],
        [True, True, True, False, "auto"],
    ]


def test_a_run_goes_on_and_other_alphas_score_nothing(
    spair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    calls: list[str] = []
    real = fewmatch.matching.benchmarks.pck.scoring.score_pair

    def counted(pair: Any, *args: Any, **more: Any) -> Any:
        calls.append(pair.name)
        return real(pair, *args, **more)

    monkeypatch.setattr(fewmatch.matching.benchmarks.pck.scoring, "score_pair", counted)
    records = tmp_path / "sub" / "records.jsonl"
    base = ("pck", spair, "--kind", "spair", *MINI, "--json", "--records", records)
    as_json(command(capsys, *base, "--limit", 1))
    assert len(calls) == 1 and records.is_file()
    whole = command(capsys, *base)
    assert len(calls) == 2 and "1 of 2 pairs are scored already" in whole[2]
    again = as_json(command(capsys, *base))
    used = {"file": str(records), "reused": 2, "scored": 0, "scored_again": 0, "changed": {}}
    assert again["records"] == used and len(calls) == 2
    assert again == as_json(whole) | {"records": used}
    assert as_json(whole)["records"] == used | {"reused": 1, "scored": 1}
    assert as_json(command(capsys, *base, "--alpha", 0.5, "--strict"))["pck"].keys() == {"0.5"} and len(calls) == 2
    code, _, err = command(capsys, *base, "--window", 1)
    assert code == 5 and "another run" in err
    # Without --records the cache keeps them, and --no-cache nothing.
    plain = base[:-2]
    for more, expected in ((("--no-cache",), 4), ((), 6), ((), 6), (("--no-cache",), 8)):
        assert as_json(command(capsys, *plain, *more))["pck"] == as_json(whole)["pck"]
        assert len(calls) == expected


def test_images_of_another_size_than_annotated_are_skipped(spair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("pck", spair, "--kind", "spair", *MINI)
    plain = as_json(command(capsys, *base, "--json"))
    images = spair / "JPEGImages" / "cat"
    Image.fromarray(noise(1).repeat(2, axis=0).repeat(2, axis=1)).save(images / "b.png")
    (images / "b.png").rename(images / "b.jpg")
    got = as_json(command(capsys, *base, "--json"), code=3)
    (row,) = got["skipped"]
    assert Path(row["path"]).name == "b.jpg" and "48×40 px, but the image has 96×80 px" in row["reason"]
    assert (
        "2 times" in row["reason"] and [dropped["name"] for dropped in got["dropped"]] == plain["per_pair"]["name"][:1]
    )
    assert got["per_pair"]["right"]["0.1"] == plain["per_pair"]["right"]["0.1"][1:]
    Image.fromarray(noise(2, 40, 48)).save(images / "c.png")
    (images / "c.png").rename(images / "c.jpg")
    code, _, err = command(capsys, *base)
    assert code == 2 and "no pair can be used" in err


def test_a_picture_that_cannot_be_drawn_loses_no_result(
    spair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewmatch.cli.results.pck._picture", lambda *_: None)
    result, picture = tmp_path / "a.json", tmp_path / "d.png"
    code, out, err = command(capsys, "pck", spair, "--kind", "spair", *MINI, "-o", result, "--figure", picture)
    assert code == 1 and "per category, weighted" in out and f"{picture} is not written" in err
    assert not picture.exists() and f"wrote {result}" in err and f"wrote {picture}" not in err
    assert json.loads(result.read_text())["not_written"][0]["path"] == str(picture)


def twice(folder: Path) -> Path:
    """Two pairs of a picture and its copy, with the same points: all are found. Pictures without compression, so that all have one size."""
    rng = np.random.default_rng(3)
    pairs = []
    for a, b in (("a", "b"), ("c", "d")):
        points = rng.integers(4, 36, (5, 2))
        pairs.append(a_pair("cat", a, b, points, points, box_a=(0, 0, 48, 40), box_b=(0, 0, 48, 40)))
    pictures = {"a": PICTURES["a"], "b": PICTURES["a"], "c": PICTURES["c"], "d": PICTURES["c"]}
    made.write_spair(folder, pairs, pictures, layouts={"large": [0, 1]})
    for name, rgb in pictures.items():
        made.picture(folder / "JPEGImages" / "cat" / f"{name}.jpg", rgb, ".ppm")
    masks = folder / "masks"
    masks.mkdir()
    for name in pictures:
        made.picture(masks / f"{name}.png", np.full((40, 48, 3), 255, np.uint8))
    return folder


def replace(path: Path, data: bytes) -> None:
    """Other bytes at the same size and time of change, as `cp -p` can leave them."""
    before = path.stat()
    assert len(data) == before.st_size and data != path.read_bytes()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_image(folder: Path) -> None:
    path = folder / "JPEGImages" / "cat" / "b.jpg"
    replace(path, made.picture(folder / "other.ppm", noise(99), ".ppm").read_bytes())


def change_annotation(folder: Path) -> None:
    """All points of the first target are said to be at one corner."""
    (path,) = (folder / "PairAnnotation" / "test").glob("000001-*")
    text = path.read_text()
    record = json.loads(text)
    record["trg_kps"] = [[0, 0]] * 5
    replace(path, json.dumps(record).ljust(len(text)).encode())


def change_mask(folder: Path) -> None:
    """Of the first target only a corner without points may be found."""
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[34:, 42:] = 255
    made.picture(folder / "masks" / "b.png", mask)


def change_split(folder: Path) -> None:
    path = folder / "Layout" / "large" / "test.txt"
    path.write_text(path.read_text().splitlines()[1] + "\n")


@pytest.mark.parametrize(
    ("change", "kinds", "value", "scored"),
    [
        (change_image, {"images": 1}, None, 1),
        (change_annotation, {"annotations": 1}, 0.5, 1),
        (change_mask, {"masks": 1}, 0.5, 1),
        (change_split, {}, 1.0, 0),
    ],
)
def test_what_changed_is_scored_again_and_said(
    change: Any, kinds: dict[str, int], value: float | None, scored: int, tmp_path: Path, capsys: Any
) -> None:
    """One of two pairs changes; with the right number, which a run without records has too. Features are encoded again each time."""
    folder = twice(tmp_path / "spair")
    base = ("pck", folder, "--kind", "spair", *MINI, "--size", 64, "--mask", folder / "masks", "--no-cache")
    kept = (*base, "--records", tmp_path / "records.jsonl")
    first = as_json(command(capsys, *kept, "--json", "--quiet", "-o", tmp_path / "first.json"))
    assert first["pck"]["0.1"]["image"]["pck"] == 1 and first["records"]["scored"] == 2
    change(folder)
    code, _, err = command(capsys, *kept)
    assert code == 0 and err.count("scored again") == len(kinds)
    for kind in kinds:
        line = f"1 of 2 pairs are scored already in {tmp_path / 'records.jsonl'}; 1 pair is scored again, because"
        assert f"{line} these changed: {kind} of 1" in err
    records = tmp_path / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:3]))  # as before the change
    quiet = as_json(command(capsys, *kept, "--json", "--quiet"))
    assert quiet["records"]["scored"] == quiet["records"]["scored_again"] == scored
    assert quiet["records"]["reused"] == 1 and quiet["records"]["changed"] == kinds
    fresh = as_json(command(capsys, *base, "--json", "-o", tmp_path / "second.json"))
    assert fresh["records"] == {"file": None, "reused": 0, "scored": 1 + scored, "scored_again": 0, "changed": {}}
    assert quiet | {"records": 0} == fresh | {"records": 0}
    got = fresh["pck"]["0.1"]["image"]["pck"]
    assert got < 1 if value is None else got == value
    if change is change_image:
        comparison = command(capsys, "pck", "--compare", tmp_path / "first.json", tmp_path / "second.json")
        assert comparison[0] == 0 and "images differ: their files changed" in comparison[1]
    elif change is change_mask:
        same = as_json(command(capsys, "pck", "--compare", tmp_path / "first.json", tmp_path / "second.json", "--json"))
        assert same["same_images"] is True
    else:
        assert command(capsys, "pck", "--compare", tmp_path / "first.json", tmp_path / "second.json")[0] == 2


def test_an_image_that_changed_is_noticed_through_the_caches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features and records both come from the cache, and the file has its old size and time of change."""
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    folder = twice(tmp_path / "spair")
    base = ("pck", folder, "--kind", "spair", *MINI, "--size", 64, "--json", "--quiet")
    first = as_json(command(capsys, *base))
    assert as_json(command(capsys, *base))["records"]["reused"] == 2
    change_image(folder)
    got = as_json(command(capsys, *base))
    assert got["records"]["scored_again"] == 1 and got["records"]["changed"] == {"images": 1}
    fresh = as_json(command(capsys, *base, "--no-cache"))
    assert got["pck"] == fresh["pck"] != first["pck"] and got["benchmark"]["images"] != first["benchmark"]["images"]


def test_results_from_before_images_had_a_digest_are_compared_with_a_word(
    spair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.json"
    got = as_json(command(capsys, "pck", spair, "--kind", "spair", *MINI, "--json", "-o", path))
    del got["benchmark"]["images"]
    (tmp_path / "old.json").write_text(json.dumps(got))
    code, out, _ = command(capsys, "pck", "--compare", tmp_path / "old.json", path)
    assert code == 0 and "not known whether the images are the same" in out
    assert "images" not in command(capsys, "pck", "--compare", path, path)[1]


def test_files_table_picture_and_comparison(spair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, table, picture = (tmp_path / name for name in ("a.json", "b.json", "c.csv", "d.png"))
    base = ("pck", spair, "--kind", "spair", *MINI)
    code, out, err = command(capsys, *base, "-o", a, "--csv", table, "--figure", picture, "--examples", 2)
    assert code == 0 and all(f"wrote {path}" in err for path in (a, table, picture))
    assert "per category, weighted" in out and "error ≤ α·T" in out and "exact centre" in out and "float32" in out
    assert table.read_text().splitlines()[1].startswith("cat,2,10,")
    with Image.open(picture) as two:
        assert two.size[0] == 1200
        height = two.size[1]
    command(capsys, *base, "--figure", picture, "--examples", 1, "--overwrite")
    with Image.open(picture) as one:
        assert one.size[1] < height
    assert command(capsys, *base, "-o", a)[0] == 5
    command(capsys, *base, "-o", b, "--source", "patch")
    got = as_json(command(capsys, "pck", "--compare", a, b, "--json", "-o", tmp_path / "e.json"))
    assert got["pairs"] == 2 and got["differs"] == {"source": ["bilinear", "patch"]}
    assert json.loads((tmp_path / "e.json").read_text()) == got
    first, second = (json.loads(path.read_text())["pck"]["0.1"]["image"]["pck"] for path in (a, b))
    assert got["pck"]["0.1"]["image"]["difference"] == pytest.approx(second - first)
    code, out, _ = command(capsys, "pck", "--compare", a, b)
    assert code == 0 and "second − first" in out and "conventions differ: source: bilinear and patch" in out
    assert f"first: {a}: mini at 32 px, float32" in out


def test_an_image_that_cannot_be_used_drops_its_pairs(spair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spair / "JPEGImages" / "cat" / "d.jpg").write_text("no image")
    got = as_json(command(capsys, "pck", spair, "--kind", "spair", *MINI, "--json"), code=3)
    assert got["pairs"] == 1 and len(got["dropped"]) == len(got["skipped"]) == 1
    assert "d.jpg" in got["dropped"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--kind"),
        (("{}",), "--kind"),
        (("{}", "--kind", "tss"), "{}"),
        (("{}", "--kind", "spair", "--step", 2), "no option step"),
        (("{}", "--kind", "spair", "--images", "x"), "no option images"),
        (("{}", "--kind", "spair", "--all-sequences"), "no option all sequences"),
        (("{}", "--kind", "spair", "--split", "half"), "no split half"),
        (("{}", "--kind", "spair", "--seed", 1), "--seed draws nothing"),
        (("{}", "--kind", "spair", "--limit", 1, "--limit-per-category", 1), "expected one of them"),
        (("{}", "--kind", "spair", "--limit", 0), "limit of 1 or more"),
        (("{}", "--kind", "spair", "--refine", "none", "--window", 2), "--refine none"),
        (("{}", "--kind", "spair", "--exclusion", 2), "--max-ratio"),
        (("{}", "--kind", "spair", "--mask", "x", "--foreground", "pca"), "expected one of them"),
        (("{}", "--kind", "spair", "--mask", "x"), "--mask to be a folder"),
        (("{}", "--kind", "spair", "--mask", "{}"), "no mask for"),
        (("{}", "--kind", "spair", "--fine-size", 32), "fine size above the size, which is 32"),
        (("{}", "--kind", "spair", "--preset", "sd-dino", "--max-cycle", 0), "exact places alone"),
        (("{}", "--kind", "spair", "--temperature", 0.1), "--refine"),
        (("{}", "--kind", "spair", "--outside", "zero"), "--refine"),
        (("{}", "--kind", "spair", "--offset", 0.5, 0), "--target offset"),
        (("{}", "--kind", "spair", "--threshold", "image-target", "--threshold-px", 3), "threshold fixed"),
        (("{}", "--kind", "spair", "--source", "covering"), "belong together"),
        (("{}", "--kind", "spair", "--figure", "x.svg"), ".png"),
        (("{}", "--kind", "spair", "--examples", 2), "--figure"),
        (("{}", "--kind", "spair", "--figure", "x.png", "--examples", 0), "1 or more"),
        (("{}", "--kind", "spair", "--csv", "x", "-o", "x"), "same name"),
        (("{}", "--compare", "x.json", "y.json"), "DATASET"),
        (("--compare", "x.json", "y.json", "--limit", 3), "--limit"),
        (("--compare", "{}/Layout/large/test.txt", "y.json"), "is no JSON"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[object, ...], message: str, spair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spelt = [str(argument).replace("{}", str(spair)) for argument in arguments]
    more = () if "--compare" in spelt else MINI
    code, out, err = command(capsys, "pck", *spelt, *more)
    *notes, error = err.splitlines()
    assert code == 2 and not out and error.startswith("fewmatch: error: ")
    assert all(note.startswith("note: ") for note in notes)  # what was found out of the benchmark before
    assert message.replace("{}", str(spair)) in err
