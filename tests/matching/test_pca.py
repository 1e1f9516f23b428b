"""PCA of patches against scikit-learn's and naive definitions: components, signs, colours, foreground, centres, kept bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from fewmatch.encoders import Frame
from fewmatch.encoders.catalogue import find
from fewmatch.encoders.frame import padded_frame
from fewmatch.errors import InputError
from fewmatch.matching import PatchPCA
from fewmatch.matching.pca.principal import border, mutual_information, otsu_threshold, sign_of
from fewmatch.matching.pca.source import PCA_CENTERS

PROPERTY = settings(deadline=None, database=None, max_examples=60)
ENCODER = {"name": "mini", "digest": "abc", "dtype": "float32", "layer": "last", "size": 128, "resize": "keep"}


def frame_of(rows: int, columns: int) -> Frame:
    return Frame(columns * 8, rows * 8, (rows, columns), 8, 8, scale=(1.0, 1.0))


def made_maps(seed: int = 0, dims: int = 7, grids: tuple[tuple[int, int], ...] = ((5, 6), (9, 4), (3, 8))) -> Any:
    """Maps with skewed components of different variance, an offset of their own each and a large common one; and their frames."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dims, dims)) * np.arange(dims, 0, -1)[:, None]
    maps = [
        (rng.exponential(size=(h, w, dims)) @ mix + rng.normal(size=dims) + 100).astype(np.float32) for h, w in grids
    ]
    return maps, [frame_of(h, w) for h, w in grids]


def naive_centred(maps: list[np.ndarray], frames: list[Frame], center: str) -> list[np.ndarray]:
    """Each image's patches (n, D), centred: a linear regression on indicator variables and the terms of the surface."""
    rows, wanted = [], []
    for number, (feature_map, frame) in enumerate(zip(maps, frames, strict=True)):
        h, w = feature_map.shape[:2]
        for r in range(h):
            for c in range(w):
                if not frame.real[r, c]:
                    continue
                x, y = 2 * (c + 0.5) / w - 1, 2 * (r + 0.5) / h - 1
                terms = [x, y, x * x, x * y, y * y] if "position" in center else []
                mean = [float(number == i) for i in range(len(maps))] if "image" in center else [1.0]
                rows.append([*mean, *terms])
                wanted.append(feature_map[r, c].astype(np.float64))
    design, values = np.array(rows), np.array(wanted)
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    ends = np.cumsum([frame.real.sum() for frame in frames])[:-1]
    return np.split(left, ends)


