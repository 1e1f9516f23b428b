"""Matches as lines between two images side by side, coloured by where they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from figures.style import INK, MUTED
from matching import Matches

#: Width of the figure: 1200 px at 120 dpi.
_WIDTH, _DPI = 10.0, 120
#: Space between two images and around them, and for the line of text under each pair, in inches.
_GAP, _MARGIN, _CAPTION, _TITLE = 0.12, 0.08, 0.3, 0.36
#: A pair is at most this much of the width high; images so wide that they would be lower than the other share go one above the other.
_TALLEST, _LOWEST = 0.75, 0.2

#: Colours at the corners of image A: neighbouring lines look alike and crossings stand out. Of one lightness, so that none is lost on
#: dark or on light pictures; red and green do not oppose each other.
_CORNERS = np.array([[[1.00, 0.85, 0.00], [0.10, 0.90, 0.45]], [[1.00, 0.25, 0.45], [0.20, 0.50, 1.00]]])


@dataclass(frozen=True)
class MatchedPair:
    """Two images and what matches in them.

    image_a, image_b: (h, w, 3) uint8 RGB originals. matches: in their pixels. shown: how many lines to draw; the others are left out so
    that the drawn ones are well spread. caption: a line of text under the pair.
    """

    image_a: UInt8[np.ndarray, "ha wa 3"]
    image_b: UInt8[np.ndarray, "hb wb 3"]
    matches: Matches
    shown: int = 80
    caption: str = ""


def match_figure(pairs: Sequence[MatchedPair], *, title: str = "") -> Figure:
    """Pairs of images one below the other, each with its matches as thin lines, coloured by their position in the left image.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("expected at least one pair of images, got none")
    layouts = [_layout(pair) for pair in pairs]
    captions = [_CAPTION if pair.caption else 0.08 for pair in pairs]
    top = _TITLE if title else _MARGIN
    height = top + sum(tall for tall, _ in layouts) + sum(captions)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    if title:
        figure.text(
            _MARGIN / _WIDTH, 1 - 0.1 / height, title, ha="left", va="top", fontsize=11, color=INK, parse_math=False
        )
    y = height - top
    for pair, (tall, boxes), caption in zip(pairs, layouts, captions, strict=True):
        y -= tall
        _draw_pair(figure, pair, [(x, y + up, w, h) for x, up, w, h in boxes])
        if pair.caption:
            figure.text(
                _MARGIN / _WIDTH,
                (y - 0.06) / height,
                pair.caption,
                ha="left",
                va="top",
                fontsize=9,
                color=MUTED,
                parse_math=False,
            )
        y -= caption
    return figure


def _layout(pair: MatchedPair) -> tuple[float, list[tuple[float, float, float, float]]]:
    """The height of the row, and left edge, lower edge above the row's, width and height of the two images, in inches.

    Side by side at one height; one above the other at one width where that would be too low to see anything.
    """
    inner = _WIDTH - 2 * _MARGIN
    aspect_a, aspect_b = (image.shape[1] / image.shape[0] for image in (pair.image_a, pair.image_b))
    height = (inner - _GAP) / (aspect_a + aspect_b)
    if height >= _LOWEST * _WIDTH or min(aspect_a, aspect_b) < 1:
        height = min(height, _TALLEST * _WIDTH)
        width_a, width_b = aspect_a * height, aspect_b * height
        left = _MARGIN + (inner - _GAP - width_a - width_b) / 2
        return height, [(left, 0.0, width_a, height), (left + width_a + _GAP, 0.0, width_b, height)]
    width = min(inner, (_TALLEST * _WIDTH - _GAP) / (1 / aspect_a + 1 / aspect_b))
    left, height_a, height_b = _MARGIN + (inner - width) / 2, width / aspect_a, width / aspect_b
    return height_a + _GAP + height_b, [(left, height_b + _GAP, width, height_a), (left, 0.0, width, height_b)]


def _draw_pair(figure: Figure, pair: MatchedPair, boxes: list[tuple[float, float, float, float]]) -> None:
    width, height = figure.get_size_inches()
    for image, (x, y, w, h) in zip((pair.image_a, pair.image_b), boxes, strict=True):
        axes = figure.add_axes((x / width, y / height, w / width, h / height))
        axes.imshow(image, interpolation="antialiased", aspect="auto")
        axes.axis("off")
    lines = pair.matches.spread(pair.shown)
    points = []
    for xy, image, (x, y, w, h) in zip((lines.xy_a, lines.xy_b), (pair.image_a, pair.image_b), boxes, strict=True):
        share = (xy + 0.5) / [image.shape[1], image.shape[0]]  # of the image, from its top left corner
        points.append(np.stack([x + share[:, 0] * w, y + (1 - share[:, 1]) * h], axis=1))
    overlay = figure.add_axes((0, 0, 1, 1), zorder=5)
    overlay.set(xlim=(0, width), ylim=(0, height))
    overlay.axis("off")
    colours = position_colours((lines.xy_a + 0.5) / [pair.image_a.shape[1], pair.image_a.shape[0]])
    segments = np.stack(points, axis=1)
    # A dark line under each coloured one keeps it visible on any picture.
    overlay.add_collection(LineCollection(list(segments), colors=[(0, 0, 0, 0.35)], linewidths=1.6))
    overlay.add_collection(LineCollection(list(segments), colors=[(*c, 0.8) for c in colours], linewidths=0.8))
    for end in points:
        overlay.scatter(end[:, 0], end[:, 1], s=15, c=colours, edgecolors="black", linewidths=0.5, zorder=6)


def position_colours(share: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 3"]:
    """A colour for each position (x, y) in [0, 1]², the four corners' colours mixed bilinearly."""
    x, y = np.clip(share, 0, 1).T[..., None]
    top = _CORNERS[0, 0] * (1 - x) + _CORNERS[0, 1] * x
    bottom = _CORNERS[1, 0] * (1 - x) + _CORNERS[1, 1] * x
    mixed = top * (1 - y) + bottom * y
    # In the middle the mixture is nearly grey: take most of the grey out.
    vivid = mixed - 0.8 * mixed.min(axis=1, keepdims=True)
    return np.asarray(vivid / vivid.max(axis=1, keepdims=True))
