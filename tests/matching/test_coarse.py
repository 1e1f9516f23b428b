"""Coarse to fine: mutual nearest patches among the pairs near a coarse match, as the definition says, at the exact places."""

from __future__ import annotations

import dataclasses
import itertools
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
from fewmatch.matching.coarse import coarse_to_fine, finer_points, pooled
from fewmatch.matching.transfer import transfer_points

Map = tuple[np.ndarray, Frame]
PROPERTY = settings(deadline=None, database=None, max_examples=25)


def frame_of(size: tuple[int, int], grid: tuple[int, int], patch: int = 6) -> Frame:
    """The whole image of this width and height on a grid of any other shape."""
    (width, height), (rows, columns) = size, grid
    return Frame(width, height, grid, patch, patch, scale=(columns * patch / width, rows * patch / height))


def naive(
    matches: Matches, coarse: tuple[Frame, Frame], fine: tuple[Map, Map], radius: float, valid: list[np.ndarray]
) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """Every fine pair against every coarse match, in float64; then both maxima over the candidates."""
    places = [
        [(r, c) for r, c in np.ndindex(frame.grid) if ok[r, c] and x[r, c].any()]
        for (x, frame), ok in zip(fine, valid, strict=True)
    ]

    def near(place: tuple[int, int], xy: np.ndarray, image: int) -> bool:
        """Whether a fine patch's centre is within the radius of a point, counted in coarse patches."""
        x, y = fine[image][1].to_pixels(*place)
        step = [coarse[image].stride / s for s in coarse[image].scale]
        return bool(abs(x - xy[0]) / step[0] <= radius + 1e-7 and abs(y - xy[1]) / step[1] <= radius + 1e-7)

    pairs: dict[tuple[tuple[int, int], tuple[int, int]], float] = {}
    for xy_a, xy_b in zip(matches.xy_a, matches.xy_b, strict=True):
        around = [[p for p in places[k] if near(p, xy, k)] for k, xy in enumerate((xy_a, xy_b))]
        for p, q in itertools.product(*around):
            u, v = fine[0][0][p].astype(float), fine[1][0][q].astype(float)
            pairs[p, q] = float(u @ v / np.sqrt((u @ u) * (v @ v)))
    forth: dict[tuple[int, int], tuple[int, int]] = {}
    back: dict[tuple[int, int], tuple[int, int]] = {}
    for p, q in sorted(pairs):
        if p not in forth or pairs[p, q] > pairs[p, forth[p]]:
            forth[p] = q
        if q not in back or pairs[p, q] > pairs[back[q], q]:
            back[q] = p
    found = [(p, q, pairs[p, q]) for p, q in forth.items() if back[q] == p]
    return sorted(found, key=lambda pair: (-pair[2], pair[0]))


def listed(matches: Matches) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
    return [
        (tuple(p), tuple(q), float(s))
        for p, q, s in zip(matches.patch_a.tolist(), matches.patch_b.tolist(), matches.score, strict=True)
    ]


SIDE = st.integers(1, 4)


@PROPERTY
@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from([0.3, 0.5, 1.0, 1.5, 9.0]), st.integers(0, 2**32))
def test_it_is_the_definition_ties_included(h: int, w: int, up: int, across: int, radius: float, seed: int) -> None:
    """Vectors of 0, 1, 4 or 16 entries ±1 have exact cosines, and many are equal. Grids are no multiples of each other."""
    rng = np.random.default_rng(seed)
    sizes = [(97, 61), (53, 80)]
    coarse = [frame_of(sizes[0], (h, w)), frame_of(sizes[1], (w, h))]

    def draw(frame: Frame) -> np.ndarray:
        x = rng.choice([-1.0, 1.0], (*frame.grid, 16))
        return x * (np.arange(16) < rng.choice([0, 1, 4, 16], (*frame.grid, 1)))

    fine = [(draw(f), f) for f in (frame_of(sizes[0], (h + up, w + across)), frame_of(sizes[1], (w + across, h * up)))]
    valid = [rng.random(f.grid) < 0.85 for _, f in fine]
    matches = match(draw(coarse[0]), coarse[0], draw(coarse[1]), coarse[1])
    wanted = naive(matches, (coarse[0], coarse[1]), (fine[0], fine[1]), radius, valid)
    for kind in (np.float64, np.float32):
        got = coarse_to_fine(
            matches.take(rng.permutation(len(matches))),
            *coarse,
            fine[0][0].astype(kind),
            fine[0][1],
            fine[1][0].astype(kind),
            fine[1][1],
            radius=radius,
            valid_a=valid[0],
            valid_b=valid[1],
        )
        assert listed(got) == wanted
        usable = min(int((v & x.any(axis=2)).sum()) for v, (x, _) in zip(valid, fine, strict=True))
        assert got.confidence == pytest.approx(sum(max(0, s) for *_, s in wanted) / max(1, usable), abs=1e-9)
        for xy, patch, (_, frame) in zip((got.xy_a, got.xy_b), (got.patch_a, got.patch_b), fine, strict=True):
            np.testing.assert_allclose(xy, np.stack(frame.to_pixels(*patch.T), axis=1), atol=1e-12)