@pytest.mark.parametrize("center", PCA_CENTERS)
@pytest.mark.parametrize("seed", range(3))
def test_components_are_those_of_scikit_learn_on_centred_patches(seed: int, center: Any) -> None:
    maps, frames = made_maps(seed)
    frames[1] = padded_frame(20, 50, size=72, patch=8)
    maps[1] = np.random.default_rng(seed).normal(size=(9, 9, 7)).astype(np.float32) * 4 + 100
    assert 0 < frames[1].real.sum() < 81
    basis = PatchPCA.fit(maps, frames, center=center)
    parts = naive_centred(maps, frames, center)
    pooled = np.concatenate(parts)
    wanted = PCA(3, svd_solver="full").fit(pooled)
    np.testing.assert_allclose(basis.explained, wanted.explained_variance_ratio_, rtol=1e-8)
    np.testing.assert_allclose(np.abs((basis.components * wanted.components_).sum(axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(basis.components @ basis.components.T, np.eye(3), atol=1e-12)
    assert (basis.images, basis.patches, basis.center) == (3, len(pooled), center)
    for feature_map, frame, part in zip(maps, frames, parts, strict=True):
        scores = basis.transform(feature_map, frame)
        assert scores.shape == (*frame.grid, 3)
        np.testing.assert_allclose(scores[frame.real], part @ basis.components.T, atol=1e-8)
    # Colours: percentiles 1 and 99 of all fitted scores become 0 and 1.
    scores = pooled @ basis.components.T
    np.testing.assert_allclose([basis.low, basis.high], np.percentile(scores, [1, 99], axis=0), atol=1e-8)
    colours = np.clip((scores - basis.low) / (basis.high - basis.low), 0, 1)
    got = np.concatenate([basis.colours(m, f)[f.real] for m, f in zip(maps, frames, strict=True)])
    np.testing.assert_allclose(got, colours, atol=1e-8)
    assert (got == 0).any() and (got == 1).any()


def test_centres_differ() -> None:
    maps, frames = made_maps()
    assert len({PatchPCA.fit(maps, frames, center=center).explained.tobytes() for center in PCA_CENTERS}) == 4


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("center", PCA_CENTERS)
def test_signs_hang_neither_on_the_order_of_images_nor_on_the_basis_of_features(center: Any, foreground: bool) -> None:
    maps, frames = made_maps(1)
    maps = [m.astype(np.float64) for m in maps]
    basis = PatchPCA.fit(maps, frames, center=center, foreground=foreground)
    colours = [basis.colours(m, f) for m, f in zip(maps, frames, strict=True)]
    if not foreground:
        scores = np.concatenate([basis.transform(m, f).reshape(-1, 3) for m, f in zip(maps, frames, strict=True)])
        assert (((scores - scores.mean(axis=0)) ** 3).mean(axis=0) > 0).all()
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    for turn in (rotation, -rotation, np.eye(7)[::-1]):
        rotated = PatchPCA.fit([m @ turn for m in maps], frames, center=center, foreground=foreground)
        for feature_map, frame, wanted in zip(maps, frames, colours, strict=True):
            np.testing.assert_allclose(rotated.colours(feature_map @ turn, frame), wanted, atol=1e-8)
    turned = PatchPCA.fit(maps[::-1], frames[::-1], center=center, foreground=foreground)
    for feature_map, frame, wanted in zip(maps, frames, colours, strict=True):
        np.testing.assert_allclose(turned.colours(feature_map, frame), wanted, atol=1e-8)


def test_without_skewness_the_largest_loading_is_positive() -> None:
    row = np.array([-3.0, -1, 1, 3])
    for flip in (1, -1):
        feature_map = np.stack([row * -2 * flip, row * 0.5 * flip], axis=1)[None]
        components = PatchPCA.fit([feature_map]).components
        assert components[0, 0] > 0 and components[0, 1] < 0
    # Of loadings alike the first counts, even where rounding makes another one larger.
    assert sign_of(row, np.array([-1.0, 1 + 1e-12])) == -1 and sign_of(row, np.array([1.0, -1 - 1e-12])) == 1
    assert sign_of(np.array([-1.0, -1, 2]), np.array([-1.0])) == 1 and sign_of(np.array([1.0, 1, -2]), row) == -1


def test_one_colour_means_one_thing_in_all_images() -> None:
    maps, frames = made_maps(2)
    maps[1][3, 2] = maps[0][1, 1]
    basis = PatchPCA.fit(maps, frames)
    np.testing.assert_allclose(
        basis.colours(maps[1], frames[1])[3, 2], basis.colours(maps[0], frames[0])[1, 1], atol=1e-12
    )


def test_maps_may_be_read_one_at_a_time_and_be_torch_of_any_precision() -> None:
    maps, frames = made_maps(3)
    basis = PatchPCA.fit(maps, frames)
    asked: list[int] = []
    seen: list[tuple[int, int]] = []

    def read(index: int) -> np.ndarray:
        asked.append(index)
        return np.asarray(maps[index])

    lazily = PatchPCA.fit(read, frames, foreground=True, progress=lambda *done: seen.append(done))
    assert asked == [0, 1, 2] * 4 and seen == [(i, 12) for i in range(1, 13)]
    assert np.array_equal(lazily.components, PatchPCA.fit(maps, frames, foreground=True).components)
    assert np.array_equal(PatchPCA.fit(maps).components, basis.components)  # without frames nothing is padding
    tensors = [torch.from_numpy(m).half() for m in maps]
    halves = [t.numpy().astype(np.float64) for t in tensors]
    assert np.array_equal(PatchPCA.fit(tensors).components, PatchPCA.fit(halves).components)
    assert np.array_equal(basis.colours(tensors[0]), basis.colours(halves[0]))


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("center", PCA_CENTERS)
def test_padding_takes_no_part_and_is_black(center: Any, foreground: bool) -> None:
    rng = np.random.default_rng(0)
    frame = padded_frame(64, 30, size=64, patch=8)
    feature_map = rng.exponential(size=(8, 8, 5))
    odd = feature_map.copy()
    odd[~frame.real] = 1e6
    basis, same = (PatchPCA.fit([m], [frame], center=center, foreground=foreground) for m in (feature_map, odd))
    np.testing.assert_array_equal(basis.components, same.components)
    np.testing.assert_array_equal(basis.colours(feature_map, frame), same.colours(odd, frame))
    colours = same.colours(odd, frame)
    assert (~frame.real).any() and not colours[~frame.real].any() and colours[frame.real].any()
    assert not same.foreground(odd, frame)[~frame.real].any()


# ----------------------------------------------------------------------------------------------------------------------
# Foreground


def made_scenes(seed: int, subject: float = 5.0) -> Any:
    """Images with a subject in the middle, brighter or darker in one direction of features than what is around it."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    maps, masks, frames = [], [], []
    for h, w in ((12, 14), (10, 18), (16, 11)):
        rows, columns = np.indices((h, w))
        # On the lower border, and of more than half of the patches in the first image: neither size nor touching once decides.
        inside = (rows > h / 5) & (abs(columns - w / 2 + 0.5) < w / (2.5 if h == 12 else 4))
        x = rng.normal(size=(h, w, 8)) * 0.3 + np.where(inside, subject, -subject)[..., None] * directions[0]
        x += np.where(inside, rng.exponential(size=(h, w)), 0)[..., None] * 2 * directions[2]
        maps.append(x + 50 * directions[3])
        masks.append(inside)
        frames.append(frame_of(h, w))
    return maps, masks, frames


@pytest.mark.parametrize("subject", [5.0, -5.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_subject_is_found_whatever_the_sign(seed: int, subject: float) -> None:
    maps, masks, frames = made_scenes(seed, subject)
    basis = PatchPCA.fit(maps, frames, foreground=True)
    rule = basis.foreground_rule
    assert rule is not None
    assert rule.share == pytest.approx(np.mean(np.concatenate([mask.ravel() for mask in masks])))
    assert basis.patches == sum(int(mask.sum()) for mask in masks)
    for feature_map, mask, frame in zip(maps, masks, frames, strict=True):
        assert np.array_equal(basis.foreground(feature_map, frame), mask)
        colours = basis.colours(feature_map, frame)
        assert not colours[~mask].any() and colours[mask].std() > 0.1
    # The colours are those of the foreground's own components, over the foreground's own range.
    inside = np.concatenate([m[mask] for m, mask in zip(maps, masks, strict=True)])
    own = PCA(3, svd_solver="full").fit(inside)
    np.testing.assert_allclose(np.abs((basis.components * own.components_).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(basis.explained, own.explained_variance_ratio_, rtol=1e-6)
    scores = (inside - inside.mean(axis=0)) @ basis.components.T
    np.testing.assert_allclose([basis.low, basis.high], np.percentile(scores, [1, 99], axis=0), atol=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_the_subject_is_found_where_another_direction_is_stronger(seed: int) -> None:
    """As in encoders whose first component tells top from bottom."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    rows, columns = np.indices((12, 14))
    inside = (abs(rows - 5.5) < 4) & (abs(columns - 6.5) < 4)
    x = rng.normal(size=(12, 14, 8)) * 0.3 + np.where(inside, 5, -5)[..., None] * directions[0]
    x += np.where(rows < 6, 9.0, -9.0)[..., None] * directions[1]
    basis = PatchPCA.fit([x], foreground=True)
    first = PatchPCA.fit([x]).components[0]
    assert abs(first @ directions[1]) > 0.9
    assert np.array_equal(basis.foreground(x), inside)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_subject_larger_than_its_background_is_found(sign: int) -> None:
    """24 of its 80 patches lie at the border, and 12 of the background's 20: shares decide, not counts."""
    inside = np.broadcast_to(np.arange(10)[:, None] >= 2, (10, 10))
    x = np.random.default_rng(0).normal(size=(10, 10, 4)) * 0.1
    x[..., 1] += sign * np.where(inside, 3.0, -3.0)
    assert np.array_equal(PatchPCA.fit([x], foreground=True).foreground(x), inside)


def test_an_image_may_be_all_foreground_or_none() -> None:
    maps, _, frames = made_scenes(0)
    basis = PatchPCA.fit(maps, frames, foreground=True)
    inside, outside = maps[0][6, 6], maps[0][0, 0]
    assert basis.foreground(np.broadcast_to(inside, (3, 4, 8))).all()
    blank = np.broadcast_to(outside, (3, 4, 8))
    assert not basis.foreground(blank).any() and not basis.colours(blank).any()


def test_borders_are_those_of_what_is_no_padding() -> None:
    frame = padded_frame(64, 40, size=64, patch=8)
    first, last = np.flatnonzero(frame.real.any(axis=1))[[0, -1]]
    wanted = np.zeros((8, 8), bool)
    wanted[[first, last]] = True
    wanted[first : last + 1, [0, -1]] = True
    assert np.array_equal(border(frame.real), wanted)
    assert border(np.ones((1, 5), bool)).all() and border(np.ones((3, 3), bool)).sum() == 8


@PROPERTY
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.sampled_from([0.0, 1e6]))
def test_otsu_is_its_definition(numbers: list[int], offset: float) -> None:
    values = np.array(numbers, np.float64) + offset
    threshold = otsu_threshold(values)

    def between(t: float) -> float:
        above = values > t
        if above.all() or not above.any():
            return 0.0
        share = above.mean()
        return float(share * (1 - share) * (values[above].mean() - values[~above].mean()) ** 2)

    if len(set(numbers)) == 1:
        assert threshold is None
        return
    assert threshold is not None and values.min() <= threshold < values.max()
    assert between(threshold) == pytest.approx(max(between(t) for t in values), rel=1e-6)


def test_otsu_separates_neighbouring_floats() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2))
    threshold = otsu_threshold(np.array([low, high]))
    assert threshold is not None and low <= threshold < high


