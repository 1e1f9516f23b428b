"""Match figures: the lines begin and end where the matches are, in the colour of their place, and the file is the same each time."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from fewmatch.encoders.frame import resized_frame
from fewmatch.figures import MappedImage, MatchedPair, match_figure, save_figure
from fewmatch.figures.match_lines import LINE_COLOURS, MOST_NUMBERED, position_colours, score_colours
from fewmatch.figures.style.palette import ASIDE, RIGHT, WRONG
from fewmatch.matching import Matches
from fewmatch.matching.geometry.geometry import Geometry

sys.path.insert(0, str(Path(__file__).parent))
from lettering_checks import check_letters


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


def all_correct(count: int) -> np.ndarray:
    return np.arange(count) % 3 != 0


def made_maps(size_a: tuple[int, int], size_b: tuple[int, int]) -> tuple[MappedImage, MappedImage]:
    rng = np.random.default_rng(3)
    frames = [resized_frame(*size, size=16, patch=8, rule="squash") for size in (size_a, size_b)]
    pictures = [picture(size, 100) for size in (size_a, size_b)]
    one, other = (MappedImage(p, rng.uniform(size=(*f.grid, 3)), f) for p, f in zip(pictures, frames, strict=True))
    return one, other


def made_pair(size_a: tuple[int, int], size_b: tuple[int, int], count: int = 30, **options: object) -> MatchedPair:
    matches = made_matches(size_a, size_b, count)
    return MatchedPair(picture(size_a, 30), picture(size_b, 220), matches, **options)  # type: ignore[arg-type]


def image_boxes(figure: Figure) -> list[np.ndarray]:
    """Left, bottom, width and height of every picture, in inches."""
    size = figure.get_size_inches()
    return [np.asarray(axes.get_position().bounds) * [*size, *size] for axes in figure.axes if axes.images]


def lines_of(figure: Figure) -> list[LineCollection]:
    """The coloured lines of every pair, without what lies under them."""
    (sheet,) = [axes for axes in figure.axes if not axes.images]
    return [c for c in sheet.collections if isinstance(c, LineCollection)][1::2]


def segments(figure: Figure) -> list[np.ndarray]:
    """Both ends of every line in inches, pair by pair."""
    return [np.array(lines.get_segments()).reshape(-1, 2, 2) for lines in lines_of(figure)]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


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
    assert words(figure) == ["a $ title", "$5_x$ – b"]
    assert not any(text.get_parse_math() for axes in figure.axes for text in axes.texts)


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


# ----------------------------------------------------------------------------------------------------------------------
# What colours say

SIZES = ((60, 40), (50, 40))


def with_model(pair: MatchedPair, *, found: bool = True) -> MatchedPair:
    count = len(pair.matches)
    inliers = all_correct(count) if found else np.zeros(count, bool)
    model = Geometry("homography", 7.5, np.eye(3) if found else None, inliers, None if found else "too few matches")
    return dataclasses.replace(pair, matches=dataclasses.replace(pair.matches, geometry=model), colour="inliers")


def coloured(figure: Figure, pair: MatchedPair) -> np.ndarray:
    """The colour of every match of the only pair, in its order; all of them are drawn."""
    (lines,) = lines_of(figure)
    ends = np.array(lines.get_segments())[:, 0]
    box = image_boxes(figure)[0]
    places = box[:2] + (pair.matches.xy_a + 0.5) / SIZES[0] * [1, -1] * box[2:] + [0, box[3]]
    gaps = np.linalg.norm(places[:, None] - ends[None], axis=2)
    assert gaps.min(axis=1).max() < 1e-9
    return np.asarray(lines.get_colors())[gaps.argmin(axis=1)][:, :3]


def test_scores_have_one_range_for_all_pairs() -> None:
    high = made_pair(*SIZES, count=12, colour="score")
    low = dataclasses.replace(high, matches=dataclasses.replace(high.matches, score=high.matches.score / 2))
    low_end, high_end = float(low.matches.score.min()), float(high.matches.score.max())
    figure = match_figure([high, low])
    for lines, pair in zip(lines_of(figure), (high, low), strict=True):
        wanted = score_colours(pair.matches.score, (low_end, high_end))[::-1]  # the best is drawn last
        np.testing.assert_allclose(np.asarray(lines.get_colors())[:, :3], wanted)
    assert words(figure) == ["cosine", f"{low_end:.2f}", f"{high_end:.2f}"] * 2
    np.testing.assert_allclose(coloured(match_figure([high]), high)[0], score_colours(np.ones(1), (0.0, 1.0))[0])
    assert words(match_figure([made_pair(*SIZES, count=1, colour="score")]))[0] == "cosine"
    assert words(match_figure([made_pair(*SIZES, count=0, colour="score")])) == []


def test_scales_of_scores_get_brighter_all_the_way() -> None:
    grey = score_colours(np.linspace(-1, 3, 50), (-1.0, 3.0)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) > 0).all() and grey[0] > 0.05


def test_truth_is_blue_or_orange_and_counted_over_all_matches() -> None:
    pair = made_pair(*SIZES, count=40, colour="truth", correct=all_correct(40))
    got = coloured(match_figure([pair]), pair)
    np.testing.assert_allclose(got, np.where(all_correct(40)[:, None], RIGHT, WRONG))
    few = match_figure([dataclasses.replace(pair, shown=5)])
    assert words(few) == ["26 of 40 matches right (65 %)", "14 wrong"] and len(segments(few)[0]) == 5
    none = dataclasses.replace(pair, matches=pair.matches.take(np.zeros(40, bool)), correct=np.zeros(0, bool))
    assert words(match_figure([none])) == ["0 of 0 matches right", "0 wrong"]


def test_inliers_have_colours_and_others_are_thin_and_grey() -> None:
    pair = with_model(made_pair(*SIZES, count=30))
    figure = match_figure([pair])
    placed = position_colours((pair.matches.xy_a + 0.5) / SIZES[0])
    np.testing.assert_allclose(coloured(figure, pair), np.where(all_correct(30)[:, None], placed, ASIDE))
    widths = np.asarray(lines_of(figure)[0].get_linewidths())
    assert np.array_equal(widths[:10], np.full(10, 0.5)) and (widths[10:] == 0.8).all()  # the inliers on top
    assert words(figure) == ["20 of 30 inliers, within 7.5 px of the homography", "others"]
    none = match_figure([with_model(made_pair(*SIZES, count=30), found=False)])
    assert words(none) == ["no homography: too few matches"]
    assert {tuple(c[:3]) for c in np.asarray(lines_of(none)[0].get_colors())} == {ASIDE}


def test_lines_have_the_colour_of_their_left_patch_and_the_maps_stand_below() -> None:
    pair = made_pair(*SIZES, count=20, colour="pca", maps=made_maps(*SIZES))
    patches = np.random.default_rng(1).integers(0, 2, (20, 2))
    pair = dataclasses.replace(pair, matches=dataclasses.replace(pair.matches, patch_a=patches))
    assert pair.maps is not None
    figure = match_figure([pair])
    np.testing.assert_allclose(coloured(figure, pair), pair.maps[0].colours[patches[:, 0], patches[:, 1]])
    boxes = image_boxes(figure)
    assert len(boxes) == 4
    for image, below in zip(boxes[:2], boxes[2:], strict=True):
        np.testing.assert_allclose(image[[0, 2, 3]], below[[0, 2, 3]])
        assert below[1] + below[3] < image[1]
    for axes, item in zip(figure.axes[-2:], pair.maps, strict=True):
        assert np.array_equal(np.asarray(axes.images[-1].get_array()), np.rint(255 * item.colours))


def test_numbers_stand_at_both_ends_and_the_best_is_one() -> None:
    pair = made_pair(*SIZES, count=40, numbered=True)
    figure = match_figure([pair])
    assert words(figure) == [str(k) for k in range(MOST_NUMBERED, 0, -1)] * 2 and lines_of(figure) == []
    wanted = pair.matches.spread(MOST_NUMBERED)
    (sheet,) = [axes for axes in figure.axes if not axes.images]
    for part, xy, size, box in zip((0, 1), (wanted.xy_a, wanted.xy_b), SIZES, image_boxes(figure), strict=True):
        labels = sheet.texts[part * MOST_NUMBERED : (part + 1) * MOST_NUMBERED]
        places = np.array([label.get_position() for label in labels])[::-1]
        x = box[0] + (xy[:, 0] + 0.5) / size[0] * box[2]
        y = box[1] + box[3] - (xy[:, 1] + 0.5) / size[1] * box[3]
        np.testing.assert_allclose(places, np.stack([x, y], axis=1), atol=0.01)
    rings = [tuple(np.asarray(c.get_edgecolors())[0][:3]) for c in sheet.collections]
    assert len(rings) == 2 * MOST_NUMBERED and set(rings) == {to_rgb("white")}
    assert len(words(match_figure([dataclasses.replace(pair, shown=4)]))) == 8


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("colour", LINE_COLOURS)
def test_nothing_that_is_written_is_cut_or_covered(colour: Any, numbered: bool) -> None:
    pair = made_pair(*SIZES, count=20, correct=all_correct(20), maps=made_maps(*SIZES))
    long = "word " * 40 + "w" * 110  # wider than the figure, by not much: each letter less is measured anew
    pair = dataclasses.replace(with_model(pair), colour=colour, caption=long, numbered=numbered, shown=3)
    figure = match_figure([pair, dataclasses.replace(pair, caption="")], title="title " * 30)
    assert "".join(words(figure)).replace(" ", "").count("w" * 110) == 1
    check_letters(figure)


def test_colours_without_what_they_need_are_refused() -> None:
    pair = made_pair(*SIZES, count=5)
    small = made_maps(*SIZES)
    outside = dataclasses.replace(pair.matches, patch_a=np.full((5, 2), 2))
    for change, message in (
        ({"colour": "truth"}, "expected to hear of 5 matches whether they are right, got none"),
        (
            {"colour": "truth", "correct": np.ones(4, bool)},
            "expected to hear of 5 matches whether they are right, got 4",
        ),
        ({"colour": "inliers"}, "expected matches with a geometry"),
        ({"colour": "pca"}, "expected the two images’ maps"),
        (
            {"colour": "pca", "maps": small, "matches": outside},
            r"a map of image A with patch \(2, 2\), got one of shape \(2, 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            match_figure([dataclasses.replace(pair, **change)])


@pytest.mark.parametrize("colour", ["position", "pca", "truth", "inliers"])
def test_a_match_has_its_colour_whichever_others_are_drawn(colour: Any) -> None:
    pair = made_pair(*SIZES, count=40, correct=all_correct(40), maps=made_maps(*SIZES))
    patches = np.random.default_rng(2).integers(0, 2, (40, 2))
    pair = with_model(dataclasses.replace(pair, matches=dataclasses.replace(pair.matches, patch_a=patches)))
    pair = dataclasses.replace(pair, colour=colour)
    every, few = match_figure([pair]), match_figure([dataclasses.replace(pair, shown=12)])
    known = {tuple(np.round(line.ravel(), 6)): i for i, line in enumerate(segments(every)[0])}
    drawn = [known[tuple(np.round(line.ravel(), 6))] for line in segments(few)[0]]
    assert len(drawn) == 12
    wanted = np.asarray(lines_of(every)[0].get_colors())[drawn]
    np.testing.assert_allclose(np.asarray(lines_of(few)[0].get_colors()), wanted)
    assert colour == "position" or len({tuple(c) for c in wanted}) > 1
