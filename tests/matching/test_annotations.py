"""Annotation files in and out: every number comes back, whatever the format; what belongs to no format is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.errors import InputError
from fewmatch.labels import coco, deeplabcut, points_csv
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.labels import Labels
from fewmatch.labels.layouts import FORMATS, CocoLayout, DeepLabCutLayout, Layout, PointsLayout, format_of, layout_for
from fewmatch.labels.reading import read_labels
from fewmatch.labels.writing import write_keypoints
from fewmatch.names import same_name


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def equal(found: Keypoints, expected: Keypoints) -> None:
    assert (found.paths, found.parts) == (expected.paths, expected.parts)
    assert np.array_equal(found.xy, expected.xy, equal_nan=True)
    assert np.array_equal(found.visible, expected.visible)
    assert np.array_equal(found.score, expected.score, equal_nan=True)


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and name.lower() not in ("nan", "na", "null", "none")
)
# Any float that a file can hold; places of absent parts are NaN, and only those.
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
Raw = tuple[Any, ...]


@st.composite
def raw_keypoints(draw: st.DrawFn, *, hidden: bool, scores: bool, numbers: st.SearchStrategy[float] = NUMBERS) -> Raw:
    """What `Keypoints` is made of: not itself, because checks of its types draw random numbers, which a strategy must not."""
    paths = draw(st.lists(st.lists(NAMES, min_size=1, max_size=5).map("/".join), min_size=1, max_size=4, unique=True))
    parts = draw(st.lists(NAMES, min_size=1, max_size=3, unique_by=same_name))
    n, p = len(paths), len(parts)
    places = draw(st.lists(st.none() | st.tuples(numbers, numbers), min_size=n * p, max_size=n * p))
    xy = np.array([(np.nan, np.nan) if place is None else place for place in places], float).reshape(n, p, 2)
    visible = np.isfinite(xy).all(axis=2)
    if hidden:
        visible &= np.array(draw(st.lists(st.booleans(), min_size=n * p, max_size=n * p))).reshape(n, p)
    score = np.full((n, p), np.nan)
    if scores:
        drawn = draw(st.lists(st.none() | numbers, min_size=n * p, max_size=n * p))
        score = np.array([np.nan if value is None else value for value in drawn], float).reshape(n, p)
    return tuple(paths), tuple(parts), xy, visible, score, tuple((i, (i + 1) % p) for i in range(p - 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round-trip")


# Round trips


@settings(max_examples=12, deadline=None)
@given(st.data())
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("scores", [False, True])
def test_deeplabcut_gives_every_number_back(folder: Path, columns: int, scores: bool, data: st.DataObject) -> None:
    points = Keypoints(*data.draw(raw_keypoints(hidden=False, scores=scores)))
    layout = DeepLabCutLayout("Rick, the “scorer”", 3 if columns == 3 else 1, likelihood=scores)
    found = read_labels(write_keypoints(folder / "dlc.csv", points, layout))
    equal(found.keypoints, points)
    assert found.layout == layout and found.skipped == ()


@settings(max_examples=25, deadline=None)
@given(
    raw_keypoints(hidden=True, scores=True, numbers=st.floats(-1e100, 1e100))
)  # whose boxes have areas within float64
def test_coco_gives_every_number_back(folder: Path, raw: Raw) -> None:
    points = Keypoints(*raw)
    path = write_keypoints(folder / "coco.json", points, CocoLayout(), sizes=[(10, 20)] * len(points))
    found = read_labels(path)
    equal(found.keypoints, points)
    assert found.keypoints.skeleton == points.skeleton and found.skipped == ()
    assert read_labels(write_keypoints(folder / "again.json", found.keypoints, found.layout)).layout == found.layout
    assert json.loads((folder / "again.json").read_text()) == json.loads(path.read_text())


@settings(max_examples=12, deadline=None)
@given(st.data())
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_simple_csv_gives_every_number_back(folder: Path, delimiter: str, data: st.DataObject) -> None:
    points = Keypoints(*data.draw(raw_keypoints(hidden=True, scores=data.draw(st.booleans()))))
    found = read_labels(write_keypoints(folder / "points.csv", points, PointsLayout(delimiter)))
    equal(found.keypoints, points)
    assert found.layout == PointsLayout(delimiter) and found.skipped == ()


def test_labels_of_real_frames_come_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "mirror_mouse" / "CollectedData.csv"
    labels = read_labels(source)
    assert len(labels) == 90 and len(labels.keypoints.parts) == 17 and labels.skipped == ()
    assert labels.layout == DeepLabCutLayout("rick", 1, likelihood=False)
    assert labels.keypoints.paths[0] == "labeled-data/img01.png" and labels.where[0] == f"{source}, line 4"
    assert np.array_equal(labels.keypoints.xy[0, 1], [253.5, 101.900392541708])
    assert not labels.keypoints.visible[0, 4] and labels.labelled.all()
    written = write_keypoints(tmp_path / "again.csv", labels.keypoints, labels.layout)
    assert written.read_bytes() == source.read_bytes()
    for name in FORMATS:
        path = write_keypoints(tmp_path / name, labels.keypoints, layout_for(name, labels.layout))
        equal(read_labels(path).keypoints, labels.keypoints)


def test_pandas_reads_what_is_written_as_deeplabcut_does(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    points = Keypoints(
        ("labeled-data/v/a.png", "labeled-data/v/b.png"),
        ("nose", "tail"),
        np.array([[[1.5, 2.25], [np.nan, np.nan]], [[0.1, 1e-9], [3, 4]]]),
        np.array([[True, False], [True, True]]),
        np.full((2, 2), np.nan),
    )
    path = write_keypoints(tmp_path / "l.csv", points, DeepLabCutLayout("ann", 3))
    frame = pandas.read_csv(path, header=[0, 1, 2], index_col=[0, 1, 2])
    assert list(frame.columns) == [("ann", part, c) for part in points.parts for c in "xy"]
    assert list(frame.index) == [tuple(path.split("/")) for path in points.paths]
    assert np.array_equal(frame.to_numpy().reshape(2, 2, 2), points.xy, equal_nan=True)


# Conventions


@pytest.mark.parametrize("module", [deeplabcut, coco, points_csv])
def test_every_format_counts_from_0_at_the_centre_of_pixels(module: object) -> None:
    assert (module.ORIGIN, module.CENTRE) == (0, 0.0)  # type: ignore[attr-defined]
    assert (coco.BOX_ORIGIN, coco.BOX_CENTRE) == (0, 0.5)


@pytest.mark.parametrize(("module", "name"), [(deeplabcut, "deeplabcut"), (coco, "coco"), (points_csv, "csv")])
def test_the_constants_are_what_readers_and_writers_use(
    module: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that counts from 1 and has its centres at halves names the first pixel's centre 1.5."""
    xy = np.array([[[0.0, 2.0]]])
    points = Keypoints(("a.png",), ("nose",), xy, np.ones((1, 1), bool), np.full((1, 1), np.nan))
    path = write_keypoints(tmp_path / "l", points, layout_for(name))  # type: ignore[arg-type]
    monkeypatch.setattr(module, "ORIGIN", 1)
    monkeypatch.setattr(module, "CENTRE", 0.5)
    assert np.array_equal(read_labels(path).keypoints.xy, xy - 1.5)
    equal(read_labels(write_keypoints(tmp_path / "m", points, layout_for(name))).keypoints, points)  # type: ignore[arg-type]
    assert "1.5" in (tmp_path / "m").read_text() and "3.5" in (tmp_path / "m").read_text()


