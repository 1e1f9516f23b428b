"""Few-shot keypoints: an image finds its own points, what is absent or unknown, and that every option changes what it should."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from patch_local import PatchLocalEncoder

from fewmatch.encoders.frame import Frame, crop_frame, dense_frame, resample
from fewmatch.errors import InputError
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.maps import FINENESS, View, descriptors_at, pixel_grid
from fewmatch.matching.keypoints.options import KeypointOptions
from fewmatch.matching.keypoints.search import FoundParts, KeypointFinder, find_keypoints

ENCODER = PatchLocalEncoder(embed_dim=32)
WIDTH, HEIGHT = 44, 36


def view(image: np.ndarray, size: int) -> View:
    """The map and the frame of an image, its short side brought to `size` for an encoder with patches of 4 × 4 pixels."""
    frame = dense_frame(image.shape[1], image.shape[0], size=size, patch=4)
    return encoded(image, frame), frame


def encoded(image: np.ndarray, frame: Frame) -> torch.Tensor:
    pixels = torch.from_numpy(resample(image, frame).copy()).permute(2, 0, 1)[None].float() / 255
    return ENCODER(pixels).feature_map[0]


def noise(seed: Any, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def marks(xy: Any, visible: Any = None) -> Keypoints:
    xy = np.asarray(xy, np.float64)
    visible = np.isfinite(xy).all(axis=2) if visible is None else np.asarray(visible)
    n, p = visible.shape
    return Keypoints(
        tuple(f"{i}.png" for i in range(n)),
        tuple(f"part {j}" for j in range(p)),
        xy,
        visible,
        np.full((n, p), np.nan),
        ((0, p - 1),),
    )


def inside(rng: np.random.Generator, n: int, p: int, margin: float = 2.0) -> np.ndarray:
    """Points among the centres of the outermost patches."""
    return rng.uniform(margin, [WIDTH - 1 - margin, HEIGHT - 1 - margin], (n, p, 2))


# ----------------------------------------------------------------------------------------------------------------------
# An image against itself


@pytest.mark.parametrize("sizes", [(36,), (36, 24), (48,)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"whitening": None},
        {"center": "none", "whitening": None},
        {"center": "image"},
        {"contrast": 0.0},
        {"prototypes": "nearest"},
    ],
)
def test_an_image_returns_its_own_keypoints_within_half_a_pixel(
    sizes: tuple[int, ...], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng([*sizes, *str(options).encode()])
    image, xy = noise(rng), inside(rng, 1, 7)
    views = [view(image, size) for size in sizes]
    found = KeypointFinder.fit([views], marks(xy), KeypointOptions(**options)).find(views)
    assert np.abs(found.xy - xy[0]).max() <= 0.5
    assert found.score.min() > 0.97 and found.visible.all()


def test_a_point_that_is_a_patch_centre_is_found_exactly() -> None:
    image = noise(5)
    xy = np.stack(dense_frame(WIDTH, HEIGHT, size=36, patch=4).to_pixels([3, 7], [2, 8]), axis=1)[None]
    found = KeypointFinder.fit([[view(image, 36)]], marks(xy)).find([view(image, 36)])
    assert np.allclose(found.xy, xy[0], atol=1e-4) and np.allclose(found.score, 1)


def test_what_moves_by_whole_patches_is_found_where_it_went() -> None:
    rng = np.random.default_rng(8)
    wide = noise(rng, 60, 52)
    first, second = wide[4:40, 8:52], wide[12:48, 0:44]  # the same things 8 px further right and 8 px further up
    xy = rng.uniform(12, [34, 26], (1, 5, 2))
    finder = KeypointFinder.fit([[view(first, 36)]], marks(xy))
    assert np.abs(finder.find([view(second, 36)]).xy - (xy[0] + [8, -8])).max() <= 0.5


def test_the_search_is_deterministic_and_takes_numpy_float16_and_torch() -> None:
    image = noise(6)
    (m, frame), marked = view(image, 36), marks(inside(np.random.default_rng(6), 1, 4))
    finder = KeypointFinder.fit([[(m, frame)]], marked)
    found = [finder.find([(x, frame)]) for x in (m, m, m.numpy(), m.double(), m.half())]
    for other in found[1:3]:
        assert np.array_equal(other.xy, found[0].xy) and np.array_equal(other.score, found[0].score)
    for other in found[3:]:
        assert np.abs(other.xy - found[0].xy).max() < 0.1


# ----------------------------------------------------------------------------------------------------------------------
# Several shots


def test_a_mean_of_shots_is_the_unit_mean_of_unit_descriptors_and_nearest_takes_the_best() -> None:
    """At the best place of the grid, whose cosine is written out from the maps, with all that is subtracted and multiplied by left out."""
    rng = np.random.default_rng(2)
    frame = dense_frame(24, 20, size=20, patch=4)
    maps = rng.standard_normal((3, *frame.grid, 6)).astype(np.float32)
    centres = np.stack(frame.to_pixels([1, 3], [2, 4]), axis=1)  # of patches, where descriptors are the map's own
    marked = marks(np.stack([centres, centres[::-1]]))
    u = maps / np.linalg.norm(maps, axis=-1, keepdims=True)
    shots = np.array([[u[0, 1, 2], u[0, 3, 4]], [u[1, 3, 4], u[1, 1, 2]]])
    plain = {"center": "none", "whitening": None, "contrast": 0.0}
    for use in ("mean", "nearest"):
        finder = KeypointFinder.fit([[(m, frame)] for m in maps[:2]], marked, KeypointOptions(prototypes=use, **plain))
        found = finder.find([(maps[2], frame)])
        mean = shots.mean(axis=0)
        vectors = (mean / np.linalg.norm(mean, axis=-1, keepdims=True))[None] if use == "mean" else shots
        at_patches = np.einsum("kpd,hwd->kphw", vectors, u[2]).max(axis=0)
        assert (found.score >= at_patches.max(axis=(1, 2)) - 1e-6).all()  # the grid has the patches and places between
        row, column = frame.to_grid(found.xy[:, 0], found.xy[:, 1])
        assert (row >= 0).all() and (row <= 4).all() and (column >= 0).all() and (column <= 5).all()


def test_two_kinds_of_one_part_are_found_by_nearest_shots() -> None:
    """The part looks in two ways that have nothing in common: either shot alone says it all, their mean neither."""
    a, b = noise(20), noise(21)
    xy = np.array([[[15.5, 17.5]], [[27.5, 9.5]]])
    views = [[view(image, 36)] for image in (a, b)]
    for i in (0, 1):
        found = KeypointFinder.fit(views, marks(xy), KeypointOptions(prototypes="nearest")).find(views[i])
        assert np.allclose(found.xy, xy[i], atol=0.1) and found.score[0] > 0.99
        mean = KeypointFinder.fit(views, marks(xy)).find(views[i])
        assert mean.score[0] < 0.9


def test_a_part_that_no_shot_shows_is_unknown() -> None:
    rng = np.random.default_rng(9)
    images = [[view(noise([9, i]), 36)] for i in range(3)]
    xy = inside(rng, 3, 3)
    xy[:, 1] = np.nan
    finder = KeypointFinder.fit(images, marks(xy), KeypointOptions(position_prior=True, left_right=((0, 1),)))
    found = finder.find(images[0])
    assert np.isnan(found.xy[1]).all() and np.isnan(found.score[1]) and not found.visible[1]
    assert np.isfinite(found.xy[[0, 2]]).all() and np.isneginf(finder.threshold[1])
    entry = find_keypoints(finder, [("a", images[0])]).to_json()[1]
    assert entry == {"path": "a", "part": "part 1", "x": None, "y": None, "score": None, "visible": False}


def test_a_point_that_is_marked_as_absent_is_no_shot() -> None:
    views = [[view(noise([3, i]), 36)] for i in range(2)]
    xy = inside(np.random.default_rng(3), 2, 2)
    hidden = marks(xy, [[True, True], [True, False]])
    gone = marks(np.where(hidden.visible[..., None], xy, np.nan))
    a, b = (KeypointFinder.fit(views, labels).find(views[0]) for labels in (hidden, gone))
    assert np.array_equal(a.xy, b.xy) and np.array_equal(a.score, b.score)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"position_prior": True, "position_weight": 0.4, "position_spread": 0.3},
        {"video_weight": 0.5, "video_spread": 0.2},
        {"contrast": 0.0, "half_width": 3.3, "temperature": 3.0},
        {"prototypes": "nearest", "contrast": 0.7, "position_prior": True, "video_weight": 0.0},
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_a_place_is_the_definition(options: dict[str, Any], seed: int) -> None:
    """Everything at every place of the grid in float64: cosines of two encodings, rivals, priors, the window and its softmax."""
    rng = np.random.default_rng([seed, 77])
    frames = [dense_frame(30, 23, size=size, patch=4) for size in (16, 12)]
    images = [[(rng.standard_normal((*f.grid, 6)), f) for f in frames] for _ in range(3)]
    xy = rng.uniform(3, [26, 19], (2, 3, 2))
    xy[1, 2] = np.nan
    o = KeypointOptions(**options)
    finder = KeypointFinder.fit(images[:2], marks(xy), o)
    before = FoundParts(rng.uniform(0, 22, (3, 2)), np.ones(3), np.array([True, False, True]))
    found = finder.find(images[2], previous=before)

    grid = pixel_grid(tuple(frames))
    points = np.stack(np.meshgrid(grid.x, grid.y), axis=2).reshape(-1, 2)
    cosines = np.zeros((3, len(points)))
    shots = [descriptors(finder, images[:2], xy, view) for view in (0, 1)]
    for p in range(3):
        known = [k for k in range(2) if np.isfinite(xy[k, p]).all()]
        each = np.zeros((len(known), len(points)))
        for view in (0, 1):
            d = descriptors_at(points, finder.scales[view].descriptors(images[2][view]), frames[view]).numpy()
            vectors = np.stack([shots[view][k][p] for k in known])
            if o.prototypes == "mean":
                vectors = vectors.mean(axis=0, keepdims=True).repeat(len(known), axis=0)
            each += (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ d.T / 2
        cosines[p] = each.max(axis=0)
    prior = np.zeros_like(cosines)
    for p in range(3):
        if o.position_prior:
            bells = [
                np.exp(-((points - m) ** 2).sum(axis=1) / 2 / (o.position_spread * 30) ** 2)
                for m in xy[:, p]
                if np.isfinite(m).all()
            ]
            prior[p] += o.position_weight * np.log(np.mean(bells, axis=0))
        if before.visible[p]:
            prior[p] -= o.video_weight * ((points - before.xy[p]) ** 2).sum(axis=1) / 2 / (o.video_spread * 30) ** 2
    searched = np.isin(points[:, 0], grid.x[:: FINENESS // 2]) & np.isin(points[:, 1], grid.y[:: FINENESS // 2])
    for p in range(3):
        rivals = np.maximum(0, np.delete(cosines, p, axis=0).max(axis=0))
        best = points[searched][np.argmax((cosines[p] - o.contrast * rivals + prior[p])[searched])]
        reach = o.half_width * 4 / min(frames[1].scale)  # of the coarser of the two
        near = (np.abs(points - best) <= reach + 1e-6).all(axis=1)
        guided = (cosines[p] + prior[p])[near]
        score = cosines[p][near][guided.argmax()]
        weight = np.exp((guided - guided.max()) / (o.temperature * (1 - score)))
        assert np.allclose(found.xy[p], weight @ points[near] / weight.sum(), atol=1e-4)
        assert np.isclose(found.score[p], score, atol=1e-5)


def descriptors(finder: KeypointFinder, images: list[list[View]], xy: np.ndarray, view: int) -> list[np.ndarray]:
    """The descriptors at the labelled points of each image."""
    return [
        descriptors_at(points, finder.scales[view].descriptors(of_image[view]), of_image[view][1]).numpy()
        for of_image, points in zip(images, xy, strict=True)
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Visible and absent


def scene(seed: int, patterns: np.ndarray, xy: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Noise with the patterns, 8 × 8 pixels each, around the points of those that are shown."""
    image = noise(seed)
    for pattern, (x, y), there in zip(patterns, xy, shown, strict=True):
        if there:
            image[int(y) - 3 : int(y) + 5, int(x) - 3 : int(x) + 5] = pattern
    return image


