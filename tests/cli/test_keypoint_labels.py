"""What `fewmatch keypoints` makes of files of labels: stated sizes, COCO's v, empty entries, absent parts, the root of paths."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fewmatch.cli.main import run
from fewmatch.labels.reading import read_labels

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--sizes", "96")
PARTS = {"nose": (224, 118), "badge": (150, 380), "rocket": (395, 240)}
#: Left and top of each image, 400 × 400 pixels of the photo.
CUTS = {"a": (40, 40), "b": (60, 20), "c": (20, 80), "d": (80, 60)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeepLabCut project with two videos' folders of frames."""
    root = tmp_path_factory.mktemp("project")
    photo = skimage.data.astronaut()
    for name, (left, top) in CUTS.items():
        path = root / "labeled-data" / ("one" if name in "ab" else "two") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[top : top + 400, left : left + 400]).save(path)
    return root


def place(name: str) -> str:
    return f"labeled-data/{'one' if name in 'ab' else 'two'}/{name}.png"


def truth(name: str, scale: float = 1) -> list[list[float]]:
    """(P, 2) in pixels of an image that is `scale` times as large."""
    left, top = CUTS[name]
    return [[(x - left + 0.5) * scale - 0.5, (y - top + 0.5) * scale - 0.5] for x, y in PARTS.values()]


def coco(path: Path, names: str, v: int = 2, scale: float = 1, size: tuple[int, int] = (400, 400)) -> Path:
    content = {
        "images": [{"id": i, "file_name": place(n), "width": size[0], "height": size[1]} for i, n in enumerate(names)],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": [x for point in truth(n, scale) for x in (*point, v)],
            }
            for i, n in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(PARTS)}],
    }
    path.write_text(json.dumps(content))
    return path


def lines(path: Path, names: str, *more: str) -> Path:
    rows = [f"{place(n)},{part},{x},{y}," for n in names for part, (x, y) in zip(PARTS, truth(n), strict=True)]
    path.write_text("\n".join(["image,part,x,y,visible", *rows, *more]) + "\n")
    return path