def test_layouts_by_name() -> None:
    assert [format_of(layout_for(name)) for name in FORMATS] == list(FORMATS)
    mine: Layout = PointsLayout(";")
    assert layout_for("csv", mine) is mine
    assert layout_for("coco", mine) == CocoLayout() and layout_for("csv") == PointsLayout(",")


# DeepLabCut

HEADER = "scorer,ann,ann,ann,ann\nbodyparts,nose,nose,tail,tail\ncoords,x,y,x,y\n"
HEADER_3 = "scorer,,,ann,ann\nbodyparts,,,nose,nose\ncoords,,,x,y\n"


def test_paths_in_one_column_and_in_three(tmp_path: Path) -> None:
    one = read_labels(write(tmp_path / "1.csv", HEADER + "labeled-data/v/a.png,1,2,3,4\n"))
    assert one.keypoints.paths == ("labeled-data/v/a.png",) and one.layout == DeepLabCutLayout("ann", 1)
    three = read_labels(write(tmp_path / "3.csv", HEADER_3 + "labeled-data,v,a.png,1,2\n,,b.png,3,4\n"))
    assert three.keypoints.paths == ("labeled-data/v/a.png", "b.png") and three.layout == DeepLabCutLayout("ann", 3)


@pytest.mark.parametrize(
    "path", ["a.png", "v/a.png", "l/v/a.png", "x/y/l/v/a.png", "/v/a.png", "/a.png", "/l/v/a.png", "a//b"]
)
def test_every_path_fits_into_three_columns(tmp_path: Path, path: str) -> None:
    points = Keypoints((path,), ("nose",), np.ones((1, 1, 2)), np.ones((1, 1), bool), np.full((1, 1), np.nan))
    text = deeplabcut.deeplabcut_text(points, DeepLabCutLayout(path_columns=3))
    assert text.splitlines()[3].count(",") == 4
    assert read_labels(write(tmp_path / "l.csv", text)).keypoints.paths == (path,)


