"""Transferred points: the definition written out, exact places, and every kind of point that cannot be transferred."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Frame, encode_images
from fewmatch.encoders.frame import RESIZE_RULES, with_stride
from fewmatch.errors import InputError
from fewmatch.matching.refinement import refine
from fewmatch.matching.transfer import transfer_points

Map = tuple[np.ndarray, Frame]
PROPERTY = settings(deadline=None, database=None, max_examples=25)


def plain(rows: int, columns: int) -> Frame:
    """One pixel a patch: x is the column and y the row."""
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x))


def naive(
    points: np.ndarray, a: np.ndarray, frame_a: Frame, b: np.ndarray, frame_b: Frame, valid: np.ndarray
) -> list[tuple]:
    """Of each point: the cosine with its patch in B, that patch, and how far the way back ends, in float64."""
    usable_a = [p for p in np.ndindex(frame_a.grid) if frame_a.real[p] and a[p].any()]
    usable_b = [q for q in np.ndindex(frame_b.grid) if frame_b.real[q] and b[q].any() and valid[q]]
    rows, columns = np.flatnonzero(frame_a.real.any(axis=1)), np.flatnonzero(frame_a.real.any(axis=0))
    out = []
    for x, y in points.tolist():
        row, column = (float(v) for v in frame_a.to_grid(x, y))
        row, column = min(max(row, rows[0]), rows[-1]), min(max(column, columns[0]), columns[-1])
        mixed = np.zeros(a.shape[2])
        for p in usable_a:
            weight = max(0.0, 1 - abs(p[0] - row)) * max(0.0, 1 - abs(p[1] - column))
            mixed += weight * unit(a[p])
        scores = [float(unit(mixed) @ unit(b[q])) for q in usable_b]
        q = usable_b[int(np.argmax(scores))]
        back = usable_a[int(np.argmax([float(unit(b[q]) @ unit(a[p])) for p in usable_a]))]
        home = [float(v) for v in frame_a.to_pixels(*back)]
        out.append((max(scores), q, float(np.hypot(home[0] - x, home[1] - y)), unit(mixed)))
    return out


FRAMES = [
    lambda h, w: Frame(5 * w, 4 * h, (h, w), patch=8, stride=8, scale=(1.6, 2.0)),
    lambda h, w: Frame(
        8 * w - 1, 8 * h - 1, (h, w), patch=8, stride=8, scale=(8 * w / (8 * w - 1), 8 * h / (8 * h - 1))
    ),
    lambda h, w: Frame(4 * (w + 1) + 3, 4 * (h + 1), (h, w), patch=8, stride=4, scale=(1.0, 1.0)),  # overlap
    lambda h, w: Frame(8 * max(1, w - 2), 8 * h, (h, w), 8, 8, (1.0, 1.0), (-8.0 if w > 2 else 0.0, 0.0)),  # padding
    lambda h, w: Frame(8 * w + 20, 8 * h + 6, (h, w), 8, 8, (1.0, 1.0), (10.0, 3.0)),  # cropped
]


@PROPERTY
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from(FRAMES),
    st.sampled_from(FRAMES),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_it_is_the_definition(
    h: int, w: int, make_a: Callable[..., Frame], make_b: Callable[..., Frame], near: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame_a, frame_b = make_a(h, w), make_b(w, h + 1)
    a = rng.standard_normal((*frame_a.grid, 6)) * rng.uniform(0.1, 10, (*frame_a.grid, 1))
    b = rng.standard_normal((*frame_b.grid, 6))
    b[rng.random(frame_b.grid) < 0.1] = 0
    valid = rng.random(frame_b.grid) < 0.8
    if not (valid & frame_b.real & b.any(axis=2)).any():
        return
    left, top, right, bottom = frame_a.box
    low = np.maximum([left, top], 0) - 0.5
    high = np.minimum([right, bottom], [frame_a.width, frame_a.height]) - 0.5
    points = rng.uniform(low, high, (12, 2))
    if near:  # exactly on centres of patches, and on the corners of what is seen
        real = np.argwhere(frame_a.real)
        points = np.vstack([np.stack(frame_a.to_pixels(*real.T), axis=1), [low, high]])
    got = transfer_points(points, a, frame_a, b, frame_b, valid_b=valid)
    wanted = naive(points, a, frame_a, b, frame_b, valid)
    assert len(got) == len(points) and np.array_equal(got.xy_a, points)
    assert [tuple(q) for q in got.patch_b.tolist()] == [q for _, q, _, _ in wanted]
    np.testing.assert_allclose(got.score, [s for s, *_ in wanted], atol=1e-9)
    np.testing.assert_allclose(got.cycle, [c for _, _, c, _ in wanted], atol=1e-9)
    np.testing.assert_allclose(got.xy_b, np.stack(frame_b.to_pixels(*got.patch_b.T), axis=1), atol=1e-12)
    assert (got.size_a, got.size_b) == ((frame_a.width, frame_a.height), (frame_b.width, frame_b.height))
    nearest = [
        min(np.ndindex(frame_a.grid), key=lambda p: np.hypot(*(np.array(frame_a.to_pixels(*p)) - xy))) for xy in points
    ]
    if not near:
        assert [tuple(p) for p in got.patch_a.tolist()] == nearest


@PROPERTY
@given(
    st.integers(2, 6),
    st.integers(2, 6),
    st.sampled_from(FRAMES),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.integers(0, 2**32),
)
def test_doubt_and_windows_are_their_definitions(
    h: int, w: int, make: Callable[..., Frame], exclusion: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frame_a, frame_b = plain(w, h), make(h, w)
    a, b = rng.standard_normal((*frame_a.grid, 4)), rng.standard_normal((*frame_b.grid, 4))
    valid = rng.random(frame_b.grid) < 0.7
    places = [q for q in np.ndindex(frame_b.grid) if frame_b.real[q] and valid[q]]
    if not places:
        return
    points = rng.uniform(0, [frame_a.width - 1, frame_a.height - 1], (9, 2))
    near = rng.uniform(0, [frame_b.width, frame_b.height], (9, 2))
    reach = tuple(rng.uniform(2, 14, 2))
    free = transfer_points(points, a, frame_a, b, frame_b, valid_b=valid, exclusion=exclusion)
    held = transfer_points(points, a, frame_a, b, frame_b, valid_b=valid, exclusion=exclusion, near=near, reach=reach)
    assert free.ratio is not None and held.ratio is not None and (free.ratio <= 1).all()
    for k, (*_, query) in enumerate(naive(points, a, frame_a, b, frame_b, valid)):
        cosine = {q: float(query @ unit(b[q])) for q in places}
        gap = {q: np.abs(np.array(frame_b.to_pixels(*q)) - near[k]) for q in places}
        inside = [q for q in places if (gap[q] <= np.array(reach)).all()] or places
        for got, among in ((free, places), (held, inside)):
            assert got.ratio is not None
            best = max(among, key=lambda q: cosine[q])
            assert tuple(got.patch_b[k].tolist()) == best
            assert got.score[k] == pytest.approx(cosine[best], abs=1e-9)
            step = frame_b.stride / frame_b.patch
            far = [v for q, v in cosine.items() if np.hypot(q[0] - best[0], q[1] - best[1]) * step > exclusion + 1e-9]
            wanted = (1 - cosine[best]) / (1 - max(far)) if far else 0
            assert got.ratio[k] == pytest.approx(wanted, abs=1e-6)
            home = max(np.ndindex(frame_a.grid), key=lambda p: float(unit(b[best]) @ unit(a[p])))
            assert got.returned[k] == pytest.approx(np.hypot(*(np.array(home) - got.patch_a[k])))


def test_soft_argmax_is_that_of_refine() -> None:
    """A point on the centre of a patch ends where the match of that patch is refined to."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((6, 7, 5)) + 1 for _ in range(2))
    frame_b = Frame(30, 20, (6, 7), patch=3, stride=3, scale=(0.7, 0.9))
    valid = rng.random((6, 7)) < 0.8
    points = np.argwhere(np.ones((6, 7)))[:, ::-1].astype(float)
    options = {"half_width": 2, "temperature": 0.2}
    plainly = transfer_points(points, a, plain(6, 7), b, frame_b, valid_b=valid)
    got = transfer_points(points, a, plain(6, 7), b, frame_b, valid_b=valid, refine="soft-argmax", **options)  # type: ignore[arg-type]
    wanted = refine(plainly.to_matches(), a, plain(6, 7), b, frame_b, valid_b=valid, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(got.to_matches().xy_b, wanted.xy_b, atol=1e-12)
    assert np.abs(got.xy_b - plainly.xy_b).max() > 0.1
    for name in ("score", "patch_b", "cycle", "patch_a"):
        assert np.array_equal(getattr(got, name), getattr(plainly, name))
    colder = transfer_points(points, a, plain(6, 7), b, frame_b, valid_b=valid, refine="soft-argmax", temperature=1e-5)
    np.testing.assert_allclose(colder.xy_b, plainly.xy_b, atol=1e-6)


def test_ties_go_to_the_first_and_a_lost_point_comes_home_far_away() -> None:
    b = np.ones((2, 3, 4))
    a = np.zeros((1, 9, 4))
    a[0, :, 0] = 1
    a[0, 0] = 1  # as all of B
    got = transfer_points([[7, 0], [0, 0]], a, plain(1, 9), b, plain(2, 3))
    assert got.patch_b.tolist() == [[0, 0], [0, 0]]
    assert got.cycle.tolist() == [7, 0] and got.score.tolist() == pytest.approx([0.5, 1])


def test_json_and_matches() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 5, 8)).astype(np.float32)
    got = transfer_points([(1.5, 2), (0, 0), (4, 3)], a, plain(4, 5), a, plain(4, 5))
    rows = json.loads(json.dumps(got.to_json()))
    assert [list(row) for row in rows] == [["xa", "ya", "xb", "yb", "score", "cycle"]] * 3
    assert [(row["xa"], row["ya"]) for row in rows] == [(1.5, 2), (0, 0), (4, 3)]
    assert (rows[1]["xb"], rows[1]["yb"], rows[1]["cycle"]) == (0, 0, 0) and rows[1]["score"] == pytest.approx(
        1, abs=1e-6
    )
    matches = got.to_matches()
    assert matches.xy_a.tolist() == [[0, 0], [4, 3], [1.5, 2]]
    assert (np.diff(matches.score) <= 0).all() and matches.confidence == pytest.approx(got.score.mean(), abs=1e-6)
    assert matches.patch_a.tolist()[:2] == [[0, 0], [3, 4]]
    for nothing in ([], np.zeros((0, 2))):
        none = transfer_points(nothing, a, plain(4, 5), a, plain(4, 5), refine="soft-argmax")
        assert len(none) == 0 and none.to_json() == [] and none.to_matches().confidence == 0


