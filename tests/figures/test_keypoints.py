"""Figures of keypoints: where marks lie, what is hollow, what is joined, the order of the sheet, and letters that can be read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from fewmatch.errors import InputError
from fewmatch.figures.keypoints import confidence_text, keypoint_figure, keypoint_sheet, review_order
from fewmatch.figures.sheet import save_figure
from fewmatch.figures.style.palette import class_colours
from fewmatch.labels.keypoints import Keypoints

sys.path.insert(0, str(Path(__file__).parent))
from lettering_checks import check_letters

SIZES = [(40, 61), (33, 30), (90, 35), (50, 50), (21, 80)]


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZES[i % len(SIZES)], 3), dtype=np.uint8) for i in range(count)]


def found(images: Sequence[np.ndarray], parts: int = 4, seed: int = 0, **changes: object) -> Keypoints:
    rng = np.random.default_rng(seed)
    sizes = np.array([image.shape[1::-1] for image in images])
    values: dict[str, object] = {
        "paths": tuple(f"folder/img{i:02}.png" for i in range(len(images))),
        "parts": tuple(f"part {p}" for p in range(parts)),
        "xy": rng.uniform(0, 1, (len(images), parts, 2)) * (sizes[:, None] - 1),
        "visible": np.ones((len(images), parts), bool),
        "score": rng.uniform(0, 1, (len(images), parts)),
        "skeleton": ((0, 1), (1, 2)),
    }
    return Keypoints(**{**values, **changes})  # type: ignore[arg-type]


def image_axes(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def marks(axes: Axes, *, filled: bool) -> list[tuple[tuple[float, float], tuple[float, ...]]]:
    """Places and colours of the topmost discs, or of the topmost rings."""
    kinds = [c for c in axes.collections if isinstance(c, PathCollection) and len(c.get_offsets())]
    chosen = [c for c in kinds if c.get_zorder() == (8 if filled else 6)]
    colours = [c.get_facecolor() if filled else c.get_edgecolor() for c in chosen]
    return [
        (tuple(map(float, xy)), tuple(np.round(np.broadcast_to(rgba, (len(c.get_offsets()), 4))[k][:3], 6)))
        for c, rgba in zip(chosen, colours, strict=True)
        for k, xy in enumerate(np.asarray(c.get_offsets()))
    ]  # type: ignore[misc]


def lines(axes: Axes, zorder: float) -> list[np.ndarray]:
    return [
        np.asarray(s)
        for c in axes.collections
        if isinstance(c, LineCollection) and c.get_zorder() == zorder
        for s in c.get_segments()
    ]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_discs_and_rings_lie_at_the_points_in_the_colours_of_the_parts() -> None:
    images = pictures(3)
    visible = np.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    points = found(images, visible=visible)
    points.xy[2, 3] = np.nan  # no place at all
    colours = np.round([to_rgb(c) for c in class_colours(4)], 6)
    figure = keypoint_figure(images, points)
    for n, axes in enumerate(image_axes(figure)):
        for filled in (True, False):
            expected = [
                (tuple(points.xy[n, p]), tuple(colours[p]))
                for p in range(4)
                if points.placed[n, p] and visible[n, p] == filled
            ]
            got = marks(axes, filled=filled)
            assert len(got) == len(expected)
            for (xy, colour), (xy0, colour0) in zip(got, expected, strict=True):
                assert np.allclose(xy, xy0) and np.allclose(colour, colour0, atol=1e-6)
        height, width = images[n].shape[:2]
        assert axes.get_xlim() == (-0.5, width - 0.5) and axes.get_ylim() == (height - 0.5, -0.5)
    assert any("ring: not visible" in text for text in texts(figure))
    assert not any("ring" in text for text in texts(keypoint_figure(images, found(images))))


def test_the_skeleton_joins_visible_parts_only() -> None:
    images = pictures(2)
    points = found(images, visible=np.array([[1, 1, 0, 1], [1, 1, 1, 1]], bool))
    first, second = image_axes(keypoint_figure(images, points))
    edges = [lines(axes, 2) for axes in (first, second)]  # each line is drawn twice, dark below
    assert [len(of) for of in edges] == [2, 4]
    assert np.allclose(edges[0][0], points.xy[0, [0, 1]]) and np.allclose(edges[1][3], points.xy[1, [1, 2]])
    assert lines(image_axes(keypoint_figure(images, found(images, skeleton=())))[0], 2) == []


def test_truth_is_found_by_names_and_joined_with_what_was_found() -> None:
    images = pictures(2)
    points = found(images)
    points.visible[1, 0] = False
    points.xy[1, 0] = np.nan
    order = [3, 0, 2]  # other parts, in another order, of the second image only
    truth = Keypoints(
        (points.paths[1], "elsewhere.png"),
        (*(points.parts[p] for p in order), "unknown"),
        np.arange(16.0).reshape(2, 4, 2),
        np.array([[True, True, False, True], [True] * 4]),
        np.full((2, 4), np.nan),
    )
    without, figure = (keypoint_figure(images, points, truth=t) for t in (None, truth))
    first, second = image_axes(figure)
    crosses = [c for c in second.collections if isinstance(c, PathCollection) and c.get_zorder() == 4]
    # part 3 and part 0 are visible in the truth; part 2 is not, part 1 is not there
    assert {tuple(xy) for c in crosses for xy in np.asarray(c.get_offsets())} == {(0.0, 1.0), (2.0, 3.0)}
    joined = lines(second, 3)
    assert len(joined) == 2 and np.allclose(joined, [[[0, 1], points.xy[1, 3]]] * 2)  # part 0 has no place
    assert lines(first, 3) == []
    assert sum("Cross: the labels." in text for text in texts(figure)) == 1
    assert not any("Cross" in text for text in texts(without))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_numbers_name_the_points_and_lie_on_none(count: int) -> None:
    images = pictures(count, seed=count)
    points = found(images, parts=9, seed=count)
    figure = keypoint_figure(images, points, caption="What it is. " * 12)
    check_letters(figure)
    sheet = figure.axes[0]
    numbers = [text for text in sheet.texts if text.get_text().isdigit()]
    assert len(numbers) >= 0.8 * points.visible.size  # where there is no room there is none
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    discs = np.concatenate(
        [axes.transData.transform(points.xy[n]) for n, axes in enumerate(image_axes(figure))]
    )  # pixels of the figure
    for number in numbers:
        box = number.get_window_extent(renderer)
        nearest = np.clip(discs, [box.x0, box.y0], [box.x1, box.y1])
        assert np.hypot(*(discs - nearest).T).min() > 0.04 * figure.dpi
    legend = [text for text in texts(figure) if " part " in text and text.split()[0].isdigit()]
    assert legend == [f"{p + 1} part {p}" for p in range(9)]


def test_the_sheet_shows_the_least_sure_images_first_and_says_how_many_it_leaves_out() -> None:
    images = pictures(7)
    for n, image in enumerate(images):
        image[:] = n
    score = np.full((7, 4), 0.5)
    score[:, 0] = [0.5, 0.1, 0.9, np.nan, 0.5, 0.5, 0.3]
    score[3] = np.nan
    points = found(images, score=score)
    order = [3, 1, 6, 0, 4, 5, 2]  # no scores, then below and above the median; ties in the order given
    assert review_order(points) == order
    figure = keypoint_sheet(images, points, most=4, columns=3, caption="Mice.")
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in image_axes(figure)] == order[:4]
    said = texts(figure)
    assert [t for t in said if t.startswith("folder/")] == [points.paths[n] for n in order[:4]]
    assert said.count("no scores") == 1 and said.count("−0.10") == 1 and said.count("−0.05") == 1
    caption = " ".join(said)
    assert "Mice. 4 of 7 images, least sure first" in caption and "3 surer ones are not shown." in caption
    whole = " ".join(texts(keypoint_sheet(images, points)))
    assert "7 images, least sure first" in whole and "not shown" not in whole
    # three tiles in the first row, one in the second
    tops = [round(axes.get_position().y1, 6) for axes in image_axes(figure)]
    assert tops[0] == tops[1] == tops[2] > tops[3]
    check_letters(figure)


def test_only_what_is_shown_is_asked_for() -> None:
    images = pictures(6)
    asked: list[int] = []

    class Lazy(Sequence):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
            asked.append(index)
            return images[index]

    points = found(images)
    import jaxtyping

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the check of shapes looks at one, too
        keypoint_sheet(Lazy(), points, most=2)
    assert sorted(set(asked)) == sorted(review_order(points)[:2])


def test_confidence_is_written_with_its_sign() -> None:
    said = [confidence_text(value) for value in (0.123, -0.5, 0.0, -np.inf)]
    assert said == ["+0.12", "−0.50", "+0.00", "no scores"]


def test_long_names_are_cut_at_their_beginning_and_hostile_ones_are_text(tmp_path: Path) -> None:
    images = pictures(2)
    names = ("a/" * 50 + "the end.png", "$x^2$ \n <b> \udc80.png")
    figure = keypoint_sheet(images, found(images, paths=names, parts=1, skeleton=(), xy=np.zeros((2, 1, 2))))
    check_letters(figure)
    heads = [t for t in texts(figure) if t.endswith(".png")]
    assert any(t.startswith("…") and t.endswith("the end.png") for t in heads)
    assert any(t == "$x^2$ <b> ?.png" for t in heads)
    again = keypoint_sheet(images, found(images, paths=names, parts=1, skeleton=(), xy=np.zeros((2, 1, 2))))
    for kind in ("png", "svg"):
        first = save_figure(figure, tmp_path / f"one.{kind}").read_bytes()
        assert save_figure(again, tmp_path / f"two.{kind}").read_bytes() == first
    assert plt.get_fignums() == []


@pytest.mark.parametrize("figure", [keypoint_figure, keypoint_sheet])
def test_what_does_not_fit_is_named(figure: object) -> None:
    assert callable(figure)
    images = pictures(2)
    with pytest.raises(InputError, match="expected a picture for each of 2 images, got 1"):
        figure(images[:1], found(images))
    with pytest.raises(InputError, match="at least one image and one part"):
        figure([], found(images).take(np.zeros(0, int)))
    with pytest.raises(InputError, match="at least one image and one part"):
        figure(images, found(images, parts=0, skeleton=()))


def test_a_sheet_without_room_is_refused() -> None:
    images = pictures(2)
    with pytest.raises(InputError, match="expected at least one image and one column, got 0 and 6"):
        keypoint_sheet(images, found(images), most=0)
    with pytest.raises(InputError, match="got 60 and 0"):
        keypoint_sheet(images, found(images), columns=0)