def random_maps(seed: int, coarse: tuple[int, int], fine: tuple[int, int]) -> tuple[list[Frame], list[Map]]:
    rng = np.random.default_rng(seed)
    size = (120, 90)
    return [frame_of(size, coarse)] * 2, [
        (rng.standard_normal((*fine, 7)).astype(np.float32), frame_of(size, fine)) for _ in range(2)
    ]


def test_on_random_maps_and_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, fine = random_maps(0, (4, 5), (11, 13))
    rng = np.random.default_rng(1)
    matches = match(rng.standard_normal((4, 5, 9)), frames[0], rng.standard_normal((4, 5, 9)), frames[1])
    everything = [np.ones((11, 13), bool)] * 2
    wanted = naive(matches, (frames[0], frames[1]), (fine[0], fine[1]), 1.0, everything)
    got = coarse_to_fine(matches, *frames, *fine[0], *fine[1])
    assert len(wanted) > 20 and [p[:2] for p in listed(got)] == [p[:2] for p in wanted]
    np.testing.assert_allclose(got.score, [p[2] for p in wanted], atol=1e-6)
    swapped = dataclasses.replace(
        matches, xy_a=matches.xy_b, xy_b=matches.xy_a, patch_a=matches.patch_b, patch_b=matches.patch_a
    )
    back = coarse_to_fine(swapped, *frames, *fine[1], *fine[0])
    assert {(q, p) for p, q, _ in listed(back)} == {(p, q) for p, q, _ in listed(got)}
    assert back.confidence == pytest.approx(got.confidence, abs=1e-9)
    monkeypatch.setattr("fewmatch.matching.coarse._PRODUCTS", 1)  # one coarse match at a time
    assert listed(coarse_to_fine(matches, *frames, *fine[0], *fine[1])) == listed(got)
    tensors = [torch.from_numpy(x) for x, _ in fine]
    assert listed(coarse_to_fine(matches, *frames, tensors[0], fine[0][1], tensors[1], fine[1][1])) == listed(got)


def test_with_windows_as_large_as_the_images_it_is_match() -> None:
    _, fine = random_maps(2, (2, 3), (9, 8))
    matches = match(*pooled(*fine[0], 2), *pooled(*fine[1], 2))
    coarse = [pooled(*f, 2)[1] for f in fine]
    assert len(matches) > 0
    got = coarse_to_fine(matches, *coarse, *fine[0], *fine[1], radius=100.0)
    full = match(*fine[0], *fine[1])
    assert [p[:2] for p in listed(got)] == [p[:2] for p in listed(full)]
    assert got.confidence == pytest.approx(full.confidence, abs=1e-6)


def test_mirrored_matches_stay_mirrored_and_their_frames_say_where_they_are() -> None:
    frames, fine = random_maps(3, (4, 5), (11, 13))
    rng = np.random.default_rng(1)
    matches = match(rng.standard_normal((4, 5, 9)), frames[0], rng.standard_normal((4, 5, 9)), frames[1])
    straight = coarse_to_fine(matches, *frames, *fine[0], *fine[1])
    got = coarse_to_fine(dataclasses.replace(matches, mirrored=True), *frames, *fine[0], *fine[1])
    assert got.mirrored and not straight.mirrored and listed(got) == listed(straight)
    assert np.array_equal(got.xy_b, straight.xy_b)


def test_finer_points_are_looked_for_within_coarse_patches_of_where_they_were_found() -> None:
    frames, fine = random_maps(4, (4, 5), (11, 13))
    rng = np.random.default_rng(1)
    points, found = rng.uniform(0, [119, 89], (2, 20, 2))
    for radius in (0.5, 1.0):
        got = finer_points(points, found, frames[1], *fine[0], *fine[1], radius=radius, exclusion=1.0)
        wanted = transfer_points(
            points, *fine[0], *fine[1], near=found, reach=(radius * 120 / 5, radius * 90 / 4), exclusion=1.0
        )
        for name in ("xy_b", "score", "cycle", "ratio"):
            assert np.array_equal(getattr(got, name), getattr(wanted, name))
        assert (np.abs(got.xy_b - found) <= radius * np.array([24, 22.5]) + 1e-9).all()
    everywhere = finer_points(points, found, frames[1], *fine[0], *fine[1], radius=100.0, refine="soft-argmax")
    assert np.array_equal(everywhere.xy_b, transfer_points(points, *fine[0], *fine[1], refine="soft-argmax").xy_b)
    with pytest.raises(InputError, match="radius above 0, got 0"):
        finer_points(points, found, frames[1], *fine[0], *fine[1], radius=0.0)
    with pytest.raises(InputError, match="coarse_frame_b of the image of 120×90 px, got one of 121×90 px"):
        finer_points(points, found, frame_of((121, 90), (4, 5)), *fine[0], *fine[1])