def test_tensors_and_thousands_of_points() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20, 30, 16)).astype(np.float32)
    points = rng.uniform(-0.5, [29.5, 19.5], (5000, 2))
    got = transfer_points(points, torch.from_numpy(a).half(), plain(20, 30), a, plain(20, 30), refine="soft-argmax")
    near = np.abs(points - np.rint(points)).max(axis=1) < 0.2
    assert near.sum() > 300 and np.array_equal(got.patch_b[near][:, ::-1], np.rint(points[near]))
    few = transfer_points(
        points[70:73], torch.from_numpy(a).half(), plain(20, 30), a, plain(20, 30), refine="soft-argmax"
    )
    np.testing.assert_allclose(few.xy_b, got.xy_b[70:73], atol=1e-4)


# ----------------------------------------------------------------------------------------------------------------------
# No error in coordinates


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Map]:
    def through_a_store(image: np.ndarray, rule: str, size: int, patch: int) -> Map:
        name = f"{len(list(tmp_path.iterdir()))}"
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        encoder = PatchLocalEncoder(embed_dim=64, patch_size=patch, size=size)
        store = encode_images([tmp_path / f"{name}.png"], encoder, out=tmp_path / name, keep="patches", resize=rule)
        return store.feature_map(0), store.frame(0)

    return through_a_store


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_centres_of_patches_find_themselves_and_points_near_them_too(encode: Callable[..., Map], rule: str) -> None:
    features, frame = encode(noise(101, 67), rule, 48, 4)
    centres = np.stack(frame.to_pixels(*np.argwhere(frame.real).T), axis=1)
    step = np.array([frame.stride / s for s in frame.scale])
    for moved in (np.zeros(2), 0.2 * step, -0.2 * step):
        got = transfer_points(centres + moved, features, frame, features, frame)
        np.testing.assert_allclose(got.xy_b, centres, atol=1e-9)
        np.testing.assert_allclose(got.cycle, np.hypot(*moved), atol=1e-9)
    sharp = transfer_points(centres, features, frame, features, frame, refine="soft-argmax", temperature=0.002)
    np.testing.assert_allclose(sharp.xy_b, centres, atol=1e-6)


