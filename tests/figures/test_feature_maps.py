"""Feature map figures: each map lies where its image does, nothing is stretched or covered, everything fits on the sheet."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from matplotlib.figure import Figure

from fewmatch.encoders.frame import ResizeRule, resized_frame
from fewmatch.figures import MappedImage, feature_map_figure, save_figure
from fewmatch.figures.feature_maps import MOST_IMAGES


def item(width: int, height: int, rule: ResizeRule = "keep", name: str = "", foreground: bool = False) -> MappedImage:
    frame = resized_frame(width, height, size=32, patch=8, rule=rule)
    rng = np.random.default_rng(width)
    colours = rng.uniform(size=(*frame.grid, 3))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return MappedImage(image, colours, frame, name, rng.uniform(size=frame.grid) < 0.5 if foreground else None)


def boxes(figure: Figure) -> list[np.ndarray]:
    """Left, bottom, width and height of each picture in inches."""
    size = figure.get_size_inches()
    return [np.asarray(axes.get_position().bounds) * [*size, *size] for axes in figure.axes]


def drawn(figure: Figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


MIXED = [(60, 40), (40, 60), (80, 30), (30, 80), (50, 50), (64, 48), (33, 71)]


@pytest.mark.parametrize(
    ("count", "named"),
    [(1, False), (1, True), (2, False), (3, True), (7, False), (12, True), (30, False), (MOST_IMAGES, True)],
)
def test_every_pair_fits_and_keeps_its_shape(count: int, named: bool) -> None:
    items = [item(*MIXED[i % len(MIXED)], name="name" * named) for i in range(count)]
    figure = feature_map_figure(items, caption="what it is")
    size = figure.get_size_inches()
    assert size[0] * figure.dpi == 1200 and size[1] <= max(11, 0.4 * count)
    placed = boxes(figure)
    assert len(placed) == 2 * count
    for k, shown in enumerate(items):
        one, other = placed[2 * k : 2 * k + 2]
        np.testing.assert_allclose(one[2:], other[2:])  # at one scale
        assert np.isclose(one[0], other[0]) != np.isclose(one[1], other[1])  # in line: one below the other, or beside
        assert one[2] / one[3] == pytest.approx(shown.image.shape[1] / shown.image.shape[0])
        for left, bottom, width, height in (one, other):
            assert left >= 0 and bottom >= 0.2 and left + width <= 10 and bottom + height <= size[1] - 0.2 * named
    for i, (l0, b0, w0, h0) in enumerate(placed):  # nothing lies on anything
        for l1, b1, w1, h1 in placed[i + 1 :]:
            assert l0 + w0 <= l1 or l1 + w1 <= l0 or b0 + h0 <= b1 + 1e-9 or b1 + h1 <= b0 + 1e-9
    used = sum(w * h for _, _, w, h in placed) / size.prod()
    assert used > 0.5


def test_pictures_of_one_shape_are_of_one_size_and_rows_are_full() -> None:
    for count in (1, 2, 5, 11, 24):
        placed = np.array(boxes(feature_map_figure([item(60, 40) for _ in range(count)])))
        assert np.ptp(placed[:, 3]) < 0.2 * placed[:, 3].max()
        assert (placed[:, 0] + placed[:, 2]).max() > 9.5


def test_rows_are_not_left_half_empty_for_a_little_more_size() -> None:
    figure = feature_map_figure([item(*size) for size in ((64, 64), (96, 64), (96, 64), (96, 64), (64, 64))])
    placed = np.array(boxes(figure))
    for bottom in np.unique(placed[:, 1].round(6)):
        row = placed[np.isclose(placed[:, 1], bottom)]
        assert (row[:, 0] + row[:, 2]).max() > 9


def test_very_long_pictures_stay_in_their_fields() -> None:
    figure = feature_map_figure([item(600, 20), item(20, 600), item(50, 50)])
    drawn(figure)  # applies the aspect
    for width, height in (box[2:] for box in boxes(figure)):
        assert 0.01 < width < 10 and 0.01 < height < 6
    assert figure.get_size_inches()[1] < 8


@pytest.mark.parametrize("rule", ["keep", "crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(90, 50), (50, 90), (64, 64)])
def test_a_patch_lies_where_its_centre_is(rule: ResizeRule, size: tuple[int, int]) -> None:
    for shown in (item(*size, rule), item(*size, rule, foreground=True)):
        figure = feature_map_figure([shown])
        image, coloured = figure.axes
        assert image.get_xlim() == coloured.get_xlim() == (0, size[0])
        assert image.get_ylim() == coloured.get_ylim() == (size[1], 0)
        patches = coloured.images[-1]
        left, right, bottom, top = patches.get_extent()
        real = shown.frame.real
        rows, columns = np.flatnonzero(real.any(axis=1)), np.flatnonzero(real.any(axis=0))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                x = left + (j + 0.5) / len(columns) * (right - left)
                y = top + (i + 0.5) / len(rows) * (bottom - top)
                # Axes begin at the corner of the image, pixels' centres half a pixel from it.
                np.testing.assert_allclose((x - 0.5, y - 0.5), shown.frame.to_pixels(row, column), atol=1e-9)
        wanted = np.rint(255 * shown.colours[np.ix_(rows, columns)])
        got = np.asarray(patches.get_array())
        assert np.array_equal(got[..., :3], wanted) and patches.get_interpolation() == "nearest"
        if shown.foreground is not None:
            assert np.array_equal(got[..., 3] == 255, shown.foreground[np.ix_(rows, columns)])


def test_what_the_encoder_did_not_see_is_pale_in_both() -> None:
    shown = item(96, 48, "crop")
    figure = feature_map_figure([shown])
    left, _, right, _ = shown.frame.box
    assert (left, right) == (24, 72)
    picture = np.asarray(figure.axes[0].images[0].get_array())
    assert np.array_equal(picture[:, 24:72], shown.image[:, 24:72])
    for side in (picture[:, :24], picture[:, 72:], np.asarray(figure.axes[1].images[0].get_array())[:, :24]):
        assert side.min() >= 191
    assert len(feature_map_figure([item(96, 48)]).axes[1].images) == 1


def test_what_is_no_foreground_shows_the_image_dark_and_grey() -> None:
    shown = item(64, 64, foreground=True)
    behind = np.asarray(feature_map_figure([shown]).axes[1].images[0].get_array())
    assert behind.max() <= 77 and np.ptp(behind, axis=2).max() == 0 and behind.std() > 5


def test_a_smaller_copy_may_stand_for_the_image() -> None:
    whole = item(90, 50)
    small = MappedImage(whole.image[::2, ::2], whole.colours, whole.frame)
    axes = feature_map_figure([small]).axes
    assert axes[0].images[0].get_extent() == axes[1].images[0].get_extent() == [0, 90, 50, 0]


def test_smooth_is_smooth_and_brings_no_padding_in() -> None:
    shown = item(90, 50, "pad")
    bright = MappedImage(shown.image, np.repeat(shown.frame.real[..., None] * 1.0, 3, axis=2), shown.frame)
    figure = feature_map_figure([bright], smooth=True)
    assert figure.axes[1].images[-1].get_interpolation() == "bicubic"
    x, y, width, height = np.rint(np.array(boxes(figure)[1]) * 120).astype(int)
    pixels = drawn(figure)[::-1][y + 2 : y + height - 2, x + 2 : x + width - 2]
    assert pixels.min() == 255


def test_names_and_captions_are_text_not_markup_and_short_enough() -> None:
    figure = feature_map_figure(
        [item(30, 60, name="a $x_1$ " + "long " * 40), item(30, 60)], caption="caption $5 " * 40
    )
    name, *caption = (text.get_text() for text in figure.texts)
    assert name.startswith("a $x_1$ long") and name.endswith("…")
    assert len(caption) > 1 and " ".join(caption) == ("caption $5 " * 40).strip()
    assert not any(text.get_parse_math() for text in figure.texts)
    drawn(figure)
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x1 <= 1200 and box.y0 >= -1
    both = np.array(boxes(figure)[:2])
    width = (both[:, 0] + both[:, 2]).max() - both[:, 0].min()
    assert figure.texts[0].get_window_extent().width <= 120 * width + 1


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_maps_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    files = [
        save_figure(feature_map_figure([item(60, 40), item(40, 60)]), tmp_path / name / f"maps{suffix}")
        for name in "xy"
    ]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("count", [0, MOST_IMAGES + 1])
def test_too_few_or_too_many_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to {MOST_IMAGES} images, got {count}"):
        feature_map_figure([item(40, 40)] * count)


def test_what_does_not_fit_its_frame_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    good = item(40, 40)
    for bad in (
        MappedImage(good.image[:30], good.colours, good.frame),
        MappedImage(good.image, good.colours[:2], good.frame),
    ):
        with pytest.raises(ValueError, match="expected an image of 40×40 px, or one smaller in this shape, and 4 × 4 "):
            feature_map_figure([good, bad])
