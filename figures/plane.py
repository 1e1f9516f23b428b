"""The picture of one few-shot episode: the plane of its class means, with the images in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from fewmatch.fewshot.plane import EpisodePlane
from fewmatch.figures.notable import TellingImage, explain
from fewmatch.figures.placement import Paper, line_end
from fewmatch.figures.style.lettering import cut, text_box, wrapped, write
from fewmatch.figures.style.palette import class_colours, mixed
from fewmatch.figures.style.style import INK, MUTED

#: Width of the figure: 1200 px at 120 dpi. Everything below is in inches.
_WIDTH, _DPI = 10.0, 120
_MARGIN, _TITLE, _LEGEND = 0.12, 0.42, 2.0
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - 3 * _MARGIN - _LEGEND, 5.6
_LINE = 0.19  # height of a line of the caption
_THUMBNAIL, _THUMBNAIL_TEXT, _REACH = 0.82, 0.17, 2.2  # the last: from a point to its thumbnail, at most

#: More classes than fit into the legend are counted there; their names stand at their means.
_LEGEND_CLASSES = 20


def plane_figure(
    plane: EpisodePlane,
    class_names: Sequence[str],
    *,
    thumbnails: Mapping[TellingImage, UInt8[np.ndarray, "_h _w 3"]] | None = None,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw an episode: regions of the classes, supports, class means, queries right and wrong, and some of the images.

    Args:
        plane: the episode; see `fewmatch.episode_plane`.
        class_names: the W classes.
        thumbnails: (h, w, 3) uint8 RGB of images, such as `telling_images` names, most important first; one that finds no free place
            is left out.
        title: a line above the plot.
        note: said below it, after what the plane shows.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: not as many names as classes.
    """
    if len(class_names) != plane.ways:
        raise ValueError(f"expected {plane.ways} class names, got {len(class_names)}")
    names = [cut(name, 18) for name in class_names]
    lines = [*wrapped(explain(plane), 9.0, _PLOT_WIDTH), *wrapped(note, 9.0, _PLOT_WIDTH)]
    top = _TITLE if title else _MARGIN
    below = 2 * _MARGIN + len(lines) * _LINE + 0.2
    height = top + _PLOT_HEIGHT + below
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set(xlim=(0, _WIDTH), ylim=(0, height))
    sheet.axis("off")
    if title:
        write(sheet, _MARGIN, height - 0.13, title, size=12.0, va="top")
    for number, line in enumerate(lines):
        write(sheet, _MARGIN, below - 0.2 - _MARGIN - number * _LINE, line, size=9.0, color=MUTED, va="top")
    axes = figure.add_axes((_MARGIN / _WIDTH, below / height, _PLOT_WIDTH / _WIDTH, _PLOT_HEIGHT / height))
    view = _View(axes, plane, room_for_thumbnails=bool(thumbnails))
    colours = class_colours(len(names))
    _draw_regions(axes, plane, view, colours)
    size = _draw_points(axes, plane, colours)
    _draw_names_and_thumbnails(axes, plane, view, names, colours, thumbnails or {}, size)
    _draw_scale(sheet, view, below)
    _draw_legend(sheet, plane, names, colours, (_PLOT_WIDTH + 2 * _MARGIN, below + _PLOT_HEIGHT), bool(thumbnails))
    return figure


def region(plane: EpisodePlane, way: int, box: tuple[float, float, float, float]) -> Float[np.ndarray, "n 2"]:
    """The corners of the part of a box where the mean of class `way` is nearest; none where there is no such part.

    The box is cut along the perpendicular bisector with every other mean, which leaves no special cases: not for means on a line, nor for
    bisectors that are upright.

    Args:
        box: left, bottom, right, top in the plane.
    """
    left, bottom, right, top = box
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)], np.float64)
    for other, mean in enumerate(plane.means):
        if other == way:
            continue
        across = mean - plane.means[way]
        if not across.any():
            if other < way:  # a tie goes to the lower class
                return corners[:0]
            continue
        # Above zero on the other's side.
        side = (corners - (mean + plane.means[way]) / 2) @ across
        kept = []
        for i in range(len(corners)):
            here, there = side[i - 1], side[i]
            if (here > 0) != (there > 0):
                kept.append(corners[i - 1] + (corners[i] - corners[i - 1]) * (here / (here - there)))
            if there <= 0:
                kept.append(corners[i])
        corners = np.array(kept).reshape(-1, 2)
    return corners