def scenes(shown: np.ndarray, seed: int = 0) -> tuple[list[list[View]], np.ndarray]:
    """Images with as many patterns on places that differ from one to the next, always at whole patches, and the places."""
    rng = np.random.default_rng(seed)
    patterns = rng.integers(0, 256, (shown.shape[1], 8, 8, 3), dtype=np.uint8)
    corners = np.array([[c * 12 + 3.5, r * 12 + 3.5] for r in range(3) for c in range(3)])
    xy = np.stack([corners[rng.permutation(9)[: shown.shape[1]]] for _ in shown])
    views = [[view(scene(100 * seed + i, patterns, xy[i], s), 36)] for i, s in enumerate(shown)]
    return views, xy


def test_absent_parts_are_told_by_thresholds_from_the_labels() -> None:
    rng = np.random.default_rng(4)
    shown = rng.random((18, 4)) < 0.6
    shown[:2] = [[True, True, True, False], [False, True, True, True]]
    views, xy = scenes(shown)
    labels = marks(np.where(shown[..., None], xy, np.nan))
    finder = KeypointFinder.fit(views[:8], labels.take(range(8)))
    found = find_keypoints(finder, ((labels.paths[i], views[i]) for i in range(8, 18)))
    assert np.array_equal(found.visible, shown[8:])
    assert np.abs(found.xy - xy[8:])[shown[8:]].max() <= 0.5


