"""Heat maps of a click: points of one image, and how alike the patches of other images are to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewmatch.encoders import Frame
from fewmatch.figures.feature_maps import check_frame, map_extent, partition
from fewmatch.figures.match_lines import draw_numbers
from fewmatch.figures.side_by_side import DPI, GAP, MARGIN, WIDTH, Box, aspect_of, sheet_axes, show, size_of
from fewmatch.figures.style.lettering import fitting, text_width, wrapped, write
from fewmatch.figures.style.palette import class_colours
from fewmatch.figures.style.style import MUTED
from fewmatch.matching.similarity import SOFTMAX_TEMPERATURE, Sharpening, sharpened

#: A figure shows at most so many points and so many images beside the first.
MOST_POINTS, MOST_SHOWN = 12, 40
#: A row is as high as its width allows, between these, in inches.
_LOWEST, _TALLEST = 1.7, 4.5
#: The line above each picture and a line of the caption, in inches; sizes of their letters in points.
_NAME, _LINE, _NAME_SIZE, _CAPTION_SIZE = 0.22, 0.18, 8.5, 9.0
#: How bright the picture under the heat is.
_DARKENED = 0.4
#: The scale of the heat, perceptually uniform, from where it can be told from the dark picture; and how much of the picture its top hides.
_SCALE, _SCALE_FROM, _OPAQUE = "inferno", 0.35, 0.85


@dataclass(frozen=True)
class SimilarImage:
    """An image and how alike its patches are to points of another.

    image: (H, W, 3) uint8 RGB original, or a smaller copy of all of it. frame: its geometry. similarity: (K, h, w) cosines with each of the K
    points, NaN where there is none, as `similarity_maps` gives them. name: a line above it, cut to its width.
    """

    image: UInt8[np.ndarray, "H W 3"]
    frame: Frame
    similarity: Float[np.ndarray, "K h w"]
    name: str = ""


def similarity_figure(
    image: UInt8[np.ndarray, "H W 3"],
    points: Float[np.ndarray, "K 2"],
    others: Sequence[SimilarImage],
    *,
    name: str = "",
    caption: str = "",
    sharpening: Sharpening = "softmax",
    temperature: float = SOFTMAX_TEMPERATURE,
    smooth: bool = False,
) -> Figure:
    """For each point a row: the image with the point, and the others, dark, with their similarity to it as heat and a ring at the best match.

    The ring lies at the centre of the patch of largest cosine (of equal ones the first, row by row); the number above the picture is that
    cosine. The caption's last sentence says how cosines became heat.

    Args:
        image: (H, W, 3) uint8 RGB original. points: (K, 2), at most 12 (`MOST_POINTS`), in its pixels, x then y.
        others: at most 40 (`MOST_SHOWN`).
        name: a line above the image. caption: text below the figure, wrapped.
        sharpening, temperature: see `sharpened`.
        smooth: interpolate between the centres of patches; by default each patch is one even field.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: too few or too many points or images, or what does not fit together.
        InputError: an unknown sharpening, or a temperature that is not positive.
    """
    _check(points, others)
    aspects = [aspect_of(image), *(other.frame.width / other.frame.height for other in others)]
    rows, tall = _rows(aspects)
    how = {
        "softmax": f"Heat: exp((cosine − the image’s largest) / {temperature:g}).",
        "percentile": "Heat: the cosine, from the image’s median (dark) to its largest.",
    }
    lines = wrapped(
        f"{caption} {how[sharpening]} Rings: the patch of largest cosine, which is the number above.",
        _CAPTION_SIZE,
        WIDTH - 2.5 * MARGIN,
    )
    block = len(rows) * (tall + _NAME)
    height = MARGIN + len(points) * (block + GAP) + _LINE * len(lines)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    sheet = sheet_axes(figure)
    colours = class_colours(len(points))
    for k, point in enumerate(points):
        y = height - MARGIN - k * (block + GAP)
        for row in rows:
            y -= tall + _NAME
            x = MARGIN
            for i in row:
                box = Box(x, y, aspects[i] * tall, tall)
                if i == 0:
                    show(figure, box, image)
                    place = box.place(point[None], size_of(image))
                    draw_numbers(sheet, [place], np.array([colours[k]]), first=k + 1)
                    _write_above(sheet, box, name, f"{point[0]:.0f}, {point[1]:.0f}")
                else:
                    other = others[i - 1]
                    best = _draw_heat(box.axes(figure), other, k, sharpening, temperature, smooth)
                    if best is not None:
                        x_b, y_b = other.frame.to_pixels(*best)
                        here = box.place(np.array([[x_b, y_b]], np.float64), (other.frame.width, other.frame.height))
                        _draw_ring(sheet, here[0], colours[k])
                    score = "" if best is None else f"{other.similarity[k][best]:.2f}"
                    _write_above(sheet, box, other.name, score)
                x += box.width + GAP
    for number, line in enumerate(lines):
        write(
            sheet,
            MARGIN,
            _LINE * (len(lines) - number),
            line,
            size=_CAPTION_SIZE,
            color=MUTED,
            ha="left",
            va="top",
        )
    return figure


def _check(points: Float[np.ndarray, "K 2"], others: Sequence[SimilarImage]) -> None:
    if not 1 <= len(points) <= MOST_POINTS or not 1 <= len(others) <= MOST_SHOWN:
        raise ValueError(
            f"expected 1 to {MOST_POINTS} points and 1 to {MOST_SHOWN} images, got {len(points)} and {len(others)}"
        )
    for other in others:
        if len(other.similarity) != len(points):
            raise ValueError(f"expected maps for {len(points)} points, got {len(other.similarity)}")
        check_frame(other.image, other.similarity[0], other.frame)


def _rows(aspects: list[float]) -> tuple[list[list[int]], float]:
    """As few rows as make pictures of a good height, and that height in inches."""
    best: tuple[list[list[int]], float] | None = None
    for count in range(1, len(aspects) + 1):
        rows = partition(aspects, count)
        tall = min((WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / sum(aspects[i] for i in row) for row in rows)
        best = rows, min(tall, _TALLEST)
        if tall >= _LOWEST:
            break
    assert best is not None
    return best


def _draw_heat(
    axes: Axes, other: SimilarImage, k: int, sharpening: Sharpening, temperature: float, smooth: bool
) -> tuple[int, int] | None:
    """The dark picture with its heat; returns row and column of the best patch, None where there is none."""
    frame, cosines = other.frame, other.similarity[k]
    axes.set(xlim=(0, frame.width), ylim=(frame.height, 0))
    axes.set_autoscale_on(False)
    axes.axis("off")
    dark = np.rint(_DARKENED * other.image).astype(np.uint8)
    axes.imshow(dark, extent=(0, frame.width, frame.height, 0), interpolation="antialiased", aspect="auto")
    heat = sharpened(cosines, sharpening, temperature=temperature)
    extent, real = map_extent(frame)
    rgba = matplotlib.colormaps[_SCALE](_SCALE_FROM + (1 - _SCALE_FROM) * heat[real])
    rgba[..., 3] = _OPAQUE * heat[real]
    axes.imshow(rgba, extent=extent, interpolation="bilinear" if smooth else "nearest", aspect="auto")
    if not np.isfinite(cosines).any():
        return None
    row, column = np.unravel_index(np.nanargmax(cosines), cosines.shape)
    return int(row), int(column)


def _draw_ring(sheet: Axes, place: Float[np.ndarray, "2"], colour: tuple[float, float, float]) -> None:
    x, y = (float(part) for part in place)
    for edge, wide in (("white", 3.4), (colour, 1.8)):
        sheet.scatter([x], [y], s=110, facecolors="none", edgecolors=[edge], linewidths=wide, zorder=6)


def _write_above(sheet: Axes, box: Box, name: str, number: str) -> None:
    y = box.bottom + box.height + 0.06
    write(sheet, box.left + box.width, y, number, size=_NAME_SIZE, color=MUTED, ha="right", va="baseline")
    room = box.width - text_width(number, _NAME_SIZE) - 0.1
    write(sheet, box.left, y, fitting(name, _NAME_SIZE, room), size=_NAME_SIZE, ha="left", va="baseline")
