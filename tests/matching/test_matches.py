"""Matches of images: no error in coordinates with an encoder that sees single patches, and every definition written out naively."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import Frame, encode_images, load
from fewmatch.encoders.frame import RESIZE_RULES
from fewmatch.errors import InputError
from fewmatch.matching import Matches, match
from fewmatch.matching.geometry.geometry import Geometry

Map = tuple[np.ndarray, Frame]
Encode = Callable[..., Map]
EncodeAll = Callable[..., list[Map]]
PROPERTY = settings(deadline=None, database=None, max_examples=50)


@pytest.fixture
def encode_all(tmp_path: Path) -> EncodeAll:
    """Images through files, the test encoder and a store: their maps and frames, as a user gets them."""

    def through_a_store(images: list[np.ndarray], rule: str, size: int, patch: int) -> list[Map]:
        name = f"{len(list(tmp_path.iterdir()))}"
        files = [tmp_path / f"{name} {i:02}.png" for i in range(len(images))]
        for file, image in zip(files, images, strict=True):
            Image.fromarray(image).save(file)
        encoder = PatchLocalEncoder(embed_dim=256, patch_size=patch, size=size)
        store = encode_images(files, encoder, out=tmp_path / name, keep="patches", resize=rule)
        assert [Path(file).name for file in store.names] == [file.name for file in files]
        return [(store.feature_map(i), store.frame(i)) for i in range(len(images))]

    return through_a_store


@pytest.fixture
def encode(encode_all: EncodeAll) -> Encode:
    """One image's map and frame."""
    return lambda image, rule, size, patch: encode_all([image], rule, size, patch)[0]


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def plain(rows: int, columns: int) -> Frame:
    """One pixel a patch: x is the column and y the row."""
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def centres(frame: Frame) -> list[tuple[float, float]]:
    """The pixels of all patches on the image, row by row, by the definition of a frame."""
    out = []
    for r in range(frame.grid[0]):
        for c in range(frame.grid[1]):
            x = (c * frame.stride + frame.patch / 2 + frame.offset[0]) / frame.scale[0] - 0.5
            y = (r * frame.stride + frame.patch / 2 + frame.offset[1]) / frame.scale[1] - 0.5
            if -0.5 < x < frame.width - 0.5 and -0.5 < y < frame.height - 0.5:
                out.append((x, y))
    return out


def strong(matches: Matches) -> Matches:
    """Without the patches that have no counterpart: chance gives them a partner, though no good one."""
    return matches.take(matches.score > 0.9)


# ----------------------------------------------------------------------------------------------------------------------
# No error in coordinates


@pytest.mark.parametrize("rule", RESIZE_RULES)
@pytest.mark.parametrize(
    ("width", "height", "size", "patch"),
    [(64, 64, 64, 4), (101, 67, 48, 4), (67, 101, 56, 7), (90, 60, 84, 14), (33, 200, 28, 7), (50, 20, 112, 14)],
)
def test_an_image_against_itself(encode: Encode, rule: str, width: int, height: int, size: int, patch: int) -> None:
    features, frame = encode(noise(width, height), rule, size, patch)
    matches = match(features, frame, features, frame)
    assert np.array_equal(matches.xy_a, matches.xy_b) and np.array_equal(matches.patch_a, matches.patch_b)
    assert len(matches) == len(centres(frame)) == frame.real.sum()
    by_place = sorted(map(tuple, matches.xy_a.tolist()), key=lambda p: (p[1], p[0]))
    np.testing.assert_allclose(by_place, centres(frame), atol=1e-9)
    np.testing.assert_allclose(matches.score, 1, atol=1e-6)
    assert matches.confidence == pytest.approx(1, abs=1e-6) and matches.confidence <= 1
    assert matches.size_a == matches.size_b == (width, height)


