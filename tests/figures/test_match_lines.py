"""Match figures: the lines begin and end where the matches are, in the colour of their place, and the file is the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from figures import MatchedPair, match_figure, save_figure
from figures.match_lines import position_colours
from matching import Matches


def made_matches(size_a: tuple[int, int], size_b: tuple[int, int], count: int, seed: int = 0) -> Matches:
    rng = np.random.default_rng(seed)
    patches = np.zeros((count, 2), np.int64)
    return Matches(
        xy_a=rng.uniform(0, 1, (count, 2)) * size_a - 0.5,
        xy_b=rng.uniform(0, 1, (count, 2)) * size_b - 0.5,
        score=np.sort(rng.uniform(0, 1, count))[::-1].copy(),
        patch_a=patches,
        patch_b=patches,
        confidence=0.5,
        size_a=size_a,
        size_b=size_b,
    )


def picture(size: tuple[int, int], colour: int) -> np.ndarray:
    return np.full((size[1], size[0], 3), colour, np.uint8)


def made_pair(size_a: tuple[int, int], size_b: tuple[int, int], count: int = 30, **options: object) -> MatchedPair:
    matches = made_matches(size_a, size_b, count)
    return MatchedPair(picture(size_a, 30), picture(size_b, 220), matches, **options)  # type: ignore[arg-type]


def image_boxes(figure: Figure) -> list[np.ndarray]:
    """Left, bottom, width and height of every picture, in inches."""
    size = figure.get_size_inches()
    return [np.asarray(axes.get_position().bounds) * [*size, *size] for axes in figure.axes if axes.images]


def segments(figure: Figure) -> list[np.ndarray]:
    """Both ends of every line in inches, pair by pair."""
    collections = [
        [c for c in axes.collections if isinstance(c, LineCollection)] for axes in figure.axes if not axes.images
    ]
    return [np.array(lines[-1].get_segments()).reshape(-1, 2, 2) for lines in collections]


@pytest.mark.parametrize(
    ("size_a", "size_b"),
    [
        ((60, 40), (60, 40)),
        ((40, 60), (90, 30)),
        ((400, 40), (300, 30)),
        ((10, 300), (12, 400)),
        ((500, 20), (20, 500)),
        ((1, 1), (7, 5)),
    ],
)
def test_lines_join_the_matched_points(size_a: tuple[int, int], size_b: tuple[int, int]) -> None:
    pair = made_pair(size_a, size_b, shown=1000)
    figure = match_figure([pair])
    boxes = image_boxes(figure)
    assert figure.get_size_inches()[0] * figure.dpi == 1200
    ends = segments(figure)[0]
    for xy, size, (left, bottom, width, height), drawn in zip(
        (pair.matches.xy_a, pair.matches.xy_b), (size_a, size_b), boxes, (ends[:, 0], ends[:, 1]), strict=True
    ):
        assert width / height == pytest.approx(size[0] / size[1], rel=1e-9)  # not stretched
        x = left + (xy[:, 0] + 0.5) / size[0] * width
        y = bottom + height - (xy[:, 1] + 0.5) / size[1] * height  # pixel centres at integers, y down
        np.testing.assert_allclose(drawn, np.stack([x, y], axis=1), atol=1e-9)
    # The pictures lie on the sheet and not on each other.
    (l0, b0, w0, _), (l1, b1, _, h1) = boxes
    assert l0 + w0 < l1 or b1 + h1 < b0
    for left, bottom, width, height in boxes:
        assert left >= 0 and bottom >= 0 and left + width <= 10 + 1e-9
        assert bottom + height <= figure.get_size_inches()[1] + 1e-9


def test_wide_pictures_go_one_above_the_other() -> None:
    beside = image_boxes(match_figure([made_pair((60, 40), (60, 40))]))
    above = image_boxes(match_figure([made_pair((400, 40), (400, 40))]))
    assert beside[0][0] < beside[1][0] and beside[0][1] == pytest.approx(beside[1][1])
    assert above[0][1] > above[1][1] and above[0][0] == pytest.approx(above[1][0])


def test_at_most_as_many_lines_as_asked_for_and_they_are_spread() -> None:
    pair = made_pair((60, 40), (60, 40), count=300, shown=25)
    figure = match_figure([pair, made_pair((60, 40), (60, 40), count=3), made_pair((60, 40), (60, 40), count=0)])
    assert [len(lines) for lines in segments(figure)] == [25, 3, 0]
    assert len(segments(match_figure([made_pair((60, 40), (60, 40), shown=0)]))[0]) == 0
    wanted = pair.matches.spread(25)
    np.testing.assert_allclose(
        segments(match_figure([pair]))[0], segments(match_figure([made_like(pair, wanted)]))[0], atol=1e-12
    )


def made_like(pair: MatchedPair, matches: Matches) -> MatchedPair:
    return MatchedPair(pair.image_a, pair.image_b, matches, shown=1000)


def test_colours_are_vivid_differ_by_place_and_are_alike_nearby() -> None:
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21)), axis=-1).reshape(-1, 2)
    colours = position_colours(grid)
    assert colours.min() >= 0 and colours.max() <= 1
    assert (colours.max(axis=1) == 1).all()  # bright
    corners = position_colours(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
    apart = np.linalg.norm(corners[:, None] - corners[None], axis=2) + np.eye(4)
    assert apart.min() > 0.6
    assert np.array_equal(position_colours(np.array([[-3.0, 5]])), position_colours(np.array([[0.0, 1]])))


def test_captions_and_title_are_text_not_markup() -> None:
    figure = match_figure([made_pair((60, 40), (60, 40), caption="$5_x$ – b")], title="a $ title")
    assert [text.get_text() for text in figure.texts] == ["a $ title", "$5_x$ – b"]
    assert not any(text.get_parse_math() for text in figure.texts)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_matches_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    pair = made_pair((60, 40), (40, 50), caption="a – b")
    files = [save_figure(match_figure([pair]), tmp_path / name / f"match{suffix}") for name in "xy"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_lines_can_be_seen_on_dark_and_on_light_pictures(tmp_path: Path) -> None:
    for colour in (0, 128, 255):
        pair = MatchedPair(picture((90, 60), colour), picture((90, 60), colour), made_matches((90, 60), (90, 60), 20))
        path = save_figure(match_figure([pair]), tmp_path / "m.png")
        with Image.open(path) as image:
            assert image.size[0] == 1200
            pixels = np.asarray(image.convert("RGB")).astype(int)
        # Somewhere in the pictures there is colour, far from their grey.
        assert (np.ptp(pixels, axis=2) > 100).mean() > 0.005


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one pair"):
        match_figure([])
