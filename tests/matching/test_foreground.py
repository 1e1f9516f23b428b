"""Foreground: by a principal component, by the cosine with an image's vector, and the side that lies less at the borders."""

from __future__ import annotations

import itertools

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmatch.encoders import Frame
from fewmatch.errors import InputError
from fewmatch.matching.foreground import FOREGROUNDS, ForegroundKind, foreground_masks
from fewmatch.matching.matches import match
from fewmatch.matching.pca.pca import PatchPCA

PROPERTY = settings(deadline=None, database=None, max_examples=40)
GRIDS = ((8, 9), (7, 12), (10, 6))


def plain(rows: int, columns: int) -> Frame:
    return Frame(columns, rows, (rows, columns), patch=1, stride=1, scale=(1.0, 1.0))


def scenes(seed: int = 0, toward: float = 1.0) -> tuple[list[np.ndarray], list[Frame], np.ndarray, list[np.ndarray]]:
    """Images of one thing in the middle: maps, frames, global vectors, and the truth. The thing is like the vector (or unlike it)."""
    rng = np.random.default_rng(seed)
    maps, truths, vectors = [], [], []
    for grid in GRIDS:
        truth = np.zeros(grid, bool)
        truth[2:-2, 2:-2] = True
        x = 0.1 * rng.normal(size=(*grid, 6))
        x[truth, 0] += 2
        x[~truth, 1] += 2
        maps.append(x)
        truths.append(truth)
        vectors.append(toward * np.array([1.0, 0.2, 0.1, 0, 0, 0]))
    return maps, [plain(*grid) for grid in GRIDS], np.array(vectors), truths


def naive_otsu(values: list[float]) -> float | None:
    best: tuple[float, float] | None = None
    distinct = sorted(set(values))
    for low, high in itertools.pairwise(distinct):
        below, above = [v for v in values if v <= low], [v for v in values if v > low]
        between = len(below) * len(above) * (np.mean(below) - np.mean(above)) ** 2
        if best is None or between > best[0] * (1 + 1e-9):
            best = float(between), (low + high) / 2
    return None if best is None else best[1]


@PROPERTY
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_cls_is_its_definition(seed: int, count: int) -> None:
    """Otsu on each image's cosines; one side for all images, the one with the smaller share of patches at a border."""
    rng = np.random.default_rng(seed)
    grids = [tuple(rng.integers(1, 6, 2).tolist()) for _ in range(count)]
    maps = [rng.normal(size=(*grid, 4)) for grid in grids]
    vectors = rng.normal(size=(count, 4))
    found = foreground_masks(maps, [plain(*grid) for grid in grids], kind="cls", vectors=vectors)
    cosines, thresholds, sides = [], [], {True: [0, 0], False: [0, 0]}
    for x, v in zip(maps, vectors, strict=True):
        h, w = x.shape[:2]
        cosine = np.array(
            [[x[r, c] @ v / (np.linalg.norm(x[r, c]) * np.linalg.norm(v)) for c in range(w)] for r in range(h)]
        )
        threshold = naive_otsu(cosine.ravel().tolist())
        cosines.append(cosine)
        thresholds.append(threshold)
        for r in range(h):
            for c in range(w):
                if threshold is not None:
                    side = sides[bool(cosine[r, c] > threshold)]
                    side[0] += r in (0, h - 1) or c in (0, w - 1)
                    side[1] += 1
    above = True
    if sides[True][1]:
        above = sides[True][0] / sides[True][1] <= sides[False][0] / sides[False][1]
    assert found.above == above and found.kind == "cls"
    for mask, saliency, cosine, threshold in zip(found.masks, found.saliency, cosines, thresholds, strict=True):
        assert np.array_equal(mask, np.ones(mask.shape, bool) if threshold is None else (cosine > threshold) == above)
        oriented = cosine if above else -cosine
        spread = oriented.max() - oriented.min()
        np.testing.assert_allclose(saliency, (oriented - oriented.min()) / (spread or 1), atol=1e-9)


@pytest.mark.parametrize("toward", [1.0, -1.0])
@pytest.mark.parametrize("kind", FOREGROUNDS)
def test_a_thing_in_the_middle_is_found_whichever_way_the_encoder_points(kind: ForegroundKind, toward: float) -> None:
    maps, frames, vectors, truths = scenes(toward=toward)
    found = foreground_masks(maps, frames, kind=kind, vectors=vectors)
    for mask, saliency, truth in zip(found.masks, found.saliency, truths, strict=True):
        assert np.array_equal(mask, truth)
        assert saliency[truth].min() > saliency[~truth].max()
        assert saliency.min() == 0 and saliency.max() == 1
    if kind == "cls":
        assert found.above == (toward > 0)


def test_pca_is_the_rule_of_the_colours() -> None:
    maps, frames, _, _ = scenes(3)
    basis = PatchPCA.fit(maps, frames, foreground=True)
    found = foreground_masks(maps, frames)
    assert found.kind == "pca" and basis.foreground_rule is not None and found.above == basis.foreground_rule.above
    for x, frame, mask in zip(maps, frames, found.masks, strict=True):
        assert np.array_equal(mask, basis.foreground(x, frame))


def test_the_level_of_an_image_does_not_matter_to_cls() -> None:
    """All patches of one image are nearer to their vector than all of another: each is still split in two."""
    maps, frames, vectors, truths = scenes()
    maps[1] = maps[1] + 3 * vectors[1]
    found = foreground_masks(maps, frames, kind="cls", vectors=vectors)
    assert all(np.array_equal(mask, truth) for mask, truth in zip(found.masks, truths, strict=True))