def test_thresholds_come_from_images_left_out_one_at_a_time() -> None:
    shown = np.array([[True, True], [True, False], [False, True], [True, True]])
    views, xy = scenes(shown, seed=2)
    labels = marks(np.where(shown[..., None], xy, np.nan))
    finder = KeypointFinder.fit(views, labels, KeypointOptions(center="none", whitening=None))
    for i in range(4):
        others = np.arange(4) != i
        without = KeypointFinder.fit(
            [v for k, v in enumerate(views) if k != i],
            labels.take(others),
            KeypointOptions(center="none", whitening=None),
        )
        assert np.allclose(without.find(views[i]).score, finder.left_out.score[i], atol=1e-6)
        assert np.allclose(without.find(views[i]).xy, finder.left_out.xy[i], atol=1e-3)
    assert np.array_equal(finder.left_out.visible, finder.left_out.score >= finder.threshold)


def test_one_label_is_never_called_absent() -> None:
    views = [view(noise(1), 36)]
    finder = KeypointFinder.fit([views], marks(inside(np.random.default_rng(1), 1, 3)))
    assert np.isneginf(finder.threshold).all() and np.isnan(finder.left_out.score).all()
    assert finder.find([view(noise(2), 36)]).visible.all()


def test_an_image_of_one_colour_has_nothing_to_find() -> None:
    views = [view(noise(1), 36)]
    finder = KeypointFinder.fit([views], marks(inside(np.random.default_rng(1), 1, 3)), KeypointOptions(center="image"))
    found = finder.find([view(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), 36)])
    assert np.isnan(found.xy).all() and np.isnan(found.score).all() and not found.visible.any()


