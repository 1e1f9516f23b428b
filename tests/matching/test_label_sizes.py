"""Sizes that files of labels state are compared with the images; what is to be seen of COCO's v; and that empty is not absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmatch.encoders.images import image_size, read_image
from fewmatch.errors import ImageError, InputError
from fewmatch.labels.image_sizes import size_difference
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import Labels
from fewmatch.labels.merging import merge_labels
from fewmatch.labels.reading import read_labels
from fewmatch.labels.writing import write_keypoints
from fewmatch.matching.keypoints.locating import compare_sizes, locate_images

EXIF_ORIENTATION = 274
NAN = np.nan


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def draw(path: Path, width: int, height: int, orientation: int = 1) -> Path:
    """An image file of this size as stored, before it is turned."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(width * height * 3).reshape(height, width, 3) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)
    return path


def coco(sizes: dict[str, tuple[Any, Any]], points: dict[str, list[float]], **changes: Any) -> dict[str, Any]:
    """A file with the parts nose and tail."""
    names = list(sizes)
    return {
        "images": [{"id": i, "file_name": n, "width": sizes[n][0], "height": sizes[n][1]} for i, n in enumerate(names)],
        "annotations": [
            {
                "id": 10 + names.index(n),
                "image_id": names.index(n),
                "category_id": 1,
                "keypoints": p,
                "bbox": [1, 2, 3, 4],
            }
            for n, p in points.items()
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": ["nose", "tail"]}],
    } | changes


# The size of a file


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_the_size_in_a_header_is_the_one_that_is_decoded(tmp_path: Path, kind: str, orientation: int) -> None:
    path = draw(tmp_path / f"a.{kind}", 12, 7, orientation)
    height, width = read_image(path).rgb.shape[:2]
    assert image_size(path) == (width, height) == ((7, 12) if orientation > 4 else (12, 7))


def test_sizes_of_other_files(tmp_path: Path) -> None:
    for mode, name in (("I;16", "deep.tif"), ("I;16", "deep.png"), ("L", "grey.pgm"), ("RGB", "a.bmp"), ("L", "a.gif")):
        Image.new(mode, (9, 4)).save(tmp_path / name)
        assert image_size(tmp_path / name) == (9, 4)
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(8)):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ImageError):
            image_size(tmp_path / "bad.png")
    for missing in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(ImageError, match="not a regular file"):
            image_size(missing)


# Comparing


@pytest.mark.parametrize(
    ("stated", "actual", "kind", "factor"),
    [
        ((320, 240), (640, 480), "factor", 2),
        ((1280, 960), (640, 480), "factor", 0.5),
        ((500, 334), (1001, 667), "factor", 2),  # halves, rounded up
        ((500, 333), (1001, 667), "factor", 2),  # and down
        ((1002, 667), (3006, 2001), "factor", 3),
        ((480, 640), (640, 480), "swapped", 1),
        ((240, 320), (640, 480), "swapped", 2),
        ((240, 242), (242, 240), "swapped", 1),
        ((640, 480), (640, 360), "other", NAN),
        ((640, 480), (641, 480), "other", NAN),
        ((640, 480), (642, 482), "other", NAN),
        ((320, 240), (640, 500), "other", NAN),
    ],
)
def test_how_sizes_differ(stated: tuple[int, int], actual: tuple[int, int], kind: str, factor: float) -> None:
    found = size_difference(stated, actual)
    assert found is not None and found.kind == kind
    assert found.factor == pytest.approx(factor, rel=2e-3, nan_ok=True)
    for size in (stated, actual):
        assert f"{size[0]}×{size[1]} px" in str(found)
    assert ("EXIF" in str(found)) == (kind == "swapped")


def test_equal_sizes_do_not_differ() -> None:
    assert size_difference((3, 4), (3, 4)) is None


@pytest.fixture
def halved(tmp_path: Path) -> Path:
    """Labels made on images of half the size, on the right size, on a cropped one, and without EXIF."""
    for name in ("half", "same", "crop", "empty"):
        draw(tmp_path / f"{name}.png", 40, 30)
    draw(tmp_path / "turned.jpg", 40, 30, orientation=6)
    draw(tmp_path / "upright.jpg", 40, 30, orientation=6)
    sizes = {
        "half.png": (20, 15), "same.png": (40.0, 30), "crop.png": (40, 20), "turned.jpg": (40, 30), "upright.jpg": (30, 40),
        "empty.png": (20, 15),
    }  # fmt: skip
    marked: list[float] = [9, 6, 2, 0, 14, 1]
    return write(tmp_path / "labels.json", coco(sizes, {name: marked for name in sizes if name != "empty.png"}))


