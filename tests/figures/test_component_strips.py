"""Strips: one column per component in one scale for all images, where their patches lie, black where nothing is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jaxtyping
import matplotlib
import numpy as np
import pytest

from fewmatch.encoders.frame import resized_frame
from fewmatch.figures import MappedImage, save_figure
from fewmatch.figures.component_strips import MOST_COMPONENTS, MOST_STRIPS, strip_colours, strips_figure

sys.path.insert(0, str(Path(__file__).parent))
from lettering_checks import check_letters


def made(width: int, height: int, count: int, rule: Any = "keep", name: str = "") -> tuple[MappedImage, np.ndarray]:
    frame = resized_frame(width, height, size=32, patch=8, rule=rule)
    rng = np.random.default_rng(width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    strips = rng.uniform(-1, 1, (*frame.grid, count))
    strips[~frame.real] = np.nan
    return MappedImage(image, rng.uniform(size=(*frame.grid, 3)), frame, name), strips


def drawn(pairs: Any, count: int, **options: Any) -> Any:
    items, strips = zip(*pairs, strict=True)
    shares, limits = np.linspace(0.3, 0.01, count), np.linspace(5, 0.123, count)
    return strips_figure(items, strips, explained=shares, limit=limits, **options)


@pytest.mark.parametrize("rule", ["keep", "crop", "pad", "squash"])
def test_columns_are_the_components_where_the_patches_lie(rule: Any) -> None:
    pairs = [made(90, 50, 2, rule), made(40, 60, 2, rule)]
    figure = drawn(pairs, 2)
    rows = [axes for axes in figure.axes if axes.images]
    assert len(rows) == 2 * 4
    for (item, strips), axes in zip(pairs, (rows[:4], rows[4:]), strict=True):
        lefts = [a.get_position().x0 for a in axes]
        assert lefts == sorted(lefts) and len({round(a.get_position().y0, 9) for a in axes}) == 1
        real = np.ix_(item.frame.real.any(axis=1), item.frame.real.any(axis=0))
        for k, strip in enumerate(axes[2:]):
            got = np.asarray(strip.images[0].get_array())
            wanted = matplotlib.colormaps["coolwarm"]((strips[..., k][real] + 1) / 2)[..., :3]
            np.testing.assert_allclose(got, wanted)
            assert strip.images[0].get_extent() == axes[1].images[-1].get_extent()
            assert strip.get_xlim() == (0, item.frame.width) and strip.get_ylim() == (item.frame.height, 0)


def test_heads_say_share_and_range() -> None:
    (sheet,) = [axes for axes in drawn([made(40, 40, 2, name="one")], 2).axes if not axes.images]
    said = [text.get_text() for text in sheet.texts]
    assert said[:9] == ["image", "components", "1, 2, 3", "1", "30 %", "±5", "2", "1 %", "±0.12"] and "one" in said


def test_what_is_not_shown_is_black_and_nothing_else_is() -> None:
    colours = strip_colours(np.array([-1.0, 0, 1, np.nan]))
    assert (colours[3] == 0).all() and (colours[:3].max(axis=1) > 0.5).all()
    assert colours[0, 2] > colours[0, 0] and colours[2, 0] > colours[2, 2]  # blue, red
    assert np.ptp(colours[1]) < 0.02  # grey


@pytest.mark.parametrize(("count", "components"), [(1, MOST_COMPONENTS), (4, 6), (MOST_STRIPS, 1)])
def test_rows_do_not_lie_on_each_other_and_can_be_read(count: int, components: int) -> None:
    shapes = [(60, 40), (40, 60), (30, 200), (200, 30)]
    pairs = [made(*shapes[i % 4], components, name="name $x$ " * 17) for i in range(count)]
    figure = drawn(pairs, components, caption="caption " * 30)
    check_letters(figure)
    (sheet,) = [axes for axes in figure.axes if not axes.images]
    assert sum(text.get_text().endswith("…") for text in sheet.texts) == count  # longer would only take longer to cut
    size = np.tile(figure.get_size_inches(), 2)
    boxes = [np.asarray(axes.get_position(original=True).bounds) * size for axes in figure.axes if axes.images]
    for i, (l0, b0, w0, h0) in enumerate(boxes):
        assert l0 >= 0 and b0 > 0 and l0 + w0 <= 10 and b0 + h0 < size[1]
        for l1, b1, w1, h1 in boxes[i + 1 :]:
            assert l0 + w0 <= l1 + 1e-9 or l1 + w1 <= l0 + 1e-9 or b0 + h0 <= b1 + 1e-9 or b1 + h1 <= b0 + 1e-9


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_strips_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    files = [save_figure(drawn([made(60, 40, 3)], 3), tmp_path / name / f"s{suffix}") for name in "xy"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    pair = made(40, 40, 3)
    for call, message in (
        (lambda: drawn([pair] * (MOST_STRIPS + 1), 3), "expected 1 to 20 images with their strips, got 21 and 21"),
        (lambda: drawn([pair], 4), "as many as shares and limits, got 3, 4 and 4"),
        (lambda: drawn([made(40, 40, 17)], 17), "expected 1 to 16 components"),
        (lambda: drawn([(pair[0], made(90, 40, 3)[1])], 3), "expected an image of 40×40 px"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
