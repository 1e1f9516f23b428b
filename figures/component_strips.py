"""Every principal component of feature maps in a column of its own, in a diverging scale that all images share."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fewmatch.figures.feature_maps import MappedImage, check_frame, draw_image, draw_map, map_extent
from fewmatch.figures.side_by_side import DPI, MARGIN, WIDTH, Box, sheet_axes
from fewmatch.figures.style.lettering import fitting, text_width, wrapped, write
from fewmatch.figures.style.style import INK, MUTED

#: A figure shows at most so many images and components.
MOST_STRIPS, MOST_COMPONENTS = 20, 16
#: From −1 to 1: blue to red through a light grey, told apart with every common form of colour blindness.
SCALE = "coolwarm"
#: Space between columns and between rows; the line of a name above its row, of the head and of the caption, all in inches.
_SEAM, _GAP, _NAME, _HEAD, _LINE = 0.04, 0.08, 0.17, 0.16, 0.17
_NAME_SIZE, _HEAD_SIZE, _CAPTION_SIZE = 8.0, 8.0, 8.5
#: A picture is at most so much higher than wide; what is longer is shown small.
_ELONGATED = 1.5


def strips_figure(
    items: Sequence[MappedImage],
    strips: Sequence[Float[np.ndarray, "_h _w n"]],
    *,
    explained: Float[np.ndarray, "n"],
    limit: Float[np.ndarray, "n"],
    caption: str = "",
) -> Figure:
    """Each image in a row: the image, its colours, and its components one by one.

    Args:
        items: at most 20 (`MOST_STRIPS`), with their colours.
        strips: of each the components from −1 to 1, NaN where nothing is to be shown (black), as `PatchPCA.strips` gives them; at most 16
            (`MOST_COMPONENTS`).
        explained: the components' shares of the variance. limit: the scores at which their scales end on both sides.
        caption: text below the figure, wrapped.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: too few or too many images or components, or what does not fit together.
    """
    count = len(explained)
    if not 1 <= len(items) <= MOST_STRIPS or len(items) != len(strips):
        raise ValueError(f"expected 1 to {MOST_STRIPS} images with their strips, got {len(items)} and {len(strips)}")
    if not 1 <= count <= MOST_COMPONENTS or len(limit) != count or any(s.shape[2] != count for s in strips):
        raise ValueError(
            f"expected 1 to {MOST_COMPONENTS} components, as many as shares and limits, got {strips[0].shape[2]}, {count} and {len(limit)}"
        )
    for item, strip in zip(items, strips, strict=True):
        check_frame(item.image, item.colours, item.frame)
        check_frame(item.image, strip, item.frame)
    wide = (WIDTH - 2 * MARGIN - _SEAM * (count + 1)) / (count + 2)
    heights = [min(wide * item.frame.height / item.frame.width, wide * _ELONGATED) for item in items]
    named = [_NAME * bool(item.name) for item in items]
    lines = wrapped(caption, _CAPTION_SIZE, WIDTH - 2.5 * MARGIN)
    # Beside the last line, or in a line of its own, stands the scale.
    below = _LINE * (len(lines) + 1) + 0.08
    head = 3 * _HEAD + 0.08
    height = head + sum(heights) + sum(named) + _GAP * len(items) + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    sheet = sheet_axes(figure)
    lefts = [MARGIN + k * (wide + _SEAM) for k in range(count + 2)]
    heads = [("image",), ("components", "1, 2, 3")] + [
        (str(k + 1), f"{100 * explained[k]:.2g} %", f"±{limit[k]:.2g}") for k in range(count)
    ]
    for left, words in zip(lefts, heads, strict=True):
        for number, word in enumerate(words):
            y = height - 0.06 - _HEAD * number
            color = INK if number == 0 else MUTED
            write(sheet, left + wide / 2, y, word, size=_head_size(word, wide), color=color, ha="center", va="top")
    y = height - head
    for item, strip, tall, name in zip(items, strips, heights, named, strict=True):
        if name:
            text = fitting(item.name, _NAME_SIZE, WIDTH - 3 * MARGIN)
            write(sheet, MARGIN, y - name + 0.05, text, size=_NAME_SIZE, ha="left", va="baseline")
        y -= name + tall
        fields = [Box(left, y, wide, tall).axes(figure) for left in lefts]
        draw_image(fields[0], item)
        draw_map(fields[1], item)
        for k, axes in enumerate(fields[2:]):
            _draw_strip(axes, item, strip[..., k])
        y -= _GAP
    for number, line in enumerate(lines):
        y = below - 0.04 - _LINE * number
        write(sheet, MARGIN, y, line, size=_CAPTION_SIZE, color=MUTED, ha="left", va="top")
    _draw_scale(sheet, 0.04 + _LINE / 2)
    return figure


def _head_size(word: str, wide: float) -> float:
    """Smaller letters where a column is narrow."""
    return min(_HEAD_SIZE, _HEAD_SIZE * (wide - 0.02) / max(text_width(word, _HEAD_SIZE), 1e-9))


def _draw_strip(axes: Axes, item: MappedImage, values: Float[np.ndarray, "h w"]) -> None:
    frame = item.frame
    axes.set(xlim=(0, frame.width), ylim=(frame.height, 0), aspect="equal", anchor="C")
    axes.set_autoscale_on(False)
    axes.axis("off")
    extent, real = map_extent(frame)
    axes.imshow(strip_colours(values[real]), extent=extent, interpolation="nearest")


def strip_colours(values: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s 3"]:
    """The diverging scale's colours of values from −1 to 1, black where they are NaN."""
    known = np.isfinite(values)
    colours = matplotlib.colormaps[SCALE]((np.where(known, values, 0) + 1) / 2)[..., :3]
    return np.asarray(np.where(known[..., None], colours, 0.0))


def _draw_scale(sheet: Axes, y: float) -> None:
    """The scale, with what its ends and its middle are, in one line."""
    x, wide, steps = MARGIN, 1.6, 64
    write(sheet, x, y, "−", size=_CAPTION_SIZE, color=MUTED, ha="left", va="center")
    x += 0.12
    for k, colour in enumerate(strip_colours(np.linspace(-1, 1, steps))):
        # Each reaches to the end, under those after it: side by side they would show seams in an SVG.
        left = wide * k / steps
        sheet.add_patch(Rectangle((x + left, y - 0.045), wide - left, 0.09, color=tuple(colour), linewidth=0))
    text = "+   each column from − to + the score under its share of the variance, one range for all images"
    write(sheet, x + wide + 0.05, y, text, size=_CAPTION_SIZE, color=MUTED, ha="left", va="center")
