"""Dense flow: each pixel's place by the definition, colours carried along exactly, and files that other programs can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Frame, encode_images
from fewmatch.encoders.frame import RESIZE_RULES
from fewmatch.errors import InputError
from fewmatch.matching.flow import Flow, dense_flow, warp
from fewmatch.matching.flow_files import read_flow, write_flow
from fewmatch.matching.transfer import transfer_points

Map = tuple[np.ndarray, Frame]
PROPERTY = settings(deadline=None, database=None, max_examples=20)


def plain(rows: int, columns: int) -> Frame:
    """One pixel a patch: x is the column and y the row."""
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x))


def naive(
    a: np.ndarray, frame_a: Frame, b: np.ndarray, frame_b: Frame, valid: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Flow and confidence, pixel by pixel in float64; no pixel may lie halfway between two patches."""
    there: dict[tuple[int, int], np.ndarray] = {}
    trust: dict[tuple[int, int], float] = {}
    usable = [
        [p for p in np.ndindex(f.grid) if f.real[p] and x[p].any() and ok[p]]
        for x, f, ok in ((a, frame_a, valid[0]), (b, frame_b, valid[1]))
    ]
    for p in usable[0] if usable[1] else []:
        s = [float(unit(a[p]) @ unit(b[q])) for q in usable[1]]
        q = usable[1][int(np.argmax(s))]
        home = usable[0][int(np.argmax([float(unit(b[q]) @ unit(a[r])) for r in usable[0]]))]
        there[p] = np.array(frame_b.to_pixels(*q))
        trust[p] = max(0.0, max(s)) if max(abs(home[0] - p[0]), abs(home[1] - p[1])) <= 1 else 0.0
    rows, columns = (np.flatnonzero(frame_a.real.any(axis=k)) for k in (1, 0))
    step = np.array([frame_b.stride / s for s in frame_b.scale])
    left, top, right, bottom = frame_a.box
    flow = np.full((frame_a.height, frame_a.width, 2), np.nan)
    confidence = np.zeros(flow.shape[:2])
    for y, x in np.ndindex(flow.shape[:2]):
        row, column = (float(v) for v in frame_a.to_grid(x, y))
        row, column = min(max(row, rows[0]), rows[-1]), min(max(column, columns[0]), columns[-1])
        own = (round(row), round(column))
        if own not in there or not (left <= x + 0.5 <= right and top <= y + 0.5 <= bottom):
            continue
        parts = []
        for p, end in there.items():
            weight = max(0.0, 1 - abs(p[0] - row)) * max(0.0, 1 - abs(p[1] - column))
            if weight and (np.abs(end - there[own]) <= 2.5 * step).all():
                parts.append((weight, end - np.array(frame_a.to_pixels(*p)), trust[p]))
        total = sum(w for w, *_ in parts)
        flow[y, x] = sum(w * f for w, f, _ in parts) / total
        confidence[y, x] = sum(w * t for w, _, t in parts) / total
    return flow, confidence


@PROPERTY
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from(["whole", "padded", "cropped", "overlapping"]),
    st.integers(0, 2**32),
)
def test_it_is_the_definition(h: int, w: int, kind: str, seed: int) -> None:
    """Smooth maps, so that neighbours often go to neighbours; scales that put no pixel halfway between two centres."""
    rng = np.random.default_rng(seed)
    frame_a = {
        "whole": Frame(5 * w, 3 * h, (h, w), 7, 7, (7 / 5, 7 / 3)),
        "padded": Frame(5 * w, 3 * h, (h + 2, w + 1), 7, 7, (7 / 5, 7 / 3), (0.0, -7.0)),
        "cropped": Frame(5 * w + 4, 3 * h + 3, (h, w), 7, 7, (7 / 5, 7 / 3), (2.9, 1.1)),
        "overlapping": Frame(4 * w + 2, 4 * h + 2, (h, w), 6, 4, (1.0, 1.0)),
    }[kind]
    frame_b = Frame(31, 17, (w + 2, h + 3), 4, 4, ((h + 3) * 4 / 31, (w + 2) * 4 / 17))
    a, b = (np.cumsum(np.cumsum(rng.standard_normal((*f.grid, 6)), axis=0), axis=1) for f in (frame_a, frame_b))
    a[rng.random(frame_a.grid) < 0.1] = 0
    valid = [rng.random(f.grid) < 0.85 for f in (frame_a, frame_b)]
    got = dense_flow(a, frame_a, b, frame_b, valid_a=valid[0], valid_b=valid[1])
    flow, confidence = naive(a, frame_a, b, frame_b, valid)
    assert got.flow.dtype == got.confidence.dtype == np.float32
    np.testing.assert_allclose(got.flow, flow, atol=1e-4)
    np.testing.assert_allclose(got.confidence, confidence, atol=1e-6)
    assert np.array_equal(got.known, np.isfinite(flow[..., 0]))
    assert (got.size_a, got.size_b) == ((frame_a.width, frame_a.height), (31, 17))