class _View:
    """What part of the plane the axes show, and how large."""

    def __init__(self, axes: Axes, plane: EpisodePlane, room_for_thumbnails: bool) -> None:
        points = np.concatenate([plane.means, plane.support.reshape(-1, 2), plane.query.reshape(-1, 2)])
        low, high = points.min(axis=0), points.max(axis=0)
        paper = np.array([_PLOT_WIDTH, _PLOT_HEIGHT])
        margin = 0.7 if room_for_thumbnails else 0.4
        extent = high - low
        # One scale for both axes, else bisectors would not look perpendicular.
        fits = (paper - 2 * margin)[extent > 0] / extent[extent > 0]
        self.scale = float(fits.min()) if len(fits) else 1.0  # inches per unit
        self.low = (low + high) / 2 - paper / 2 / self.scale
        self.high = self.low + paper / self.scale
        axes.set(
            xlim=(self.low[0], self.high[0]), ylim=(self.low[1], self.high[1]), aspect="equal", xticks=[], yticks=[]
        )
        for spine in axes.spines.values():
            spine.set(color="#b5b5b5", linewidth=0.8, zorder=20)

    @property
    def box(self) -> tuple[float, float, float, float]:
        return float(self.low[0]), float(self.low[1]), float(self.high[0]), float(self.high[1])

    def inches(self, point: Float[np.ndarray, "2"]) -> tuple[float, float]:
        x, y = (point - self.low) * self.scale
        return float(x), float(y)

    def data(self, x: float, y: float) -> tuple[float, float]:
        return float(self.low[0] + x / self.scale), float(self.low[1] + y / self.scale)


def _draw_regions(axes: Axes, plane: EpisodePlane, view: _View, colours: Sequence[tuple[float, float, float]]) -> None:
    for way, colour in enumerate(colours):
        corners = region(plane, way, view.box)
        if len(corners):
            axes.add_collection(
                PolyCollection(
                    [corners], facecolors=[mixed(colour, 1.0, 0.84)], edgecolors="#9a9a9a", linewidths=0.9, zorder=1
                ),
                autolim=False,
            )


def _draw_points(axes: Axes, plane: EpisodePlane, colours: Sequence[tuple[float, float, float]]) -> float:
    """Draw all points; returns the area of a support's mark in square points."""
    count = plane.ways * (plane.shots + plane.queries)
    size = 70 * float(np.clip((36 / count) ** 0.5, 0.2, 1))
    thin = 0.5 + 0.3 * size / 70
    for way, colour in enumerate(colours):
        edge = mixed(colour, 0.0, 0.5)
        right, wrong = plane.query[way][plane.right[way]], plane.query[way][~plane.right[way]]
        _marks(axes, plane.support[way], "o", size, colour, edge, thin, 4)
        _marks(axes, right, "D", 0.8 * size, colour, edge, thin, 5)
        _marks(axes, wrong, "X", 2.2 * size, colour, "black", 1.6 * thin, 6)
        # A single support lies on its mean: the star shows behind it.
        _marks(axes, plane.means[way : way + 1], "*", _star(size), colour, INK, 1.0, 3 if plane.shots == 1 else 7)
    return size


def _star(size: float) -> float:
    return max(4.6 * size, 150.0)


def _marks(
    axes: Axes,
    points: Float[np.ndarray, "n 2"],
    marker: str,
    size: float,
    face: Any,
    edge: Any,
    width: float,
    zorder: int,
) -> None:
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        marker=marker,
        color=[face],
        edgecolors=[edge],
        linewidths=width,
        zorder=zorder,
    )


