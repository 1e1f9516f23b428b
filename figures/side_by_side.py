"""Where two images and what joins them lie on a sheet: beside each other, or one above the other where they are wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Width of the figure: 1200 px at 120 dpi.
WIDTH, DPI = 10.0, 120
#: Space between two images and around them, in inches.
GAP, MARGIN = 0.12, 0.08
#: A pair is at most this much of the width high; images so wide that they would be lower than the other share go one above the other.
_TALLEST, _LOWEST = 0.75, 0.2


@dataclass(frozen=True)
class Box:
    """A field of the sheet in inches, from the sheet's lower left corner, or that of the row it lies in."""

    left: float
    bottom: float
    width: float
    height: float

    def raised(self, by: float) -> Box:
        return Box(self.left, self.bottom + by, self.width, self.height)

    def axes(self, figure: Figure) -> Axes:
        """New axes that fill the field."""
        wide, tall = figure.get_size_inches()
        return figure.add_axes((self.left / wide, self.bottom / tall, self.width / wide, self.height / tall))

    def place(self, xy: Float[np.ndarray, "k 2"], size: tuple[int, int]) -> Float[np.ndarray, "k 2"]:
        """Where pixels (x, y) of an image of this width and height that fills the field lie, in inches."""
        share = (xy + 0.5) / size  # of the image, from its top left corner
        return np.stack([self.left + share[:, 0] * self.width, self.bottom + (1 - share[:, 1]) * self.height], axis=1)


def pair_boxes(aspect_a: float, aspect_b: float) -> tuple[float, tuple[Box, Box]]:
    """The height of a row with two images of these widths over heights, and where in it they lie.

    Side by side at one height; one above the other at one width where that would be too low to see anything.
    """
    inner = WIDTH - 2 * MARGIN
    height = (inner - GAP) / (aspect_a + aspect_b)
    if height >= _LOWEST * WIDTH or min(aspect_a, aspect_b) < 1:
        height = min(height, _TALLEST * WIDTH)
        width_a, width_b = aspect_a * height, aspect_b * height
        left = MARGIN + (inner - GAP - width_a - width_b) / 2
        return height, (Box(left, 0.0, width_a, height), Box(left + width_a + GAP, 0.0, width_b, height))
    width = min(inner, (_TALLEST * WIDTH - GAP) / (1 / aspect_a + 1 / aspect_b))
    left, height_a, height_b = MARGIN + (inner - width) / 2, width / aspect_a, width / aspect_b
    return height_a + GAP + height_b, (Box(left, height_b + GAP, width, height_a), Box(left, 0.0, width, height_b))


def size_of(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
    """Width and height."""
    return image.shape[1], image.shape[0]


def aspect_of(image: UInt8[np.ndarray, "h w 3"]) -> float:
    return float(image.shape[1] / image.shape[0])


def show(figure: Figure, box: Box, image: UInt8[np.ndarray, "h w 3"]) -> Axes:
    """The image, filling the field."""
    axes = box.axes(figure)
    axes.imshow(image, interpolation="antialiased", aspect="auto")
    axes.axis("off")
    return axes


def sheet_axes(figure: Figure) -> Axes:
    """Axes over all of the sheet, in inches, on top of the images."""
    width, height = (float(length) for length in figure.get_size_inches())
    axes = figure.add_axes((0, 0, 1, 1), zorder=5)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_autoscale_on(False)
    axes.axis("off")
    return axes