def test_patches_go_where_transferred_points_go() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((6, 7, 5)) + 0.5 for _ in range(2))
    frame_b = Frame(40, 30, (6, 7), 3, 3, (0.7, 0.8))
    centres = np.argwhere(np.ones((6, 7)))[:, ::-1].astype(float)
    for refine, options in (("none", {}), ("soft-argmax", {"half_width": 2, "temperature": 0.3})):
        flow = dense_flow(a, plain(6, 7), b, frame_b, refine=refine, **options)  # type: ignore[arg-type]
        points = transfer_points(centres, a, plain(6, 7), b, frame_b, refine=refine, **options)  # type: ignore[arg-type]
        np.testing.assert_allclose(flow.patch_flow.reshape(-1, 2) + centres, points.xy_b, atol=1e-9)
        np.testing.assert_allclose(flow.patch_score.reshape(-1), points.score, atol=1e-9)
        np.testing.assert_allclose(flow.patch_cycle.reshape(-1), points.cycle, atol=1e-9)
        np.testing.assert_allclose(flow.flow, flow.patch_flow, atol=1e-5)  # a patch is a pixel here
    tensors = dense_flow(torch.from_numpy(a).float(), plain(6, 7), torch.from_numpy(b).float(), frame_b)
    np.testing.assert_allclose(tensors.flow, dense_flow(a, plain(6, 7), b, frame_b).flow, atol=1e-5)


def test_large_images_are_done_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 5, 3)), rng.standard_normal((4, 5, 3))
    frame = Frame(53, 41, (4, 5), 8, 8, (40 / 53, 32 / 41))
    whole = dense_flow(a, frame, b, frame)
    monkeypatch.setattr("fewmatch.matching.flow._PIXELS", 150)
    parts = dense_flow(a, frame, b, frame)
    assert np.array_equal(parts.flow, whole.flow) and np.array_equal(parts.confidence, whole.confidence)


@pytest.mark.parametrize("empty", ["a", "b", "mask"])
def test_where_nothing_may_match_the_flow_is_unknown(empty: str) -> None:
    a, b = (np.zeros((2, 3, 4)) if empty == name else np.ones((2, 3, 4)) for name in "ab")
    got = dense_flow(a, plain(2, 3), b, plain(2, 3), valid_b=np.zeros((2, 3), bool) if empty == "mask" else None)
    assert not got.known.any() and not got.confidence.any() and np.isnan(got.patch_score).all()
    assert (warp(np.zeros((2, 3, 3), np.uint8), got, fill=(1, 2, 3)) == (1, 2, 3)).all()


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
def test_an_image_flows_to_itself_by_nothing_and_is_painted_as_it_is(encode: Callable[..., Map], rule: str) -> None:
    image = noise(101, 67)
    features, frame = encode(image, rule, 48, 4)
    flow = dense_flow(features, frame, features, frame)
    left, _, right, _ = frame.box
    x = np.arange(101) + 0.5
    seen = np.broadcast_to((x >= left) & (x <= right), (67, 101))
    assert np.array_equal(flow.known, seen) and seen.all() == (rule != "crop")
    np.testing.assert_allclose(flow.flow[seen], 0, atol=1e-5)
    np.testing.assert_allclose(flow.confidence[seen], 1, atol=1e-5)
    painted = warp(image, flow, fill=(255, 0, 255))
    assert np.abs(painted[seen].astype(int) - image[seen]).max() <= 1
    assert (painted[~seen] == (255, 0, 255)).all()


@pytest.mark.parametrize(("rule", "size"), [("keep", 32), ("squash", 32)])
def test_a_shifted_image_is_painted_in_the_shape_of_the_other(encode: Callable[..., Map], rule: str, size: int) -> None:
    """B begins three patches further right and two down in a large picture, at two pixels of the image for one of the encoder."""
    scene = noise(160, 120)
    a, b = scene[:64, :64], scene[16 : 16 + 64, 24 : 24 + 64]
    maps = [encode(x, rule, size, 4) for x in (a, b)]
    forth, back = dense_flow(*maps[0], *maps[1]), dense_flow(*maps[1], *maps[0])
    np.testing.assert_allclose(forth.flow[16 + 4 :, 24 + 4 :], np.broadcast_to((-24, -16), (44, 36, 2)), atol=1e-4)
    np.testing.assert_allclose(back.flow[: 48 - 4, : 40 - 4], np.broadcast_to((24, 16), (44, 36, 2)), atol=1e-4)
    assert np.array_equal(warp(a, back)[: 48 - 4, : 40 - 4], b[: 48 - 4, : 40 - 4])
    assert forth.confidence[20:, 28:].min() > 0.98  # the resize looks across borders of patches


# ----------------------------------------------------------------------------------------------------------------------
# Painting, files, and what is refused