def test_a_shifted_image(encode: Callable[..., Map]) -> None:
    scene = noise(160, 120)
    first, second = (encode(scene[y : y + 64, x : x + 96], "keep", 32, 4) for x, y in ((0, 0), (24, 16)))
    points = np.array([(24 + 8 * i + 3.5, 16 + 8 * j + 3.5) for i in range(9) for j in range(6)])
    got = transfer_points(points, *first, *second)
    np.testing.assert_allclose(got.xy_b, points - (24, 16), atol=1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [[1, 1], [5.6, 1]],
            r"point 2, \(5.6, 1\), is not in image A of 6×4 px: expected x from -0.5 to 5.5 and y from -0.5 to 3.5",
        ),
        ([[-0.6, 0]], r"point 1, \(-0.6, 0\), is not in image A"),
        ([[float("nan"), 0]], r"point 1, \(nan, 0\), is not in image A"),
        ([[0, 3.6]], "is not in image A"),
        ([1, 2], r"expected points of shape \(K, 2\), x then y, got \(2,\)"),
        ([[1, 2, 3]], r"expected points of shape \(K, 2\), x then y, got \(1, 3\)"),
        ([["a", "b"]], "expected points as pairs of numbers x, y"),
        ([[1, 2], [3]], "expected points as pairs of numbers x, y"),
    ],
)
def test_points_that_are_none_of_the_image_are_refused(points: object, message: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6, 3))
    with pytest.raises(InputError, match=message):
        transfer_points(points, x, plain(4, 6), x, plain(4, 6))