# ----------------------------------------------------------------------------------------------------------------------
# Options


def repeated(seed: int = 0) -> tuple[list[View], np.ndarray]:
    """An image that shows the same thing in two places, 24 px apart, and these places."""
    image = noise(seed)
    image[12:20, 4:12] = image[12:20, 28:36]
    return [view(image, 36)], np.array([[7.5, 15.5], [31.5, 15.5]])


def test_of_two_equal_places_the_first_is_taken_and_the_position_prior_takes_the_near_one() -> None:
    views, places = repeated()
    assert np.allclose(views[0][0][3:5, 1:3], views[0][0][3:5, 7:9])
    labels = marks(places[1][None, None])
    assert np.allclose(KeypointFinder.fit([views], labels).find(views).xy, places[0], atol=0.1)
    near = KeypointFinder.fit([views], labels, KeypointOptions(position_prior=True)).find(views)
    assert np.allclose(near.xy, places[1], atol=0.1)
    assert np.allclose(near.score, KeypointFinder.fit([views], labels).find(views).score)  # the prior is not in it
    without = KeypointOptions(position_prior=True, position_weight=0.0)
    assert np.allclose(KeypointFinder.fit([views], labels, without).find(views).xy, places[0], atol=0.1)


def test_the_frame_before_takes_the_near_one_if_the_part_was_visible_there() -> None:
    views, places = repeated()
    finder = KeypointFinder.fit([views], marks(places[1][None, None]))
    for visible, expected in ((True, places[1]), (False, places[0])):
        before = FoundParts(places[1][None] + 2, np.ones(1), np.array([visible]))
        assert np.allclose(finder.find(views, previous=before).xy, expected, atol=0.1)
    calm = dataclasses.replace(finder, options=KeypointOptions(video_weight=0.0))
    before = FoundParts(places[1][None] + 2, np.ones(1), np.array([True]))
    assert np.allclose(calm.find(views, previous=before).xy, places[0], atol=0.1)