# ----------------------------------------------------------------------------------------------------------------------
# Poor input


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("center", PCA_CENTERS)
@pytest.mark.parametrize(
    "feature_map",
    [
        np.full((1, 1, 4), 0.1),
        np.full((5, 6, 4), 0.1),
        np.zeros((3, 3, 1)),
        np.random.default_rng(0).normal(size=(3, 4, 1)),
        np.random.default_rng(0).normal(size=(1, 9, 2)),
    ],
    ids=["one patch", "blank", "one dimension of zeros", "one dimension", "one row"],
)
def test_poor_images_have_colours_too(feature_map: np.ndarray, center: Any, foreground: bool) -> None:
    for count in (1, 3):
        basis = PatchPCA.fit([feature_map] * count, center=center, foreground=foreground)
        colours, shown = basis.colours(feature_map), basis.foreground(feature_map)
        assert np.isfinite(colours).all() and shown.any()
        rank = min(feature_map.shape[2], 3) if np.ptp(feature_map) else 0
        if foreground and rank:
            continue
        assert basis.explained[:rank].sum() == pytest.approx(float(rank > 0))
        assert (basis.components[rank:] == 0).all() and (basis.explained[rank:] == 0).all()
        assert (colours[..., rank:] == 0.5).all() and shown.all()
        assert rank == 0 or np.ptp(colours[..., 0]) == 1


