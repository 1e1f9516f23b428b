"""Flip alignment: the mirror image is taken where it is nearer, and coordinates are those of the image as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Features, Frame, encode_images, load
from fewmatch.encoders.frame import RESIZE_RULES
from fewmatch.errors import InputError
from fewmatch.matching.masks import move_mask
from fewmatch.matching.matches import match
from fewmatch.matching.mirror import MIRROR_RULES, MirrorRule, choose_mirror

PROPERTY = settings(deadline=None, database=None, max_examples=40)
Map = tuple[np.ndarray, Frame]


def plain(rows: int, columns: int) -> Frame:
    """One pixel a patch: x is the column and y the row."""
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def naive_distance(a: np.ndarray, valid_a: np.ndarray, b: np.ndarray, valid_b: np.ndarray, by: str) -> float | None:
    """The definition, patch by patch in float64."""

    def unit(x: np.ndarray, valid: np.ndarray) -> list[np.ndarray]:
        rows = x.reshape(-1, x.shape[-1]).astype(float)
        return [v / np.sqrt((v**2).sum()) for v, ok in zip(rows, valid.ravel(), strict=True) if ok and v.any()]

    left, right = unit(a, valid_a), unit(b, valid_b)
    if not left or not right:
        return None
    s = np.array([[float((x * y).sum()) for y in right] for x in left])
    distances = []
    for i in range(len(left)):
        j = int(s[i].argmax())
        if by == "nearest" or int(s[:, j].argmax()) == i:
            distances.append(1 - s[i, j])
    return float(np.mean(distances))


@PROPERTY
@given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from(MIRROR_RULES))
def test_distances_are_those_of_the_definition(data: st.DataObject, seed: int, by: MirrorRule) -> None:
    rng = np.random.default_rng(seed)
    grids = [(data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))) for _ in range(2)]
    d = data.draw(st.integers(1, 6))
    a, m, b = (rng.normal(size=(*grid, d)) for grid in (grids[0], grids[0], grids[1]))
    a[rng.random(grids[0]) < 0.1] = 0
    valid_a, valid_b = (rng.random(grid) < data.draw(st.sampled_from([0.0, 0.5, 1.0])) for grid in grids)
    frame_a, frame_b = plain(*grids[0]), plain(*grids[1])
    found = choose_mirror(a, frame_a, m, frame_a, b, frame_b, valid_a=valid_a, valid_b=valid_b, by=by)
    wanted = [naive_distance(x, valid_a, b, valid_b, by) for x in (a, m)]
    for got, want in zip((found.distance, found.mirrored_distance), wanted, strict=True):
        assert (got is None) == (want is None)
        assert got is None or want is None or abs(got - want) < 1e-9
    assert found.by == by
    assert found.mirrored == (None not in wanted and found.mirrored_distance < found.distance)  # type: ignore[operator]


def test_the_two_rules_differ() -> None:
    """Two patches of A are nearest to the same one of B: both count, or only the nearer."""
    a = np.array([[[1.0, 0.0], [0.6, 0.8]]])
    b = np.array([[[1.0, 0.0]]])
    nearest, mutual = (choose_mirror(a, plain(1, 2), a, plain(1, 2), b, plain(1, 1), by=by) for by in MIRROR_RULES)
    assert nearest.distance == pytest.approx(0.2) and mutual.distance == 0


def test_equal_distances_leave_the_image_as_it_is() -> None:
    a = np.random.default_rng(1).normal(size=(3, 4, 5))
    found = choose_mirror(a, plain(3, 4), a[:, ::-1], plain(3, 4), a, plain(3, 4))
    assert not found.mirrored and found.distance == found.mirrored_distance == pytest.approx(0)


@pytest.mark.parametrize("side", ["a", "b"])
def test_nothing_that_can_match_is_no_distance(side: str) -> None:
    a = np.ones((2, 2, 3))
    found = choose_mirror(a, plain(2, 2), a, plain(2, 2), a, plain(2, 2), **{f"valid_{side}": np.zeros((2, 2), bool)})  # type: ignore[arg-type]
    assert (found.mirrored, found.distance, found.mirrored_distance) == (False, None, None)
    assert json.loads(json.dumps(found.to_json())) == {
        "mirrored": False, "by": "nearest", "distance": None, "mirrored_distance": None,
    }  # fmt: skip


def test_one_patch() -> None:
    a, m, b = np.array([[[1.0, 0.0]]]), np.array([[[0.6, 0.8]]]), np.array([[[0.0, 1.0]]])
    found = choose_mirror(a, plain(1, 1), m, plain(1, 1), b, plain(1, 1))
    assert found.mirrored and found.distance == pytest.approx(1) and found.mirrored_distance == pytest.approx(0.2)


def test_torch_and_numpy_agree() -> None:
    rng = np.random.default_rng(2)
    maps = [rng.normal(size=(4, 5, 8)).astype(np.float32) for _ in range(3)]
    arrays = [part for x in maps for part in (x, plain(4, 5))]
    tensors = [part for x in maps for part in (torch.from_numpy(x), plain(4, 5))]
    assert choose_mirror(*arrays) == choose_mirror(*tensors)


def test_the_masks_decide_what_is_compared() -> None:
    """All but one patch speak for the mirror image, that one against it."""
    a = np.zeros((1, 3, 2))
    a[0, :, 0] = 1
    b, m = a.copy(), a.copy()
    a[0, 1:] = m[0, 0] = (0.0, 1.0)
    frame = plain(1, 3)
    assert choose_mirror(a, frame, m, frame, b, frame).mirrored
    assert not choose_mirror(a, frame, m, frame, b, frame, valid_a=np.array([[True, False, False]])).mirrored


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    a, frame = np.ones((2, 2, 3)), plain(2, 2)
    with pytest.raises(InputError, match="no mirror rule called flip: expected one of nearest, mutual"):
        choose_mirror(a, frame, a, frame, a, frame, by="flip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected maps of one dimension, got 3 \(a\), 3 \(a mirrored\) and 4 \(b\)"):
        choose_mirror(a, frame, a, frame, np.ones((2, 2, 4)), frame)
    with pytest.raises(InputError, match=r"as in frame_a \(mirrored\), got one of shape \(2, 3, 3\)"):
        choose_mirror(a, frame, np.ones((2, 3, 3)), frame, a, frame)
    with pytest.raises(InputError, match="expected frames of one image"):
        choose_mirror(a, frame, np.ones((2, 3, 3)), plain(2, 3), a, frame, valid_a=np.ones((2, 2), bool))


# ----------------------------------------------------------------------------------------------------------------------
# No error in coordinates


class OverlappingEncoder(PatchLocalEncoder):
    """The test encoder with patches that begin every `stride` pixels."""

    stride: int

    def __call__(self, images: torch.Tensor) -> Features:
        patches = images.unfold(2, self.patch_size, self.stride).unfold(3, self.patch_size, self.stride)
        b, _, h, w = patches.shape[:4]
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(b, h, w, -1).double().numpy()
        feature_map = torch.from_numpy(flat @ self._projection).float()
        return Features(feature_map.mean((1, 2)), None, feature_map)


Encode = Callable[..., Map]


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    """An image through a file, the test encoder and a store: its map and frame, as a user gets them."""

    def through_a_store(image: np.ndarray, rule: str, stride: int | None, mirror: bool = False) -> Map:
        name = f"{len(list(tmp_path.iterdir()))}"
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        facts: dict[str, Any] = {"embed_dim": 256, "patch_size": 8, "size": 64}
        encoder = PatchLocalEncoder(**facts) if stride is None else OverlappingEncoder(**facts, stride=stride)
        how: dict[str, Any] = {"keep": "patches", "resize": rule, "mirror": mirror}
        store = encode_images([tmp_path / f"{name}.png"], encoder, out=tmp_path / name, **how)
        return store.feature_map(0), store.frame(0)

    return through_a_store


@pytest.mark.parametrize(
    ("rule", "size", "stride"),  # any two of them in every combination
    [
        (rule, size, (None, 5)[(i + j) % 2])
        for i, rule in enumerate(RESIZE_RULES)
        for j, size in enumerate([(101, 67), (66, 90)])
    ],
)
def test_a_mirror_image_is_found_without_error(
    encode: Encode, rule: str, stride: int | None, size: tuple[int, int]
) -> None:
    """Every patch of the mirrored picture lies, in the picture as it is, at W − 1 − x; without mirroring hardly any is found."""
    image = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    a, b = encode(image, rule, stride), encode(image[:, ::-1], rule, stride)
    mirrored = encode(image, rule, stride, mirror=True)
    for by in MIRROR_RULES:
        found = choose_mirror(*a, *mirrored, *b, by=by)
        assert found.mirrored and found.mirrored_distance == pytest.approx(0, abs=1e-3)
    matches = match(*mirrored, *b)
    assert len(matches) == mirrored[1].real.sum()
    np.testing.assert_allclose(matches.xy_b[:, 0], size[0] - 1 - matches.xy_a[:, 0], atol=1e-9)
    np.testing.assert_allclose(matches.xy_b[:, 1], matches.xy_a[:, 1], atol=1e-9)
    wrong = match(*a, *b)
    error = np.hypot(*(wrong.xy_b - np.stack([size[0] - 1 - wrong.xy_a[:, 0], wrong.xy_a[:, 1]], axis=1)).T)
    assert (error < 1).mean() < 0.3
    assert not choose_mirror(*a, *mirrored, *a).mirrored


def test_a_mask_reaches_the_same_pixels(encode: Encode) -> None:
    """With overlapping patches that leave a rest, the mirrored grid has other patches; the mask still covers the same part."""
    image = np.random.default_rng(4).integers(0, 256, (64, 101, 3), np.uint8)
    (_, frame), (mirrored, frame_m) = encode(image, "keep", 5), encode(image, "keep", 5, mirror=True)
    assert frame.offset != frame_m.offset
    left = frame.to_pixels(*np.indices(frame.grid))[0] < 40
    moved = move_mask(left, frame, frame_m)
    b, frame_b = encode(image[:, ::-1], "keep", 5)
    matches = match(mirrored, frame_m, b, frame_b, valid_a=moved)
    step = frame.stride / frame.scale[0]
    assert abs(matches.xy_a[:, 0].max() - 40) <= 1.5 * step and matches.xy_a[:, 0].min() < step + 8
    np.testing.assert_allclose(matches.xy_b[:, 0], 100 - matches.xy_a[:, 0], atol=1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# Real pictures


def test_a_photo_knows_its_mirror_image(tmp_path: Path) -> None:
    """With a real encoder the nearer of the two is the right one, and its matches lie where they should, within a patch."""
    photo = skimage.data.astronaut()
    shifted = photo[30:470, 50:490][:, ::-1]
    for name, image in (("photo", photo), ("shifted", shifted)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    encoder = load("mini", device="cpu", dtype="float32")
    files, how = [tmp_path / "photo.png", tmp_path / "shifted.png"], {"keep": "patches", "size": 128}
    store = encode_images(files, encoder, out=tmp_path / "store", **how)  # type: ignore[arg-type]
    mirrored = encode_images(files[:1], encoder, out=tmp_path / "mirrored", mirror=True, **how)  # type: ignore[arg-type]
    (a, b), m = [(store.feature_map(i), store.frame(i)) for i in range(2)], (mirrored.feature_map(0), mirrored.frame(0))
    for by in MIRROR_RULES:
        assert choose_mirror(*a, *m, *b, by=by).mirrored
        assert not choose_mirror(*a, *m, *a, by=by).mirrored
    matches = match(*m, *b)
    truth = np.stack([439 - (matches.xy_a[:, 0] - 50), matches.xy_a[:, 1] - 30], axis=1)
    assert (np.hypot(*(matches.xy_b - truth).T) <= 32).mean() > 0.6