def test_images_of_another_size_are_skipped_with_the_reason(halved: Path) -> None:
    labels = locate_images(read_labels(halved))
    assert labels.keypoints.paths == ("same.png", "upright.jpg", "empty.png") and labels.notes == ()
    assert np.array_equal(labels.keypoints.xy[0], [[9, 6], [0, 14]])
    reasons = {skip.image: skip.reason for skip in labels.skipped}
    assert set(reasons) == {"half.png", "crop.png", "turned.jpg"}
    assert "20×15" in reasons["half.png"] and "40×30" in reasons["half.png"]
    assert "2 times" in reasons["half.png"] and "--rescale-labels" in reasons["half.png"]
    assert "EXIF" in reasons["turned.jpg"] and "--rescale-labels" not in reasons["turned.jpg"]
    assert "--rescale-labels" not in reasons["crop.png"] and "crop" in reasons["crop.png"]


def test_a_factor_is_applied_where_that_is_wanted(halved: Path, tmp_path: Path) -> None:
    labels = locate_images(read_labels(halved), rescale=True)
    assert labels.keypoints.paths == ("half.png", "same.png", "upright.jpg", "empty.png")
    # The centre of pixel 9 is 9.5 from the left edge; of the doubled image that is 19, where pixels 18 and 19 meet.
    assert np.array_equal(labels.keypoints.xy[0], [[18.5, 12.5], [0.5, 28.5]])
    assert np.array_equal(labels.keypoints.xy[1], [[9, 6], [0, 14]])
    (note,) = labels.notes
    assert "1 image" in note and "20×15" in note and "2 times" in note
    assert {skip.image for skip in labels.skipped} == {"crop.png", "turned.jpg"}
    # What is written has the new size and no box of the old one, so that nothing is moved twice.
    written = write_keypoints(tmp_path / "again.json", labels.keypoints, labels.layout)
    again = locate_images(read_labels(written), rescale=True)
    assert np.array_equal(again.keypoints.xy[:3], labels.keypoints.xy[:3]) and again.notes == () and again.skipped == ()
    boxes = {a["image_id"]: a["bbox"] for a in json.loads(written.read_text())["annotations"]}
    assert boxes == {0: [0.5, 12.5, 19.0, 17.0], 1: [1, 2, 3, 4], 4: [1, 2, 3, 4]}


def test_sides_are_scaled_by_their_own_ratio(tmp_path: Path) -> None:
    """A third of 100 × 50 is 33 × 17 pixels, whose edges are the edges of the image all the same."""
    draw(tmp_path / "a.png", 100, 50)
    path = write(tmp_path / "l.json", coco({"a.png": (33, 17)}, {"a.png": [-0.5, -0.5, 2, 32.5, 16.5, 2]}))
    found = locate_images(read_labels(path), rescale=True).keypoints.xy
    np.testing.assert_allclose(found[0], [[-0.5, -0.5], [99.5, 49.5]], atol=1e-12)


def test_where_no_image_is_left_the_reason_is_the_error(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 40, 30)
    path = write(tmp_path / "l.json", coco({"a.png": (20, 15)}, {"a.png": [9, 6, 2, 0, 14, 2]}))
    with pytest.raises(InputError, match=r"20×15 px, but the image has 40×30 px.*2 times.*--rescale-labels"):
        locate_images(read_labels(path))


def test_sizes_that_are_not_known_or_no_sizes(tmp_path: Path) -> None:
    sizes = {"a.png": (None, 15), "b.png": (0, 0), "c.png": ("20", 15), "d.png": (20, -1), "e.png": (2.5, 3)}
    labels = read_labels(write(tmp_path / "l.json", coco(sizes, {name: [1, 1, 2, 2, 2, 2] for name in sizes})))
    assert labels.sizes == (None, None) and labels.keypoints.paths == ("a.png", "b.png")
    assert [skip.image for skip in labels.skipped] == ["c.png", "d.png", "e.png"]
    assert all("width and height" in skip.reason for skip in labels.skipped)
    assert compare_sizes(labels, [(1, 1), (2, 2)]) is labels
    with pytest.raises(InputError, match="sizes of 2 images"):
        compare_sizes(labels, [])


# What v says


def visible(path: Path, **options: Any) -> list[list[bool]]:
    return read_labels(path, **options).keypoints.visible.tolist()