def test_a_foreground_of_one_patch_is_grey() -> None:
    feature_map = np.zeros((5, 5, 4))
    feature_map[2, 2] = 1
    basis = PatchPCA.fit([feature_map], foreground=True)
    assert np.argwhere(basis.foreground(feature_map)).tolist() == [[2, 2]]
    assert (basis.colours(feature_map)[2, 2] == 0.5).all() and basis.patches == 1


def test_what_cannot_be_fitted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    good, frame = np.ones((2, 3, 4)), frame_of(2, 3)
    bad = good.copy()
    bad[1, 2, 0] = np.nan
    for message, arguments in (
        ("expected one feature map or more, got none", ([],)),
        ("expected frames with a function", (lambda i: good,)),
        ("expected as many frames as maps, got 2 and 1", ([good], [frame] * 2)),
        ("expected map 0 of 3 × 3 patches as in its frame, got 2 × 3", ([good], [frame_of(3, 3)])),
        (r"expected maps of one dimension, got 4 and 5 \(map 1\)", ([good, np.ones((2, 3, 5))],)),
        (r"expected map 0 of shape \(h, w, D\), got \(2, 3\)", ([np.ones((2, 3))],)),
        (r"expected map 0 of shape \(h, w, D\), got \(0, 3, 4\)", ([np.ones((0, 3, 4))],)),
        (r"patch \(1, 2\) of map 1 are not finite", ([good, bad],)),
    ):
        with pytest.raises(InputError, match=message):
            PatchPCA.fit(*arguments)
    with pytest.raises(InputError, match="no centre called each: expected one of all, image, position"):
        PatchPCA.fit([good], center="each")
    with pytest.raises(InputError, match="no style called vogue: expected one of fewmatch, dinov2, dinov3, capi"):
        PatchPCA.fit([good], style="vogue")
    with pytest.raises(InputError, match="the style capi has no foreground"):
        PatchPCA.fit([good], style="capi", foreground=True)
    with pytest.raises(InputError, match="expected three components or more, for three colours, got 2"):
        PatchPCA.fit([good], components=2)
    basis = PatchPCA.fit([good])
    with pytest.raises(InputError, match="expected a map of 4 dimensions as the basis has, got 5"):
        basis.colours(np.ones((2, 3, 5)))
    with pytest.raises(InputError, match="expected the map of 3 × 3 patches"):
        basis.transform(good, frame_of(3, 3))