SHIFTED = [  # rule, width and height, size, patch, pixels of the original for one patch
    ("keep", (48, 32), 32, 4, (4, 4)),
    ("keep", (35, 70), 35, 7, (7, 7)),
    ("keep", (84, 56), 28, 7, (14, 14)),
    ("crop", (60, 32), 32, 4, (4, 4)),
    ("crop", (56, 90), 56, 14, (14, 14)),
    ("crop", (96, 64), 32, 4, (8, 8)),
    ("pad", (64, 40), 64, 4, (4, 4)),
    ("pad", (42, 84), 84, 14, (14, 14)),
    ("pad", (120, 72), 60, 4, (8, 8)),
    ("squash", (80, 40), 40, 4, (8, 4)),
    ("squash", (42, 84), 42, 7, (7, 14)),
    ("squash", (112, 112), 112, 14, (14, 14)),
]


@pytest.mark.parametrize(("rule", "shape", "size", "patch", "step"), SHIFTED)
def test_an_image_against_itself_shifted_by_whole_patches(
    encode_all: EncodeAll, rule: str, shape: tuple[int, int], size: int, patch: int, step: tuple[int, int]
) -> None:
    """The other images begin so many patches further right and down in a large picture."""
    width, height = shape
    scene = noise(width + 100, height + 100)
    shifts = [(0, 0), (1, 0), (0, 1), (2, 1), (-1, 2)]
    corners = [(50 + by[0] * step[0], 50 + by[1] * step[1]) for by in shifts]
    first, *others = encode_all([scene[y : y + height, x : x + width] for x, y in corners], rule, size, patch)
    for by, other in zip(shifts[1:], others, strict=True):
        dx, dy = by[0] * step[0], by[1] * step[1]
        matches = strong(match(*first, *other))
        np.testing.assert_allclose(matches.xy_b, matches.xy_a - (dx, dy), atol=1e-9)
        np.testing.assert_allclose(matches.patch_b, matches.patch_a - (by[1], by[0]), atol=0)
        there = np.array(centres(other[1]))
        common = [(x, y) for x, y in centres(first[1]) if (np.hypot(*(there - (x - dx, y - dy)).T) < 1e-6).any()]
        assert len(common) >= 4 and len(matches) == len(common)
        np.testing.assert_allclose(sorted(matches.xy_a.tolist()), sorted(common), atol=1e-9)


@pytest.mark.parametrize("patch", [4, 7, 14])
@pytest.mark.parametrize(("rule", "canvas"), [("keep", (140, 112)), ("pad", (140, 84)), ("crop", (140, 112))])
def test_an_image_pasted_into_a_larger_one(encode: Encode, patch: int, rule: str, canvas: tuple[int, int]) -> None:
    """One has padding, the other other sides and another grid; the pixels are neither enlarged nor reduced."""
    part = noise(3 * patch, 2 * patch)
    large = noise(*canvas, seed=1)
    inside = 28 // patch * patch
    x, y = inside + (14 if rule == "crop" else 0), inside  # where patches begin
    large[y : y + 2 * patch, x : x + 3 * patch] = part
    a = encode(part, "pad", 3 * patch, patch)
    b = encode(large, rule, {"keep": 112, "pad": 140, "crop": 112}[rule], patch)
    assert b[1].scale == (1, 1) and b[1].offset[0] == (14 if rule == "crop" else 0)
    matches = match(*a, *b)
    assert len(matches) == 6 and (matches.score > 0.999).all()
    np.testing.assert_allclose(matches.xy_b, matches.xy_a + np.array([x, y]), atol=1e-9)
    assert matches.confidence == pytest.approx(1, abs=1e-3)
    assert len(match(*b, *a)) == 6


@pytest.mark.parametrize(
    ("rule", "shape", "factors", "size", "patch"),
    [
        ("keep", (60, 40), (2, 2), 40, 4),
        ("keep", (42, 63), (3, 3), 42, 7),
        ("crop", (70, 56), (2, 2), 56, 14),
        ("pad", (63, 35), (2, 2), 63, 7),
        ("squash", (48, 48), (3, 2), 48, 4),
        ("squash", (63, 42), (1, 3), 42, 7),
        ("squash", (28, 56), (4, 1), 56, 14),
    ],
)
def test_an_image_against_itself_in_another_size_or_aspect(
    encode: Encode, rule: str, shape: tuple[int, int], factors: tuple[int, int], size: int, patch: int
) -> None:
    image = noise(*shape)
    larger = image.repeat(factors[1], axis=0).repeat(factors[0], axis=1)
    a, b = encode(image, rule, size, patch), encode(larger, rule, size, patch)
    matches = match(*a, *b)
    assert len(matches) == a[1].real.sum() == b[1].real.sum()
    np.testing.assert_allclose(matches.xy_b, (matches.xy_a + 0.5) * factors - 0.5, atol=1e-9)
    assert matches.size_b == (shape[0] * factors[0], shape[1] * factors[1])