def _draw_names_and_thumbnails(
    axes: Axes,
    plane: EpisodePlane,
    view: _View,
    names: Sequence[str],
    colours: Sequence[tuple[float, float, float]],
    thumbnails: Mapping[TellingImage, np.ndarray],
    size: float,
) -> None:
    paper = Paper(_PLOT_WIDTH, _PLOT_HEIGHT)
    radius, star = size**0.5 / 72 * 0.75 + 0.02, _star(size) ** 0.5 / 72 / 2
    for point in np.concatenate([plane.support.reshape(-1, 2), plane.query.reshape(-1, 2)]):
        paper.add_disc(*view.inches(point), radius)
    for mean in plane.means:
        paper.add_disc(*view.inches(mean), star * 0.9)

    def draw_thumbnails() -> None:
        for image, picture in thumbnails.items():
            _draw_thumbnail(axes, plane, view, paper, names, colours, image, picture, radius)

    # Many names together are a wall to the lines of thumbnails: then these go first.
    if len(names) > 8:
        draw_thumbnails()
    for mean, name, colour in zip(plane.means, names, colours, strict=True):
        text_size = 10.0 if len(names) <= 8 else 8.5
        box = text_box(name, text_size)
        anchor = view.inches(mean)
        corner = paper.place(anchor, box, away=star * 0.95, reach=0.8, covering=4.0)
        if corner is None:
            continue
        x, y = view.data(corner[0] + box[0] / 2, corner[1] + box[1] / 2)
        end = line_end(anchor, np.array([corner]), box)[0]
        if np.hypot(*(end - anchor)) > 2 * star:
            _leader(axes, view, anchor, end)
        text = write(
            axes, x, y, name, size=text_size, color=mixed(colour, 0.0, 0.55), va="center", ha="center", zorder=9
        )
        text.set(fontweight="bold", path_effects=[withStroke(linewidth=2.6, foreground="white", alpha=0.85)])
    if len(names) <= 8:
        draw_thumbnails()


def _draw_thumbnail(
    axes: Axes,
    plane: EpisodePlane,
    view: _View,
    paper: Paper,
    names: Sequence[str],
    colours: Sequence[tuple[float, float, float]],
    image: TellingImage,
    picture: np.ndarray,
    radius: float,
) -> None:
    point = (plane.support if image.role == "support" else plane.query)[image.way, image.number]
    if image.role == "support":
        text = cut(names[image.way], 14)
    else:
        given = int(plane.predicted[image.way, image.number])
        chance = plane.probabilities[image.way, image.number, given]
        text = f"{'✘' if image.role == 'wrong' else '✔'} {cut(names[given], 11)} {chance:.2f}"
    text_width, _ = text_box(text, 8.0)
    picture = _at_most(picture, 2.5)
    tall, wide = picture.shape[:2]
    width, height = _THUMBNAIL * wide / max(tall, wide), _THUMBNAIL * tall / max(tall, wide)
    box = max(width, text_width) + 0.1, height + _THUMBNAIL_TEXT + 0.1
    anchor = view.inches(point)
    corner = paper.place(anchor, box, away=radius + 0.06, reach=_REACH)
    if corner is None:
        return
    left, bottom = corner[0] + (box[0] - width) / 2, corner[1] + _THUMBNAIL_TEXT + 0.05
    end = line_end(anchor, np.array([corner]), box)[0]
    if end[1] > corner[1] + 1e-9:  # not from below, where the text is: go on, behind the picture
        end = np.array([left + width / 2, bottom + height / 2])
    _leader(axes, view, anchor, end)
    if image.role != "support" or plane.shots > 1:  # a single support has the star of its mean around it
        axes.scatter(
            [point[0]],
            [point[1]],
            s=(1.8 * 72 * radius) ** 2,
            facecolors="none",
            edgecolors=INK,
            linewidths=0.7,
            zorder=8,
        )
    (x0, y0), (x1, y1) = view.data(left, bottom), view.data(left + width, bottom + height)
    axes.imshow(picture, extent=(x0, x1, y0, y1), interpolation="antialiased", aspect="auto", zorder=10)
    axes.set(xlim=(view.low[0], view.high[0]), ylim=(view.low[1], view.high[1]), aspect="equal")
    wrong = image.role == "wrong"
    frames = [("white", 4.6), (colours[image.way], 2.6)] if not wrong else [("black", 4.6), (colours[image.way], 2.6)]
    for colour, line in frames:
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=line, zorder=11))
    label = write(
        axes, *view.data(left + width / 2, bottom - 0.045), text, size=8.0, color=INK, va="top", ha="center", zorder=12
    )
    label.set(path_effects=[withStroke(linewidth=2.2, foreground="white", alpha=0.8)])
    if wrong:
        label.set(fontweight="bold")


