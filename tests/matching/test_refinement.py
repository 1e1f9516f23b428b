"""Refined matches: the window soft-argmax is its definition, and keeps the exact places of an encoder that sees single patches."""

from __future__ import annotations

import dataclasses
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
from fewmatch.encoders.frame import RESIZE_RULES
from fewmatch.errors import InputError
from fewmatch.matching import Matches, match
from fewmatch.matching.refinement import refine

Map = tuple[np.ndarray, Frame]
PROPERTY = settings(deadline=None, database=None, max_examples=30)


def plain(rows: int, columns: int) -> Frame:
    """One pixel a patch: x is the column and y the row."""
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def made(patch_a: np.ndarray, patch_b: np.ndarray, frame_a: Frame, frame_b: Frame) -> Matches:
    """Matches of these patches, with points at their centres."""
    return Matches(
        xy_a=np.stack(frame_a.to_pixels(*patch_a.T), axis=1),
        xy_b=np.stack(frame_b.to_pixels(*patch_b.T), axis=1),
        score=np.linspace(1, 0, len(patch_a)),
        patch_a=patch_a,
        patch_b=patch_b,
        confidence=0.5,
        size_a=(frame_a.width, frame_a.height),
        size_b=(frame_b.width, frame_b.height),
    )


def naive(
    a: np.ndarray, b: np.ndarray, valid: np.ndarray, matches: Matches, half_width: int, temperature: float
) -> list[tuple[float, float]]:
    """Row and column of each match in B: the definition, cell by cell, in float64."""
    places = []
    for (ra, ca), (rb, cb) in zip(matches.patch_a.tolist(), matches.patch_b.tolist(), strict=True):
        u = a[ra, ca].astype(np.float64)
        cells = {}
        for r in range(b.shape[0]):
            for c in range(b.shape[1]):
                v = b[r, c].astype(np.float64)
                if abs(r - rb) <= half_width and abs(c - cb) <= half_width and valid[r, c] and v.any():
                    cells[r, c] = float(u @ v) / float(np.sqrt(u @ u) * np.sqrt(v @ v))
        largest = max(cells.values())
        weight = {cell: np.exp((s - largest) / temperature) for cell, s in cells.items()}
        total = sum(weight.values())
        places.append(
            (
                float(sum(w * r for (r, _), w in weight.items()) / total),
                float(sum(w * c for (_, c), w in weight.items()) / total),
            )
        )
    return places


@PROPERTY
@given(
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 6),
    st.floats(0.005, 2),
    st.integers(0, 2**32),
)
def test_it_is_the_definition(ha: int, hb: int, wb: int, half_width: int, temperature: float, seed: int) -> None:
    """Any pairs of patches, smooth maps, masks and zero vectors; B's pixels are no multiple of its patches."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((ha, 4, 5)) + 1, rng.standard_normal((hb, wb, 5)) + 1
    b[rng.random((hb, wb)) < 0.1] = 0
    valid = rng.random((hb, wb)) < 0.9
    usable = np.argwhere(valid & b.any(axis=2))
    if not len(usable):
        return
    count = int(rng.integers(0, 40))
    patch_a = np.stack([rng.integers(0, ha, count), rng.integers(0, 4, count)], axis=1)
    patch_b = usable[rng.integers(0, len(usable), count)]
    frame_b = Frame(3 * wb + 1, 5 * hb, (hb, wb), patch=8, stride=4, scale=(1.3, 0.9), offset=(-2.0, 0.0))
    valid &= frame_b.real
    keep = valid[patch_b[:, 0], patch_b[:, 1]]
    matches = made(patch_a[keep], patch_b[keep], plain(ha, 4), frame_b)
    got = refine(matches, a, plain(ha, 4), b, frame_b, half_width=half_width, temperature=temperature, valid_b=valid)
    wanted = np.array(naive(a, b, valid, matches, half_width, temperature)).reshape(-1, 2)
    x = (wanted[:, 1] * 4 + 4 - 2.0) / 1.3 - 0.5
    y = (wanted[:, 0] * 4 + 4) / 0.9 - 0.5
    np.testing.assert_allclose(got.xy_b, np.stack([x, y], axis=1), atol=1e-6)
    for name in ("xy_a", "score", "patch_a", "patch_b"):
        assert np.array_equal(getattr(got, name), getattr(matches, name))


def test_float32_and_half_maps_agree_with_the_definition_on_a_large_grid() -> None:
    """Many squares of windows, of which the last are cut off by the grid."""
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((31, 29, 12)).astype(np.float32) + 0.5 for _ in range(2))
    frame = plain(31, 29)
    matches = match(a, frame, b, frame)
    assert len(matches) > 100
    matches = matches.take(np.arange(0, len(matches), 4))
    got = refine(matches, a, frame, b, frame, half_width=5)
    wanted = np.array(naive(a, b, np.ones((31, 29), bool), matches, 5, 0.02))
    np.testing.assert_allclose(got.xy_b[:, ::-1], wanted, atol=1e-4)
    assert (np.abs(got.xy_b - matches.xy_b) > 0.01).any()
    halves = [torch.from_numpy(x).half() for x in (a, b)]
    rounded = refine(matches, halves[0], frame, halves[1], frame, half_width=5)
    np.testing.assert_allclose(
        rounded.xy_b[:, ::-1],
        naive(halves[0].numpy(), halves[1].numpy(), np.ones((31, 29), bool), matches, 5, 0.02),
        atol=1e-4,
    )


def test_a_place_between_two_patches_is_found() -> None:
    """B's descriptors turn evenly from column to column; that of A stands between two of them."""
    angle = 0.2 * np.arange(9)
    b = np.stack([np.cos(angle), np.sin(angle)], axis=1)[None]
    a = np.array([[[np.cos(0.7), np.sin(0.7)]]])  # between columns 3 and 4
    frames = plain(1, 1), plain(1, 9)
    matches = match(a, frames[0], b, frames[1])
    assert matches.patch_b[0, 1] in (3, 4)
    got = refine(matches, a, frames[0], b, frames[1], half_width=8, temperature=0.02)
    near = refine(matches, a, frames[0], b, frames[1], half_width=8, temperature=1e-4)
    assert got.xy_b[0, 0] == pytest.approx(3.5, abs=0.01) and got.xy_b[0, 1] == 0
    assert near.xy_b[0, 0] == pytest.approx(3.5, abs=1e-9)  # both are as like
    assert np.array_equal(refine(matches, a, frames[0], b, frames[1], half_width=0).xy_b, matches.xy_b)