def test_two_rules_match_each_other(encode: Encode) -> None:
    """What `crop` shows of an image lies in it where `keep` and `pad` say."""
    image = noise(64, 32)
    kept, cropped = encode(image, "keep", 32, 4), encode(image, "crop", 32, 4)
    padded = encode(image, "pad", 64, 4)
    for other, count in ((kept, 64), (padded, 64)):
        matches = match(*cropped, *other)
        assert len(matches) == count and np.array_equal(matches.xy_a, matches.xy_b)
    assert len(match(*kept, *padded)) == 128


@pytest.mark.parametrize("shapes", [((60, 30), (30, 60)), ((60, 20), (60, 20)), ((60, 60), (10, 60))])
def test_padding_never_matches(encode: Encode, shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """The padding of two images is alike, and no two of their other patches are."""
    maps = [encode(noise(*shape, seed=i), "pad", 60, 4) for i, shape in enumerate(shapes)]
    matches = match(*maps[0], *maps[1])
    assert len(matches) > 3 and matches.score.max() < 0.9
    for (_, frame), patch, xy in zip(
        maps, (matches.patch_a, matches.patch_b), (matches.xy_a, matches.xy_b), strict=True
    ):
        assert frame.real[patch[:, 0], patch[:, 1]].all()
        assert (xy > -0.5).all() and (xy < np.array([frame.width, frame.height]) - 0.5).all()
    assert match(*maps[0], *maps[0]).confidence == pytest.approx(1, abs=1e-6)  # padding does not count


# ----------------------------------------------------------------------------------------------------------------------
# The definition


def naive(a: np.ndarray, b: np.ndarray, valid_a: np.ndarray, valid_b: np.ndarray) -> tuple[list[Any], float]:
    """Mutual nearest neighbours by cosine with the pairs' scores, best first, and the confidence; patch by patch, in float64."""

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / math.sqrt(float(u @ u) * float(v @ v)))

    places = [
        [(r, c) for r in range(m.shape[0]) for c in range(m.shape[1]) if valid[r, c] and m[r, c].any()]
        for m, valid in ((a, valid_a), (b, valid_b))
    ]
    if not places[0] or not places[1]:
        return [], 0.0
    table = {(p, q): cosine(a[p], b[q]) for p in places[0] for q in places[1]}
    forth = {p: max(places[1], key=lambda q: table[p, q]) for p in places[0]}
    back = {q: max(places[0], key=lambda p: table[p, q]) for q in places[1]}
    pairs = [(p, q, table[p, q]) for p, q in forth.items() if back[q] == p]
    total = sum(max(0.0, score) for _, _, score in pairs)
    return sorted(pairs, key=lambda pair: -pair[2]), total / min(map(len, places))


def listed(matches: Matches) -> list[Any]:
    patches = zip(matches.patch_a.tolist(), matches.patch_b.tolist(), strict=True)
    return [
        (tuple(p), tuple(q), score) for (p, q), score in zip(patches, matches.score.astype(float).tolist(), strict=True)
    ]


SIDES = st.integers(1, 5)


