"""Malformed labels: what is wrong with a file is refused, what is wrong with a row takes its image out, and both are named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.labels.labels import Labels, SkippedLabel
from fewmatch.labels.merging import merge_labels
from fewmatch.labels.reading import read_labels
from fewmatch.matching.keypoints.locating import keep_inside, locate_images

HEADER = "scorer,ann,ann,ann,ann\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n"
GOOD = "good.png,1,2,3,4\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, content: str | bytes, *words: str) -> None:
    """An error of one line that names the file."""
    with pytest.raises(InputError) as caught:
        read_labels(write(path, content))
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message, message


def only_good(labels: Labels, *expected: tuple[str | None, str, str]) -> None:
    """The good image is there, and these are skipped: image, where, and words of the reason."""
    assert labels.keypoints.paths == ("good.png",)
    assert len(labels.where) == 1 and str(labels.source) in labels.where[0]
    assert len(labels.skipped) == len(expected), [str(s) for s in labels.skipped]
    for skip, (image, where, reason) in zip(labels.skipped, expected, strict=True):
        assert skip.image == image and skip.where == f"{labels.source}, {where}" and reason in skip.reason, str(skip)


# Files as a whole


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["an empty file"]),
        (b"\n \n", ["an empty file"]),
        (b"hello\nworld\n", ["expected DeepLabCut's", "image,part,x,y", "'hello'"]),
        (b"image,part,x\na,b,1\n", ["image,part,x,y"]),
        (b"path,label\na.png,cat\n", ["begins with 'path,label'"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5", "give the CSV"]),
        ("image,part,x,y\n".encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
        (HEADER.encode() + "größe.png,1,2,3,4\n".encode("latin-1"), [", line 4", "not UTF-8", "0xf6"]),
        (b"image,part,x,y\na,b,1,\0\n", ["no text"]),
        (HEADER.encode(), ["it has no rows"]),
        (b"image,part,x,y\n", ["it has no rows"]),
        (HEADER.encode() + b'"good.png,1,2,3,4\n', ["no CSV", "cut off", "line 4"]),
        (b'image,part,x,y\n"a', ["no CSV", "line 2"]),
        (b"image,part,x,y,x\na,b,1,2,3\n", ["column x twice"]),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    refused(tmp_path / "l.csv", content, *words)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.csv", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            read_labels(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("scorer,a,a\nindividuals,m,m\nbodyparts,n,n\ncoords,x,y\n", ["several animals", "one animal"]),
        ("scorer,a,a\nbodyparts,n,n\n", ["three header rows", "got scorer, bodyparts"]),
        ("scorer,a,a\ncoords,x,y\nbodyparts,n,n\n", ["got scorer, coords, bodyparts"]),
        ("scorer,a,a\nbodyparts,n,n,n\ncoords,x,y\n", ["same length, got 3, 4, 3 cells"]),
        ("scorer,a\nbodyparts,n\ncoords,x\n", ["no y of n"]),
        ("scorer,a,a\nbodyparts,n,n\ncoords,y,likelihood\n", ["no x of n"]),
        ("scorer,a,a,a\nbodyparts,n,n,n\ncoords,x,y,x\n", ["x of n twice"]),
        ("scorer,a,a\nbodyparts,n,n\ncoords,x,z\n", ["column 3", "likelihood", "'z'"]),
        ("scorer,a,a,a\nbodyparts,n,n,\ncoords,x,y,x\n", ["column 4"]),
        ("scorer,a,b\nbodyparts,n,n\ncoords,x,y\n", ["one scorer, got a, b"]),
        ("scorer,,a,a\nbodyparts,,n,n\ncoords,,x,y\n", ["one column or in three, got 2"]),
        ("scorer\nbodyparts\ncoords\n", ["names no part"]),
        ("scorer,,\nbodyparts,,\ncoords,,\n", ["names no part"]),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, header: str, words: list[str]) -> None:
    refused(tmp_path / "l.csv", header + "a.png,1,2\n", *words)


# Rows


@pytest.mark.parametrize(
    ("row", "image", "reason"),
    [
        ("bad.png,1,2,3", "bad.png", "expected 5 cells as in the header, got 4"),
        ("bad.png,1,2,3,4,5", "bad.png", "got 6"),
        (",1,2,3,4", None, "names no image"),
        ("bad.png,1,,3,4", "bad.png", "nose has x but no y: fill in both, or empty both"),
        ("bad.png,1,2,,4", "bad.png", "tail has y but no x"),
        ("bad.png,1,two,3,4", "bad.png", "nose: expected a number, got 'two'"),
        ('bad.png,1,2,3,"4,5"', "bad.png", "tail: expected a number, with a point instead of the comma, got '4,5'"),
        ("bad.png,1,2,3,inf", "bad.png", "expected a number, got 'inf'"),
        ("bad.png,1,2,3,1e999", "bad.png", "too large"),
        ("bad.png,1_0,2,3,4", "bad.png", "expected a number, got '1_0'"),
        ("bad.png,٣,2,3,4", "bad.png", "expected a number"),
    ],
)
def test_rows_of_deeplabcut_that_are_skipped(tmp_path: Path, row: str, image: str | None, reason: str) -> None:
    path = write(tmp_path / "l.csv", f"{HEADER}{row}\n{GOOD}")
    only_good(read_labels(path), (image, "line 4", reason))
    refused(tmp_path / "bad.csv", f"{HEADER}{row}\n", "no labels that can be used", ", line 4", reason)


def test_a_likelihood_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    header = "scorer,n,n,n\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"
    labels = read_labels(write(tmp_path / "l.csv", header + "bad.png,1,2,high\ngood.png,1,2,0.5\n"))
    only_good(labels, ("bad.png", "line 4", "nose: expected a number, got 'high'"))


@pytest.mark.parametrize(
    ("line", "image", "reason"),
    [
        ("bad.png,nose,1", "bad.png", "expected 5 values as in the header, got 3"),
        ("bad.png,nose,1,2,1,7", "bad.png", "got 6"),
        (",nose,1,2,1", None, "names no image"),
        ("bad.png,,1,2,1", "bad.png", "names no part"),
        ("bad.png,nose,1,,1", "bad.png", "nose has x but no y"),
        ("bad.png,nose,,2,1", "bad.png", "nose has y but no x"),
        ("bad.png,nose,one,2,1", "bad.png", "nose: expected a number, got 'one'"),
        ("bad.png,nose,1,2,maybe", "bad.png", "visible to be 0 or 1, got 'maybe'"),
        ("bad.png,nose,,,1", "bad.png", "visible but has no place"),
    ],
)
def test_lines_of_points_that_take_their_image_out(tmp_path: Path, line: str, image: str | None, reason: str) -> None:
    """All of the image: without the point its part would count as not visible there."""
    text = f"image,part,x,y,visible\nbad.png,tail,8,9,1\n{line}\ngood.png,nose,1,2,1\n"
    labels = read_labels(write(tmp_path / "l.csv", text))
    if image is None:
        assert labels.keypoints.paths == ("bad.png", "good.png")
        assert [(s.image, s.where) for s in labels.skipped] == [(None, f"{labels.source}, line 3")]
    else:
        only_good(labels, (image, "line 3", reason))
        assert labels.keypoints.parts == ("tail", "nose")
    assert reason in labels.skipped[0].reason


def test_an_image_that_is_there_twice(tmp_path: Path) -> None:
    same = read_labels(write(tmp_path / "1.csv", HEADER + GOOD + "b.png,5,6,,\n" + GOOD + "b.png,5,6,,\n"))
    assert same.keypoints.paths == ("good.png", "b.png")
    assert [str(s) for s in same.skipped] == [
        f"{same.source}, line {line}: {image}: there already, {same.source}, line {first}: delete one of them"
        for image, line, first in (("good.png", 6, 4), ("b.png", 7, 5))
    ]
    differing = read_labels(write(tmp_path / "2.csv", HEADER + "b.png,1,2,3,4\n" + GOOD + "b.png,1,2,3,5\n"))
    reason = f"not the same ({differing.source}, line 4 and {differing.source}, line 6): keep one"
    only_good(differing, ("b.png", "line 4", reason), ("b.png", "line 6", reason))


def test_a_point_that_is_there_twice(tmp_path: Path) -> None:
    start = "image,part,x,y\ngood.png,nose,1,2\nb.png,nose,5,6\nb.png,tail,7,8\n"
    same = read_labels(write(tmp_path / "1.csv", start + "b.png,tail,7.0,8\ngood.png,nose,1,2\n"))
    assert same.keypoints.paths == ("good.png", "b.png") and same.keypoints.xy[1].tolist() == [[5, 6], [7, 8]]
    assert [(s.image, s.where.split(", ")[1]) for s in same.skipped] == [("b.png", "line 5"), ("good.png", "line 6")]
    assert "tail is there already" in same.skipped[0].reason
    differing = read_labels(write(tmp_path / "2.csv", start + "b.png,tail,7,9\n"))
    only_good(differing, ("b.png", "line 4", "tail is there several"), ("b.png", "line 5", "tail is there several"))


# COCO


def coco_file() -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "good.png"}, {"id": 2, "file_name": "bad.png"}],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 2]},
            {"id": 20, "image_id": 2, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 2]},
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}],
    }


def _set(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


def _again(content: dict[str, Any]) -> None:
    content["annotations"].append(content["annotations"][1] | {"id": 30})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("images", to=None), ["list images"]),
        (_set("annotations", to={}), ["list annotations"]),
        (_set("categories", to=[3]), ["list categories"]),
        (_set("categories", to=[]), ["one category with keypoints, got none"]),
        (_set("categories", 0, "keypoints", to=[]), ["one category with keypoints, got none"]),
        (_set("categories", 0, "keypoints", to=["nose", 3]), ["expected names"]),
        (_set("categories", 0, "keypoints", to=["nose", "nose"]), ["keypoint nose twice"]),
        (_set("categories", 0, "skeleton", to=[[1, 3]]), ["between keypoints 1 to 2, got [1, 3]"]),
        (_set("categories", 0, "skeleton", to=[[0, 2]]), ["between keypoints 0 to 1"]),
        (_set("categories", 0, "skeleton", to=[[1]]), ["pairs of numbers"]),
        (_set("categories", 0, "skeleton", to=[[True, 2]]), ["pairs of numbers"]),
        (_set("images", 1, "id", to=1), ["two images have the id 1: good.png and bad.png"]),
        (_set("images", to=[]), ["no labels that can be used", "annotation 10"]),
        (_again, ["bad.png has 2 annotated objects (annotations 20, 30)", "expected one"]),
    ],
)
def test_coco_files_that_are_refused(tmp_path: Path, change: Callable[[Any], None], words: list[str]) -> None:
    content = coco_file()
    change(content)
    refused(tmp_path / "l.json", json.dumps(content), *words)


def test_json_that_is_refused(tmp_path: Path) -> None:
    text = json.dumps(coco_file())
    for length in (1, 20, len(text) // 2, len(text) - 1):
        refused(tmp_path / "l.json", text[:length], "no whole JSON", "cut off")
    refused(tmp_path / "l.json", json.dumps([{"image_id": 1, "keypoints": []}]), "COCO results", "annotations")
    refused(tmp_path / "l.json", "[" * 100_000, "no whole JSON")
    refused(tmp_path / "l.json", '{"images": ' + "1" * 5000 + "}", "no whole JSON")
    second = {"id": 2, "name": "rat", "keypoints": ["nose"]}
    content = coco_file()
    content["categories"].append(second)
    assert len(read_labels(write(tmp_path / "l.json", json.dumps(content)))) == 2  # that no annotation is of
    content["annotations"][1] |= {"category_id": 2, "keypoints": [1, 2, 2]}
    refused(tmp_path / "l.json", json.dumps(content), "one category with keypoints, got mouse, rat")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 2, 2], "expected 6 numbers for 2 keypoints, got 3"),
        ([1, 2, 2, 3, 4, 2, 5], "got 7"),
        ("abc", "got str"),
        ([1, 2, 3, 3, 4, 2], "nose: expected a visibility of 0, 1 or 2, got 3"),
        ([1, 2, True, 3, 4, 2], "got True"),
        ([1, 2, 2, 3, "4", 2], "tail: expected a number, got '4'"),
        ([1, None, 1, 3, 4, 2], "nose: expected a number, got None"),
        ([1, float("nan"), 2, 3, 4, 2], "nose: expected a number"),
        ([1, 10**400, 2, 3, 4, 2], "nose: expected a number"),
    ],
)
def test_annotations_that_are_skipped(tmp_path: Path, values: Any, reason: str) -> None:
    content = coco_file()
    content["annotations"][1]["keypoints"] = values
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    only_good(labels, ("bad.png", "image 2, annotation 20", reason))


def test_other_entries_that_are_skipped(tmp_path: Path) -> None:
    content = coco_file()
    content["annotations"][1]["image_id"] = 99
    del content["images"][1]
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    only_good(labels, (None, "annotation 20", "of image 99, which the file does not list"))
    content = coco_file()
    del content["images"][1]["file_name"], content["annotations"][1]
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    only_good(labels, (None, "images, entry 2", "no file_name"))
    content = coco_file()
    content["images"].append({"id": 3, "file_name": "bad.png"})
    content["annotations"].append(
        content["annotations"][0] | {"id": 30, "image_id": 3, "keypoints": [1, 1, 2, 3, 3, 2]}
    )
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    only_good(
        labels,
        ("bad.png", "image 2, annotation 20", "not the same"),
        ("bad.png", "image 3, annotation 30", "not the same"),
    )
    del content["annotations"][-1]  # an image without points contradicts nothing
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    assert labels.keypoints.paths == ("good.png", "bad.png") and labels.skipped == () and len(labels.notes) == 1
    content = coco_file()
    content["annotations"][1]["keypoint_scores"] = [1]
    labels = read_labels(write(tmp_path / "l.json", json.dumps(content)))
    only_good(labels, ("bad.png", "image 2, annotation 20", "expected 2 keypoint_scores"))


def test_a_skipped_label_in_words_and_json() -> None:
    assert str(SkippedLabel("a.png", "l.csv, line 3", "why")) == "l.csv, line 3: a.png: why"
    assert str(SkippedLabel(None, "l.csv, line 3", "why")) == "l.csv, line 3: why"
    assert SkippedLabel("a", "b", "c").to_json() == {"path": "a", "where": "b", "reason": "c"}


# Where images lie


def project(root: Path) -> Path:
    """A DeepLabCut project; returns the label file, two folders below its root."""
    for name in ("good.png", "b.png"):
        write(root / "labeled-data" / "v" / name, b"x")
    rows = "".join(f"labeled-data/v/{name}.png,1,2,3,4\n" for name in ("good", "missing", "b"))
    return write(root / "labeled-data" / "v" / "CollectedData.csv", HEADER + rows)


def test_images_are_found_from_the_project_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project(tmp_path)
    for source in (file, Path("CollectedData.csv")):
        monkeypatch.chdir(file.parent)
        labels = locate_images(read_labels(source))
        assert labels.files == (file.parent / "good.png", file.parent / "b.png")
        assert labels.keypoints.paths == ("labeled-data/v/good.png", "labeled-data/v/b.png")
        assert labels.where == (f"{source}, line 4", f"{source}, line 6")
        (skip,) = labels.skipped
        assert skip.image == "labeled-data/v/missing.png" and skip.where == f"{source}, line 5"
        assert skip.reason == f"no such file below {tmp_path}"


def test_the_nearest_folder_that_has_any_counts(tmp_path: Path) -> None:
    file = write(tmp_path / "a" / "b" / "c" / "d" / "l.csv", HEADER + "x.png,1,2,3,4\ny.png,1,2,3,4\n")
    write(tmp_path / "x.png", b"")  # four folders up: too far
    with pytest.raises(InputError, match=r"none of the 2 images of .*l\.csv is found, such as x\.png.*--images-root"):
        locate_images(read_labels(file))
    assert locate_images(read_labels(file), tmp_path).files == (tmp_path / "x.png",)
    write(tmp_path / "a" / "x.png", b"")
    write(tmp_path / "a" / "y.png", b"")
    write(tmp_path / "a" / "b" / "x.png", b"")
    assert locate_images(read_labels(file)).files == (tmp_path / "a" / "b" / "x.png",)
    write(file.parent / "y.png", b"")
    assert locate_images(read_labels(file)).files == (file.parent / "y.png",)
    assert locate_images(read_labels(file), tmp_path / "a").files == (
        tmp_path / "a" / "x.png",
        tmp_path / "a" / "y.png",
    )


def test_absolute_paths_and_backslashes(tmp_path: Path) -> None:
    image = write(tmp_path / "pictures" / "v" / "a.png", b"")
    file = write(tmp_path / "labels" / "l.csv", f"{HEADER}{image},1,2,3,4\n")
    assert locate_images(read_labels(file)).files == (image,)
    file = write(tmp_path / "labels" / "l.csv", f"{HEADER}pictures\\v\\a.png,1,2,3,4\n")
    labels = locate_images(read_labels(file))
    assert labels.files == (image,) and labels.keypoints.paths == ("pictures\\v\\a.png",)
    if os.sep == "/":
        exact = write(tmp_path / "pictures\\v\\a.png", b"")
        assert locate_images(read_labels(file)).files == (exact,)


def test_two_names_of_one_file_are_one_image(tmp_path: Path) -> None:
    write(tmp_path / "a.png", b"")
    write(tmp_path / "b.png", b"")
    file = write(tmp_path / "l.csv", HEADER + "a.png,1,2,3,4\nb.png,1,2,3,4\n./a.png,1,2,3,4\n")
    labels = locate_images(read_labels(file))
    assert labels.files == (tmp_path / "a.png", tmp_path / "b.png")
    assert [(s.image, "there already" in s.reason) for s in labels.skipped] == [("./a.png", True)]
    file = write(tmp_path / "l.csv", HEADER + "a.png,1,2,3,4\nb.png,1,2,3,4\n./a.png,1,2,3,5\n")
    labels = locate_images(read_labels(file))
    assert labels.files == (tmp_path / "b.png",) and len(labels.skipped) == 2


# Points in their images


def test_points_outside_take_their_image_out(tmp_path: Path) -> None:
    rows = [(-0.5, -0.5), (9.5, 4.5), (9.6, 1), (1, 4.6), (-0.6, 0), (0, -0.6)]
    text = HEADER + "".join(f"{i}.png,{x},{y},,\n" for i, (x, y) in enumerate(rows)) + "6.png,,,,\n7.png,20,2,1,30\n"
    labels = read_labels(write(tmp_path / "l.csv", text))
    inside = keep_inside(labels, [(10, 5)] * 8)
    assert inside.keypoints.paths == ("0.png", "1.png", "6.png")
    assert [skip.image for skip in inside.skipped] == ["2.png", "3.png", "4.png", "5.png", "7.png"]
    assert inside.skipped[0].reason == "outside the image, which is 10×5 px: nose at (9.6, 1)"
    assert inside.skipped[4].reason.endswith("nose at (20, 2), tail at (1, 30)")
    assert keep_inside(labels, [(100, 50)] * 8).keypoints.paths == (*labels.keypoints.paths[:4], "6.png", "7.png")
    with pytest.raises(InputError, match="expected the sizes of 8 images, got 1"):
        keep_inside(labels, [(10, 5)])
    with pytest.raises(InputError, match=r"no labels that can be used: .*line 6: 2\.png: outside .*\(and 1 more\)$"):
        keep_inside(labels.take([2, 3]), [(10, 5)] * 2)


def test_real_labels_lie_in_their_images(shared_data: Path) -> None:
    labels = locate_images(read_labels(shared_data / "mirror_mouse" / "CollectedData.csv"))
    assert len(labels) == 90 and labels.files is not None
    inside = keep_inside(labels, [(396, 406)] * 90)
    assert len(inside) == 90 and inside.skipped == ()
    assert len(keep_inside(labels, [(396, 400)] * 90)) < 90


# Several files


def test_files_are_merged_with_their_parts_in_order(tmp_path: Path) -> None:
    one = read_labels(write(tmp_path / "1.csv", HEADER + "a.png,1,2,3,4\nbad.png,x,2,3,4\n"))
    two = read_labels(write(tmp_path / "2.csv", "image,part,x,y\nb.png,tail,7,8\nb.png,nose,5,6\n"))
    merged = merge_labels([one, two])
    assert merged.keypoints.paths == ("a.png", "b.png") and merged.keypoints.parts == ("nose", "tail")
    assert merged.keypoints.xy.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert merged.where == (*one.where, *two.where) and merged.skipped == one.skipped
    assert merged.layout == one.layout and merged.source == one.source and merged.files is None
    assert merge_labels([one]).keypoints.paths == ("a.png",)


def test_a_part_in_one_file_only_is_refused(tmp_path: Path) -> None:
    one = read_labels(write(tmp_path / "1.csv", HEADER + "a.png,1,2,3,4\n"))
    two = read_labels(write(tmp_path / "2.csv", "image,part,x,y\nb.png,tail,7,8\nb.png,nose,5,6\nb.png,ear,5,6\n"))
    with pytest.raises(InputError) as caught:
        merge_labels([one, two])
    assert str(caught.value) == (
        f"the part ear is in {two.source} but not in {one.source}: expected the same parts in every file"
    )
    with pytest.raises(InputError, match="no labels to merge"):
        merge_labels([])


def test_an_image_in_several_files(tmp_path: Path) -> None:
    one = read_labels(write(tmp_path / "1.csv", HEADER + "a.png,1,2,3,4\nb.png,1,2,3,4\nc.png,1,2,,\n"))
    two = read_labels(write(tmp_path / "2.csv", HEADER + "b.png,1,2,3,9\nc.png,1,2,,\nd.png,5,5,5,5\n"))
    merged = merge_labels([one, two])
    assert merged.keypoints.paths == ("a.png", "c.png", "d.png")
    assert [(s.image, s.where) for s in merged.skipped] == [
        ("b.png", f"{one.source}, line 5"), ("b.png", f"{two.source}, line 4"), ("c.png", f"{two.source}, line 5")
    ]  # fmt: skip
    replaced = merge_labels([one, two], replace=True)
    assert replaced.keypoints.paths == ("a.png", "b.png", "c.png", "d.png") and replaced.skipped == ()
    assert replaced.keypoints.xy[1].tolist() == [[1, 2], [3, 9]] and replaced.where[1] == f"{two.source}, line 4"
    with pytest.raises(InputError, match="no labels that can be used"):
        merge_labels([one.take([1]), two.take([0])])


def test_merged_images_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for folder in ("1", "2"):
        write(tmp_path / folder / "a.png", b"")
    one = locate_images(read_labels(write(tmp_path / "1" / "l.csv", HEADER + "a.png,1,2,3,4\n")))
    two = locate_images(read_labels(write(tmp_path / "2" / "l.csv", HEADER + "a.png,1,2,3,4\n")))
    with pytest.raises(InputError, match=r"two different images are called a\.png"):
        merge_labels([one, two])
    other = locate_images(read_labels(write(tmp_path / "2" / "m.csv", HEADER + "../1/a.png,1,2,3,5\n")))
    merged = merge_labels([one, other], replace=True)
    assert merged.files == (tmp_path / "1" / "a.png",) and merged.keypoints.xy[0, 1, 1] == 5
    assert np.array_equal(merged.keypoints.xy, other.keypoints.xy)
