"""The styles of PCA maps against their definitions written out: foreground, range, sigmoid, signs, colours that images share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from fewmatch.encoders import Frame
from fewmatch.encoders.frame import padded_frame
from fewmatch.matching import PatchPCA
from fewmatch.matching.pca.principal import border
from fewmatch.matching.pca.styles import PCA_STYLES


def made_maps(seed: int) -> Any:
    """Two images with a subject in the middle and skewed features, and a third one with padding."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    maps, frames = [], []
    for h, w in ((9, 11), (12, 7), (10, 10)):
        rows, columns = np.indices((h, w))
        inside = (abs(rows - h / 2) < h / 4) & (abs(columns - w / 2) < w / 4)
        x = rng.exponential(size=(h, w, 6)) ** 1.5 * [0.5, 1.2, 0.9, 0.7, 0.4, 0.2] * np.where(inside, 2, 1)[..., None]
        x[..., 0] += np.where(inside, 6, -3)
        maps.append(x @ mix + 20)
        frames.append(Frame(w * 8, h * 8, (h, w), 8, 8, scale=(1.0, 1.0)))
    frames[2] = padded_frame(60, 40, size=80, patch=8)
    maps[2][~frames[2].real] = 1e5
    assert frames[2].grid == (10, 10) and not frames[2].real.all()
    return maps, frames