@PROPERTY
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32))
@example(1, 1, 1, 1, 0)
@example(5, 1, 1, 5, 1)
def test_it_is_the_definition_ties_and_order_included(ha: int, wa: int, hb: int, wb: int, seed: int) -> None:
    """Vectors of one, four, nine or sixteen entries ±1, or of none: norms and cosines are exact, and ties are many."""
    rng = np.random.default_rng(seed)

    def draw(h: int, w: int) -> np.ndarray:
        x = rng.choice([-1.0, 1.0], (h, w, 16))
        x *= np.arange(16) < rng.choice([0, 1, 4, 16], (h, w, 1))
        return x * 2.0 ** rng.integers(-3, 4, (h, w, 1))

    a, b = draw(ha, wa), draw(hb, wb)
    valid_a, valid_b = rng.random((ha, wa)) < 0.8, rng.random((hb, wb)) < 0.8
    pairs, confidence = naive(a, b, valid_a, valid_b)
    frames = plain(ha, wa), plain(hb, wb)
    for kind in (np.float32, np.float64, np.float16):
        got = match(a.astype(kind), frames[0], b.astype(kind), frames[1], valid_a=valid_a, valid_b=valid_b)
        assert listed(got) == pairs
        assert got.confidence == pytest.approx(confidence, abs=1e-12)
        assert np.array_equal(got.xy_a, got.patch_a[:, ::-1]) and np.array_equal(got.xy_b, got.patch_b[:, ::-1])
    tensors = [torch.from_numpy(x).bfloat16() for x in (a, b)]
    got = match(tensors[0], frames[0], tensors[1], frames[1], valid_a=valid_a, valid_b=valid_b)
    assert listed(got) == pairs


def test_it_is_the_definition_on_random_maps() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 7, 12)), rng.standard_normal((6, 11, 12))
    pairs, confidence = naive(a, b, np.ones((9, 7), bool), np.ones((6, 11), bool))
    got = match(a.astype(np.float32), plain(9, 7), b.astype(np.float32), plain(6, 11))
    assert len(pairs) > 10 and [p[:2] for p in listed(got)] == [p[:2] for p in pairs]
    np.testing.assert_allclose(got.score, [p[2] for p in pairs], atol=1e-6)
    assert 0 < confidence < 1 and got.confidence == pytest.approx(confidence, abs=1e-6)
    assert (np.diff(got.score) <= 0).all()
    back = match(b.astype(np.float32), plain(6, 11), a.astype(np.float32), plain(9, 7))
    assert {(q, p) for p, q, _ in listed(back)} == {(p, q) for p, q, _ in listed(got)}
    assert back.confidence == pytest.approx(got.confidence, abs=1e-7)


def test_length_does_not_count() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((5, 5, 8)).astype(np.float32)
    b = a * rng.uniform(0.01, 100, (5, 5, 1)).astype(np.float32)
    matches = match(a, plain(5, 5), b, plain(5, 5))
    assert len(matches) == 25 and np.array_equal(matches.patch_a, matches.patch_b)


def test_scores_are_cosines_whatever_the_rounding() -> None:
    """Of an image against itself many come out a little above 1: they are 1, and the order is that of the patches."""
    a = np.random.default_rng(0).standard_normal((30, 30, 5)).astype(np.float32)
    x = a.reshape(-1, 5) / np.linalg.norm(a.reshape(-1, 5), axis=1, keepdims=True)
    assert ((x * x).sum(axis=1) > 1).any()
    matches = match(a, plain(30, 30), a, plain(30, 30))
    assert matches.score.max() == 1 and matches.confidence <= 1
    ones = matches.patch_a[matches.score == 1] @ [30, 1]
    assert len(ones) > 100 and (np.diff(ones) > 0).all()


def test_patches_that_point_away_match_but_give_no_confidence() -> None:
    a = np.array([[[1.0, 0.0]]])
    matches = match(a, plain(1, 1), -a, plain(1, 1))
    assert listed(matches) == [((0, 0), (0, 0), -1.0)] and matches.confidence == 0


@pytest.mark.parametrize("empty", ["a", "b", "mask"])
def test_where_nothing_may_match_there_is_no_match(empty: str) -> None:
    a, b = (np.zeros((2, 3, 4)) if empty == name else np.ones((2, 3, 4)) for name in "ab")
    valid = np.zeros((2, 3), bool) if empty == "mask" else None
    matches = match(a, plain(2, 3), b, plain(2, 3), valid_b=valid)
    assert len(matches) == 0 and matches.confidence == 0 and matches.to_json() == []
    assert matches.xy_a.shape == matches.patch_b.shape == (0, 2) and matches.size_a == (3, 2)
    assert len(matches.spread(3)) == 0