def made(flow: np.ndarray, size_b: tuple[int, int]) -> Flow:
    height, width = flow.shape[:2]
    nothing = np.zeros((1, 1))
    known = np.isfinite(flow[..., 0])
    confidence = np.where(known, 0.5, 0.0).astype(np.float32)
    return Flow(flow.astype(np.float32), confidence, np.zeros((1, 1, 2)), nothing, nothing, (width, height), size_b)


def test_warp_looks_up_each_pixel() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 13, 3), np.uint8)
    there = np.stack([rng.integers(0, 13, (5, 7)), rng.integers(0, 9, (5, 7))], axis=2)
    here = np.stack(np.meshgrid(np.arange(7), np.arange(5)), axis=2)
    flow = (there - here).astype(float)
    flow[2, 3] = np.nan
    wanted = image[there[..., 1], there[..., 0]]
    wanted[2, 3] = 255
    got = warp(image, made(flow, (13, 9)))
    assert got.dtype == np.uint8 and np.array_equal(got, wanted)
    half = warp(image, made(np.full((1, 1, 2), 0.5), (13, 9)))
    np.testing.assert_allclose(half[0, 0], image[:2, :2].mean(axis=(0, 1)), atol=1)
    beyond = warp(image, made(np.full((1, 1, 2), -0.9), (13, 9)))
    assert np.array_equal(beyond[0, 0], image[0, 0])
    with pytest.raises(InputError, match="expected an image of 13×9 px as the flow goes to, got 12×9"):
        warp(image[:, :12], made(flow, (13, 9)))
    with pytest.raises(InputError, match="expected images with sides below 32,767 px, got one of 40,000"):
        warp(np.zeros((1, 40000, 3), np.uint8), made(flow, (40000, 1)))


def test_files_hold_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 6, 2)) * 30
    values[1, 2] = np.nan
    flow = made(values, (30, 20))
    for name in ("new/flow.npz", "flow.flo", "FLOW.FLO"):
        path = write_flow(flow, tmp_path / name)
        assert path == tmp_path / name and [f.name for f in path.parent.iterdir() if f.suffix == ".tmp"] == []
        assert np.array_equal(read_flow(path), flow.flow, equal_nan=True)
        before = path.read_bytes()
        assert write_flow(flow, path).read_bytes() == before
    with np.load(tmp_path / "new/flow.npz") as arrays:
        assert sorted(arrays) == ["confidence", "flow", "size_a", "size_b"]
        assert np.array_equal(arrays["confidence"], flow.confidence) and arrays["flow"].dtype == np.float32
        assert arrays["size_a"].tolist() == [6, 4] and arrays["size_b"].tolist() == [30, 20]
    theirs = cv2.readOpticalFlow(str(tmp_path / "flow.flo"))
    assert np.array_equal(theirs, np.nan_to_num(flow.flow, nan=1e10))
    cv2.writeOpticalFlow(str(tmp_path / "theirs.flo"), np.nan_to_num(flow.flow))
    assert np.array_equal(read_flow(tmp_path / "theirs.flo"), np.nan_to_num(flow.flow))


def test_files_that_hold_no_flow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a flow's file to end in \.npz or \.flo, got a\.png"):
        write_flow(made(np.zeros((2, 2, 2)), (2, 2)), tmp_path / "a.png")
    good = write_flow(made(np.zeros((2, 3, 2)), (2, 2)), tmp_path / "good.flo").read_bytes()
    for name, data in (
        ("short.flo", good[:-1]),
        ("long.flo", good + b"x"),
        ("magic.flo", b"PIEX" + good[4:]),
        ("empty.flo", b""),
        ("size.flo", good[:4] + np.array([-3, -2], "<i4").tobytes() + good[12:]),
        ("none.npz", b"PK"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} cannot be read as a flow"):
            read_flow(tmp_path / name)
    with pytest.raises(InputError, match=r"absent\.flo cannot be read"):
        read_flow(tmp_path / "absent.flo")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    np.savez(tmp_path / "shape.npz", flow=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"other\.npz cannot be read"):
        read_flow(tmp_path / "other.npz")
    with pytest.raises(InputError, match=r"expected a flow of shape \(H, W, 2\) in .*shape\.npz, got \(3, 2\)"):
        read_flow(tmp_path / "shape.npz")


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x = np.ones((3, 4, 5))
    with pytest.raises(InputError, match="expected refine to be one of none, soft-argmax, got 'x'"):
        dense_flow(x, plain(3, 4), x, plain(3, 4), refine="x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a half-width of 0"):
        dense_flow(x, plain(3, 4), x, plain(3, 4), refine="soft-argmax", half_width=-1)
    with pytest.raises(InputError, match="expected maps of one length of descriptor, got 5 and 4"):
        dense_flow(x, plain(3, 4), x[..., :4], plain(3, 4))
    with pytest.raises(InputError, match="expected valid_a of 3 × 4 booleans"):
        dense_flow(x, plain(3, 4), x, plain(3, 4), valid_a=np.ones((4, 3), bool))