def test_what_lies_outside_the_window_has_no_weight() -> None:
    """With low similarities a window of zeros, in place of −∞, would be drawn to the middle of the grid."""
    b = np.zeros((1, 41, 2))
    b[..., 0] = 1.0
    b[0, 2] = (0.2, np.sqrt(1 - 0.04))
    a = np.array([[[0.0, 1.0]]])
    matches = made(np.array([[0, 0]]), np.array([[0, 2]]), plain(1, 1), plain(1, 41))
    got = refine(matches, a, plain(1, 1), b, plain(1, 41), half_width=2, temperature=0.5)
    w = np.exp(-np.sqrt(1 - 0.04) / 0.5)
    assert got.xy_b[0, 0] == pytest.approx((w * (0 + 1 + 3 + 4) + 2) / (4 * w + 1), abs=1e-9)


def test_mirrored_matches_stay_mirrored_and_their_frames_say_where_they_are() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 7, 5)), rng.standard_normal((5, 8, 5))
    matches = match(a, plain(6, 7), b, plain(5, 8))
    got = refine(dataclasses.replace(matches, mirrored=True), a, plain(6, 7), b, plain(5, 8), temperature=0.3)
    assert got.mirrored
    straight = refine(matches, a, plain(6, 7), b, plain(5, 8), temperature=0.3)
    assert np.array_equal(got.xy_b, straight.xy_b) and np.abs(straight.xy_b - matches.xy_b).max() > 0.1


# ----------------------------------------------------------------------------------------------------------------------
# No error in coordinates


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Map]:
    def through_a_store(image: np.ndarray, rule: str, size: int, patch: int) -> Map:
        name = f"{len(list(tmp_path.iterdir()))}"
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        encoder = PatchLocalEncoder(embed_dim=256, patch_size=patch, size=size)
        store = encode_images([tmp_path / f"{name}.png"], encoder, out=tmp_path / name, keep="patches", resize=rule)
        return store.feature_map(0), store.frame(0)

    return through_a_store


def noise(width: int, height: int) -> np.ndarray:
    """Patches whose descriptors point anywhere: dark, light and coloured noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_exact_places_stay_where_they_are(encode: Callable[..., Map], rule: str) -> None:
    """At a low temperature: patches of noise are like each other, and the softmax must not see them."""
    features, frame = encode(noise(101, 67), rule, 48, 4)
    matches = match(features, frame, features, frame)
    got = refine(matches, features, frame, features, frame, half_width=5, temperature=0.002)
    assert len(got) == frame.real.sum()
    np.testing.assert_allclose(got.xy_b, got.xy_a, atol=1e-6)


@pytest.mark.parametrize(("rule", "shape"), [("keep", (96, 64)), ("crop", (96, 64)), ("pad", (120, 72))])
def test_exact_places_of_a_shifted_image(encode: Callable[..., Map], rule: str, shape: tuple[int, int]) -> None:
    scene, (width, height) = noise(shape[0] + 40, shape[1] + 40), shape
    size = {"keep": 32, "crop": 32, "pad": 60}[rule]  # two pixels of the image for one of the encoder
    first, second = (encode(scene[y : y + height, x : x + width], rule, size, 4) for x, y in ((8, 8), (24, 16)))
    matches = match(*first, *second)
    matches = matches.take(matches.score > 0.9)
    got = refine(matches, *first, *second, half_width=5, temperature=0.002)
    assert len(got) > 20
    np.testing.assert_allclose(got.xy_b, got.xy_a - (16, 8), atol=1e-6)


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_width": -1}, "expected a half-width of 0 patches or more, got -1"),
        ({"temperature": 0.0}, "expected a temperature above 0, got 0"),
        ({"temperature": float("nan")}, "expected a temperature above 0, got nan"),
        ({"valid_b": np.eye(3, dtype=bool)}, r"patch \(0, 1\) of map_b may not match, yet a match has it"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 8))
    with pytest.raises(InputError, match=message):
        matches = match(x, plain(3, 3), x, plain(3, 3))
        order = np.argsort(matches.patch_b @ [3, 1])
        refine(matches.take(order), x, plain(3, 3), x, plain(3, 3), **options)  # type: ignore[arg-type]


def test_maps_that_the_matches_are_not_of_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    x = np.random.default_rng(0).standard_normal((4, 5, 8))
    matches = match(x, plain(4, 5), x, plain(4, 5))
    with pytest.raises(InputError, match=r"expected matches of the 4 × 4 patches of map_b, got patch \(\d, 4\)"):
        refine(matches, x, plain(4, 5), x[:, :4], plain(4, 4))
    with pytest.raises(InputError, match="expected maps of one length of descriptor, got 8 and 7"):
        refine(matches, x, plain(4, 5), x[..., :7], plain(4, 5))
    with pytest.raises(InputError, match="expected a map of 4 × 5 patches as in frame_b"):
        refine(matches, x, plain(4, 5), x[:, :4], plain(4, 5))
