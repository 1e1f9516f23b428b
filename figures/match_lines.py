"""Matches as lines or numbers on two images, coloured by place, score, feature, truth or geometric model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fewmatch.figures.feature_maps import MappedImage, draw_map
from fewmatch.figures.side_by_side import DPI, GAP, MARGIN, WIDTH, Box, aspect_of, pair_boxes, sheet_axes, show, size_of
from fewmatch.figures.style.lettering import text_width, wrapped, write
from fewmatch.figures.style.palette import ASIDE, RIGHT, WRONG, luminance
from fewmatch.figures.style.style import INK, MUTED
from fewmatch.matching import Matches

#: What the colour of a line says. position: its place in the left image, so that neighbours look alike and crossings stand out.
#: score: its cosine. pca: the colour of its left patch in `maps`, which are drawn below. truth: right or wrong. inliers: those of the
#: geometric model have the colour of their place, the others are thin and grey.
LineColour = Literal["position", "score", "pca", "truth", "inliers"]
LINE_COLOURS: tuple[LineColour, ...] = get_args(LineColour)

#: Numbered points are at most so many: more could not be read.
MOST_NUMBERED = 15

#: A line of the title, the legend and the caption, in inches, and the sizes of their letters in points.
_TITLE_LINE, _LEGEND_LINE, _CAPTION_LINE = 0.23, 0.26, 0.18
_TITLE_SIZE, _LEGEND_SIZE, _CAPTION_SIZE, _NUMBER_SIZE = 11.0, 9.0, 9.0, 8.0
#: Radius of a numbered point in inches.
_RADIUS = 0.095

#: Colours at the corners of image A: neighbouring lines look alike and crossings stand out. Of one lightness, so that none is lost on
#: dark or on light pictures; red and green do not oppose each other.
_CORNERS = np.array([[[1.00, 0.85, 0.00], [0.10, 0.90, 0.45]], [[1.00, 0.25, 0.45], [0.20, 0.50, 1.00]]])
#: The part of a perceptually uniform scale that can be seen on photos.
_SCALE, _SCALE_FROM, _SCALE_TO = "plasma", 0.12, 0.97


@dataclass(frozen=True)
class MatchedPair:
    """Two images and what matches in them.

    image_a, image_b: (h, w, 3) uint8 RGB originals. matches: in their pixels. shown: how many lines to draw; the others are left out so
    that the drawn ones are well spread. caption: text under the pair, wrapped.
    colour: what the colours say, one of `LINE_COLOURS`. correct: with `truth`, which of the matches are right; matches whose truth is not
    known are to be left out before. maps: with `pca`, the two images' features as colours. With `inliers` the matches have a `geometry`.
    numbered: numbers in circles at both ends instead of lines, for at most 15 (`MOST_NUMBERED`) matches; 1 is the best.
    """

    image_a: UInt8[np.ndarray, "ha wa 3"]
    image_b: UInt8[np.ndarray, "hb wb 3"]
    matches: Matches
    shown: int = 80
    caption: str = ""
    colour: LineColour = "position"
    correct: Bool[np.ndarray, "K"] | None = None
    maps: tuple[MappedImage, MappedImage] | None = None
    numbered: bool = False


def match_figure(pairs: Sequence[MatchedPair], *, title: str = "") -> Figure:
    """Pairs of images one below the other, each with its matches, and what their colours mean.

    Scores have one range of colours for all pairs: from the lowest to the highest that is drawn.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no pairs, or a pair without what its colours need.
    """
    if not pairs:
        raise ValueError("expected at least one pair of images, got none")
    for pair in pairs:
        _check(pair)
    drawn = [_drawn(pair) for pair in pairs]
    scores = np.concatenate(
        [p.matches.score[i] for p, i in zip(pairs, drawn, strict=True) if p.colour == "score"] or [np.zeros(0)]
    )
    ends = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    layouts = [pair_boxes(aspect_of(pair.image_a), aspect_of(pair.image_b)) for pair in pairs]
    captions = [wrapped(pair.caption, _CAPTION_SIZE, WIDTH - 2.5 * MARGIN) for pair in pairs]
    titles = wrapped(title, _TITLE_SIZE, WIDTH - 2.5 * MARGIN)
    heights = [
        tall * (2 if pair.colour == "pca" else 1)
        + GAP * (pair.colour == "pca")
        + _LEGEND_LINE * (pair.colour != "position")
        + _CAPTION_LINE * len(lines)
        + (0.12 if lines or pair.colour != "position" else 0.08)
        for pair, (tall, _), lines in zip(pairs, layouts, captions, strict=True)
    ]
    top = 0.13 + _TITLE_LINE * len(titles) if titles else MARGIN
    figure = Figure(figsize=(WIDTH, top + sum(heights)), dpi=DPI, facecolor="white")
    sheet = sheet_axes(figure)
    y = top + sum(heights)
    for number, line in enumerate(titles):
        write(sheet, MARGIN, y - 0.1 - _TITLE_LINE * number, line, size=_TITLE_SIZE, ha="left", va="top")
    y -= top
    for pair, index, (tall, boxes), lines, height in zip(pairs, drawn, layouts, captions, heights, strict=True):
        row = y - tall
        _draw_pair(figure, sheet, pair, index, (boxes[0].raised(row), boxes[1].raised(row)), ends)
        if pair.colour == "pca" and pair.maps is not None:
            row -= GAP + tall
            for item, box in zip(pair.maps, boxes, strict=True):
                draw_map(box.raised(row).axes(figure), item)
        if pair.colour != "position":
            _draw_legend(sheet, pair, index, row - 0.06 - _LEGEND_LINE / 2, ends)
            row -= _LEGEND_LINE
        for number, line in enumerate(lines):
            lower = row - 0.06 - _CAPTION_LINE * number
            write(sheet, MARGIN, lower, line, size=_CAPTION_SIZE, color=MUTED, ha="left", va="top")
        y -= height
    return figure


def _check(pair: MatchedPair) -> None:
    if pair.colour not in LINE_COLOURS:
        raise ValueError(f"no colouring called {pair.colour}: expected one of {', '.join(LINE_COLOURS)}")
    if pair.colour == "truth" and (pair.correct is None or len(pair.correct) != len(pair.matches)):
        got = "none" if pair.correct is None else str(len(pair.correct))
        raise ValueError(f"expected to hear of {len(pair.matches)} matches whether they are right, got {got}")
    if pair.colour == "inliers" and pair.matches.geometry is None:
        raise ValueError("expected matches with a geometry, to tell inliers from others, got none")
    if pair.colour == "pca":
        if pair.maps is None:
            raise ValueError("expected the two images’ maps, for colours of features, got none")
        reach = pair.matches.patch_a.max(axis=0, initial=0)
        if (reach >= pair.maps[0].colours.shape[:2]).any():
            raise ValueError(
                f"expected a map of image A with patch ({reach[0]}, {reach[1]}), got one of shape {pair.maps[0].colours.shape[:2]}"
            )


def _drawn(pair: MatchedPair) -> Int[np.ndarray, "k"]:
    """Which matches are drawn, best first."""
    count = len(pair.matches)
    numbers = np.repeat(np.arange(count)[:, None], 2, axis=1)
    # Their own numbers ride along as patches, for `spread` gives matches back, not which they were.
    named = dataclasses.replace(pair.matches, patch_a=numbers)
    return named.spread(min(pair.shown, MOST_NUMBERED) if pair.numbered else pair.shown).patch_a[:, 0]


def _colours(
    pair: MatchedPair, index: Int[np.ndarray, "k"], ends: tuple[float, float]
) -> tuple[Float[np.ndarray, "k 3"], Bool[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """A colour for each drawn match, which of them stand out, and the order in which they are drawn: what matters comes last."""
    matches, order = pair.matches, np.arange(len(index))
    if pair.colour == "score":
        return score_colours(matches.score[index], ends), np.ones(len(index), bool), order[::-1]
    if pair.colour == "truth" and pair.correct is not None:
        right = pair.correct[index]
        return np.where(right[:, None], RIGHT, WRONG), np.ones(len(index), bool), np.argsort(~right, kind="stable")
    if pair.colour == "pca" and pair.maps is not None:
        return pair.maps[0].colours[tuple(matches.patch_a[index].T)], np.ones(len(index), bool), order
    placed = position_colours((matches.xy_a[index] + 0.5) / size_of(pair.image_a))
    if pair.colour == "inliers" and matches.geometry is not None:
        inside = matches.geometry.inliers[index]
        return np.where(inside[:, None], placed, ASIDE), inside, np.argsort(inside, kind="stable")
    return placed, np.ones(len(index), bool), order


def _draw_pair(
    figure: Figure,
    sheet: Axes,
    pair: MatchedPair,
    index: Int[np.ndarray, "k"],
    boxes: tuple[Box, Box],
    ends: tuple[float, float],
) -> None:
    images = (pair.image_a, pair.image_b)
    for image, box in zip(images, boxes, strict=True):
        show(figure, box, image)
    points = [
        box.place(xy[index], size_of(image))
        for xy, image, box in zip((pair.matches.xy_a, pair.matches.xy_b), images, boxes, strict=True)
    ]
    colours, bold, order = _colours(pair, index, ends)
    if pair.numbered:
        draw_numbers(sheet, points, colours)
        return
    segments, colours, bold = np.stack(points, axis=1)[order], colours[order], bold[order]
    # A dark line under each bright one, and a bright one under each dark one, keep it visible on any picture.
    under = np.where(luminance(colours)[:, None] < 0.3, [[1, 1, 1, 0.6]], [[0, 0, 0, 0.35]]) * np.where(
        bold[:, None], 1, [[1, 1, 1, 0.5]]
    )
    widths = np.where(bold, 0.8, 0.5)
    sheet.add_collection(LineCollection(list(segments), colors=under, linewidths=widths + 0.8))
    rgba = np.column_stack([colours, np.where(bold, 0.85, 0.7)])
    sheet.add_collection(LineCollection(list(segments), colors=rgba, linewidths=widths))
    edges = ["white" if dark else "black" for dark in luminance(colours) < 0.3]
    for end in (0, 1):
        x, y = segments[:, end].T
        sheet.scatter(x, y, s=np.where(bold, 15, 5), c=colours, edgecolors=edges, linewidths=0.5, zorder=6)


def draw_numbers(
    sheet: Axes, points: Sequence[Float[np.ndarray, "k 2"]], colours: Float[np.ndarray, "k 3"], *, first: int = 1
) -> None:
    """The same numbers, `first` and on, in circles with white edges, at each of the lists of points, which are in inches."""
    letters = np.where(luminance(colours) > 0.5, "black", "white")
    for end in points:
        # The first is the best and lies on top.
        for k in range(len(end))[::-1]:
            x, y = end[k]
            sheet.scatter(x, y, s=(144 * _RADIUS) ** 2, c=[colours[k]], edgecolors="white", linewidths=1.1, zorder=6)
            write(
                sheet,
                x,
                y - 0.003,
                str(k + first),
                size=_NUMBER_SIZE,
                color=letters[k],
                ha="center",
                va="center",
                zorder=6,
            )


# ----------------------------------------------------------------------------------------------------------------------
# What the colours mean


def score_colours(score: Float[np.ndarray, "k"], ends: tuple[float, float]) -> Float[np.ndarray, "k 3"]:
    """Colours of a perceptually uniform scale between two scores, without its darkest part."""
    low, high = ends
    share = (score - low) / (high - low) if high > low else np.ones(len(score))
    scale = matplotlib.colormaps[_SCALE]
    return np.asarray(scale(_SCALE_FROM + (_SCALE_TO - _SCALE_FROM) * np.clip(share, 0, 1)))[:, :3]


def position_colours(share: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 3"]:
    """A colour for each position (x, y) in [0, 1]², the four corners' colours mixed bilinearly."""
    x, y = np.clip(share, 0, 1).T[..., None]
    top = _CORNERS[0, 0] * (1 - x) + _CORNERS[0, 1] * x
    bottom = _CORNERS[1, 0] * (1 - x) + _CORNERS[1, 1] * x
    mixed = top * (1 - y) + bottom * y
    # In the middle the mixture is nearly grey: take most of the grey out.
    vivid = mixed - 0.8 * mixed.min(axis=1, keepdims=True)
    return np.asarray(vivid / vivid.max(axis=1, keepdims=True))