def test_video_goes_on_from_frame_to_frame() -> None:
    """A thing that is there twice and both move: which of them is followed is decided in the first frame."""
    rng = np.random.default_rng(3)
    thing = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    frames = []
    for shift in (0, 4, 8):
        image = noise([3, shift])
        image[8:16, 8 + shift : 16 + shift] = thing
        if shift:
            image[8:16, 0:8] = thing  # comes first, row by row
        frames.append([view(image, 36)])
    finder = KeypointFinder.fit(frames[:1], marks([[[11.5, 11.5]]]))
    images = [(f"{i}", frame) for i, frame in enumerate(frames)]
    assert np.allclose(find_keypoints(finder, images, video=True).xy[:, 0, 0], [11.5, 15.5, 19.5], atol=0.2)
    assert np.allclose(find_keypoints(finder, images).xy[:, 0, 0], [11.5, 3.5, 3.5], atol=0.2)


def test_left_and_right_do_not_fall_onto_one_place() -> None:
    views, places = repeated()
    labels = marks(places[None])  # both are marked, and both look the same
    alone = KeypointFinder.fit([views], labels, KeypointOptions(contrast=0.0)).find(views)
    assert np.allclose(alone.xy, [places[0], places[0]], atol=0.1)
    pair = KeypointFinder.fit([views], labels, KeypointOptions(left_right=((0, 1),))).find(views)
    assert np.allclose(pair.xy, places, atol=0.1)
    # So near to each other they may be one.
    far = KeypointOptions(left_right=((0, 1),), pair_distance=200.0, contrast=0.0)
    assert np.allclose(KeypointFinder.fit([views], labels, far).find(views).xy, [places[0], places[0]], atol=0.1)


def test_the_window_of_one_of_a_pair_ends_half_way_to_the_other() -> None:
    image = noise(0)
    image[12:20, 16:24] = image[12:20, 4:12]
    views, places = [view(image, 36)], np.array([[7.5, 15.5], [19.5, 15.5]])
    options = KeypointOptions(left_right=((1, 0),), half_width=5.0)
    found = KeypointFinder.fit([views], marks(places[None]), options).find(views)
    # The other way round: the part named first gets the first of equal places.
    assert np.allclose(found.xy, places[::-1], atol=0.1)


@functools.cache
def found_with(options: KeypointOptions) -> np.ndarray:
    """Where five parts are, in a fourth image of four."""
    views = [[view(noise([7, i]), 36)] for i in range(4)]
    labels = marks(inside(np.random.default_rng(7), 3, 5))
    return KeypointFinder.fit(views[:3], labels, options).find(views[3]).xy


@pytest.mark.parametrize(
    "change",
    [
        {"center": "none"},
        {"center": "image"},
        {"whitening": None},
        {"whitening": 3.0},
        {"prototypes": "nearest"},
        {"half_width": 0.5},
        {"temperature": 2.0},
        {"contrast": 0.9},
        {"position_prior": True, "position_weight": 1.0},
        {"position_prior": True, "position_weight": 0.01, "position_spread": 0.02},
    ],
)
def test_every_option_changes_the_result(change: dict[str, Any]) -> None:
    changed = found_with(KeypointOptions(**change))
    assert not np.allclose(found_with(KeypointOptions()), changed, atol=1e-3)