def test_empty_cells_are_absent_parts(tmp_path: Path) -> None:
    text = HEADER + "a.png,1.5,2,,\nb.png,,,,\nc.png,nan,NaN,0,-1e-3\n"
    points = read_labels(write(tmp_path / "l.csv", text)).keypoints
    assert np.array_equal(
        points.xy, [[[1.5, 2], [np.nan] * 2], [[np.nan] * 2] * 2, [[np.nan] * 2, [0, -0.001]]], equal_nan=True
    )
    assert points.visible.tolist() == [[True, False], [False, False], [False, True]]
    assert np.isnan(points.score).all()
    assert read_labels(tmp_path / "l.csv").labelled.tolist() == [True, False, True]


def test_predictions_have_likelihoods(tmp_path: Path) -> None:
    """As Lightning Pose writes them, with a last column that is of no part."""
    text = (
        "scorer,net,net,net,net,net,net,set\nbodyparts,nose,nose,nose,tail,tail,tail,\n"
        "coords,x,y,likelihood,x,y,likelihood,\na.png,1,2,0.75,,,0.25,train\n"
    )
    labels = read_labels(write(tmp_path / "p.csv", text))
    assert labels.keypoints.parts == ("nose", "tail")
    assert labels.keypoints.score.tolist() == [[0.75, 0.25]] and labels.keypoints.visible.tolist() == [[True, False]]
    assert labels.layout == DeepLabCutLayout("net", 1, likelihood=True)


def test_without_likelihood_what_is_not_visible_is_empty(tmp_path: Path) -> None:
    points = Keypoints(
        ("a.png",),
        ("nose", "tail"),
        np.arange(4.0).reshape(1, 2, 2),
        np.array([[False, True]]),
        np.array([[0.25, 0.5]]),
    )
    assert deeplabcut.deeplabcut_text(points).splitlines()[3] == "a.png,0.0,1.0,0.25,2.0,3.0,0.5"
    assert deeplabcut.deeplabcut_text(points, likelihood=False).splitlines()[3] == "a.png,,,2.0,3.0"
    marked = Keypoints(points.paths, points.parts, points.xy, points.visible, np.full((1, 2), np.nan))
    assert deeplabcut.deeplabcut_text(marked).splitlines()[3] == "a.png,,,2.0,3.0"
    assert deeplabcut.deeplabcut_text(marked, likelihood=True).splitlines()[3] == "a.png,0.0,1.0,,2.0,3.0,"


# COCO


def coco_file(**changes: object) -> dict[str, object]:
    return {
        "info": {"year": 2020},
        "licenses": [],
        "images": [
            {"id": 7, "file_name": "a.png", "width": 30, "height": 20, "license": 3},
            {"id": 9, "file_name": "b.png", "width": 31, "height": 21},
        ],
        "annotations": [
            {
                "id": 70, "image_id": 7, "category_id": 5, "keypoints": [1, 2, 2, 3.5, 4, 1, 0, 0, 0],
                "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0, "num_keypoints": 2, "segmentation": [[1, 2]],
            }
        ],
        "categories": [
            {"id": 4, "name": "box"},
            {"id": 5, "name": "mouse", "supercategory": "animal", "keypoints": ["nose", "tail", "paw"], "skeleton": [[1, 2], [3, 1]]},
        ],
    } | changes  # fmt: skip


def read_json(tmp_path: Path, content: object) -> Labels:
    return read_labels(write(tmp_path / "l.json", json.dumps(content)))