def test_a_foreground_keeps_to_itself() -> None:
    a = np.random.default_rng(0).standard_normal((6, 6, 8)).astype(np.float32)
    valid = np.zeros((6, 6), bool)
    valid[2:5, 1:4] = True
    matches = match(a, plain(6, 6), a, plain(6, 6), valid_a=valid)
    assert len(matches) == 9 and valid[matches.patch_a[:, 0], matches.patch_a[:, 1]].all()
    assert matches.confidence == pytest.approx(1, abs=1e-6)  # of the nine that may match


def test_the_maps_stay_as_they_are() -> None:
    a, b = (np.random.default_rng(i).standard_normal((3, 4, 5)).astype(np.float32) for i in range(2))
    copies = a.copy(), b.copy()
    first = match(a, plain(3, 4), b, plain(3, 4))
    assert np.array_equal(a, copies[0]) and np.array_equal(b, copies[1])
    a.flags.writeable = False
    second = match(a[::-1, ::-1][::-1, ::-1], plain(3, 4), torch.from_numpy(b).requires_grad_(), plain(3, 4))
    assert listed(first) == listed(second)


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shape checks of the tests, as users have it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("shape", [(4, 3, 5), (3, 5, 5), (12, 5), (1, 3, 4, 5)])
def test_a_map_of_another_frame_is_refused(unchecked: None, shape: tuple[int, ...]) -> None:
    good, wrong = np.ones((3, 4, 5)), np.ones(shape)
    for which, maps in (("a", (wrong, good)), ("b", (good, wrong))):
        with pytest.raises(InputError, match=rf"expected a map of 3 × 4 patches as in frame_{which}, got one of shape"):
            match(maps[0], plain(3, 4), maps[1], plain(3, 4))


@pytest.mark.parametrize("mask", [np.ones((4, 3), bool), np.ones((3, 4), int), np.ones(12, bool)])
@pytest.mark.parametrize("which", ["valid_a", "valid_b"])
def test_a_mask_of_another_frame_is_refused(unchecked: None, mask: np.ndarray, which: str) -> None:
    with pytest.raises(InputError, match=f"expected {which} of 3 × 4 booleans, got "):
        match(np.ones((3, 4, 5)), plain(3, 4), np.ones((3, 4, 5)), plain(3, 4), **{which: mask})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", "ab")
def test_features_that_are_not_finite_are_refused_where_they_are(value: float, which: str) -> None:
    maps = {name: np.ones((3, 4, 5), np.float32) for name in "ab"}
    maps[which][2, 1, 3] = value
    with pytest.raises(InputError, match=rf"the features of patch \(2, 1\) of map_{which} are not finite"):
        match(maps["a"], plain(3, 4), maps["b"], plain(3, 4))
    valid = np.ones((3, 4), bool)
    valid[2, 1] = False
    assert len(match(maps["a"], plain(3, 4), maps["b"], plain(3, 4), valid_a=valid, valid_b=valid)) == 1


def test_maps_of_different_encoders_are_refused(unchecked: None) -> None:
    with pytest.raises(InputError, match="expected two maps by one encoder, got descriptors of 3 and of 4 numbers"):
        match(np.ones((2, 2, 3)), plain(2, 2), np.ones((2, 2, 4)), plain(2, 2))


# ----------------------------------------------------------------------------------------------------------------------
# What one does with matches


def made_up(xy_a: np.ndarray, xy_b: np.ndarray, size_a: tuple[int, int], size_b: tuple[int, int]) -> Matches:
    count = len(xy_a)
    return Matches(
        xy_a=np.asarray(xy_a, np.float64),
        xy_b=np.asarray(xy_b, np.float64),
        score=np.linspace(1, 0.5, count).astype(np.float32),
        patch_a=np.arange(2 * count).reshape(count, 2),
        patch_b=-np.arange(2 * count).reshape(count, 2),
        confidence=0.25,
        size_a=size_a,
        size_b=size_b,
    )