def _leader(axes: Axes, view: _View, start: tuple[float, float], end: Float[np.ndarray, "2"]) -> None:
    (x0, y0), (x1, y1) = view.data(*start), view.data(*end)
    axes.plot([x0, x1], [y0, y1], color=INK, linewidth=0.8, alpha=0.75, zorder=2.5, scalex=False, scaley=False)


def _draw_scale(sheet: Axes, view: _View, below: float) -> None:
    """A line under the plot, of a round length in the plane."""
    wanted = 1.2 / view.scale
    power = 10.0 ** np.floor(np.log10(wanted))
    length = float(power * max(step for step in (1, 2, 5) if step * power <= wanted))
    right, y = _MARGIN + _PLOT_WIDTH, below - 0.11
    left = right - length * view.scale
    sheet.plot(
        [left, left, left, right, right, right],
        [y - 0.04, y + 0.04, y, y, y - 0.04, y + 0.04],
        color=MUTED,
        linewidth=0.9,
    )
    write(sheet, left - 0.06, y, f"distance {length:g}", size=8.0, color=MUTED, va="center", ha="right")


def _draw_legend(
    sheet: Axes,
    plane: EpisodePlane,
    names: Sequence[str],
    colours: Sequence[tuple[float, float, float]],
    corner: tuple[float, float],
    thumbnails: bool,
) -> None:
    """The classes with their counts, and what the marks mean, from a top left corner downwards."""
    left, y = corner
    right = left + _LEGEND
    y -= 0.09
    write(sheet, left, y, "class", size=8.5, color=MUTED, va="center")
    write(sheet, right, y, "right", size=8.5, color=MUTED, va="center", ha="right")
    shown = len(names) if len(names) <= _LEGEND_CLASSES else _LEGEND_CLASSES - 1
    step = 0.24 if shown <= 12 else 0.188
    for way in range(shown):
        y -= step
        box = (left, y - 0.065), 0.15, 0.13
        sheet.add_patch(Rectangle(*box, facecolor=colours[way], edgecolor=mixed(colours[way], 0.0, 0.5), linewidth=0.7))
        write(sheet, left + 0.24, y, names[way], size=9.0, va="center")
        tally = f"{int(plane.right[way].sum())} of {plane.queries}"
        write(sheet, right, y, tally, size=9.0, color=MUTED, va="center", ha="right")
    if shown < len(names):
        y -= step
        write(sheet, left + 0.24, y, f"and {len(names) - shown} more", size=9.0, color=MUTED, va="center")
    y -= 0.16
    sheet.plot([left, right], [y, y], color="#d5d5d5", linewidth=0.8)
    grey, dark = "#bdbdbd", "#5f5f5f"
    for marker, area, edge, width, text in (
        ("*", 190, INK, 1.0, "class mean"),
        ("o", 55, dark, 0.8, "support"),
        ("D", 44, dark, 0.8, "query, right"),
        ("X", 115, "black", 1.3, "query, wrong"),
    ):
        y -= 0.24
        sheet.scatter([left + 0.075], [y], s=area, marker=marker, color=[grey], edgecolors=[edge], linewidths=width)
        write(sheet, left + 0.24, y, text, size=9.0, va="center")
    y -= 0.13
    for text in ("Marks have the colour of their", "true class, regions of the", "nearest class mean.") + (
        ("Under a query: the class it", "is given, and how surely.") if thumbnails else ()
    ):
        y -= 0.15
        write(sheet, left, y, text, size=8.0, color=MUTED, va="center")


def _at_most(picture: np.ndarray, ratio: float) -> np.ndarray:
    """The middle of a picture that is longer than so many times its other side."""
    limit = int(np.ceil(ratio * min(picture.shape[:2])))
    top, left = (max(0, (side - limit) // 2) for side in picture.shape[:2])
    return picture[top : top + limit, left : left + limit]