def test_coco_visibility_and_skeleton(tmp_path: Path) -> None:
    labels = read_json(tmp_path, coco_file())
    points = labels.keypoints
    assert points.paths == ("a.png", "b.png") and points.parts == ("nose", "tail", "paw")
    nothing = [np.nan, np.nan]
    assert np.array_equal(points.xy, [[[1, 2], [3.5, 4], nothing], [nothing] * 3], equal_nan=True)
    assert points.visible.tolist() == [[True, False, False], [False] * 3]
    assert points.skeleton == ((0, 1), (2, 0)) and np.isnan(points.score).all()
    assert labels.labelled.tolist() == [True, False]
    from_zero = coco_file(
        categories=[{"id": 5, "name": "m", "keypoints": ["nose", "tail", "paw"], "skeleton": [[0, 2]]}]
    )
    assert read_json(tmp_path, from_zero).keypoints.skeleton == ((0, 2),)


def test_coco_ids_and_everything_else_come_back(tmp_path: Path) -> None:
    content = coco_file()
    labels = read_json(tmp_path, content)
    again = json.loads(coco.coco_text(labels.keypoints, labels.layout))  # type: ignore[arg-type]
    assert again["images"] == content["images"] and again["annotations"] == content["annotations"]
    assert again["categories"] == content["categories"][1:] and again["info"] == content["info"]  # type: ignore[index]


def test_coco_counts_new_ids_on(tmp_path: Path) -> None:
    labels = read_json(tmp_path, coco_file())
    points = Keypoints(
        ("new.png", "b.png", "a.png", "none.png"),
        labels.keypoints.parts,
        np.array([[[4.0, 6.0], [7.5, 5.0], [np.nan] * 2]] * 3 + [[[np.nan] * 2] * 3]),
        np.array([[True, False, False]] * 3 + [[False] * 3]),
        np.array([[0.5, 0.25, 0.75]] + [[np.nan] * 3] * 3),
    )
    content = json.loads(coco.coco_text(points, labels.layout, sizes=[(5, 6), (31, 21), (30, 20), (1, 1)]))  # type: ignore[arg-type]
    assert [(image["id"], image["file_name"], image["width"]) for image in content["images"]] == [
        (10, "new.png", 5), (9, "b.png", 31), (7, "a.png", 30), (11, "none.png", 1)
    ]  # fmt: skip
    new, of_b, of_a = content["annotations"]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in (new, of_b, of_a)] == [
        (71, 10, 5),
        (72, 9, 5),
        (70, 7, 5),
    ]
    assert new["keypoints"] == [4, 6, 2, 7.5, 5, 1, 0, 0, 0] and new["num_keypoints"] == 2
    assert new["keypoint_scores"] == [0.5, 0.25, 0.75] and new["score"] == 0.375  # of those with a place
    assert "score" not in of_b and "keypoint_scores" not in of_b
    assert new["bbox"] == [4, 5, 4.5, 2] and new["area"] == 9  # from half a pixel before to half a pixel behind
    assert of_a["bbox"] == [0, 0, 9, 9] and of_a["segmentation"] == [[1, 2]]  # as people drew it
    assert content["info"] == {"year": 2020}


def test_a_box_that_was_made_of_the_points_moves_with_them(tmp_path: Path) -> None:
    def points(x: float, score: float) -> Keypoints:
        return Keypoints(("a",), ("nose",), np.array([[[x, 0.0]]]), np.ones((1, 1), bool), np.array([[score]]))

    first = read_labels(write_keypoints(tmp_path / "1.json", points(3, 0.5), CocoLayout()))
    second = json.loads(write_keypoints(tmp_path / "2.json", points(8, np.nan), first.layout).read_text())
    (annotation,) = second["annotations"]
    assert annotation["bbox"] == [8, 0, 1, 1] and annotation["id"] == 1
    assert "score" not in annotation and "keypoint_scores" not in annotation


def test_an_id_of_0_is_an_id(tmp_path: Path) -> None:
    content = json.loads(
        json.dumps(coco_file()).replace('"id": 7,', '"id": 0,').replace('"image_id": 7', '"image_id": "0"')
    )
    labels = read_json(tmp_path, content)
    assert labels.keypoints.placed[0].any()  # and a string is the same id as a number
    assert json.loads(coco.coco_text(labels.keypoints, labels.layout))["images"][0]["id"] == 0  # type: ignore[arg-type]


