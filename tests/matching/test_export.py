"""Matches for other programs: every number comes back, whatever is known of a pair, and OpenCV draws what it gets."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.encoders import Frame
from fewmatch.errors import InputError
from fewmatch.matching import Matches
from fewmatch.matching.export import (
    ImagePair,
    matches_csv,
    read_matches,
    read_matches_csv,
    save_matches,
    to_csv,
    to_opencv,
)
from fewmatch.matching.geometry.geometry import Geometry
from fewmatch.matching.geometry.verification import verified

PROPERTY = settings(deadline=None, database=None, max_examples=25)


def draw(n: int, seed: int = 0, **fields: Any) -> Matches:
    rng = np.random.default_rng(seed)
    return Matches(
        xy_a=rng.uniform(-0.5, 99.5, (n, 2)),
        xy_b=rng.uniform(-0.5, 49.5, (n, 2)) / 3,
        score=np.sort(rng.uniform(-1, 1, n).astype(np.float32))[::-1],
        patch_a=rng.integers(0, 30, (n, 2)),
        patch_b=rng.integers(0, 30, (n, 2)),
        **({"confidence": float(rng.random()), "size_a": (100, 80), "size_b": (50, 60)} | fields),
    )


def with_everything(n: int, seed: int = 0) -> Matches:
    rng = np.random.default_rng(seed + 1000)
    return draw(
        n,
        seed,
        ratio=rng.uniform(0, 1, n).astype(np.float32),
        cycle=rng.uniform(0, 9, n),
        geometry=Geometry(
            "affine", 3.25, rng.normal(size=(3, 3)), rng.random(n) < 0.5, None, 0.4, (0.25, 1 / 3), 0.7, -12.34
        ),
        mirrored=True,
    )


def same(one: Any, other: Any) -> None:
    """Field by field, with types and every bit; of arrays of numbers the values."""
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert one.shape == other.shape and one.dtype.kind == other.dtype.kind and np.array_equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


def refused() -> Geometry:
    return Geometry("homography", 7.0, None, np.zeros(3, bool), "no homography, “none”", 0.0, (0.0, 0.0), 0.0, None)


SETS: dict[str, Sequence[ImagePair]] = {
    "none": [],
    "one": [ImagePair("a.png", "b.png", draw(5))],
    "empty": [ImagePair("a.png", "b.png", draw(0))],
    "everything": [ImagePair("a.png", "b.png", with_everything(7))],
    "names": [ImagePair('odd, "name"\n.png', "ü/\udcff.png", draw(3))],
    "many": [
        ImagePair("a.png", "b.png", with_everything(4, 1)),
        ImagePair("a.png", "c.png", draw(6, 2)),
        ImagePair("b.png", "c.png", draw(0, 3)),
        ImagePair("b.png", "d.png", draw(3, 4, geometry=refused())),
        ImagePair("b.png", "e.png", draw(2, 5, geometry=Geometry("fundamental", 1.0, np.eye(3), np.ones(2, bool)))),
    ],
}


# ----------------------------------------------------------------------------------------------------------------------
# NumPy


@pytest.mark.parametrize("name", SETS)
def test_an_archive_gives_everything_back(tmp_path: Path, name: str) -> None:
    path = save_matches(tmp_path / "matches.npz", SETS[name])
    assert path == tmp_path / "matches.npz" and [p.name for p in tmp_path.iterdir()] == ["matches.npz"]
    same(read_matches(path), list(SETS[name]))
    before = path.read_bytes()
    assert save_matches(path, SETS[name]).read_bytes() == before


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=5), st.integers(0, 2**31))
def test_any_pairs_come_back(tmp_path_factory: Any, what: list[tuple[int, bool]], seed: int) -> None:
    pairs = []
    for i, (n, full) in enumerate(what):
        # Of a pair without matches an archive cannot tell whether a ratio was asked for.
        pairs.append(ImagePair("a", f"{i}", with_everything(n, seed + i) if full and n else draw(n, seed + i)))
    path = save_matches(tmp_path_factory.getbasetemp() / "any.npz", pairs)
    read = read_matches(path)
    for pair, got in zip(pairs, read, strict=True):
        if len(pair.matches):
            same(got, pair)
        else:
            assert len(got.matches) == 0 and (got.path_a, got.path_b) == (pair.path_a, pair.path_b)
            assert got.matches.confidence == pair.matches.confidence


def test_an_archive_of_one_pair_is_its_arrays(tmp_path: Path) -> None:
    matches = with_everything(7)
    assert matches.geometry is not None
    with np.load(save_matches(tmp_path / "m.npz", [ImagePair("a.png", "b.png", matches)]), allow_pickle=False) as file:
        for name in ("xy_a", "xy_b", "score", "patch_a", "patch_b", "ratio", "cycle"):
            assert np.array_equal(file[name], getattr(matches, name))
        assert file["score"].dtype == np.float32
        assert np.array_equal(file["inlier"], matches.geometry.inliers) and file["inlier"].dtype == bool
        assert file["pair"].tolist() == [0] * 7
        assert file["path_a"].tolist() == ["a.png"] and file["path_b"].tolist() == ["b.png"]
        assert file["size_a"].tolist() == [[100, 80]] and file["size_b"].tolist() == [[50, 60]]
        assert np.array_equal(file["geometry_matrix"], matches.geometry.matrix[None])
        assert file["geometry_threshold"].tolist() == [3.25] and file["mirrored"].tolist() == [True]
    with np.load(save_matches(tmp_path / "n.npz", SETS["one"]), allow_pickle=False) as file:
        assert not {"ratio", "cycle", "inlier"} & set(file.files)
        assert not [name for name in file.files if name.startswith("geometry")]


def test_an_archive_of_many_pairs_says_whose_each_match_is(tmp_path: Path) -> None:
    with np.load(save_matches(tmp_path / "m.npz", SETS["many"]), allow_pickle=False) as file:
        assert file["pair"].tolist() == [0] * 4 + [1] * 6 + [3] * 3 + [4] * 2
        for i, pair in enumerate(SETS["many"]):
            assert np.array_equal(file["xy_b"][file["pair"] == i], pair.matches.xy_b)
        assert np.isnan(file["ratio"][file["pair"] == 1]).all() and not file["inlier"][file["pair"] == 1].any()
        assert file["geometry_kind"].tolist() == ["affine", "", "", "homography", "fundamental"]
        assert file["geometry_reason"][3] == "no homography, “none”" and np.isnan(file["geometry_matrix"][3]).all()


def test_what_is_no_archive_of_matches(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    with pytest.raises(InputError, match=r"m\.npz does not exist: expected an archive of matches"):
        read_matches(path)
    good = save_matches(tmp_path / "good.npz", SETS["many"]).read_bytes()
    with np.load(io.BytesIO(good)) as file:
        arrays = {name: file[name] for name in file.files}
    np.save(tmp_path / "bare.npy", np.zeros(3))
    for content in (
        b"",
        b"hello",
        good[: len(good) // 2],
        good[:200] + bytes(50) + good[250:],
        (tmp_path / "bare.npy").read_bytes(),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is not an archive of matches that fewmatch wrote: .") as caught:
            read_matches(path)
        assert "\n" not in str(caught.value)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"schema": np.int64(9)}, "has schema 9, this fewmatch reads schema 1: write the matches again"),
        ({"schema": None}, "it has no schema"),
        ({"score": None}, "it has no score"),
        ({"geometry_matrix": None}, "it has no geometry_matrix"),
        ({"path_b": arrays["path_b"][:-1]}, "expected 5 entries in path_b, got 4"),
        ({"xy_a": arrays["xy_a"][:-1]}, "expected 15 entries in xy_a, got 14"),
        ({"inlier": arrays["inlier"][:-1]}, "expected 15 entries in inlier, got 14"),
        ({"geometry_share": arrays["geometry_share"][:2]}, "expected 5 entries in geometry_share, got 2"),
        ({"pair": arrays["pair"] + 1}, "a match is of pair 5, and there are 5"),
        (
            {"geometry_kind": np.array(["affin"] * 5)},
            "expected a geometry of homography, affine, fundamental, got 'affin'",
        ),
    ]
    for change, words in changes:
        np.savez(path, **{name: x for name, x in (arrays | change).items() if x is not None})
        with pytest.raises(InputError, match=words):
            read_matches(path)
    np.savez(path, **(arrays | {"path_a": np.array([{}] * 5, dtype=object)}))
    with pytest.raises(InputError, match="is not an archive of matches that fewmatch wrote"):
        read_matches(path)


# ----------------------------------------------------------------------------------------------------------------------
# CSV


def test_a_csv_has_one_line_per_match() -> None:
    matches = draw(3)
    lines = to_csv(matches).split("\n")
    assert lines[0] == "xa,ya,xb,yb,score" and lines[-1] == "" and len(lines) == 5
    for i, line in enumerate(lines[1:-1]):
        numbers = [float(cell) for cell in line.split(",")]
        assert numbers == [*matches.xy_a[i], *matches.xy_b[i], float(matches.score[i])]
    assert to_csv(draw(0)) == "xa,ya,xb,yb,score\n"
    full = with_everything(4)
    assert full.geometry is not None
    rows = list(csv.DictReader(io.StringIO(to_csv(full))))
    assert list(rows[0]) == ["xa", "ya", "xb", "yb", "score", "ratio", "cycle", "inlier"]
    assert [row["inlier"] for row in rows] == [str(int(x)) for x in full.geometry.inliers]
    assert [float(row["cycle"]) for row in rows] == full.cycle.tolist()  # type: ignore[union-attr]


def test_a_csv_has_the_numbers_of_the_json() -> None:
    matches = draw(4)
    rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(to_csv(matches)))]
    assert rows == matches.to_json()


@pytest.mark.parametrize("name", SETS)
def test_a_csv_of_pairs_reads_back_exactly(tmp_path: Path, name: str) -> None:
    path, pairs = tmp_path / "m.csv", SETS[name]
    path.write_bytes(matches_csv(pairs).encode("utf-8", "surrogateescape"))
    read = read_matches_csv(path)
    assert list(read)[:7] == ["a", "b", "xa", "ya", "xb", "yb", "score"]
    assert read["a"].tolist() == [pair.path_a for pair in pairs for _ in range(len(pair.matches))]
    assert read["b"].tolist() == [pair.path_b for pair in pairs for _ in range(len(pair.matches))]
    start = 0
    for pair in pairs:
        m, rows = pair.matches, slice(start, start + len(pair.matches))
        start = rows.stop
        assert np.array_equal(np.column_stack([read["xa"], read["ya"]])[rows], m.xy_a)
        assert np.array_equal(np.column_stack([read["xb"], read["yb"]])[rows], m.xy_b)
        assert np.array_equal(read["score"][rows], m.score)
        for column, known in (("ratio", m.ratio), ("cycle", m.cycle)):
            if known is not None:
                assert np.array_equal(read[column][rows], known)
            elif column in read:
                assert np.isnan(read[column][rows]).all()
        if m.geometry is not None:
            assert read["inlier"].dtype == bool and np.array_equal(read["inlier"][rows], m.geometry.inliers)
        elif "inlier" in read:
            assert not read["inlier"][rows].any()
    known = {"inlier" for p in pairs if p.matches.geometry} | {"ratio" for p in pairs if p.matches.ratio is not None}
    assert {"inlier", "ratio"} & set(read) == known


def test_a_csv_without_paths_reads_back_too(tmp_path: Path) -> None:
    path, matches = tmp_path / "m.csv", draw(5)
    path.write_bytes(b"\xef\xbb\xbf" + to_csv(matches).replace("\n", "\r\n").encode())  # as a spreadsheet saves it
    read = read_matches_csv(path)
    assert list(read) == ["xa", "ya", "xb", "yb", "score"] and np.array_equal(read["score"], matches.score)


def test_what_is_no_csv_of_matches(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with pytest.raises(InputError, match=r"m\.csv cannot be read: No such file"):
        read_matches_csv(path)
    for text, words in (
        ("", "expected a CSV with the columns xa, ya, xb, yb, score, got nothing"),
        ("x,y\n1,2\n", "got x, y"),
        ("xa,ya,xb,yb,score,sore\n", "got xa, ya, xb, yb, score, sore"),
        ("xa,ya,xb,yb,score,xa\n", "got xa, ya, xb, yb, score, xa"),
        ("xa,ya,xb,yb,score\n1,2,3,4\n", "line 2: expected 5 values, got 4"),
        ("xa,ya,xb,yb,score\n1,2,3,4,high\n", "expected numbers in column score"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words) as caught:
            read_matches_csv(path)
        assert "m.csv" in str(caught.value)


# ----------------------------------------------------------------------------------------------------------------------
# OpenCV


def frame(width: int, height: int, grid: tuple[int, int], patch: int = 8) -> Frame:
    return Frame(width, height, grid, patch, patch, scale=(grid[1] * patch / width, grid[0] * patch / height))


def test_opencv_gets_every_match() -> None:
    matches = draw(9)
    frames = frame(100, 80, (8, 10)), frame(50, 60, (4, 5))
    keypoints_a, keypoints_b, pairs = to_opencv(matches, *frames)
    assert [(m.queryIdx, m.trainIdx, m.imgIdx) for m in pairs] == [(i, i, 0) for i in range(9)]
    assert [m.distance for m in pairs] == pytest.approx((1 - matches.score.astype(float)).tolist(), abs=1e-6)
    assert sorted(pairs, key=lambda m: m.distance) == pairs
    for keypoints, xy, size in ((keypoints_a, matches.xy_a, 10), (keypoints_b, matches.xy_b, 150**0.5)):
        assert [k.pt for k in keypoints] == [tuple(p) for p in xy.astype(np.float32).tolist()]
        assert [k.size for k in keypoints] == pytest.approx(
            [size] * 9, rel=1e-6
        )  # patches of 10 × 10 and of 10 × 15 pixels
        assert [k.response for k in keypoints] == pytest.approx(matches.score.tolist())
    assert to_opencv(draw(0), *frames) == ([], [], [])


def test_opencv_draws_them() -> None:
    """A line from the point in A to the point in B, which stands right of it; without the match there is none."""
    matches = dataclasses.replace(draw(1), xy_a=np.array([[20.0, 30.0]]), xy_b=np.array([[40.0, 10.0]]))
    images = np.zeros((80, 100, 3), np.uint8), np.zeros((60, 50, 3), np.uint8)
    keypoints_a, keypoints_b, pairs = to_opencv(matches, frame(100, 80, (8, 10)), frame(50, 60, (4, 5)))
    options = {"matchColor": (0, 255, 0), "singlePointColor": (0, 0, 255)}
    drawn = cv2.drawMatches(images[0], keypoints_a, images[1], keypoints_b, pairs, None, **options)
    assert drawn.shape == (80, 150, 3)
    assert drawn[20, 80, 1] > 128  # halfway between (20, 30) and (140, 10)
    without = cv2.drawMatches(images[0], keypoints_a, images[1], keypoints_b, [], None, **options)
    assert without[20, 80, 1] == 0 and without[:, :, 2].any()


def test_opencv_takes_inliers_alone() -> None:
    """What `verified` marks goes to OpenCV by taking the inliers, and fits there too."""
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 99, (60, 2))
    b = a @ np.array([[0.4, 0.1], [-0.1, 0.4]]) + 10
    b[:20] = rng.uniform(0, 50, (20, 2)) + 200
    matches = verified(dataclasses.replace(draw(60), xy_a=a, xy_b=b), "affine", threshold=1.0)
    assert matches.geometry is not None
    keypoints_a, keypoints_b, pairs = to_opencv(
        matches.take(matches.geometry.inliers), frame(100, 80, (8, 10)), frame(50, 60, (4, 5))
    )
    assert len(pairs) == 40
    points = [
        np.array([k[i].pt for i in ids])
        for k, ids in (
            (keypoints_a, [m.queryIdx for m in pairs]),
            (keypoints_b, [m.trainIdx for m in pairs]),
        )
    ]
    found, _ = cv2.estimateAffine2D(*points)
    np.testing.assert_allclose(found, [[0.4, -0.1, 10], [0.1, 0.4, 10]], atol=1e-3)