def test_points_that_were_cut_off_are_refused() -> None:
    x = np.ones((2, 2, 3))
    frame = Frame(30, 16, (2, 2), 8, 8, (1.0, 1.0), (7.0, 0.0))
    assert len(transfer_points([[6.5, 0], [22.5, 15.5]], x, frame, x, frame)) == 2
    for edge in (6.4, 22.6):
        with pytest.raises(InputError, match=rf"point 1, \({edge}, 3\), lies in a part of image A that was cut off"):
            transfer_points([[edge, 3]], x, frame, x, frame)
    # What a stride leaves over is no such part.
    rest = with_stride(Frame(16, 16, (2, 2), 8, 8, (1.0, 1.0)), 5)
    y = np.ones((*rest.grid, 3))
    assert rest.input_size == (13, 13) and len(transfer_points([[15.5, 15.5]], y, rest, y, rest)) == 1
    mirrored = rest.mirrored()
    assert mirrored.box[0] == 3 and len(transfer_points([[-0.5, 15.5]], y, mirrored, y, mirrored)) == 1


def test_maps_that_do_not_serve_are_refused(unchecked: None) -> None:
    x = np.ones((2, 2, 3))
    with pytest.raises(InputError, match="exclusion of 0 patches or more, got -1"):
        transfer_points([[0, 0]], x, plain(2, 2), x, plain(2, 2), exclusion=-1.0)
    for near in (np.zeros((2, 2)), np.array([[np.nan, 0]])):
        with pytest.raises(InputError, match="finite place near which to look for each of 1 points"):
            transfer_points([[0, 0]], x, plain(2, 2), x, plain(2, 2), near=near)
    x = np.ones((3, 4, 5))
    frame = plain(3, 4)
    with pytest.raises(InputError, match="no patch of B may be matched"):
        transfer_points([[1, 1]], x, frame, 0 * x, frame)
    with pytest.raises(InputError, match=r"the features of A around point 2, \(3, 1\), are zero or cancel out"):
        y = x.copy()
        y[1, 3] = 0
        transfer_points([[1, 1], [3, 1]], y, frame, x, frame)
    with pytest.raises(InputError, match="expected refine to be one of none, soft-argmax, got 'soft'"):
        transfer_points([[1, 1]], x, frame, x, frame, refine="soft")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a temperature above 0"):
        transfer_points([[1, 1]], x, frame, x, frame, refine="soft-argmax", temperature=0.0)
    with pytest.raises(InputError, match="expected maps of one length of descriptor, got 5 and 4"):
        transfer_points([[1, 1]], x, frame, x[..., :4], frame)
    with pytest.raises(InputError, match="expected a map of 3 × 4 patches as in frame_a"):
        transfer_points([[1, 1]], x[1:], frame, x, frame)