def test_no_coarse_match_gives_none() -> None:
    frames, fine = random_maps(0, (4, 5), (11, 13))
    x = np.ones((4, 5, 3))
    none = match(x, frames[0], x, frames[1]).take(np.zeros(0, int))
    got = coarse_to_fine(none, *frames, *fine[0], *fine[1])
    assert len(got) == 0 and got.confidence == 0 and got.xy_b.shape == (0, 2)


# ----------------------------------------------------------------------------------------------------------------------
# A coarse map of a fine one


@PROPERTY
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.booleans(), st.integers(0, 2**32))
def test_pooled_is_the_mean_of_unit_descriptors(h: int, w: int, factor: int, overlap: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if factor > min(h, w):
        factor = min(h, w)
    x = rng.standard_normal((h, w, 3))
    x[rng.random((h, w)) < 0.2] = 0
    valid = rng.random((h, w)) < 0.8
    frame = Frame(200, 100, (h, w), patch=8, stride=4 if overlap else 8, scale=(0.4, 0.6), offset=(-8.0, 3.0))
    got, coarse = pooled(x, frame, factor, valid=valid)
    assert got.shape[:2] == coarse.grid == (h // factor, w // factor)
    for r, c in np.ndindex(coarse.grid):
        block = [(r * factor + i, c * factor + j) for i in range(factor) for j in range(factor)]
        used = [x[p] / np.linalg.norm(x[p]) for p in block if x[p].any() and valid[p] and frame.real[p]]
        np.testing.assert_allclose(got[r, c], np.mean(used, axis=0) if used else np.zeros(3), atol=1e-12)
        # Its centre is the middle of the centres of its patches.
        rows, columns = zip(*block, strict=True)
        np.testing.assert_allclose(
            coarse.to_pixels(r, c), np.mean(np.stack(frame.to_pixels(rows, columns)), axis=1), atol=1e-9
        )
    assert (coarse.width, coarse.height, coarse.scale) == (200, 100, frame.scale)


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
@pytest.mark.parametrize("how", ["smaller", "pooled"])
def test_an_image_against_itself(encode: Callable[..., Map], rule: str, how: str) -> None:
    """A coarse map of another size or of the same one, and a fine one: each fine patch finds itself, at its own place."""
    image = noise(101, 67)
    fine = encode(image, rule, 48, 4)
    coarse = encode(image, rule, 24, 4) if how == "smaller" else pooled(*fine, 2)
    matches = match(*coarse, *coarse)
    assert len(matches) == coarse[1].real.sum()
    got = coarse_to_fine(matches, coarse[1], coarse[1], *fine, *fine)
    assert np.array_equal(got.xy_a, got.xy_b) and len(got) == fine[1].real.sum()
    np.testing.assert_allclose(got.score, 1, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "shape", "size"), [("keep", (96, 64), 32), ("crop", (96, 64), 32), ("pad", (120, 80), 60)]
)
def test_a_shifted_image(encode: Callable[..., Map], rule: str, shape: tuple[int, int], size: int) -> None:
    """The second image begins two coarse patches further right and one further down."""
    scene, (width, height) = noise(shape[0] + 60, shape[1] + 60), shape
    step = 8  # pixels of the image for a fine patch
    fine = [encode(scene[y : y + height, x : x + width], rule, size, 4) for x, y in ((0, 0), (4 * step, 2 * step))]
    coarse = [pooled(*f, 2) for f in fine]
    matches = match(*coarse[0], *coarse[1])
    got = coarse_to_fine(matches, coarse[0][1], coarse[1][1], *fine[0], *fine[1])
    exact = got.take(got.score > 0.99)
    np.testing.assert_allclose(exact.xy_b, exact.xy_a - (4 * step, 2 * step), atol=1e-9)
    full = match(*fine[0], *fine[1])
    assert len(exact) == (full.score > 0.99).sum() > 10


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    frames, fine = random_maps(0, (4, 5), (11, 13))
    x = np.ones((4, 5, 3))
    matches = match(x, frames[0], x, frames[1])
    for radius in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="expected a radius above 0, got"):
            coarse_to_fine(matches, *frames, *fine[0], *fine[1], radius=radius)
    other = frame_of((119, 90), (4, 5))
    with pytest.raises(
        InputError, match="expected coarse_frame_b of the image of 120×90 px that was matched, got one of 119×90"
    ):
        coarse_to_fine(matches, frames[0], other, *fine[0], *fine[1])
    with pytest.raises(InputError, match="expected frame_a of the image of 120×90 px"):
        coarse_to_fine(matches, *frames, x, other, *fine[1])
    with pytest.raises(InputError, match="expected maps of one length of descriptor, got 7 and 6"):
        coarse_to_fine(matches, *frames, *fine[0], fine[1][0][..., :6], fine[1][1])
    for factor in (0, -2, 12):
        with pytest.raises(InputError, match=f"expected a factor from 1 to 11, .* got {factor}"):
            pooled(*fine[0], factor)
