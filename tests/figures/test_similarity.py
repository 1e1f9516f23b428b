"""Heat maps of clicks and transferred points: rings and heat lie where they belong, words can be read, colours say right and wrong."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fewmatch.encoders.frame import resized_frame
from fewmatch.figures import save_figure
from fewmatch.figures.match_lines import position_colours
from fewmatch.figures.similarity import MOST_POINTS, MOST_SHOWN, SimilarImage, similarity_figure
from fewmatch.figures.style.palette import RIGHT, WRONG, class_colours
from fewmatch.figures.transferred_points import TransferredPoints, transfer_figure
from fewmatch.matching.similarity import sharpened

sys.path.insert(0, str(Path(__file__).parent))
from lettering_checks import check_letters

POINTS = np.array([[10.0, 5], [30, 20], [59, 39]])


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def other(width: int = 50, height: int = 40, points: int = 3, rule: Any = "keep", name: str = "") -> SimilarImage:
    frame = resized_frame(width, height, size=32, patch=8, rule=rule)
    cosines = np.random.default_rng(width).uniform(-1, 1, (points, *frame.grid))
    cosines[:, ~frame.real] = np.nan
    return SimilarImage(picture(width, height), frame, cosines, name)


def sheet_of(figure: Figure) -> Any:
    (sheet,) = [axes for axes in figure.axes if not axes.images]
    return sheet


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in sheet_of(figure).texts]


def place(figure: Figure, axes: Any, xy: Any, size: tuple[int, int]) -> np.ndarray:
    left, bottom, width, height = np.asarray(axes.get_position().bounds) * np.tile(figure.get_size_inches(), 2)
    share = (np.asarray(xy) + 0.5) / size
    return np.array([left + share[0] * width, bottom + (1 - share[1]) * height])


@pytest.mark.parametrize("rule", ["keep", "crop", "pad", "squash"])
def test_rings_heat_and_numbers_are_those_of_the_best_patch(rule: Any) -> None:
    others = [other(50, 40, rule=rule, name="b"), other(40, 70, rule=rule, name="c")]
    figure = similarity_figure(picture(60, 40), POINTS, others, name="a")
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 9
    sheet = sheet_of(figure)
    marks = [np.asarray(c.get_offsets())[0] for c in sheet.collections]
    said = iter(words(figure))
    at = 0
    for k, point in enumerate(POINTS):
        np.testing.assert_allclose(marks[at], place(figure, pictures[3 * k], point, (60, 40)), atol=1e-9)
        assert next(said) == str(k + 1) and next(said) == f"{point[0]:.0f}, {point[1]:.0f}" and next(said) == "a"
        at += 1
        for i, shown in enumerate(others):
            cosines, axes = shown.similarity[k], pictures[3 * k + 1 + i]
            row, column = np.argwhere(cosines == np.nanmax(cosines))[0]
            xy = shown.frame.to_pixels(row, column)
            for ring in marks[at : at + 2]:
                np.testing.assert_allclose(
                    ring, place(figure, axes, xy, (shown.frame.width, shown.frame.height)), atol=1e-9
                )
            assert tuple(np.asarray(sheet.collections[at + 1].get_edgecolors())[0][:3]) == pytest.approx(
                class_colours(3)[k]
            )
            assert next(said) == f"{np.nanmax(cosines):.2f}" and next(said) == shown.name
            at += 2
            real = np.ix_(shown.frame.real.any(axis=1), shown.frame.real.any(axis=0))
            heat = np.asarray(axes.images[1].get_array())
            np.testing.assert_allclose(heat[..., 3] / heat[..., 3].max(), sharpened(cosines)[real], atol=1e-9)
            assert np.array_equal(np.asarray(axes.images[0].get_array()), np.rint(0.4 * shown.image))
            left, right, bottom, top = axes.images[1].get_extent()
            r0, c0 = real[0].min(), real[1].min()
            x = left + (column - c0 + 0.5) / heat.shape[1] * (right - left) - 0.5
            y = top + (row - r0 + 0.5) / heat.shape[0] * (bottom - top) - 0.5
            np.testing.assert_allclose((x, y), xy, atol=1e-9)
    assert at == len(marks)


def test_options_change_heat_and_words() -> None:
    shown = [other(points=1)]
    figures = {
        name: similarity_figure(picture(60, 40), POINTS[:1], shown, **options)
        for name, options in {
            "plain": {},
            "cold": {"temperature": 0.5},
            "percentile": {"sharpening": "percentile"},
            "smooth": {"smooth": True},
        }.items()
    }
    heats = {name: np.asarray(figure.axes[2].images[1].get_array()) for name, figure in figures.items()}
    np.testing.assert_allclose(heats["cold"][..., 3], 0.85 * sharpened(shown[0].similarity[0], temperature=0.5))
    np.testing.assert_allclose(heats["percentile"][..., 3], 0.85 * sharpened(shown[0].similarity[0], "percentile"))
    assert figures["plain"].axes[2].images[1].get_interpolation() == "nearest"
    assert figures["smooth"].axes[2].images[1].get_interpolation() == "bilinear"
    for name, part in (("plain", "/ 0.05)"), ("cold", "/ 0.5)"), ("percentile", "median")):
        assert part in " ".join(words(figures[name]))


@pytest.mark.parametrize(("count", "points"), [(1, 2), (2, 1), (7, 2), (MOST_SHOWN, 1)])
def test_every_picture_fits_keeps_its_shape_and_can_be_read(count: int, points: int) -> None:
    shapes = [(60, 40), (40, 60), (200, 30), (50, 50)]
    shown = [
        other(*shapes[i % 4], points=points, name="a $long$ name " * (8 if count == 1 else 3)) for i in range(count)
    ]
    figure = similarity_figure(picture(60, 40), POINTS[:points], shown, name="first " * 20, caption="words " * 40)
    size = np.tile(figure.get_size_inches(), 2)
    boxes = [np.asarray(axes.get_position().bounds) * size for axes in figure.axes if axes.images]
    assert len(boxes) == points * (count + 1)
    aspects = [1.5] + [s.frame.width / s.frame.height for s in shown]
    for k, (left, bottom, width, height) in enumerate(boxes):
        assert width / height == pytest.approx(aspects[k % (count + 1)])
        assert left >= 0 and bottom > 0 and left + width <= 10 and bottom + height <= size[1]
    check_letters(figure)
    for name in ("first ", "a $long$ "):  # longer would only take longer to cut
        assert any(word.startswith(name) and word.endswith("…") for word in words(figure))


def test_what_cannot_be_seen_has_no_ring_and_what_does_not_fit_is_refused() -> None:
    blank = dataclasses.replace(other(points=1), similarity=np.full((1, 4, 5), np.nan))
    figure = similarity_figure(picture(60, 40), POINTS[:1], [blank])
    assert len(sheet_of(figure).collections) == 1  # the point itself
    for points, shown, message in (
        (POINTS[:0], [other(points=0)], "expected 1 to 12 points"),
        (np.zeros((MOST_POINTS + 1, 2)), [other(points=MOST_POINTS + 1)], "got 13 and 1"),
        (POINTS, [], "got 3 and 0"),
        (POINTS, [other()] * (MOST_SHOWN + 1), "got 3 and 41"),
        (POINTS, [other(points=2)], "expected maps for 3 points, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            similarity_figure(picture(60, 40), points, shown)


# ----------------------------------------------------------------------------------------------------------------------
# Transferred points


def transferred(**changes: Any) -> TransferredPoints:
    rng = np.random.default_rng(0)
    found = rng.uniform(5, 35, (6, 2))
    truth = found + np.array([[0, 0], [3, 0], [0, 4.001], [3, 4], [np.nan, np.nan], [-20, 1]])
    plain = TransferredPoints(picture(60, 40), picture(50, 70), rng.uniform(0, 39, (6, 2)), found, truth, 4.0, "a – b")
    return dataclasses.replace(plain, **changes)


def colours_of(figure: Figure) -> np.ndarray:
    lines = [c for c in sheet_of(figure).collections if isinstance(c, LineCollection)]
    return np.asarray(lines[1].get_colors())[:, :3]


def test_right_is_blue_up_to_the_radius_and_what_is_not_known_is_neither() -> None:
    found = transferred()
    figure = transfer_figure(found)
    wanted = np.array([RIGHT, RIGHT, WRONG, WRONG, RIGHT, WRONG])
    wanted[4] = position_colours((found.xy_a + 0.5) / (60, 40))[4]
    np.testing.assert_allclose(colours_of(figure), wanted)
    assert " ".join(words(figure)) == "2 of 5 right within 4 px (40 %). a – b"
    at_five = transfer_figure(transferred(radius=5.0))
    assert " ".join(words(at_five)).startswith("4 of 5 right within 5 px (80 %)")
    rings = [patch for patch in figure.axes[1].patches if isinstance(patch, Circle)]
    known = found.truth_b[np.isfinite(found.truth_b).all(axis=1)]  # type: ignore[index]
    assert {ring.radius for ring in rings} == {4.0}
    np.testing.assert_allclose([ring.center for ring in rings], np.tile(known, (2, 1)))


def test_points_lie_where_they_are() -> None:
    found = transferred(truth_b=None, radius=None)
    figure = transfer_figure(found)
    np.testing.assert_allclose(colours_of(figure), position_colours((found.xy_a + 0.5) / (60, 40)))
    assert words(figure) == ["a – b"] and not figure.axes[1].patches
    dots = [c for c in sheet_of(figure).collections if not isinstance(c, LineCollection)]
    for axes, pair, xy, size in zip(
        figure.axes, (dots[:2], dots[2:]), (found.xy_a, found.xy_b), ((60, 40), (50, 70)), strict=False
    ):
        wanted = [place(figure, axes, point, size) for point in xy]
        for circles in pair:  # large and small
            np.testing.assert_allclose(np.asarray(circles.get_offsets()), wanted, atol=1e-9)
        assert pair[0].get_sizes()[0] > 3 * pair[1].get_sizes()[0]


def test_no_points_and_no_truth_at_all_are_drawn_too() -> None:
    none = np.zeros((0, 2))
    assert words(transfer_figure(transferred(xy_a=none, xy_b=none, truth_b=none, caption=""))) == []
    unknown = transfer_figure(transferred(truth_b=np.full((6, 2), np.nan)))
    assert words(unknown) == ["a – b"] and not unknown.axes[1].patches
    check_letters(transfer_figure(transferred(caption="word " * 40 + "w" * 200)))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_work_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    for make in (
        lambda: transfer_figure(transferred()),
        lambda: similarity_figure(picture(60, 40), POINTS[:1], [other(points=1)]),
    ):
        files = [save_figure(make(), tmp_path / name / f"f{suffix}") for name in "xy"]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_half_a_truth_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for change, message in (
        ({"radius": None}, "expected the truth together with a radius"),
        ({"truth_b": None}, "expected the truth together with a radius"),
        ({"radius": -1.0}, "a radius of 0 or more"),
        ({"xy_b": np.zeros((5, 2))}, "expected as many points in A as in B, got 6 and 5"),
    ):
        with pytest.raises(ValueError, match=message):
            transfer_figure(transferred(**change))