# ----------------------------------------------------------------------------------------------------------------------
# Kept bases


@pytest.mark.parametrize("style", ["dinov2", "dinov3", "capi"])
def test_a_basis_keeps_its_style_and_its_components(tmp_path: Path, style: Any) -> None:
    maps, _, frames = made_scenes(0)
    basis = PatchPCA.fit(maps, frames, style=style, components=5)
    again = PatchPCA.load(basis.save(tmp_path / "basis.npz"))
    assert again.style == style and again.components.shape == (5, 8)
    for feature_map, frame in zip(maps, frames, strict=True):
        assert np.array_equal(again.colours(feature_map, frame), basis.colours(feature_map, frame))
        assert np.array_equal(again.strips(feature_map, frame), basis.strips(feature_map, frame), equal_nan=True)


def test_bases_of_schema_1_are_read(tmp_path: Path) -> None:
    """They had no style, and three components."""
    maps, _, frames = made_scenes(0)
    basis = PatchPCA.fit(maps, frames, foreground=True)
    arrays = dict(np.load(basis.save(tmp_path / "basis.npz")))
    del arrays["style"]
    np.savez(tmp_path / "old.npz", **(arrays | {"schema": np.int64(1)}))
    old = PatchPCA.load(tmp_path / "old.npz")
    assert old.style == "fewmatch"
    assert np.array_equal(old.colours(maps[0], frames[0]), basis.colours(maps[0], frames[0]))


@pytest.mark.parametrize("foreground", [False, True])
@pytest.mark.parametrize("center", PCA_CENTERS)
def test_a_basis_survives_a_file(tmp_path: Path, center: Any, foreground: bool) -> None:
    maps, _, frames = made_scenes(0)
    basis = PatchPCA.fit(maps, frames, center=center, foreground=foreground, encoder=ENCODER)
    path = basis.save(tmp_path / "new folder" / "basis.npz")
    again = PatchPCA.load(path)
    assert again.encoder == ENCODER and (again.images, again.patches) == (basis.images, basis.patches)
    assert (again.foreground_rule is None) == (not foreground)
    for feature_map, frame in zip(maps, frames, strict=True):
        assert np.array_equal(again.colours(feature_map, frame), basis.colours(feature_map, frame))
        assert np.array_equal(again.foreground(feature_map, frame), basis.foreground(feature_map, frame))
    # The same work gives the same bytes.
    assert again.save(tmp_path / "again.npz").read_bytes() == path.read_bytes()
    anew = PatchPCA.fit(maps, frames, center=center, foreground=foreground, encoder=dict(reversed(ENCODER.items())))
    assert anew.save(tmp_path / "anew.npz").read_bytes() == path.read_bytes()


def test_a_basis_belongs_to_an_encoder() -> None:
    facts = ENCODER | {"identity": "one"}
    basis = PatchPCA.fit([np.ones((2, 3, 4))], encoder=facts)
    assert basis.check_encoder(facts) == {}
    assert basis.check_encoder(facts | {"size": 256, "resize": "pad", "fast_decode": True}) == {
        "size": (128, 256),
        "resize": ("keep", "pad"),
        "fast_decode": (None, True),
    }
    assert basis.check_encoder(facts | {"name": "my-mini"}) == {}  # the same under another name
    for change, words in (
        ({"digest": "xyz"}, "expected mini, digest abc as it was fitted on, got mini, digest xyz"),
        ({"layer": "7"}, "expected mini, layer last as it was fitted on, got mini, layer 7"),
        ({"stride": 4}, "expected mini, stride None as it was fitted on, got mini, stride 4"),
        ({"dtype": "bfloat16"}, "expected mini, dtype float32 as it was fitted on, got mini, dtype bfloat16"),
        ({}, "expected mini, identity one as it was fitted on, got mini, identity two"),
    ):
        with pytest.raises(InputError, match=f"^b.npz belongs to another encoder: {words}$"):
            basis.check_encoder(facts | change | {"identity": "two"}, "b.npz")
    assert PatchPCA.fit([np.ones((2, 3, 4))]).check_encoder(ENCODER) == {}


