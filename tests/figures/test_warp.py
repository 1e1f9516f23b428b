"""Warp figures: six pictures per pair in their own shapes, A's colours where the flow says, and a wheel that goes round."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fewmatch.figures import save_figure
from fewmatch.figures.warp import WarpedPair, polar_colours, warp_figure
from fewmatch.matching.flow import Flow, warp


def made_flow(size: tuple[int, int], to: tuple[int, int], seed: int = 0) -> Flow:
    """From every pixel of an image of this size to anywhere in the other; the first row is unknown."""
    width, height = size
    rng = np.random.default_rng(seed)
    there = rng.uniform(0, 1, (height, width, 2)) * (np.array(to) - 1)
    flow = there - np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2)
    flow[0] = np.nan
    confidence = np.where(np.isnan(flow[..., 0]), 0, rng.uniform(size=(height, width))).astype(np.float32)
    none = np.zeros((1, 1))
    return Flow(flow.astype(np.float32), confidence, np.zeros((1, 1, 2)), none, none, size, to)


def made_pair(size_a: tuple[int, int], size_b: tuple[int, int], **options: object) -> WarpedPair:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in (size_a, size_b))
    return WarpedPair(a, b, made_flow(size_b, size_a), **options)  # type: ignore[arg-type]


def boxes(figure: Figure) -> list[np.ndarray]:
    """Left, bottom, width and height of every picture, in inches."""
    size = figure.get_size_inches()
    return [np.asarray(axes.get_position().bounds) * [*size, *size] for axes in figure.axes if axes.images]


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


@pytest.mark.parametrize(
    ("size_a", "size_b"),
    [((60, 40), (60, 40)), ((40, 60), (90, 30)), ((10, 300), (12, 200)), ((300, 8), (7, 7)), ((1, 1), (3, 2))],
)
def test_pictures_have_their_shapes_and_lie_side_by_side(size_a: tuple[int, int], size_b: tuple[int, int]) -> None:
    figure = warp_figure([made_pair(size_a, size_b, caption="a – b")] * 2, title="x")
    width, height = figure.get_size_inches()
    assert width * figure.dpi == 1200
    places = boxes(figure)
    assert len(places) == 12
    for k, (left, bottom, wide, tall) in enumerate(places):
        size = size_a if k % 3 == 0 else size_b
        assert wide / tall == pytest.approx(size[0] / size[1], rel=1e-9)  # not stretched
        assert left >= 0 and bottom >= 0 and left + wide <= width + 1e-9 and bottom + tall <= height + 1e-9
    for row in range(4):
        first, second, third = places[3 * row : 3 * row + 3]
        assert (
            first[1] == pytest.approx(second[1])
            and first[0] + first[2] < second[0]
            and second[0] + second[2] < third[0]
        )
        if row:
            assert places[3 * row][1] + places[3 * row][3] < places[3 * row - 3][1]


def test_the_pictures_are_what_their_names_say() -> None:
    foreground = np.zeros((40, 60), bool)
    foreground[5:30, 10:20] = True
    pair = made_pair((60, 40), (50, 30), foreground=foreground)
    a, b, carried, wheel_a, wheel_b, confidence = shown(warp_figure([pair]))
    assert np.array_equal(a, pair.image_a) and np.array_equal(b, pair.image_b)
    assert np.array_equal(carried, warp(pair.image_a, pair.flow)) and (carried[0] == 255).all()
    assert np.array_equal(confidence, pair.flow.confidence)
    wheel = polar_colours(60, 40, foreground=foreground)
    for shaded, image, colours, where in (
        (wheel_a, pair.image_a, wheel, foreground),
        (wheel_b, pair.image_b, warp(wheel, pair.flow), pair.flow.known),
    ):
        grey = image @ np.array([0.299, 0.587, 0.114]) / 255
        np.testing.assert_allclose(shaded[where], (colours / 255 * (0.45 + 0.55 * grey[..., None]))[where], atol=1e-5)
        np.testing.assert_allclose(shaded[~where], np.repeat(grey[..., None], 3, axis=2)[~where], atol=1e-5)
    everywhere = shown(warp_figure([made_pair((60, 40), (50, 30))]))[3]
    assert (np.ptp(everywhere, axis=2) > 0.05).mean() > 0.8  # without a foreground the wheel is all over A


@pytest.mark.parametrize("masked", [False, True])
def test_the_wheel_is_its_definition(masked: bool) -> None:
    width, height = 17, 11
    foreground = np.ones((height, width), bool)
    if masked:
        foreground = np.random.default_rng(0).random((height, width)) < 0.2
    got = polar_colours(width, height, foreground=foreground if masked else None)
    ys, xs = np.nonzero(foreground)
    x0, y0 = xs.mean(), ys.mean()
    farthest = np.hypot(xs - x0, ys - y0).max()
    for y, x in np.ndindex(height, width):
        hue = np.arctan2(y - y0, x - x0) / (2 * np.pi) % 1
        wanted = np.array(colorsys.hsv_to_rgb(hue, min(1.0, np.hypot(x - x0, y - y0) / farthest), 1.0))
        np.testing.assert_allclose(got[y, x], 255 * wanted, atol=0.51)
    if not masked:
        assert (got[5, 8] == 255).all()  # the middle
        assert got[5, 16, 0] == 255 and got[5, 16, 1] == got[5, 16, 2] < 60  # red at the right
        assert got[5, 0, 0] < 60 and got[5, 0, 1] == got[5, 0, 2] == 255  # cyan at the left


def test_a_foreground_without_pixels_is_the_whole_image() -> None:
    nothing = np.zeros((5, 7), bool)
    assert np.array_equal(polar_colours(7, 5, foreground=nothing), polar_colours(7, 5))
    assert polar_colours(1, 1).tolist() == [[[255, 255, 255]]]


def test_captions_and_title_are_text_not_markup() -> None:
    figure = warp_figure([made_pair((60, 40), (60, 40), caption="$5_x$ – b")], title="a $ title")
    texts = [text for axes in figure.axes for text in axes.texts]
    words = [text.get_text() for text in texts]
    assert words[0] == "a $ title" and words[-1] == "$5_x$ – b" and "A’s colours in the shape of B" in words
    assert not any(text.get_parse_math() for text in texts)


def test_the_same_pair_gives_the_same_file(tmp_path: Path) -> None:
    pair = made_pair((60, 40), (40, 50), caption="a – b")
    files = [save_figure(warp_figure([pair]), tmp_path / name / "warp.png") for name in "xy"]
    assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(files[0]) as image:
        assert image.size[0] == 1200


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one pair"):
        warp_figure([])
    good = made_pair((6, 4), (5, 3))
    with pytest.raises(ValueError, match="expected image_a of 6×4 px as the flow of B to A says, got 5×3 px"):
        warp_figure([WarpedPair(good.image_b, good.image_a, good.flow)])
    with pytest.raises(ValueError, match="expected image_b of 5×3 px"):
        warp_figure([WarpedPair(good.image_a, good.image_a, good.flow)])