@pytest.mark.parametrize("kind", FOREGROUNDS)
def test_the_order_of_the_images_does_not_matter(kind: ForegroundKind) -> None:
    maps, frames, vectors, _ = scenes(4)
    found = foreground_masks(maps, frames, kind=kind, vectors=vectors)
    order = [2, 0, 1]
    other = foreground_masks([maps[i] for i in order], [frames[i] for i in order], kind=kind, vectors=vectors[order])
    for place, i in enumerate(order):
        assert np.array_equal(other.masks[place], found.masks[i])
        np.testing.assert_allclose(other.saliency[place], found.saliency[i], atol=1e-9)


@pytest.mark.parametrize("kind", FOREGROUNDS)
def test_functions_tensors_and_progress(kind: ForegroundKind) -> None:
    maps, frames, vectors, _ = scenes(5)
    steps: list[tuple[int, int]] = []
    found = foreground_masks(
        lambda i: torch.from_numpy(maps[i]).float(),
        frames,
        kind=kind,
        vectors=vectors,
        progress=lambda *s: steps.append(s),
    )
    wanted = foreground_masks(maps, frames, kind=kind, vectors=vectors)
    assert all(np.array_equal(a, b) for a, b in zip(found.masks, wanted.masks, strict=True))
    assert steps[-1][0] == steps[-1][1] and [done for done, _ in steps] == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("kind", FOREGROUNDS)
def test_padding_is_never_foreground_and_never_counts(kind: ForegroundKind) -> None:
    maps, _, vectors, truths = scenes(6)
    padded, around, wanted = [], [], []
    for x, truth in zip(maps, truths, strict=True):
        h, w = truth.shape
        frame = Frame(w, h, (14, 14), 1, 1, (1.0, 1.0), (-float((14 - w) // 2), -float((14 - h) // 2)))
        top, left = (14 - h) // 2, (14 - w) // 2
        big = np.full((14, 14, 6), 50.0)
        big[top : top + h, left : left + w] = x
        mask = np.zeros((14, 14), bool)
        mask[top : top + h, left : left + w] = truth
        padded.append(big)
        around.append(frame)
        wanted.append(mask)
    found = foreground_masks(padded, around, kind=kind, vectors=vectors)
    for mask, saliency, want, frame in zip(found.masks, found.saliency, wanted, around, strict=True):
        assert np.array_equal(mask, want)
        assert (saliency[~frame.real] == 0).all() and saliency.max() == 1


@pytest.mark.parametrize("kind", FOREGROUNDS)
@pytest.mark.parametrize("grid", [(1, 1), (3, 4)])
def test_patches_that_are_all_alike_are_foreground(kind: ForegroundKind, grid: tuple[int, int]) -> None:
    maps = [np.ones((*grid, 3))]
    found = foreground_masks(maps, [plain(*grid)], kind=kind, vectors=np.ones((1, 3)))
    assert found.masks[0].all() and (found.saliency[0] == 0).all()


def test_a_zero_patch_has_no_cosine_and_zero_vectors_split_nothing() -> None:
    maps, frames, vectors, truths = scenes()
    maps[0][0, 0] = 0
    found = foreground_masks(maps, frames, kind="cls", vectors=vectors)
    assert all(np.isfinite(s).all() for s in found.saliency) and np.array_equal(found.masks[0], truths[0])
    assert foreground_masks(maps, frames, kind="cls", vectors=0 * vectors).masks[0].all()


def test_background_never_matches() -> None:
    maps, frames, vectors, truths = scenes(7)
    masks = foreground_masks(maps, frames, kind="cls", vectors=vectors).masks
    matches = match(maps[0], frames[0], maps[1], frames[1], valid_a=masks[0], valid_b=masks[1])
    assert len(matches) and truths[0][tuple(matches.patch_a.T)].all() and truths[1][tuple(matches.patch_b.T)].all()


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    maps, frames, vectors, _ = scenes()
    with pytest.raises(InputError, match="no foreground called saliency: expected one of pca, cls"):
        foreground_masks(maps, frames, kind="saliency")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected the images' global vectors with the foreground cls, got none"):
        foreground_masks(maps, frames, kind="cls")
    with pytest.raises(
        InputError, match=r"expected 3 global vectors, one for each map, got an array of shape \(2, 6\)"
    ):
        foreground_masks(maps, frames, kind="cls", vectors=vectors[:2])
    with pytest.raises(
        InputError, match=r"expected map 0 of shape \(8, 9, 5\) as its frame and vector say, got \(8, 9, 6\)"
    ):
        foreground_masks(maps, frames, kind="cls", vectors=vectors[:, :5])
    with pytest.raises(InputError, match="expected as many frames as maps, got 2 and 3"):
        foreground_masks(maps, frames[:2], kind="cls", vectors=vectors[:2])
    for kind in FOREGROUNDS:
        with pytest.raises(InputError, match="expected one feature map or more, got none"):
            foreground_masks([], [], kind=kind, vectors=vectors[:0])
    maps[2][1, 1, 1] = np.nan
    with pytest.raises(InputError, match="the features of map 2 or its vector are not finite"):
        foreground_masks(maps, frames, kind="cls", vectors=vectors)