def test_v_1_is_visible_where_there_is_no_2(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("a.png", "b.png"), (9, 9))
    ones = write(tmp_path / "1.json", coco(sizes, {"a.png": [3, 4, 1, 0, 0, 0], "b.png": [1, 2, 1.0, 3, 4, 1]}))
    assert visible(ones) == [[True, False], [True, True]]
    (note,) = read_labels(ones).notes
    assert "v is 1" in note and "--visible 2" in note
    assert visible(ones, visible=2) == [[False] * 2] * 2 and read_labels(ones, visible=2).notes == ()
    assert np.isfinite(read_labels(ones, visible=2).keypoints.xy[1]).all()
    both = write(tmp_path / "2.json", coco(sizes, {"a.png": [3, 4, 2, 0, 0, 0], "b.png": [1, 2, 1, 3, 4, 1]}))
    assert visible(both) == [[True, False], [False, False]] and read_labels(both).notes == ()
    assert visible(both, visible=1) == [[True, False], [True, True]]
    none = write(tmp_path / "0.json", coco(sizes, {"a.png": [0, 0, 0, 0, 0, 0]}))
    assert visible(none) == [[False] * 2] * 2 and read_labels(none).notes == ()


def test_v_of_real_files(shared_data: Path) -> None:
    folder = shared_data / "formats"
    truth = json.loads((folder / "truth.json").read_text())["files"]
    for name, ones in (
        ("coco/visibility_0_and_1.json", True),
        ("coco/zebra_float_v2.json", False),
        ("coco/fly_32_points.json", False),
        ("coco/nested_paths.json", False),
    ):
        labels = read_labels(folder / name)
        values = [a["keypoints"][2::3] for a in json.loads((folder / name).read_text())["annotations"]]
        assert labels.keypoints.visible.tolist() == [[v > 0 for v in row] for row in values], name
        assert bool(labels.notes) == ones and name in truth


def test_hidden_points_that_are_written_stay_hidden(tmp_path: Path) -> None:
    """A file of ours in which nothing is visible has no v = 2 either."""
    hidden = Keypoints(
        ("a.png",), ("nose", "tail"), np.array([[[1.0, 2], [NAN, NAN]]]), np.zeros((1, 2), bool), np.full((1, 2), NAN)
    )
    labels = read_labels(write(tmp_path / "l.json", coco({"a.png": (9, 9)}, {"a.png": [1, 2, 1, 3, 4, 1]})), visible=2)
    written = write_keypoints(tmp_path / "out.json", hidden, labels.layout)
    assert visible(written) == [[False, False]] and read_labels(written).notes == ()
    assert visible(written, visible=1) == [[True, False]]


# Empty is not absent

DLC = "scorer,ann,ann,ann,ann\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a/b.png", "a/c.png"):
        draw(tmp_path / name, 40, 30)
    return tmp_path


@pytest.mark.parametrize("order", [("a/b.png", "a\\b.png"), ("a\\b.png", "a/b.png"), ("a/b.png", "a/b.png")])
@pytest.mark.parametrize("filled_first", [True, False])
def test_an_empty_row_yields_to_a_filled_one(images: Path, order: tuple[str, str], filled_first: bool) -> None:
    cells = ["1,2,,", ",,,"] if filled_first else [",,,", "1,2,,"]
    rows = [f"{name},{values}\n" for name, values in zip(order, cells, strict=True)]
    labels = locate_images(read_labels(write(images / "l.csv", DLC + "".join(rows) + "a/c.png,3,4,5,6\n")))
    assert labels.skipped == () and len(labels) == 2 and len(labels.notes) == 1
    row = labels.keypoints.paths.index(order[0 if filled_first else 1])
    assert np.array_equal(labels.keypoints.xy[row], [[1, 2], [NAN, NAN]], equal_nan=True)
    assert f"line {5 if filled_first else 4}" in labels.notes[0]


def test_two_filled_rows_still_contradict_each_other(images: Path) -> None:
    text = DLC + "a/b.png,1,2,,\na\\b.png,1,3,,\na/b.png,,,,\na/c.png,3,4,5,6\n"
    labels = locate_images(read_labels(write(images / "l.csv", text)))
    assert labels.keypoints.paths == ("a/c.png",) and len(labels.skipped) == 2
    assert all("not the same" in skip.reason for skip in labels.skipped) and len(labels.notes) == 1
    same = locate_images(read_labels(write(images / "l.csv", DLC + "a/b.png,1,2,,\na\\b.png,1,2,,\n")))
    assert len(same) == 1 and "there already" in same.skipped[0].reason


def points(images: Path, lines: str, name: str = "l.csv", header: str = "image,part,x,y,visible") -> Labels:
    return locate_images(read_labels(write(images / name, f"{header}\n{lines}")))