def command(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    got = run(["keypoints", *(str(word) for word in words), *MINI])
    out, err = capsys.readouterr()
    assert got == code, err
    return out, err


def as_json(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    return json.loads(command(capsys, *words, "--json", code=code)[0])


def test_labels_made_at_half_size(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = (project / place("c"), "--images-root", project)
    right = as_json(capsys, coco(tmp_path / "right.json", "ab"), *rest)
    assert right["notes"] == []
    half = coco(tmp_path / "half.json", "ab", scale=0.5, size=(200, 200))
    got = as_json(capsys, half, *rest, "--rescale-labels")
    assert got["keypoints"] == right["keypoints"] and got["labelled"] == 2
    (note,) = got["notes"]
    assert "200×200 px" in note and "2 times" in note
    _, err = command(capsys, half, *rest, code=2)
    assert "both sides are 2 times as long as stated" in err and "--rescale-labels" in err and err.count("\n") == 1
    # Of two labelled images one has a wrong size: the other counts, and the exit code says so.
    content = json.loads((tmp_path / "right.json").read_text())
    content["images"][1] |= {"width": 400, "height": 300}
    (tmp_path / "one.json").write_text(json.dumps(content))
    got = as_json(capsys, tmp_path / "one.json", *rest, "--rescale-labels", code=3)
    assert got["labelled"] == 1 and [row["path"] for row in got["skipped"]] == [place("b")]


def test_sizes_of_labels_to_score_against(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = (lines(tmp_path / "l.csv", "ab"), project / "labeled-data", "--images-root", project, "--score")
    right = as_json(capsys, *base, coco(tmp_path / "right.json", "cd"))["score"]
    half = coco(tmp_path / "half.json", "cd", scale=0.5, size=(200, 200))
    assert as_json(capsys, *base, half, "--rescale-labels")["score"] == right and right["overall"]["n"] == 6
    assert "--rescale-labels" in command(capsys, *base, half, code=2)[1]
    # A point outside its image is no label to score against.
    lines(tmp_path / "outside.csv", "c", f"{place('d')},nose,401,20,")
    got = as_json(capsys, *base, tmp_path / "outside.csv", code=3)
    assert got["score"]["overall"]["n"] == 3 and "outside the image" in got["skipped"][0]["reason"]
    # An image that nobody looked at is not one without parts.
    lines(tmp_path / "empty.csv", "c", f"{place('d')},nose,,,")
    assert as_json(capsys, *base, tmp_path / "empty.csv")["score"]["visible"]["n"] == 3
    lines(tmp_path / "absent.csv", "c", f"{place('d')},nose,,,0")
    assert as_json(capsys, *base, tmp_path / "absent.csv")["score"]["visible"]["n"] == 6


def test_sizes_and_names_of_frames_of_a_video(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 10, (400, 400))
    for name in "cd":
        film.write(np.asarray(Image.open(project / place(name)))[..., ::-1])
    film.release()
    base = (lines(tmp_path / "l.csv", "ab"), tmp_path / "film.avi", "--images-root", project, "--score")
    content = json.loads(coco(tmp_path / "half.json", "cd", scale=0.5, size=(200, 200)).read_text())
    for i, image in enumerate(content["images"]):
        image["file_name"] = f"frames\\film_frame{i:05d}.png"
    (tmp_path / "half.json").write_text(json.dumps(content))
    got = as_json(capsys, *base, tmp_path / "half.json", "--rescale-labels")
    assert got["score"]["overall"]["n"] == 6 and {row["path"] for row in got["keypoints"]} == {
        "film_frame00000",
        "film_frame00001",
    }
    assert "2 times" in command(capsys, *base, tmp_path / "half.json", code=2)[1]
    content["images"][1]["file_name"] = "other/film_frame00000.png"
    (tmp_path / "half.json").write_text(json.dumps(content))
    assert "name the same frame" in command(capsys, *base, tmp_path / "half.json", code=2)[1]


def test_coco_files_with_v_1_only(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = (project / place("c"), "--images-root", project)
    right = as_json(capsys, coco(tmp_path / "2.json", "ab"), *rest)
    ones = coco(tmp_path / "1.json", "ab", v=1)
    got = as_json(capsys, ones, *rest)
    assert got["keypoints"] == right["keypoints"] and len(got["notes"]) == 1
    _, err = command(capsys, ones, *rest)
    assert err.count("note: ") == 1 and "1 is read as visible" in err
    _, err = command(capsys, ones, *rest, "--visible", 2, code=2)
    assert "hidden" in err and "--visible 1" in err
    assert as_json(capsys, ones, *rest, "--visible", 1)["notes"] == []
    _, err = command(capsys, lines(tmp_path / "l.csv", "ab"), *rest, "--visible", 1, code=2)
    assert "--visible is for COCO" in err
    command(capsys, ones, *rest, "--visible", 3, code=2)


def test_a_correction_that_says_no_part_is_there(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the page of review writes it: every part of the image, with visible 0 and no place."""
    absent = [f"{place('b')},{part},,,0" for part in PARTS]
    corrections = tmp_path / "corrections.csv"
    corrections.write_text("\n".join(["image,part,x,y,visible,score", *(f"{line}," for line in absent)]) + "\n")
    for labels in (lines(tmp_path / "l.csv", "a"), lines(tmp_path / "m.csv", "ab")):
        base = (labels, project / "labeled-data", "--images-root", project)
        got = as_json(capsys, *base, "--corrections", corrections)
        assert got["labelled"] == 2 and {row["path"] for row in got["keypoints"]} == {place("c"), place("d")}
    # The same as labels that say so themselves, and not the same as labels of the other image alone.
    said = as_json(capsys, lines(tmp_path / "n.csv", "a", *absent), *base[1:])
    assert said["keypoints"] == got["keypoints"]
    assert as_json(capsys, lines(tmp_path / "o.csv", "a"), *base[1:])["labelled"] == 1
    # Corrections are found below the root of the labels as well, wherever the browser put them.
    labels = lines(project / "labels.csv", "a")
    far = tmp_path / "1" / "2" / "3" / "4" / "corrections.csv"
    far.parent.mkdir(parents=True)
    corrections.rename(far)
    assert as_json(capsys, labels, project / "labeled-data", "--corrections", far)["labelled"] == 2


def test_paths_of_results_begin_where_those_of_the_labels_do(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "scorer,,,ann,ann\nbodyparts,,,nose,nose\ncoords,,,x,y\n"
    labels = project / "labeled-data" / "one" / "CollectedData_ann.csv"
    labels.write_text(f"{header}labeled-data,one,a.png,184,78\nlabeled-data,one,b.png,,\n")
    outside = tmp_path / "outside.png"
    outside.write_bytes((project / place("d")).read_bytes())
    monkeypatch.chdir(project / "labeled-data" / "two")
    typed = ("c.png", os.path.relpath(outside), project / place("b"))
    got = as_json(capsys, labels, *typed, "-o", tmp_path / "found.csv", "--no-likelihood", "--suggest", 1)
    paths = [row["path"] for row in got["keypoints"]]
    assert paths == [place("c"), os.path.relpath(outside), place("b")] and got["suggested"][0] in paths
    found = (tmp_path / "found.csv").read_text().splitlines()
    assert found[3].startswith("labeled-data,two,c.png,") and found[5].startswith("labeled-data,one,b.png,")
    assert read_labels(tmp_path / "found.csv").keypoints.paths == tuple(paths)
    # A link to the folder is the folder.
    (tmp_path / "link").symlink_to(project)
    assert as_json(capsys, labels, tmp_path / "link" / place("c"))["keypoints"][0]["path"] == place("c")
    # What was typed may read like a path below the root, and is then written in full.
    (tmp_path / place("c")).parent.mkdir(parents=True)
    (tmp_path / place("c")).write_bytes(outside.read_bytes())
    monkeypatch.chdir(tmp_path)
    got = as_json(capsys, labels, place("c"), project / place("c"))
    assert [row["path"] for row in got["keypoints"]] == [(tmp_path / place("c")).as_posix(), place("c")]


def test_names_of_parts_in_another_spelling(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    composed, decomposed = "n\u00e9z", "ne\u0301z"
    labels = lines(tmp_path / "l.csv", "ab")
    labels.write_text(labels.read_text().replace("nose", composed))
    truth = lines(tmp_path / "t.csv", "c")
    truth.write_text(truth.read_text().replace("nose", decomposed))
    words = (project / place("c"), "--images-root", project, "--score", truth, "--left-right", f"{decomposed}:badge")
    got = as_json(capsys, labels, *words)
    assert (
        got["parts"][0] == composed and got["score"]["overall"]["n"] == 3 and got["options"]["left_right"] == [[0, 1]]
    )