def _draw_legend(
    sheet: Axes, pair: MatchedPair, index: Int[np.ndarray, "k"], y: float, ends: tuple[float, float]
) -> None:
    """What the colours of a pair mean, in one line."""
    count, matches = len(pair.matches), pair.matches
    words: list[tuple[list[tuple[float, ...]], str]] = []
    if pair.colour == "score" and len(index):
        low, high = (f"{end:.2f}" for end in ends)
        steps = [tuple(step) for step in score_colours(np.linspace(*ends, 48), ends)]
        words = [([], "cosine"), ([], low), (steps, high)] if ends[1] > ends[0] else [([], "cosine"), (steps[:1], high)]
    elif pair.colour == "truth" and pair.correct is not None:
        right = int(pair.correct.sum())
        share = f" ({100 * right / count:.0f} %)" if count else ""
        words = [([RIGHT], f"{right:,} of {count:,} matches right{share}"), ([WRONG], f"{count - right:,} wrong")]
    elif pair.colour == "pca":
        words = [([], "each line in the colour that its left patch has in the maps")]
    elif matches.geometry is not None:
        model, inside = matches.geometry, int(matches.geometry.inliers.sum())
        bow = [tuple(c) for c in position_colours(np.stack([np.linspace(0, 1, 24), np.linspace(0, 1, 24)], axis=1))]
        within = f"within {model.threshold:.3g} px of the {model.kind}"
        if model.kind == "affine":
            within += " map"
        elif model.kind == "fundamental":
            within += " matrix’s lines"
        words = [(bow, f"{inside:,} of {count:,} inliers, {within}"), ([ASIDE], "others")]
        if model.matrix is None:
            words = [([ASIDE], f"no {model.kind}: {model.reason}")]
    x = MARGIN
    for colours, text in words:
        wide = 1.2 if len(colours) > 24 else 0.35
        for k, colour in enumerate(colours):
            # Each reaches to the end, under those after it: side by side they would show seams in an SVG.
            left = wide * k / len(colours)
            sheet.add_patch(Rectangle((x + left, y - 0.035), wide - left, 0.07, color=colour, linewidth=0))
        x += (wide + 0.07) * bool(colours)
        write(sheet, x, y, text, size=_LEGEND_SIZE, color=INK if colours else MUTED, ha="left", va="center")
        x += text_width(text, _LEGEND_SIZE) + (0.22 if colours else 0.09)
