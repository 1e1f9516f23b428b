"""The picture of an episode: regions where they belong, every image marked, nothing covered, the same bytes each time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from PIL import Image

from fewmatch.fewshot import EpisodePlane, episode_plane, sample_episodes
from fewmatch.figures import TellingImage, plane_figure, save_figure, telling_images
from fewmatch.figures.notable import explain
from fewmatch.figures.placement import Paper, line_end
from fewmatch.figures.plane import region
from fewmatch.figures.style.lettering import cut, wrapped
from fewmatch.figures.style.palette import class_colours


def episode(ways: int, shots: int, queries: int, seed: int = 0, dims: int = 24, noise: float = 1.0) -> EpisodePlane:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(ways), shots + queries)
    x = rng.normal(size=(ways, dims))[labels] + noise * rng.normal(size=(len(labels), dims))
    drawn = sample_episodes(labels, ways=ways, shots=shots, queries=queries, episodes=1, seed=seed)
    return episode_plane(x, labels, drawn, center="none" if shots * ways == 1 else "support")


def with_means(means: np.ndarray) -> EpisodePlane:
    ways = len(means)
    return EpisodePlane(
        means=means,
        support=means[:, None],
        query=means[:, None],
        predicted=np.zeros((ways, 1), np.int64),
        distances=np.zeros((ways, 1, ways)),
        probabilities=np.full((ways, 1, ways), 1 / ways),
        support_distances=np.zeros((ways, 1, ways)),
        rank=2,
        exact=False,
        shown=0.5,
        dimensions=7,
        center="none",
        metric="euclidean",
        prenormalize=False,
    )


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def drawn(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def thumbnails(plane: EpisodePlane, seed: int = 0) -> dict[TellingImage, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        image: np.full((*rng.integers(1, 90, 2), 3), rng.choice([0, 120, 255]), np.uint8)
        for image in telling_images(plane)
    }


# --- regions

GRID = np.stack(np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-1, 1, 21)), axis=-1).reshape(-1, 2) + 0.0137


def area(corners: np.ndarray) -> float:
    x, y = corners.T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


@pytest.mark.parametrize(
    "means",
    [
        *(np.random.default_rng(w).uniform(-1, 1, (w, 2)) for w in (2, 3, 5, 10, 20)),
        np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]),  # on a line: upright borders, no circumcentre
        np.array([[0.0, -1.0], [0.0, 0.0], [0.0, 0.5]]),
        np.array([[-1.0, 0.0], [0.0, 0.05], [1.0, 0.0]]),  # an obtuse triangle: its circumcentre is far outside
        np.array([[0.3, 0.2], [0.3, 0.2], [-0.5, 0.1], [0.3, 0.2]]),
        np.zeros((3, 2)),
        np.array([[50.0, 0.0], [51.0, 0.0]]),  # both outside of the box
    ],
)
def test_regions_are_where_their_mean_is_nearest(means: np.ndarray) -> None:
    plane = with_means(means)
    box = (-2.0, -1.0, 2.2, 1.1)
    cells = [region(plane, way, box) for way in range(len(means))]
    assert sum(area(cell) for cell in cells if len(cell)) == pytest.approx(4.2 * 2.1)
    squared = ((GRID[:, None] - means) ** 2).sum(axis=2)
    ordered = np.sort(squared, axis=1)
    nearest = squared.argmin(axis=1)
    assert np.array_equal(plane.nearest(GRID), nearest)
    clear = (ordered[:, 1] - ordered[:, 0] > 1e-9) | (ordered[:, 1] == ordered[:, 0])
    for way, cell in enumerate(cells):
        inside = Outline(cell).contains_points(GRID) if len(cell) else np.zeros(len(GRID), bool)
        assert np.array_equal(inside[clear], (nearest == way)[clear])


# --- what is drawn


def marks(figure: Figure) -> list[PathCollection]:
    return [c for c in figure.axes[1].collections if isinstance(c, PathCollection)]


def test_every_image_has_its_mark_in_the_colour_of_its_class() -> None:
    plane = episode(3, 5, 8, noise=3.0)
    assert 0 < plane.right.sum() < plane.right.size
    found = marks(plane_figure(plane, names(3)))
    assert len(found) == 12
    colours = class_colours(3)
    for way in range(3):
        support, right, wrong, mean = found[4 * way : 4 * way + 4]
        assert np.array_equal(support.get_offsets(), plane.support[way])
        assert np.array_equal(right.get_offsets(), plane.query[way][plane.right[way]])
        assert np.array_equal(wrong.get_offsets(), plane.query[way][~plane.right[way]])
        assert np.array_equal(mean.get_offsets(), plane.means[way : way + 1])
        assert all(np.allclose(mark.get_facecolor()[:, :3], colours[way]) for mark in (support, right, wrong, mean))
        shapes = {mark.get_paths()[0].vertices.tobytes() for mark in (support, right, wrong, mean)}
        assert len(shapes) == 4
        assert not np.allclose(right.get_edgecolor(), wrong.get_edgecolor())
        assert wrong.get_linewidths()[0] > right.get_linewidths()[0]


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "pictures"),
    [
        *((*of, True) for of in ((2, 1, 1), (2, 10, 50), (3, 1, 1), (3, 5, 2), (5, 10, 3), (20, 1, 50), (30, 2, 1))),
        *((*of, False) for of in ((2, 1, 1), (5, 10, 3), (30, 2, 1))),  # that is the same without the pictures
    ],
)
def test_any_episode_can_be_drawn(ways: int, shots: int, queries: int, pictures: bool) -> None:
    plane = episode(ways, shots, queries, seed=ways)
    shown = thumbnails(plane) if pictures else None
    figure = plane_figure(plane, names(ways), thumbnails=shown, title="title", note="note")
    with Image.open(io.BytesIO(drawn(figure))) as image:
        assert image.size[0] == 1200 and 700 < image.size[1] < 950
    axes = figure.axes[1]
    points = np.concatenate([plane.means, plane.support.reshape(-1, 2), plane.query.reshape(-1, 2)])
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    box = axes.get_window_extent()
    assert (right - left) / box.width == pytest.approx((top - bottom) / box.height)  # bisectors look perpendicular
    # All points are inside, and fill the plot in one direction or the other.
    share = (points - [left, bottom]) / [right - left, top - bottom]
    assert (share > 0.03).all() and (share < 0.97).all()
    assert np.ptp(share, axis=0).max() > 0.6
    check_nothing_is_covered(figure, points)


def check_nothing_is_covered(figure: Figure, points: np.ndarray) -> None:
    boxes = [image.get_extent() for image in figure.axes[1].images]
    (left, right), (bottom, top) = figure.axes[1].get_xlim(), figure.axes[1].get_ylim()
    for i, (x0, x1, y0, y1) in enumerate(boxes):
        assert left <= x0 < x1 <= right and bottom <= y0 < y1 <= top
        assert not ((points > [x0, y0]) & (points < [x1, y1])).all(axis=1).any()
        for u0, u1, v0, v1 in boxes[:i]:
            assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0


def test_thumbnails_keep_their_shape_and_say_what_was_decided() -> None:
    plane = episode(3, 2, 6, seed=4, noise=3.0)
    told = telling_images(plane)
    pictures = {image: np.full((30, 60, 3), 10 * i, np.uint8) for i, image in enumerate(told)}
    figure = plane_figure(plane, ["ant", "$b_1$", "a name that is long"], thumbnails=pictures)
    axes = figure.axes[1]
    assert len(axes.images) > 5
    texts = [text.get_text() for text in axes.texts]
    for image in axes.images:
        x0, x1, y0, y1 = image.get_extent()
        assert (x1 - x0) / (y1 - y0) == pytest.approx(2)
    roles = [told[int(image.get_array()[0, 0, 0]) // 10] for image in axes.images]
    for role in roles:
        short = ["ant", "$b_1$", "a name that…"]
        if role.role == "support":
            assert ["ant", "$b_1$", "a name that i…"][role.way] in texts
        else:
            given = plane.predicted[role.way, role.number]
            sure = plane.probabilities[role.way, role.number, given]
            sign = {"wrong": "✘", "doubtful": "✔"}[role.role]
            assert f"{sign} {short[given][:10] + '…' if len(short[given]) > 11 else short[given]} {sure:.2f}" in texts
    assert "a name that is lo…" in texts  # at its mean
    assert any(role.role == "wrong" for role in roles)


def test_extreme_pictures_are_cut_to_their_middle() -> None:
    plane = episode(2, 1, 1)
    long = np.zeros((10, 200, 3), np.uint8)
    long[:, 87:113] = 255
    figure = plane_figure(plane, names(2), thumbnails={TellingImage("support", 0, 0): long})
    (image,) = figure.axes[1].images
    assert image.get_array().shape == (10, 25, 3) and image.get_array().min() == 255


def test_the_legend_counts_the_right_queries_of_each_class() -> None:
    plane = episode(5, 2, 9, noise=3.0)
    texts = [text.get_text() for text in plane_figure(plane, names(5)).axes[0].texts]
    for way in range(5):
        at = texts.index(f"class {way}")
        assert texts[at + 1] == f"{plane.right[way].sum()} of 9"
    many = [text.get_text() for text in plane_figure(episode(30, 1, 1), names(30)).axes[0].texts]
    assert "class 18" in many and "class 19" not in many and "and 11 more" in many


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_episode_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    files = []
    for name in "xy":
        plane = episode(3, 5, 2, seed=1)
        figure = plane_figure(plane, names(3), thumbnails=thumbnails(plane), title="t", note="n")
        files.append(save_figure(figure, tmp_path / f"{name}{suffix}"))
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("text", ["", "$x^2", "a" * 200, "two words " * 40, "naïve ß Ωé"])
def test_any_text_can_be_drawn(text: str) -> None:
    plane = episode(3, 1, 1)
    figure = plane_figure(plane, [text, "b", "c"], title=text, note=text)
    drawn(figure)
    assert figure.axes[1].texts[0].get_text() == (text if len(text) <= 18 else text[:17] + "…")


def test_coinciding_means_can_be_drawn() -> None:
    x = np.tile(np.array([[3.0, 4.0, 0.0]]), (6, 1))
    labels = np.repeat([0, 1, 2], 2)
    plane = episode_plane(
        x, labels, sample_episodes(labels, ways=3, shots=1, queries=1, episodes=1, seed=0), center="none"
    )
    drawn(plane_figure(plane, names(3), thumbnails=thumbnails(plane)))


def test_names_must_fit() -> None:
    with pytest.raises(ValueError, match="expected 3 class names, got 2"):
        plane_figure(episode(3, 1, 1), names(2))


# --- what is told


def test_telling_images_are_the_wrong_the_typical_and_the_doubtful() -> None:
    plane = episode(4, 5, 20, seed=2, noise=3.0)
    told = telling_images(plane, limit=100)
    sure = plane.probabilities.max(axis=2)
    wrong = [t for t in told if t.role == "wrong"]
    worst = np.sort(sure[~plane.right])[::-1]
    assert [sure[t.way, t.number] for t in wrong] == list(worst[:5])
    doubtful = [t for t in told if t.role == "doubtful"]
    assert [sure[t.way, t.number] for t in doubtful] == list(np.sort(sure[plane.right])[:4])
    supports = [t for t in told if t.role == "support"]
    assert [t.way for t in supports] == [0, 1, 2, 3]
    for t in supports:
        off = ((plane.support[t.way] - plane.means[t.way]) ** 2).sum(axis=1)
        assert t.number == off.argmin()
    assert told == [*wrong, *supports, *doubtful]
    assert telling_images(plane, limit=3) == told[:3] and telling_images(plane, limit=0) == []
    assert {t.role for t in telling_images(episode(7, 2, 9, noise=3.0))} == {"wrong", "doubtful"}


def test_of_sure_queries_only_two_are_doubtful() -> None:
    plane = episode(2, 5, 20, noise=0.1)
    assert plane.probabilities.max(axis=2).min() > 0.9
    assert [t.role for t in telling_images(plane)] == ["support", "support", "doubtful", "doubtful"]


def test_the_words_say_what_the_plane_can_say() -> None:
    def of(**change: Any) -> str:
        plane = with_means(np.array([[1.0, 0.0], [0.0, 0.5], [-1.0, -0.5], [0.3, 0.0]]))
        return explain(EpisodePlane(**(plane.__dict__ | change)))

    # Of the four queries, each on its mean, all are predicted as class 0: three go elsewhere in the picture.
    assert of() == (
        "1 of 4 queries right. The best two of 3 directions, with 50 % of the spread of the class means. Regions are those of the "
        "picture; right and wrong are decided in all 7 dimensions, where 3 of the queries go to another class than here."
    )
    assert of(predicted=np.array([[0], [1], [2], [2]])).endswith(
        "where 1 of the queries goes to another class than here."
    )
    assert of(predicted=np.arange(4)[:, None]).endswith("decided in all 7 dimensions.")
    assert of(exact=True).endswith(
        "Exact: the class mean nearest to a query in this plane is the nearest one in all 7 dimensions."
    )
    assert "Exact from left to right" in of(rank=1, exact=True) and "The class means coincide" in of(rank=0, exact=True)
    assert explain(episode(2, 1, 1)).startswith("2 of 2 queries")


# --- where things go


def test_a_box_goes_next_to_its_point_and_onto_nothing() -> None:
    rng = np.random.default_rng(0)
    paper = Paper(6.0, 4.0)
    discs = rng.uniform((0.2, 0.2), (5.8, 3.8), (25, 2))
    for x, y in discs:
        paper.add_disc(x, y, 0.1)
    boxes: list[tuple[float, float, float, float]] = []
    for anchor in discs[:8]:
        corner = paper.place((anchor[0], anchor[1]), (0.5, 0.4), away=0.12)
        assert corner is not None
        x, y = corner
        assert 0 <= x <= 5.5 and 0 <= y <= 3.6
        gap = np.hypot(*(np.clip(discs, (x, y), (x + 0.5, y + 0.4)) - discs).T)
        assert gap.min() > 0.1 - 0.03  # a cell's diagonal
        assert all(x + 0.5 <= u or u + w <= x or y + 0.4 <= v or v + h <= y for u, v, w, h in boxes)
        boxes.append((x, y, 0.5, 0.4))


def test_near_is_better_than_far_and_a_clear_line_better_than_near() -> None:
    paper = Paper(4.0, 4.0)
    corner = paper.place((2.0, 2.0), (0.4, 0.4), away=0.2)
    assert corner is not None
    assert np.hypot(*(np.clip((2, 2), corner, np.add(corner, 0.4)) - (2, 2))) < 0.3
    # Walls of points all around but for a gap on the right.
    paper = Paper(4.0, 4.0)
    for angle in np.linspace(0.3, 2 * np.pi - 0.3, 60):
        paper.add_disc(2 + 0.35 * np.cos(angle), 2 + 0.35 * np.sin(angle), 0.05)
    corner = paper.place((2.0, 2.0), (0.4, 0.4), away=0.1)
    assert corner is not None and corner[0] > 2.2 and abs(corner[1] + 0.2 - 2) < 0.25


def test_no_place_is_no_place() -> None:
    assert Paper(1.0, 1.0).place((0.5, 0.5), (1.2, 0.2)) is None
    paper = Paper(1.0, 1.0)
    paper.add_disc(0.5, 0.5, 1.0)
    assert paper.place((0.5, 0.5), (0.2, 0.2)) is None
    assert paper.place((0.5, 0.5), (0.2, 0.2), covering=0.5) is not None  # on points, if need be
    paper.add_box(0.0, 0.0, 1.0, 1.0)
    assert paper.place((0.5, 0.5), (0.2, 0.2), covering=0.5) is None  # never on a text
    walled = Paper(3.0, 1.0)
    walled.add_box(1.0, 0.0, 0.1, 1.0)
    walled.add_box(0.0, 0.0, 0.9, 1.0)
    assert walled.place((0.95, 0.5), (0.5, 0.4)) is None  # no line through a wall
    assert Paper(3.0, 1.0).place((0.1, 0.5), (0.5, 0.4), away=1.0, reach=1.3) is not None
    full = Paper(3.0, 1.0)
    full.add_box(0.0, 0.0, 2.0, 1.0)
    assert full.place((0.1, 0.5), (0.5, 0.4), reach=1.3) is None


def test_lines_end_where_they_reach_the_box() -> None:
    corners = np.array([[1.0, -0.5], [-0.5, 2.0], [3.0, 3.0], [-0.2, -0.3]])
    ends = line_end((0.0, 0.0), corners, (1.0, 1.0))
    assert np.allclose(ends, [[1, 0], [0, 2], [3, 3], [0, 0]])


def test_words_are_wrapped_and_cut() -> None:
    text = "the quick brown fox jumps over the lazy dog " * 5
    lines = wrapped(text, 9.0, 3.0)
    assert " ".join(lines) == " ".join(text.split()) and len(lines) > 3
    assert len(wrapped(text, 9.0, 6.0)) < len(lines) and wrapped("", 9.0, 3.0) == []
    assert cut("abcdef", 6) == "abcdef" and cut("abcdefg", 6) == "abcde…"


def test_colours_repeat_in_other_shades() -> None:
    colours = class_colours(24)
    assert len({tuple(np.round(c, 3)) for c in colours}) == 24
    assert class_colours(30)[24:] == colours[:6] and class_colours(3) == colours[:3]
    for first, dark, light in zip(colours[:8], colours[8:16], colours[16:], strict=True):
        assert sum(dark) < sum(first) < sum(light)