def skewed(component: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The component with the sign that CAPI gives it."""
    skewness = np.mean(scores**3) / np.mean(scores**2) ** 1.5
    return component if skewness >= 0 else -component


def naive_colours(style: str, maps: list[np.ndarray], frames: list[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Colours of all real patches, and which are foreground, from the papers' steps with scikit-learn."""
    every = np.concatenate([m[f.real] for m, f in zip(maps, frames, strict=True)])
    edge = np.concatenate([border(f.real)[f.real] for f in frames])
    front = np.ones(len(every), bool)
    if style == "dinov2":
        first = PCA(1, svd_solver="full").fit_transform(every)[:, 0]
        above = first > 0
        front = above if edge[above].mean() <= edge[~above].mean() else ~above
    elif style == "dinov3":
        maps_fit = PatchPCA.fit(maps, frames, foreground=True)  # which patches are foreground has tests of its own
        front = np.concatenate([maps_fit.foreground(m, f)[f.real] for m, f in zip(maps, frames, strict=True)])
    pca = PCA(3, svd_solver="full", whiten=style in ("dinov3", "capi")).fit(every[front])
    scores, fitted = pca.transform(every), pca.transform(every[front])
    for k in range(3):
        if np.mean(fitted[:, k] ** 3) < 0:
            scores[:, k] *= -1
            fitted[:, k] *= -1
    if style == "fewmatch":
        low, high = np.percentile(fitted, 1, axis=0), np.percentile(fitted, 99, axis=0)
        colours = np.clip((scores - low) / (high - low), 0, 1)
    elif style == "dinov2":
        colours = (scores - scores.min(axis=0)) / (scores.max(axis=0) - scores.min(axis=0))
    elif style == "dinov3":
        colours = 1 / (1 + np.exp(-2 * scores))
    else:
        scores = scores / fitted[:, 0].std()
        colours = np.clip((scores + 2.3) / 4.6, 0, 1)
    colours[~front] = 0
    return colours, front


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("style", PCA_STYLES)
def test_a_style_is_its_definition(style: Any, seed: int) -> None:
    maps, frames = made_maps(seed)
    wanted, front = naive_colours(style, maps, frames)
    basis = PatchPCA.fit(maps, frames, style=style)
    got = [basis.colours(m, f) for m, f in zip(maps, frames, strict=True)]
    shown = [basis.foreground(m, f)[f.real] for m, f in zip(maps, frames, strict=True)]
    assert np.array_equal(np.concatenate(shown), front) and basis.style == style
    assert front.all() == (style in ("fewmatch", "capi")) and front.any()
    np.testing.assert_allclose(
        np.concatenate([c[f.real] for c, f in zip(got, frames, strict=True)]), wanted, rtol=0, atol=1e-9
    )
    assert not got[2][~frames[2].real].any()
    assert basis.patches == front.sum()


def test_styles_differ_and_a_foreground_may_be_named_where_there_is_one() -> None:
    maps, frames = made_maps(0)
    colours = {style: PatchPCA.fit(maps, frames, style=style).colours(maps[0], frames[0]) for style in PCA_STYLES}
    assert len({c.tobytes() for c in colours.values()}) == 4
    for style in ("dinov2", "dinov3"):
        same = PatchPCA.fit(maps, frames, style=style, foreground=True)  # type: ignore[arg-type]
        assert np.array_equal(same.colours(maps[0], frames[0]), colours[style])


@pytest.mark.parametrize("style", PCA_STYLES)
def test_a_patch_has_its_colour_whatever_other_images_are_shown(style: Any) -> None:
    maps, frames = made_maps(1)
    basis = PatchPCA.fit(maps, frames, style=style)
    alone = basis.colours(maps[0][3:6, 2:9])  # another image that has these patches
    np.testing.assert_allclose(alone, basis.colours(maps[0], frames[0])[3:6, 2:9], atol=1e-12)
    far = basis.colours(
        basis.mean + 1e6 * basis.components[:3].sum(axis=0)[None, None] * np.array([1.0, -1.0])[:, None, None]
    )
    assert far.min() >= 0 and far.max() <= 1


@pytest.mark.parametrize("style", PCA_STYLES)
def test_neither_order_nor_mirrored_features_turn_colours_over(style: Any) -> None:
    maps, frames = made_maps(2)
    basis = PatchPCA.fit(maps, frames, style=style)
    other = PatchPCA.fit([-m for m in maps[::-1]], frames[::-1], style=style)
    for m, f in zip(maps, frames, strict=True):
        np.testing.assert_allclose(other.colours(-m, f), basis.colours(m, f), atol=1e-8)


@pytest.mark.parametrize("style", PCA_STYLES)
def test_strips_are_every_component_over_its_limit(style: Any) -> None:
    maps, frames = made_maps(0)
    basis = PatchPCA.fit(maps, frames, style=style, components=5)
    few = PatchPCA.fit(maps, frames, style=style)
    np.testing.assert_allclose(basis.components[:3], few.components, atol=1e-12)
    np.testing.assert_array_equal(basis.colours(maps[0], frames[0]), few.colours(maps[0], frames[0]))
    kept = np.concatenate([m[basis.foreground(m, f)] for m, f in zip(maps, frames, strict=True)])
    every = np.concatenate([m[f.real] for m, f in zip(maps, frames, strict=True)])
    pca = PCA(5, svd_solver="full").fit(kept)
    np.testing.assert_allclose(basis.explained, pca.explained_variance_ratio_, rtol=1e-9)
    components = np.stack([skewed(c, (kept - kept.mean(axis=0)) @ c) for c in pca.components_])
    scores = (kept - kept.mean(axis=0)) @ components.T
    if style == "fewmatch":
        limit = np.abs(np.percentile(scores, [1, 99], axis=0)).max(axis=0)
    elif style == "dinov2":
        limit = np.abs((every - kept.mean(axis=0)) @ components.T).max(axis=0)
    elif style == "dinov3":
        limit = np.log(99) / 2 * scores.std(axis=0, ddof=1)
    else:
        limit = 2.3 * scores.std(axis=0)
    np.testing.assert_allclose(basis.limit, limit, rtol=1e-8)
    got = np.concatenate([basis.strips(m, f)[basis.foreground(m, f)] for m, f in zip(maps, frames, strict=True)])
    np.testing.assert_allclose(got, np.clip(scores / limit, -1, 1), atol=1e-8)
    assert np.isnan(basis.strips(maps[2], frames[2])[~frames[2].real]).all()
    shown = basis.foreground(maps[0], frames[0])
    assert np.array_equal(np.isnan(basis.strips(maps[0], frames[0])).all(axis=2), ~shown)


@pytest.mark.parametrize("style", PCA_STYLES)
def test_more_components_than_there_are_are_grey(style: Any) -> None:
    rng = np.random.default_rng(0)
    for feature_map in (rng.normal(size=(4, 5, 2)), np.full((3, 3, 2), 0.1), rng.normal(size=(1, 1, 4))):
        basis = PatchPCA.fit([feature_map], style=style, components=5)
        rank = 2 if feature_map.shape[:2] == (4, 5) else 0
        colours, shown = basis.colours(feature_map), basis.foreground(feature_map)
        assert shown.any() and (colours[shown][:, rank:] == 0.5).all() and np.isfinite(colours).all()
        strips = basis.strips(feature_map)
        assert strips.shape[2] == 5 and (strips[shown][:, rank:] == 0).all()
        assert (basis.components[rank:] == 0).all() and (basis.limit[rank:] == 0).all()