def random_matches(count: int, seed: int) -> Matches:
    """Points on a coarse lattice of two images, so that distances are often equal."""
    rng = np.random.default_rng(seed)
    sizes = [(int(w), int(h)) for w, h in rng.integers(3, 12, (2, 2))]
    points = [rng.integers(0, size, (count, 2)).astype(float) for size in sizes]
    return made_up(*points, *sizes)


def same(one: Matches, other: Matches) -> bool:
    names = ("xy_a", "xy_b", "score", "patch_a", "patch_b")
    return (one.confidence, one.size_a, one.size_b) == (other.confidence, other.size_a, other.size_b) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def naive_spread(matches: Matches, count: int) -> list[int]:
    """Which are kept, in exact fractions: the distance to the nearest better one counts, squared and as a share of the diagonal."""

    def share(i: int, j: int, xy: np.ndarray, size: tuple[int, int]) -> Fraction:
        gap = sum(Fraction(float(u - v)) ** 2 for u, v in zip(xy[i], xy[j], strict=True))
        return gap / (size[0] ** 2 + size[1] ** 2)

    def radius(i: int) -> Fraction | float:
        both = ((matches.xy_a, matches.size_a), (matches.xy_b, matches.size_b))
        return min((min(share(i, j, *image) for image in both) for j in range(i)), default=math.inf)

    radii = [radius(i) for i in range(len(matches))]
    return sorted(sorted(range(len(matches)), key=lambda i: (-radii[i], i))[:count])


@PROPERTY
@given(st.integers(0, 25), st.integers(0, 30), st.integers(0, 2**32))
@example(25, 0, 0)
@example(25, 1, 0)
@example(0, 0, 0)
@example(1, 1, 0)
def test_spread_is_adaptive_non_maximal_suppression(length: int, count: int, seed: int) -> None:
    matches = random_matches(length, seed)
    got = matches.spread(count)
    assert len(got) == min(count, length)
    assert same(got, matches.take(np.array(naive_spread(matches, count), int)))


def test_spread_goes_through_many_matches_part_by_part() -> None:
    matches = random_matches(2500, 0)
    xy = [np.random.default_rng(i).uniform(0, 500, (2500, 2)) for i in range(2)]
    matches = made_up(*xy, (500, 400), (400, 300))
    gap = [
        ((p[:, None] - p[None]) ** 2).sum(axis=2) / d
        for p, d in zip(xy, (500**2 + 400**2, 400**2 + 300**2), strict=True)
    ]
    radius = np.where(np.tri(2500, k=-1, dtype=bool), np.minimum(*gap), np.inf).min(axis=1)
    wanted = np.sort(np.argsort(-radius, kind="stable")[:100])
    assert same(matches.spread(100), matches.take(wanted))


def test_spread_reaches_what_the_best_do_not() -> None:
    """Ninety good matches crowd in one corner; the few elsewhere are worse, and are kept."""
    rng = np.random.default_rng(0)
    crowd, others = rng.uniform(0, 10, (90, 2)), np.array([[90.0, 90], [10, 90], [90, 10], [50, 50]])
    for a, b in [(np.vstack([crowd, others]),) * 2, (np.vstack([crowd, others]), np.vstack([crowd, others])[:, ::-1])]:
        matches = made_up(a, b, (100, 100), (100, 100))
        kept = {tuple(p) for p in matches.spread(8).xy_a.tolist()}
        assert {tuple(p) for p in others.tolist()} <= kept and tuple(crowd[0].tolist()) in kept
        assert not {tuple(p) for p in others.tolist()} & {tuple(p) for p in matches.xy_a[:8].tolist()}


def test_spread_looks_at_both_images() -> None:
    """Far apart in one image and on one spot in the other is not well spread."""
    a = np.array([[0.0, 0], [99, 99], [40, 40]])
    b = np.array([[5.0, 5], [5, 5], [60, 60]])
    for one, other in ((a, b), (b, a)):
        assert same(
            made_up(one, other, (100, 100), (100, 100)).spread(2),
            made_up(one, other, (100, 100), (100, 100)).take(np.array([0, 2])),
        )