@pytest.mark.parametrize("side", ["the basis", "the maps", "both"])
def test_without_an_identity_only_weights_of_the_catalogue_are_known(side: str) -> None:
    """Files of earlier versions: name and digest say what the network is, if the catalogue has them."""
    mini = ENCODER | {"digest": find("mini").sha256}
    dino = ENCODER | {"name": "dinov2_vits14", "digest": find("dinov2_vits14").sha256}

    def check(facts: dict[str, Any], now: dict[str, Any]) -> Any:
        first = facts | ({"identity": "one"} if side == "the maps" else {})
        basis = PatchPCA.fit([np.ones((2, 3, 4))], encoder=first)
        return basis.check_encoder(now | ({"identity": "one"} if side == "the basis" else {}), "b.npz")

    assert check(mini, mini | {"size": 256}) == {"size": (128, 256)}
    assert check(dino, dino) == {}
    for facts in (ENCODER, mini | {"name": "my.pt"}, mini | {"digest": None}):
        with pytest.raises(
            InputError, match=r"^b\.npz was made by an older fewmatch, .* fit it again with --save-basis$"
        ):
            check(facts, facts)
    for change in ({"name": "my.pt"}, {"digest": "xyz"}, {"layer": "7"}, {"stride": 4}, {"dtype": "bfloat16"}):
        with pytest.raises(InputError, match=r"^b\.npz belongs to another encoder: expected mini"):
            check(mini, mini | change)


def test_a_basis_is_plain_arrays(tmp_path: Path) -> None:
    maps, frames = made_maps()
    path = PatchPCA.fit(maps, frames, encoder=ENCODER).save(tmp_path / "basis.npz")
    with np.load(path, allow_pickle=False) as archive:
        assert (
            json.loads(str(archive["encoder"])) == ENCODER
            and int(archive["schema"]) == 2
            and str(archive["style"]) == "fewmatch"
        )
        assert archive["components"].shape == (3, 7) and archive["foreground_direction"].shape == (0,)


def test_files_that_are_no_basis_are_refused_in_one_line(tmp_path: Path) -> None:
    maps, frames = made_maps()
    good = PatchPCA.fit(maps, frames).save(tmp_path / "good.npz")
    arrays = dict(np.load(good))
    path = tmp_path / "bad.npz"
    contents: list[bytes] = [b"", b"no archive", good.read_bytes()[:200], good.read_bytes()[:-30]]
    for change in (
        {"components": np.zeros((2, 7))},
        {"mean": np.full(7, np.nan)},
        {"low": np.zeros(3, np.float32)},
        {"encoder": np.str_("{")},
        {"encoder": np.str_("[1]")},
        {"center": np.str_("each")},
        {"style": np.str_("vogue")},
        {"foreground_direction": np.zeros(6)},
        {"mean": np.array([{"a": 1}], dtype=object)},
    ):
        np.savez(path, **(arrays | change))
        contents.append(path.read_bytes())
    np.savez(path, **{name: value for name, value in arrays.items() if name != "high"})
    contents.append(path.read_bytes())
    np.save(tmp_path / "one.npy", np.zeros(3))
    contents.append((tmp_path / "one.npy").read_bytes())
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"is not a basis that `fewmatch pca --save-basis` wrote: .") as caught:
            PatchPCA.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    np.savez(path, **(arrays | {"schema": np.int64(9)}))
    with pytest.raises(InputError, match="has schema 9, this fewmatch reads schemas 1 and 2: make the basis again"):
        PatchPCA.load(path)
    with pytest.raises(InputError, match=r"absent.npz does not exist"):
        PatchPCA.load(tmp_path / "absent.npz")


def test_mutual_information_is_scikit_learns() -> None:
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.random((2, int(rng.integers(1, 30)))) < rng.random((2, 1))
        assert mutual_information(a, b) == pytest.approx(mutual_info_score(a, b), abs=1e-12)