def test_one_object_among_empty_ones_and_other_kinds_counts(tmp_path: Path) -> None:
    content = coco_file()
    content["annotations"] += [  # type: ignore[operator]
        {"id": 71, "image_id": 7, "category_id": 5, "keypoints": [0] * 9},
        {"id": 72, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]},
    ]
    labels = read_json(tmp_path, content)
    assert labels.keypoints.visible[0].tolist() == [True, False, False] and labels.skipped == ()


def test_nan_in_json_is_nothing(tmp_path: Path) -> None:
    text = json.dumps(coco_file()).replace("0, 0, 0]", "NaN, NaN, 0]").replace("81", "Infinity")
    labels = read_labels(write(tmp_path / "l.json", text))
    assert labels.keypoints.placed.tolist() == [[True, True, False], [False] * 3]
    assert "NaN" not in coco.coco_text(labels.keypoints, labels.layout)  # type: ignore[arg-type]


# The simple CSV


def test_points_in_any_order_of_lines_and_columns(tmp_path: Path) -> None:
    text = "Part, y ,x,image,colour,visible\nnose,2,1,b.png,red,\ntail,4,3,a.png,,0\nnose,,,a.png,,\nnose,6,5,c.png,,TRUE\n"
    points = read_labels(write(tmp_path / "l.csv", text)).keypoints
    assert points.paths == ("b.png", "a.png", "c.png") and points.parts == ("nose", "tail")
    nothing = [np.nan, np.nan]
    assert np.array_equal(points.xy, [[[1, 2], nothing], [nothing, [3, 4]], [[5, 6], nothing]], equal_nan=True)
    assert points.visible.tolist() == [[True, False], [False, False], [True, False]]


def test_what_is_written_is_plain(tmp_path: Path) -> None:
    xy = np.array([[[1.5, 2], [np.nan, 4.0]]])
    points = Keypoints(("a,b.png",), ("nose", "tail"), xy, np.array([[True, False]]), np.array([[np.nan, 0.25]]))
    assert points_csv.points_text(points).splitlines() == [
        "image,part,x,y,score,visible", '"a,b.png",nose,1.5,2.0,,1', '"a,b.png",tail,,,0.25,0'
    ]  # fmt: skip
    unscored = Keypoints(points.paths, points.parts, xy, points.visible, np.full((1, 2), np.nan))
    assert points_csv.points_text(unscored).splitlines()[0] == "image,part,x,y,visible"


# Any format


@pytest.mark.parametrize(
    "change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n , ,\n", lambda t: "\n" + t]
)
def test_marks_line_ends_and_empty_lines_do_not_matter(tmp_path: Path, change: object) -> None:
    for name, text in (
        ("dlc.csv", HEADER + "a.png,1,2,3,4\n"),
        ("points.csv", "image,part,x,y\na.png,nose,1,2\na.png,tail,3,4\n"),
    ):
        points = read_labels(write(tmp_path / name, change(text))).keypoints  # type: ignore[operator]
        assert points.xy.tolist() == [[[1, 2], [3, 4]]] and points.paths == ("a.png",)
    text = json.dumps(coco_file(), indent=1)
    assert len(read_labels(write(tmp_path / "c.txt", "\ufeff" + text.replace("\n", "\r\n")))) == 2


def test_writing_nothing_is_refused_and_leaves_what_was_there(tmp_path: Path) -> None:
    empty = Keypoints((), ("nose",), np.zeros((0, 1, 2)), np.zeros((0, 1), bool), np.zeros((0, 1)))
    write(tmp_path / "l.csv", "old")
    with pytest.raises(InputError, match=r"nothing to write to .*l\.csv"):
        write_keypoints(tmp_path / "l.csv", empty, PointsLayout())
    assert (tmp_path / "l.csv").read_text() == "old"
    one = Keypoints(("a",), ("nose",), np.ones((1, 1, 2)), np.ones((1, 1), bool), np.ones((1, 1)))
    with pytest.raises(InputError, match="expected the sizes of 1 images, got 2"):
        write_keypoints(tmp_path / "l.csv", one, CocoLayout(), sizes=[(1, 2), (3, 4)])
    assert list(tmp_path.iterdir()) == [tmp_path / "l.csv"]