def test_spread_refuses_less_than_nothing() -> None:
    with pytest.raises(InputError, match="expected a count of 0 or more, got -1"):
        random_matches(3, 0).spread(-1)


def test_take_takes_in_the_order_given() -> None:
    matches = random_matches(6, 0)
    some = matches.take(np.array([4, 0, 4]))
    assert len(some) == 3 and some.confidence == 0.25 and some.size_b == matches.size_b
    for name in ("xy_a", "xy_b", "score", "patch_a", "patch_b"):
        assert np.array_equal(getattr(some, name), getattr(matches, name)[[4, 0, 4]])
    assert same(matches.take(np.arange(6) % 2 == 0), matches.take(np.array([0, 2, 4])))
    assert len(matches.take(np.zeros(0, int))) == 0


def test_json_has_one_entry_per_match() -> None:
    matches = made_up(np.array([[1.5, 2], [3, 4]]), np.array([[5, 6.25], [7, 8]]), (10, 10), (10, 10))
    wanted = [
        {"xa": 1.5, "ya": 2.0, "xb": 5.0, "yb": 6.25, "score": 1.0},
        {"xa": 3.0, "ya": 4.0, "xb": 7.0, "yb": 8.0, "score": 0.5},
    ]
    assert json.loads(json.dumps(matches.to_json())) == wanted


def test_what_is_known_of_each_match_is_taken_along_and_listed() -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry("affine", 3.0, np.eye(3), np.array([True, False, True, False]))
    matches = dataclasses.replace(
        random_matches(4, 0), ratio=rng.random(4), cycle=np.arange(4.0), geometry=geometry, mirrored=True
    )
    some = matches.take(np.array([3, 0]))
    assert some.ratio is not None and some.cycle is not None and some.geometry is not None and matches.ratio is not None
    assert some.ratio.tolist() == matches.ratio[[3, 0]].tolist() and some.cycle.tolist() == [3, 0]
    assert some.geometry.inliers.tolist() == [False, True] and some.geometry.kind == "affine" and some.mirrored
    assert matches.geometry is geometry and len(geometry.inliers) == 4
    entry = json.loads(json.dumps(some.to_json()))[0]
    assert list(entry) == ["xa", "ya", "xb", "yb", "score", "ratio", "cycle", "inlier"]
    assert entry["ratio"] == matches.ratio[3] and entry["cycle"] == 3 and entry["inlier"] is False
    assert len(matches.spread(2)) == 2 and len(dataclasses.replace(matches).take(np.zeros(0, int)).to_json()) == 0
    plain_ones = random_matches(4, 0)
    assert (plain_ones.ratio, plain_ones.cycle, plain_ones.geometry, plain_ones.mirrored) == (None, None, None, False)
    assert list(plain_ones.to_json()[0]) == ["xa", "ya", "xb", "yb", "score"]


# ----------------------------------------------------------------------------------------------------------------------
# Real images


def test_a_stereo_pair_matches_as_its_disparity_says(tmp_path: Path) -> None:
    left, right, disparity = skimage.data.stereo_motorcycle()
    for name, image in (("left", left), ("right", right)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    store = encode_images([tmp_path / "left.png", tmp_path / "right.png"], load("mini"), keep="patches", size=128)
    matches = match(store.feature_map(0), store.frame(0), store.feature_map(1), store.frame(1))
    x, y = np.rint(matches.xy_a).astype(int).T
    shift = disparity[y, x]
    known = np.isfinite(shift)
    error = np.hypot(matches.xy_a[:, 0] - shift - matches.xy_b[:, 0], matches.xy_a[:, 1] - matches.xy_b[:, 1])[known]
    frame = store.frame(0)
    assert frame.grid == (16, 24) and known.sum() > 150
    assert (error <= frame.patch / min(frame.scale)).mean() >= 0.82
    assert 0.3 < matches.confidence < 1
