"""Named points on the images they were found in: large with numbers, or as a contact sheet, the least sure images first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from fewmatch.errors import InputError
from fewmatch.figures.placement import Paper, line_end
from fewmatch.figures.side_by_side import DPI, GAP, MARGIN, WIDTH, Box, sheet_axes, show, size_of
from fewmatch.figures.style.lettering import text_box, text_width, wrapped, write
from fewmatch.figures.style.palette import class_colours
from fewmatch.figures.style.style import INK, MUTED
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.suggest import image_confidence

#: Lines of text in inches, and sizes of letters in points: of captions and legends, above large images, above tiles, of numbers at points.
_LINE, _SMALL_LINE = 0.19, 0.15
_CAPTION_SIZE, _HEAD_SIZE, _TILE_SIZE, _NUMBER_SIZE = 9.0, 9.0, 6.5, 7.5
#: An image is at most so high, in widths of the sheet.
_TALLEST = 0.75
#: The radius of a point in inches: on a large image, and on a tile.
_LARGE, _SMALL = 0.05, 0.026
#: Numbers further than this from their point are joined with it; further than the other they are left out.
_JOINED, _REACH = 0.14, 0.6


@dataclass(frozen=True)
class _Scene:
    """What all images of a figure share."""

    keypoints: Keypoints
    truth: Keypoints | None
    colours: Float[np.ndarray, "P 3"]
    confidence: Float[np.ndarray, "N"]


def review_order(keypoints: Keypoints) -> list[int]:
    """Indices of the images, the least sure first: by `fewmatch.matching.keypoints.suggest.image_confidence`; of equal ones the first."""
    return [int(i) for i in np.argsort(image_confidence(keypoints), kind="stable")]


def confidence_text(value: float) -> str:
    """How an image's confidence is written everywhere: with its sign, for it is a difference to what is usual."""
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else "no scores"


