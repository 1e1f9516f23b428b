"""Images with their feature maps in colours, image above or beside its map, at one scale and in line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewmatch.encoders import Frame
from fewmatch.figures.style.lettering import fitting, wrapped
from fewmatch.figures.style.style import INK, MUTED

#: Width of the figure: 1200 px at 120 dpi.
_WIDTH, _DPI = 10.0, 120
#: Space around everything, between pictures of different images, and between an image and its map, in inches.
_MARGIN, _GAP, _SEAM = 0.12, 0.12, 0.03
#: The line of a name above its image, and a line of the caption; sizes of their letters in points.
_NAME, _LINE, _NAME_SIZE, _CAPTION_SIZE = 0.2, 0.17, 8.0, 8.5
#: A figure shows at most so many images.
MOST_IMAGES = 60
#: A picture's field is at most so wide or high for its other side; what is longer is shown small in the middle of its field.
_ELONGATED = 3.0
#: How bright the image behind a foreground is.
_DIMMED = 0.3
#: Panels are not enlarged beyond this height in inches.
_TALLEST = 4.85


@dataclass(frozen=True)
class MappedImage:
    """An image and the colours of its patches.

    image: (H, W, 3) uint8 RGB original, or a smaller copy of all of it. colours: (h, w, 3) RGB from 0 to 1, as `PatchPCA.colours` gives
    them. frame: its geometry. name: a line above it, cut to the width of both. foreground: the patches that are foreground; with it the others
    are not drawn, and the image shows through, dark and grey.
    """

    image: UInt8[np.ndarray, "H W 3"]
    colours: Float[np.ndarray, "h w 3"]
    frame: Frame
    name: str = ""
    foreground: Bool[np.ndarray, "h w"] | None = None


def feature_map_figure(items: Sequence[MappedImage], *, caption: str = "", smooth: bool = False) -> Figure:
    """Images and what the features of their patches look like in colours, each map as large as its image and exactly where it belongs.

    What the encoder did not see of an image (cut off by its frame) is pale in both pictures; padding is not shown.

    Args:
        items: at most 60 (`MOST_IMAGES`).
        caption: text below the figure, wrapped.
        smooth: interpolate between the centres of patches; by default each patch is one even field.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no images or too many, or an image or a map that does not fit its frame.
    """
    if not 1 <= len(items) <= MOST_IMAGES:
        raise ValueError(f"expected 1 to {MOST_IMAGES} images, got {len(items)}")
    for item in items:
        check_frame(item.image, item.colours, item.frame)
    layout = _layout([item.frame.width / item.frame.height for item in items], any(item.name for item in items))
    lines = wrapped(caption, _CAPTION_SIZE, _WIDTH - 2 * _MARGIN) if caption else []
    below = _LINE * len(lines) + (0.06 if lines else 0.0)
    height = layout.height + below
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    for item, (left, top, wide, tall) in zip(items, layout.fields, strict=True):
        lower = height - top - tall
        second = (left + wide + _SEAM, lower) if layout.beside else (left, lower - tall - _SEAM)
        pictures = [
            figure.add_axes((x / _WIDTH, y / height, wide / _WIDTH, tall / height)) for x, y in ((left, lower), second)
        ]
        draw_image(pictures[0], item)
        draw_map(pictures[1], item, smooth=smooth)
        if item.name:
            figure.text(
                left / _WIDTH,
                (height - top + 0.05) / height,
                fitting(item.name, _NAME_SIZE, 2 * wide + _SEAM if layout.beside else wide),
                ha="left",
                va="bottom",
                fontsize=_NAME_SIZE,
                color=INK,
                parse_math=False,
            )
    for number, line in enumerate(lines):
        figure.text(
            _MARGIN / _WIDTH,
            (below - _LINE * number) / height,
            line,
            ha="left",
            va="top",
            fontsize=_CAPTION_SIZE,
            color=MUTED,
            parse_math=False,
        )
    return figure


def check_frame(
    image: UInt8[np.ndarray, "H W 3"], values: Float[np.ndarray, "h w ..."] | Bool[np.ndarray, "h w"], frame: Frame
) -> None:
    """Refuse an image or values of patches that do not fit their frame.

    Raises:
        ValueError: what was expected and what it got.
    """
    (height, width), grid = image.shape[:2], values.shape[:2]
    if abs(height - frame.height * width / frame.width) > 1 or grid != frame.grid:
        raise ValueError(
            f"expected an image of {frame.width}×{frame.height} px, or one smaller in this shape, and {frame.grid[0]} × {frame.grid[1]} "
            f"patches as in its frame, got {width}×{height} px and {grid[0]} × {grid[1]}"
        )


def draw_image(axes: Axes, item: MappedImage) -> None:
    """The image alone, in pixels of the original from its top left corner, as `Frame.box` is; pale where the encoder did not see it."""
    _span(axes, item.frame)
    axes.imshow(np.where(_seen(item), item.image, _paled(item)), extent=_whole(item.frame), interpolation="antialiased")


def draw_map(axes: Axes, item: MappedImage, *, smooth: bool = False) -> None:
    """The colours of the patches where these lie, in the same pixels; behind a foreground the image, dark and grey."""
    _span(axes, item.frame)
    seen = _seen(item)
    extent, real = map_extent(item.frame)
    pixels = np.rint(255 * item.colours[real]).astype(np.uint8)
    if item.foreground is not None:
        grey = item.image @ np.array([0.299, 0.587, 0.114]) * _DIMMED
        behind = np.where(seen, grey[..., None].astype(np.uint8), _paled(item))
        axes.imshow(behind, extent=_whole(item.frame), interpolation="antialiased")
        pixels = np.dstack([pixels, np.where(item.foreground[real], 255, 0).astype(np.uint8)])
    elif not seen.all():
        axes.imshow(_paled(item), extent=_whole(item.frame), interpolation="antialiased")
    axes.imshow(pixels, extent=extent, interpolation="bicubic" if smooth else "nearest")


def map_extent(
    frame: Frame,
) -> tuple[tuple[float, float, float, float], tuple[Int[np.ndarray, "r 1"], Int[np.ndarray, "1 c"]]]:
    """Left, right, bottom and top of the patches that are no padding, and which rows and columns they are.

    Without its padding the map is still a rectangle; with it, interpolation would bring the padding's black into the image.
    """
    left, top, right, bottom = frame.box
    rows, columns = np.ix_(frame.real.any(axis=1), frame.real.any(axis=0))
    across, down = (right - left) / frame.grid[1], (bottom - top) / frame.grid[0]
    extent = (
        left + across * columns.min(),
        left + across * (columns.max() + 1),
        top + down * (rows.max() + 1),
        top + down * rows.min(),
    )
    return extent, (rows, columns)


def _span(axes: Axes, frame: Frame) -> None:
    axes.set(xlim=(0, frame.width), ylim=(frame.height, 0), aspect="equal", anchor="C")
    axes.set_autoscale_on(False)  # imshow would otherwise make the axes as large as each picture
    axes.axis("off")


def _whole(frame: Frame) -> tuple[float, float, float, float]:
    return 0.0, float(frame.width), float(frame.height), 0.0


def _paled(item: MappedImage) -> UInt8[np.ndarray, "H W 3"]:
    return (191 + item.image // 4).astype(np.uint8)


def _seen(item: MappedImage) -> Bool[np.ndarray, "H W 1"]:
    """Which pixels the encoder saw."""
    left, top, right, bottom = item.frame.box
    rows, columns = (
        (np.arange(count) + 0.5) * length / count
        for count, length in zip(item.image.shape[:2], (item.frame.height, item.frame.width), strict=True)
    )
    return np.asarray((((rows > top) & (rows < bottom))[:, None] & (columns > left) & (columns < right))[..., None])


# ----------------------------------------------------------------------------------------------------------------------
# Where everything goes


@dataclass(frozen=True)
class _Layout:
    """beside: maps to the right of their images, not below. height: of it all, in inches.

    fields: of each image the left edge and the top edge (from the top), width and height, in inches; the map's field has the same size.
    """

    beside: bool
    height: float
    fields: list[tuple[float, float, float, float]]


def _layout(aspects: list[float], named: bool) -> _Layout:
    """Rows in the order given, with the maps beside or below: the way in which pictures are largest and little is left empty."""
    aspects = np.clip(aspects, 1 / _ELONGATED, _ELONGATED).tolist()
    best, most = None, -1.0
    limit = max(0.66 * _WIDTH, 0.25 * len(aspects))
    for beside in (True, False):
        for count in range(1, len(aspects) + 1):
            layout, filled = _rows(aspects, count, beside, named)
            area = sum(wide * tall for _, _, wide, tall in layout.fields) / len(aspects)
            # Pictures as large as they can be, in rows that are full, in a figure that is not too tall.
            worth = math.sqrt(area * 2) * filled**3 * min(1.0, limit / layout.height) ** 2
            if worth > most:
                best, most = layout, worth
    assert best is not None
    return best


def _rows(aspects: list[float], count: int, beside: bool, named: bool) -> tuple[_Layout, float]:
    """So many rows of pictures, and how much of the width they fill, on average."""
    inner, times = _WIDTH - 2 * _MARGIN, 2 if beside else 1

    def height_of(row: list[int]) -> float:
        free = inner - _GAP * (len(row) - 1) - (_SEAM * len(row) if beside else 0)
        return min(_TALLEST, free / (times * sum(aspects[i] for i in row)))

    rows = partition(aspects, count)
    lowest = min(height_of(row) for row in rows)
    fields: list[tuple[float, float, float, float]] = []
    y, filled = 0.0, 0.0
    for row in rows:
        # Rows of nearly the same height fill the width; one with few images in it does not grow out of scale.
        tall = height_of(row) if height_of(row) <= 1.2 * lowest else lowest
        y += _NAME + 0.05 if named else _MARGIN
        x = _MARGIN
        for i in row:
            fields.append((x, y, aspects[i] * tall, tall))
            x += times * aspects[i] * tall + (_SEAM if beside else 0) + _GAP
        y += tall if beside else 2 * tall + _SEAM
        filled += (x - _GAP - _MARGIN) / inner / len(rows)
    return _Layout(beside, y + _MARGIN, fields), filled


def partition(aspects: list[float], count: int) -> list[list[int]]:
    """Rows of neighbours, so that the widest row is as narrow as can be; of such, the fullest first."""
    low, high = max(aspects), sum(aspects)

    def fill(width: float) -> list[list[int]]:
        rows: list[list[int]] = []
        total = math.inf
        for i, aspect in enumerate(aspects):
            if total + aspect > width * (1 + 1e-9):
                rows.append([])
                total = 0.0
            rows[-1].append(i)
            total += aspect
        return rows

    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(middle)) <= count else (middle, high)
    return fill(high)