def test_lines_of_points_that_say_nothing_yield(images: Path) -> None:
    labels = points(images, "a/b.png,nose,,,\na/b.png,nose,1,2,\na/b.png,tail,,,0\n")
    assert labels.skipped == () and len(labels.notes) == 1 and "nose of a/b.png" in labels.notes[0]
    assert np.array_equal(labels.keypoints.xy[0], [[1, 2], [NAN, NAN]], equal_nan=True)
    # Who says that the part is not visible does contradict.
    with pytest.raises(InputError, match="not the same"):
        points(images, "a/b.png,nose,,,0\na/b.png,nose,1,2,\n")


def test_all_parts_absent_is_a_label_and_no_entry_is_none(images: Path) -> None:
    said = points(images, "a/b.png,nose,,,0\na/b.png,tail,,,0\na/c.png,nose,,,\na/c.png,tail,,,\n")
    assert said.labelled.tolist() == [True, False] and not said.keypoints.visible.any()
    again = locate_images(read_labels(write_keypoints(images / "again.csv", said.keypoints, said.layout)))
    assert again.labelled.tolist() == [True, False]
    assert said.keypoints.take([1, 0]).labelled.tolist() == [False, True]
    assert said.keypoints.for_images([None, 0], ["x", "y"]).labelled.tolist() == [False, True]
    assert said.keypoints.in_order(["tail", "nose"]).labelled.tolist() == [True, False]


def test_corrections_that_say_nothing_replace_nothing(images: Path) -> None:
    first = points(images, "a/b.png,nose,1,2,\na/b.png,tail,3,4,\na/c.png,nose,5,6,\n")
    absent = points(images, "a/b.png,nose,,,0\na/b.png,tail,,,0\n", "absent.csv")
    empty = locate_images(read_labels(write(images / "empty.csv", DLC + "a/b.png,,,,\n")))
    kept = merge_labels([first, empty], replace=True)
    assert np.array_equal(kept.keypoints.xy[0], [[1, 2], [3, 4]]) and len(kept.notes) == 1 and kept.skipped == ()
    gone = merge_labels([first, absent, empty], replace=True)
    assert gone.keypoints.paths == first.keypoints.paths and gone.labelled.tolist() == [True, True]
    assert not gone.keypoints.placed[0].any() and gone.where[0].startswith(str(images / "absent.csv"))
    assert merge_labels([empty, first]).keypoints.placed.sum() == 3  # without `replace` too


# Where images lie


def test_the_root_that_paths_begin_in(images: Path) -> None:
    path = write(images / "labels" / "deep" / "l.csv", DLC + "a/b.png,1,2,,\n")
    labels = locate_images(read_labels(path))
    assert labels.root == images and labels.files == (images / "a" / "b.png",)
    whole = write(images / "whole.csv", DLC + f"{images / 'a' / 'b.png'},1,2,,\n")
    assert locate_images(read_labels(whole)).root is None
    far = write(images / "1" / "2" / "3" / "4" / "5" / "l.csv", DLC + "a/b.png,1,2,,\n")
    with pytest.raises(InputError, match="--images-root"):
        locate_images(read_labels(far))
    assert locate_images(read_labels(far), other=images).files == (images / "a" / "b.png",)


def test_names_are_compared_composed(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    draw(tmp_path / decomposed / f"{decomposed}.png", 9, 9)
    header = f"scorer,x,x,x,x\nbodyparts,{composed},{decomposed},tail,tail\ncoords,x,y,x,y\n"
    labels = locate_images(read_labels(write(tmp_path / "l.csv", f"{header}{composed}/{composed}.png,1,2,3,4\n")))
    assert labels.keypoints.parts == (composed, "tail") and labels.keypoints.paths == (f"{composed}/{composed}.png",)
    assert labels.files == (tmp_path / decomposed / f"{decomposed}.png",)
    other = points(
        tmp_path, f"{decomposed}/{decomposed}.png,{decomposed},7,8,\n{decomposed}/{decomposed}.png,tail,,,0\n", "o.csv"
    )
    merged = merge_labels([labels, other], replace=True)
    assert np.array_equal(merged.keypoints.xy[0], [[7, 8], [NAN, NAN]], equal_nan=True) and len(merged) == 1
    lines = points(
        tmp_path, f"{decomposed}/{decomposed}.png,{composed},1,1,\n{decomposed}/{decomposed}.png,{decomposed},1,1,\n"
    )
    assert lines.keypoints.parts == (composed,) and "there already" in lines.skipped[0].reason
    content = coco({"a.png": (9, 9)}, {"a.png": [1, 2, 2, 3, 4, 2]})
    content["categories"][0]["keypoints"] = [composed, decomposed]
    with pytest.raises(InputError, match="twice"):
        read_labels(write(tmp_path / "twice.json", content))
    ordered = labels.keypoints.in_order(["tail", decomposed])
    assert ordered.parts == ("tail", decomposed) and np.array_equal(ordered.xy[0], [[3, 4], [1, 2]])