def keypoint_figure(
    images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    keypoints: Keypoints,
    *,
    truth: Keypoints | None = None,
    caption: str = "",
) -> Figure:
    """Images, large, in the order given, with their parts: each part has one colour and one number everywhere, which the legend names.

    Discs are parts that are visible, rings parts that are not but have a place. Lines of the skeleton join parts that are both
    visible. A cross is where a part truly is, with a line to where it was found. Numbers lie on no point.

    Args:
        images: (h, w, 3) uint8 RGB originals, one for each image of `keypoints`; each is asked for once.
        truth: what people marked, for some or all of the images and parts, found by their names; parts that are not visible there
            have no cross.
        caption: text below, wrapped.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        InputError: no images or no parts, or not as many pictures as images.
    """
    scene = _scene(images, keypoints, truth)
    pictures = [images[n] for n in range(len(keypoints))]
    columns = 1 if len(pictures) == 1 else 2 if len(pictures) <= 4 else 3
    width = (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns
    most = _TALLEST * WIDTH
    sizes = [_within(picture, width, most) for picture in pictures]
    rows = [sizes[start : start + columns] for start in range(0, len(sizes), columns)]
    below = _Below(scene, caption, numbered=True)
    figure = below.figure(sum(max(tall for _, tall in row) + _LINE + GAP for row in rows))
    sheet = sheet_axes(figure)
    top = figure.get_figheight() - MARGIN
    for number, row in enumerate(rows):
        left = MARGIN + (0 if columns > 1 else (WIDTH - 2 * MARGIN - row[0][0]) / 2)
        for column, (wide, tall) in enumerate(row):
            n = number * columns + column
            field = Box(left + column * (width + GAP), top - _LINE - tall, wide, tall)
            # A narrow picture's name may use the whole column.
            room = width if columns > 1 else WIDTH - MARGIN - field.left
            said = f"{scene.keypoints.visible[n].sum()} of {len(scene.keypoints.parts)} visible"
            _head(sheet, field, room, scene.keypoints.paths[n], said, _HEAD_SIZE)
            axes = show(figure, field, pictures[n])
            _draw(axes, size_of(pictures[n]), scene, n, _LARGE)
            _number(sheet, size_of(pictures[n]), scene, n, field)
        top -= max(tall for _, tall in row) + _LINE + GAP
    below.write(sheet)
    return figure


def keypoint_sheet(
    images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    keypoints: Keypoints,
    *,
    truth: Keypoints | None = None,
    caption: str = "",
    most: int = 60,
    columns: int = 6,
) -> Figure:
    """A contact sheet: small images, the least sure first (see `review_order`), each with its parts, its name and its confidence.

    Marks are those of `keypoint_figure`, without numbers. The caption ends with how many images are shown and how many are not.

    Args:
        images: (h, w, 3) uint8 RGB originals, one for each image of `keypoints`; only those that are shown are asked for, each once.
        truth, caption: as for `keypoint_figure`. most: images on the sheet at most. columns: images in a row.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        InputError: no images or no parts, not as many pictures as images, or `most` or `columns` below 1.
    """
    scene = _scene(images, keypoints, truth)
    if most < 1 or columns < 1:
        raise InputError(f"expected at least one image and one column, got {most} and {columns}")
    order = review_order(keypoints)[:most]
    columns = min(columns, len(order))
    width = min(3.0, (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns)
    left_out = len(keypoints) - len(order)
    shown = "1 image" if len(order) == 1 else f"{len(order):,} images"
    said = f"{shown}, least sure first: numbers are the mean score of the parts, each compared with its part's median over all images."
    if left_out:
        said = f"{len(order):,} of {len(keypoints):,} images{said[len(shown) :]} {left_out:,} surer ones are not shown."
    pictures = [images[n] for n in order]
    sizes = [_within(picture, width, 1.4 * width) for picture in pictures]
    rows = [
        max(tall for _, tall in sizes[start : start + columns]) + _SMALL_LINE + 0.06
        for start in range(0, len(sizes), columns)
    ]
    below = _Below(scene, f"{caption} {said}", numbered=False)
    figure = below.figure(sum(rows))
    sheet = sheet_axes(figure)
    for place, (n, picture, (wide, tall)) in enumerate(zip(order, pictures, sizes, strict=True)):
        row, column = divmod(place, columns)
        top = figure.get_figheight() - MARGIN - sum(rows[:row]) - _SMALL_LINE
        field = Box(MARGIN + column * (width + GAP), top - tall, wide, tall)
        _head(sheet, field, width, keypoints.paths[n], confidence_text(float(scene.confidence[n])), _TILE_SIZE)
        _draw(show(figure, field, picture), size_of(picture), scene, n, _SMALL)
    below.write(sheet)
    return figure


def _scene(images: Sequence[np.ndarray], keypoints: Keypoints, truth: Keypoints | None) -> _Scene:
    if not keypoints.paths or not keypoints.parts:
        raise InputError("nothing to draw: expected at least one image and one part")
    if len(images) != len(keypoints):
        raise InputError(f"expected a picture for each of {len(keypoints)} images, got {len(images)}")
    return _Scene(keypoints, truth, np.array(class_colours(len(keypoints.parts))), image_confidence(keypoints))


def _within(picture: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Width and height in inches of a picture that is as large as fits."""
    wide, tall = size_of(picture)
    share = min(width / wide, height / tall)
    return wide * share, tall * share


class _Below:
    """The legend and the caption, under the images."""

    def __init__(self, scene: _Scene, caption: str, *, numbered: bool) -> None:
        parts = scene.keypoints.parts
        names = [f"{p + 1} {name}" if numbered else name for p, name in enumerate(parts)]
        self._names = [_end_of(name, _CAPTION_SIZE, WIDTH / 2, start=True) for name in names]
        self._colours = scene.colours
        self._item = min(WIDTH - 2 * MARGIN, max(text_width(name, _CAPTION_SIZE) for name in self._names) + 0.34)
        self._columns = max(1, int((WIDTH - 2 * MARGIN) / self._item))
        marks = (
            ["Disc: visible; ring: not visible."] if (scene.keypoints.placed & ~scene.keypoints.visible).any() else []
        )
        if scene.truth is not None:
            marks.append("Cross: the labels.")
        self._lines = wrapped(" ".join([caption, *marks]), _CAPTION_SIZE, WIDTH - 2.5 * MARGIN)
        self._legend = _LINE * -(-len(names) // self._columns)
        self.height = self._legend + _LINE * len(self._lines) + 0.2

    def figure(self, images: float) -> Figure:
        """A sheet for images of this height in all."""
        return Figure(figsize=(WIDTH, MARGIN + images + self.height), dpi=DPI, facecolor="white")

    def write(self, sheet: Axes) -> None:
        top = self.height - 0.06
        for p, (name, colour) in enumerate(zip(self._names, self._colours, strict=True)):
            row, column = divmod(p, self._columns)
            x, y = MARGIN + column * self._item, top - _LINE * row
            sheet.scatter(
                [x + 0.06], [y - _LINE / 2], s=(144 * _LARGE) ** 2, c=[colour], edgecolors=INK, linewidths=0.5
            )
            write(sheet, x + 0.17, y - _LINE / 2, name, size=_CAPTION_SIZE, ha="left", va="center_baseline")
        for number, line in enumerate(self._lines):
            y = top - self._legend - 0.06 - _LINE * number
            write(sheet, MARGIN, y, line, size=_CAPTION_SIZE, color=MUTED, ha="left", va="top")


def _head(sheet: Axes, field: Box, room: float, path: str, said: str, size: float) -> None:
    """The name and what is said of it, above an image; of a long name the end."""
    y = field.bottom + field.height + 0.035
    taken = text_width(said, size) + 0.08
    name = _end_of(path, size, room - taken)
    write(sheet, field.left, y, name, size=size, ha="left", va="bottom")
    right = max(field.left + field.width, field.left + text_width(name, size) + taken)
    write(sheet, right, y, said, size=size, color=MUTED, ha="right", va="bottom")


def _end_of(text: str, size: float, width: float, *, start: bool = False) -> str:
    """As much of a text's end (or start) as fits, on one line: the end of a path is what tells files apart."""
    text = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    if text_width(text, size) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[:kept]}…" if start else f"…{text[-kept:]}"
        if text_width(shorter, size) <= width:
            return shorter
    return "…"


def _true_places(scene: _Scene, n: int) -> Float[np.ndarray, "P 2"]:
    """Where the parts truly are; NaN where that is not known."""
    places = np.full((len(scene.keypoints.parts), 2), np.nan)
    truth, path = scene.truth, scene.keypoints.paths[n]
    if truth is None or path not in truth.paths:
        return places
    i = truth.paths.index(path)
    for p, part in enumerate(scene.keypoints.parts):
        if part in truth.parts and truth.visible[i, truth.parts.index(part)]:
            places[p] = truth.xy[i, truth.parts.index(part)]
    return places


def _draw(axes: Axes, size: tuple[int, int], scene: _Scene, n: int, radius: float) -> None:
    """Skeleton, crosses and points in pixels of the image, cut off at its edge."""
    axes.set(xlim=(-0.5, size[0] - 0.5), ylim=(size[1] - 0.5, -0.5))
    axes.set_autoscale_on(False)
    xy, visible, placed = scene.keypoints.xy[n], scene.keypoints.visible[n], scene.keypoints.placed[n]
    thin = 144 * radius / 6  # a sixth of the diameter, in points
    edges = [(a, b) for a, b in scene.keypoints.skeleton if visible[a] and visible[b]]
    if edges:
        lines = [xy[[a, b]] for a, b in edges]
        axes.add_collection(LineCollection(lines, colors=[(0, 0, 0, 0.55)], linewidths=2.4 * thin))
        axes.add_collection(LineCollection(lines, colors=[(1, 1, 1, 0.9)], linewidths=1.2 * thin))
    true = _true_places(scene, n)
    known = np.isfinite(true).all(axis=1)
    area = (144 * radius) ** 2
    both, known_only = np.flatnonzero(known & placed), np.flatnonzero(known)
    for colours, width in ((np.zeros_like(scene.colours), 2.6), (scene.colours, 1.0)):
        missed = [np.stack([true[p], xy[p]]) for p in both]
        axes.add_collection(LineCollection(missed, colors=colours[both], linewidths=thin * width, zorder=3))
        x, y = true[known_only].T
        axes.scatter(x, y, s=area, c=colours[known_only], marker="x", linewidths=thin * (width + 0.4), zorder=4)
    x, y = xy[placed & ~visible].T
    for colour, width, height in (
        ("black", 2.8, 5.0),
        ("white", 2.1, 5.5),
        (scene.colours[placed & ~visible], 1.1, 6.0),
    ):
        axes.scatter(x, y, s=1.7 * area, facecolors="none", edgecolors=colour, linewidths=width * thin, zorder=height)
    x, y = xy[visible].T
    axes.scatter(x, y, s=1.5 * area, c="black", linewidths=0, zorder=7)
    axes.scatter(x, y, s=area, c=scene.colours[visible], edgecolors="white", linewidths=0.9 * thin, zorder=8)


def _number(sheet: Axes, size: tuple[int, int], scene: _Scene, n: int, field: Box) -> None:
    """Each point's number beside it, on no point and no cross."""
    places = field.place(scene.keypoints.xy[n], size) - (field.left, field.bottom)
    true = field.place(_true_places(scene, n), size) - (field.left, field.bottom)
    paper = Paper(field.width, field.height)
    for x, y in np.concatenate([places, true]):
        if np.isfinite(x + y):
            paper.add_disc(float(x), float(y), 1.3 * _LARGE)
    for p in np.flatnonzero(scene.keypoints.placed[n]):
        anchor = float(places[p, 0]), float(places[p, 1])
        box = text_box(str(p + 1), _NUMBER_SIZE)
        corner = paper.place(anchor, box, away=1.3 * _LARGE, reach=_REACH)
        if corner is None:
            continue
        x, y = field.left + corner[0] + box[0] / 2, field.bottom + corner[1] + box[1] / 2
        end = line_end(anchor, np.array([corner]), box)[0]
        if math.dist(end, anchor) > _JOINED:
            line = np.array([anchor, end]) + np.array([field.left, field.bottom])
            sheet.plot(*line.T, color="white", linewidth=0.7, zorder=8)
        text = write(sheet, x, y, str(p + 1), size=_NUMBER_SIZE, color="white", ha="center", va="center", weight="bold")
        text.set_path_effects([withStroke(linewidth=1.8, foreground="black")])
