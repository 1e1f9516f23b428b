"""Images with their feature maps in colours, image above or beside its map, at one scale and in line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from encoders import Frame
from figures.lettering import wrapped
from figures.style import INK, MUTED

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
    them. frame: its geometry. name: a line above it, cut to its width. foreground: the patches that are foreground; with it the others
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
        (height, width), grid, frame = item.image.shape[:2], item.colours.shape[:2], item.frame
        if abs(height - frame.height * width / frame.width) > 1 or grid != frame.grid:
            raise ValueError(
                f"expected an image of {frame.width}×{frame.height} px, or one smaller in this shape, and {frame.grid[0]} × {frame.grid[1]} "
                f"patches as in its frame, got {width}×{height} px and {grid[0]} × {grid[1]}"
            )
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
        _draw(pictures[0], pictures[1], item, smooth)
        for axes in pictures:
            axes.set(xlim=(0, item.frame.width), ylim=(item.frame.height, 0), aspect="equal", anchor="C")
            axes.axis("off")
        if item.name:
            figure.text(
                left / _WIDTH,
                (height - top + 0.05) / height,
                _fitting(item.name, wide),
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


def _draw(picture: Axes, drawn: Axes, item: MappedImage, smooth: bool) -> None:
    """The image and its map, in pixels of the original from its top left corner, as `Frame.box` is."""
    frame = item.frame
    left, top, right, bottom = frame.box
    # Without its padding the map is still a rectangle; with it, interpolation would bring the padding's black into the image.
    real = np.ix_(frame.real.any(axis=1), frame.real.any(axis=0))
    across, down = (right - left) / frame.grid[1], (bottom - top) / frame.grid[0]
    extent = (
        left + across * real[1].min(),
        left + across * (real[1].max() + 1),
        top + down * (real[0].max() + 1),
        top + down * real[0].min(),
    )
    whole = (0, frame.width, frame.height, 0)
    rows, columns = (
        (np.arange(count) + 0.5) * length / count
        for count, length in zip(item.image.shape[:2], (frame.height, frame.width), strict=True)
    )
    seen = (((rows > top) & (rows < bottom))[:, None] & (columns > left) & (columns < right))[..., None]
    paled = (191 + item.image // 4).astype(np.uint8)
    picture.imshow(np.where(seen, item.image, paled), extent=whole, interpolation="antialiased")
    pixels = np.rint(255 * item.colours[real]).astype(np.uint8)
    if item.foreground is not None:
        grey = item.image @ np.array([0.299, 0.587, 0.114]) * _DIMMED
        behind = np.where(seen, grey[..., None].astype(np.uint8), paled)
        drawn.imshow(behind, extent=whole, interpolation="antialiased")
        pixels = np.dstack([pixels, np.where(item.foreground[real], 255, 0).astype(np.uint8)])
    elif not seen.all():
        drawn.imshow(paled, extent=whole, interpolation="antialiased")
    drawn.imshow(pixels, extent=extent, interpolation="bicubic" if smooth else "nearest")


def _fitting(text: str, width: float) -> str:
    """As much of a text as fits into so many inches."""

    def fits(part: str) -> bool:
        font = FontProperties(size=_NAME_SIZE)
        return bool(text_to_path.get_text_width_height_descent(part, font, False)[0] <= 72 * width)

    if fits(text):
        return text
    kept = next((k for k in range(len(text) - 1, 0, -1) if fits(text[:k] + "…")), 0)
    return text[:kept] + "…"


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

    rows = _partition(aspects, count)
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


def _partition(aspects: list[float], count: int) -> list[list[int]]:
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