def test_without_a_window_the_best_place_of_the_grid_stays() -> None:
    views = [[view(noise([7, i]), 36)] for i in range(3)]
    labels = marks(inside(np.random.default_rng(7), 2, 5))
    grid = pixel_grid((views[0][0][1],))
    xy = KeypointFinder.fit(views[:2], labels, KeypointOptions(half_width=0.0)).find(views[2]).xy
    assert np.isin(xy[:, 0], grid.x[:: FINENESS // 2]).all() and np.isin(xy[:, 1], grid.y[:: FINENESS // 2]).all()


# ----------------------------------------------------------------------------------------------------------------------
# Many images


def test_images_come_one_at_a_time_and_are_not_kept() -> None:
    finder = KeypointFinder.fit([[view(noise(0), 36)]], marks([[[20.0, 20.0]]]))
    alive: list[weakref.ref[torch.Tensor]] = []
    steps: list[int] = []

    def images() -> Iterator[tuple[str, list[View]]]:
        for i in range(6):
            # The one before may still be held by the loop, none before that.
            assert sum(ref() is not None for ref in alive) <= 1 and steps == list(range(1, i + 1))
            m, frame = view(noise([0, i]), 36)
            alive.append(weakref.ref(m))
            yield f"{i}", [(m, frame)]

    found = find_keypoints(finder, images(), progress=steps.append)
    assert found.paths == tuple("012345") and found.xy.shape == (6, 1, 2) and steps[-1] == 6


def test_no_image_gives_no_keypoints_and_one_name_twice_is_refused() -> None:
    finder = KeypointFinder.fit([[view(noise(0), 36)]], marks([[[20.0, 20.0], [3.0, 8.0]]]))
    empty = find_keypoints(finder, [])
    assert len(empty) == 0 and empty.parts == ("part 0", "part 1") and empty.skeleton == ((0, 1),)
    with pytest.raises(InputError, match="the image a is there twice"):
        find_keypoints(finder, [("a", [view(noise(1), 36)])] * 2)


# ----------------------------------------------------------------------------------------------------------------------
# What is refused


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    views, labels = [view(noise(0), 36)], marks([[[20.0, 20.0]]])
    finder = KeypointFinder.fit([views], labels)
    with pytest.raises(InputError, match="views of each labelled image, got those of 2 for 1 images"):
        KeypointFinder.fit([views, views], labels)
    with pytest.raises(InputError, match="those of 0 for 0 images"):
        KeypointFinder.fit([], labels.take(np.zeros(0, np.int64)))
    with pytest.raises(InputError, match="no part is visible"):
        KeypointFinder.fit([views], marks([[[np.nan, np.nan]]]))
    with pytest.raises(InputError, match="same number of views of every image, one or more, got 0"):
        KeypointFinder.fit([[]], labels)
    with pytest.raises(InputError, match="got 1, 2"):
        KeypointFinder.fit([views, views * 2], marks([[[20.0, 20.0]], [[1.0, 1.0]]]))
    with pytest.raises(InputError, match=r"part 0 in 0.png, \(44, 3\), is not in the image of 44×36 px"):
        KeypointFinder.fit([views], marks([[[44.0, 3.0]]]))
    with pytest.raises(InputError, match="expected 1 views of an image as in the labelled ones, got 2"):
        finder.find(views * 2)
    with pytest.raises(InputError, match="expected 1 parts in the frame before"):
        finder.find(views, previous=FoundParts(np.zeros((2, 2)), np.zeros(2), np.ones(2, bool)))
    with pytest.raises(InputError, match="expected descriptors of 32 dimensions in view 1, got 5"):
        finder.find([(views[0][0][:, :, :5], views[0][1])])
    with pytest.raises(InputError, match="expected pairs of parts 0 to 0"):
        KeypointFinder.fit([views], labels, KeypointOptions(left_right=((0, 1),)))
    crop = crop_frame(WIDTH, HEIGHT, resize=16, crop=16, patch=4)
    with pytest.raises(InputError, match=r"0.png: no descriptor at \(1, 20\): the place was cut off"):
        KeypointFinder.fit([[(encoded(noise(0), crop), crop)]], marks([[[1.0, 20.0]]]))
    with pytest.raises(InputError, match="expected views of one image, got frames of"):
        other = dense_frame(WIDTH, HEIGHT + 1, size=36, patch=4)
        KeypointFinder.fit([[views[0], (encoded(noise(0, WIDTH, HEIGHT + 1), other), other)]], labels).find(
            [views[0], (encoded(noise(0, WIDTH, HEIGHT + 1), other), other)]
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"center": "mean"}, "expected center to be one of none, image, labelled, got 'mean'"),
        ({"prototypes": "all"}, "expected prototypes to be one of mean, nearest"),
        ({"whitening": 0.0}, "expected whitening above 0, got 0"),
        ({"temperature": float("inf")}, "expected temperature above 0"),
        ({"position_spread": -1.0}, "expected position_spread above 0"),
        ({"video_spread": 0.0}, "expected video_spread above 0"),
        ({"half_width": -1.0}, "expected half_width of 0 or more"),
        ({"contrast": float("nan")}, "expected contrast of 0 or more"),
        ({"left_right": ((0, 0),)}, "expected pairs of two different parts"),
        ({"left_right": ((0, 1), (1, 2))}, "none of them in two pairs"),
    ],
)
def test_options_out_of_range_are_named(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        KeypointOptions(**change)
