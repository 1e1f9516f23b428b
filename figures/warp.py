"""Dense correspondence at a glance: the colours of one image in the shape of another, and a colour wheel that goes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from fewmatch.figures.side_by_side import aspect_of
from fewmatch.figures.style.lettering import wrapped, write
from fewmatch.figures.style.style import INK, MUTED
from fewmatch.matching.flow import Flow, warp

#: Width of the figure: 1200 px at 120 dpi.
_WIDTH, _DPI = 10.0, 120
#: Space around everything, between pictures, for the line above each of them, for a line of the caption and for the title, in inches.
_MARGIN, _GAP, _NAME, _LINE, _TITLE = 0.12, 0.1, 0.2, 0.17, 0.3
_NAME_SIZE, _CAPTION_SIZE = 8.0, 8.5
#: Pictures are not enlarged beyond this height.
_TALLEST = 4.0
#: How much of a pixel's grey shows through the wheel: enough to tell the object, not so much that its colours are lost.
_GREY = 0.55


@dataclass(frozen=True, eq=False)
class WarpedPair:
    """Two images and where the second one's pixels are in the first.

    image_a, image_b: (h, w, 3) uint8 RGB originals. flow: of B to A, as `dense_flow(map_b, frame_b, map_a, frame_a)` gives it, so that each
    pixel of B knows whose colour it takes. foreground: (h, w) which pixels of A are the object, in whose middle the wheel is
    centred; None is all. caption: text under the pair, wrapped.
    """

    image_a: UInt8[np.ndarray, "ha wa 3"]
    image_b: UInt8[np.ndarray, "hb wb 3"]
    flow: Flow
    foreground: Bool[np.ndarray, "ha wa"] | None = None
    caption: str = ""


def warp_figure(pairs: Sequence[WarpedPair], *, title: str = "") -> Figure:
    """Pairs one below the other, each as A, B and A's colours carried to B, and below them the colour wheel on A, on B, and the confidence.

    The wheel's hue is the angle around the middle of A (or of its foreground), its saturation the distance from there: a part of B is
    where the wheel on A has its colour. Both are shaded by the grey of the image below. The confidence is that of the flow, dark 0
    and bright 1. Where the flow is unknown, the colours carried are white and B stays grey.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no pairs, or images that are not those of the flow.
    """
    if not pairs:
        raise ValueError("expected at least one pair of images, got none")
    for pair in pairs:
        for name, image, size in (
            ("image_a", pair.image_a, pair.flow.size_b),
            ("image_b", pair.image_b, pair.flow.size_a),
        ):
            if (image.shape[1], image.shape[0]) != size:
                raise ValueError(
                    f"expected {name} of {size[0]}×{size[1]} px as the flow of B to A says, got {image.shape[1]}×{image.shape[0]} px"
                )
    inner = _WIDTH - 2 * _MARGIN
    tall = [min(_TALLEST, (inner - 2 * _GAP) / (aspect_of(p.image_a) + 2 * aspect_of(p.image_b))) for p in pairs]
    lines = [wrapped(pair.caption, _CAPTION_SIZE, inner) if pair.caption else [] for pair in pairs]
    below = [_LINE * len(text) + 0.1 for text in lines]
    top = _TITLE if title else 0.04
    height = top + sum(2 * (t + _NAME) for t in tall) + sum(below)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    sheet = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(0, height), zorder=-1)
    sheet.axis("off")
    if title:
        write(sheet, _MARGIN, height - 0.07, title, size=11.0, va="top")
    y = height - top
    for pair, high, text, under in zip(pairs, tall, lines, below, strict=True):
        wide = [high * aspect_of(image) for image in (pair.image_a, pair.image_b, pair.image_b)]
        left = _MARGIN + (inner - sum(wide) - 2 * _GAP) / 2
        edges = [left, left + wide[0] + _GAP, left + wide[0] + wide[1] + 2 * _GAP]
        for row in _pictures(pair):
            y -= _NAME + high
            for (name, picture, options), x, width in zip(row, edges, wide, strict=True):
                axes = figure.add_axes((x / _WIDTH, y / height, width / _WIDTH, high / height))
                show(axes, picture, **options)
                write(sheet, x, y + high + 0.05, name, size=_NAME_SIZE, color=INK, va="bottom")
        for number, line in enumerate(text):
            write(sheet, _MARGIN, y - 0.06 - _LINE * number, line, size=_CAPTION_SIZE, color=MUTED, va="top")
        y -= under
    return figure


def show(axes: Axes, picture: Any, **options: Any) -> None:
    """A picture that fills its axes, without ticks, in its own pixels: x to the right, y down, pixel centres at integers."""
    axes.imshow(picture, interpolation="antialiased", aspect="auto", **options)
    axes.axis("off")


def polar_colours(
    width: int, height: int, *, foreground: Bool[np.ndarray, "h w"] | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A colour wheel over an image: hue is the angle around the middle, saturation the distance from it.

    The middle is the mean place of the foreground's pixels, white; its farthest pixel has full saturation. Red is to the right of the
    middle, and hues go round as the hands of a clock: yellow, green, then cyan to the left, blue, magenta.

    Args:
        width, height: of the image in pixels.
        foreground: (h, w) the object; None, or one without any pixel, is the whole image.

    Returns:
        (h, w, 3) uint8 RGB.

    Source: the colour transfer of sd-dino (Zhang et al. 2023), with all hues instead of a range of them.
    """
    y, x = np.indices((height, width), np.float32)
    inside = np.ones((height, width), bool) if foreground is None or not foreground.any() else foreground
    x -= x[inside].mean(dtype=np.float64)
    y -= y[inside].mean(dtype=np.float64)
    radius = np.hypot(x, y)
    saturation = np.minimum(1, radius / max(float(radius[inside].max()), 0.5))
    hue = np.arctan2(y, x) / (2 * np.pi) % 1
    return np.asarray(np.rint(255 * hsv_to_rgb(np.dstack([hue, saturation, np.ones_like(hue)]))).astype(np.uint8))


def _pictures(pair: WarpedPair) -> list[list[tuple[str, Any, dict[str, Any]]]]:
    """Two rows of three pictures, each with its name and how it is drawn."""
    wheel = polar_colours(pair.image_a.shape[1], pair.image_a.shape[0], foreground=pair.foreground)
    carried = warp(wheel, pair.flow)
    return [
        [
            ("A", pair.image_a, {}),
            ("B", pair.image_b, {}),
            ("A’s colours in the shape of B", warp(pair.image_a, pair.flow), {}),
        ],
        [
            ("a colour wheel on A", _shaded(wheel, pair.image_a, pair.foreground), {}),
            ("the wheel carried to B", _shaded(carried, pair.image_b, pair.flow.known), {}),
            ("confidence, from 0 to 1", pair.flow.confidence, {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}),
        ],
    ]


def _shaded(
    colours: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"] | None
) -> Float[np.ndarray, "h w 3"]:
    """Colours from 0 to 1, darker where the image is; grey where there are none."""
    grey = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] / 255
    painted = colours / np.float32(255) * (1 - _GREY + _GREY * grey)
    kept = painted if where is None else np.where(where[..., None], painted, np.repeat(grey, 3, axis=2))
    return np.asarray(kept.clip(0, 1))
