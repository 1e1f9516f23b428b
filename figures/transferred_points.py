"""Points of one image and where they were found in another, right and wrong where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fewmatch.figures.match_lines import position_colours
from fewmatch.figures.side_by_side import DPI, MARGIN, WIDTH, aspect_of, pair_boxes, sheet_axes, show, size_of
from fewmatch.figures.style.lettering import wrapped, write
from fewmatch.figures.style.palette import RIGHT, WRONG
from fewmatch.figures.style.style import MUTED

#: Areas of the large, half-transparent circles and of the small, solid ones, in square points.
_LARGE, _SMALL = 120.0, 22.0
#: A line of the caption in inches, and the size of its letters in points.
_LINE, _CAPTION_SIZE = 0.18, 9.0


@dataclass(frozen=True)
class TransferredPoints:
    """Points of A and where they were found in B.

    image_a, image_b: (h, w, 3) uint8 RGB originals. xy_a, xy_b: (K, 2) in their pixels, x then y.
    truth_b: (K, 2) where they are in B, NaN for those of which it is not known; None where nothing is known.
    radius: how far from the truth a point may be found and be right (at most so far), in pixels of B: α·T.
    caption: text below, wrapped.
    """

    image_a: UInt8[np.ndarray, "ha wa 3"]
    image_b: UInt8[np.ndarray, "hb wb 3"]
    xy_a: Float[np.ndarray, "K 2"]
    xy_b: Float[np.ndarray, "K 2"]
    truth_b: Float[np.ndarray, "K 2"] | None = None
    radius: float | None = None
    caption: str = ""


def transfer_figure(found: TransferredPoints) -> Figure:
    """Both images; the points of A as double circles, joined with where they were found in B.

    Without the truth points have the colour of their place in A. With it: blue where right, orange-red where wrong, in the colour of their
    place where it is not known; rings around the truth are as wide as a point may miss it, and a short line joins the truth with what was
    found. The caption begins with how many are right.

    Returns:
        A matplotlib figure, 1200 px wide when saved as PNG, not connected to any window; see `save_figure`.

    Raises:
        ValueError: points that are not as many in A and B, or the truth without the radius or the other way round.
    """
    if not len(found.xy_a) == len(found.xy_b) == len(found.xy_a if found.truth_b is None else found.truth_b):
        raise ValueError(f"expected as many points in A as in B, got {len(found.xy_a)} and {len(found.xy_b)}")
    if (found.truth_b is None) != (found.radius is None) or (found.radius is not None and not found.radius >= 0):
        raise ValueError("expected the truth together with a radius of 0 or more, or neither")
    colours, known, right = _judged(found)
    text = found.caption
    if known.any():
        share = 100 * right[known].mean()
        text = f"{right.sum():,} of {known.sum():,} right within {found.radius:.3g} px ({share:.0f} %). {text}"
    lines = wrapped(text, _CAPTION_SIZE, WIDTH - 2.5 * MARGIN)
    below = _LINE * len(lines) + (0.12 if lines else MARGIN)
    tall, boxes = pair_boxes(aspect_of(found.image_a), aspect_of(found.image_b))
    figure = Figure(figsize=(WIDTH, below + tall + MARGIN), dpi=DPI, facecolor="white")
    box_a, box_b = (box.raised(below) for box in boxes)
    show(figure, box_a, found.image_a)
    axes_b = show(figure, box_b, found.image_b)
    axes_b.set_autoscale_on(False)
    sheet = sheet_axes(figure)
    start, end = box_a.place(found.xy_a, size_of(found.image_a)), box_b.place(found.xy_b, size_of(found.image_b))
    joined = list(np.stack([start, end], axis=1))
    sheet.add_collection(LineCollection(joined, colors=[(0, 0, 0, 0.3)], linewidths=1.8))
    sheet.add_collection(LineCollection(joined, colors=np.column_stack([colours, np.full(len(colours), 0.8)])))
    for places in (start, end):
        x, y = places.T
        sheet.scatter(x, y, s=_LARGE, c=colours, alpha=0.45, linewidths=0, zorder=6)
        sheet.scatter(x, y, s=_SMALL, c=colours, edgecolors="white", linewidths=0.7, zorder=7)
    if found.truth_b is not None and found.radius is not None:
        _draw_truth(axes_b, found, known)
    for number, line in enumerate(lines):
        lower = below - 0.06 - _LINE * number
        write(sheet, MARGIN, lower, line, size=_CAPTION_SIZE, color=MUTED, ha="left", va="top")
    return figure


def _judged(
    found: TransferredPoints,
) -> tuple[Float[np.ndarray, "K 3"], Bool[np.ndarray, "K"], Bool[np.ndarray, "K"]]:
    """A colour for each point, whether its truth is known, and whether it is right."""
    colours = position_colours((found.xy_a + 0.5) / size_of(found.image_a))
    none = np.zeros(len(found.xy_a), bool)
    if found.truth_b is None or found.radius is None:
        return colours, none, none
    known = np.isfinite(found.truth_b).all(axis=1)
    right = np.hypot(*(found.xy_b - found.truth_b).T) <= found.radius  # NaN is not
    judged = np.where(right[:, None], RIGHT, WRONG)
    return np.where(known[:, None], judged, colours), known, right


def _draw_truth(axes_b: Axes, found: TransferredPoints, known: Bool[np.ndarray, "K"]) -> None:
    """In pixels of B and cut off at its edge, like everything in the picture."""
    truth, radius = found.truth_b, found.radius
    assert truth is not None and radius is not None
    misses = list(np.stack([truth[known], found.xy_b[known]], axis=1))
    for colour, more in (("black", 1.1), ("white", 0.0)):
        for x, y in truth[known]:
            ring = Circle((x, y), radius, fill=False, edgecolor=colour, linewidth=1.1 + more, alpha=0.85)
            axes_b.add_patch(ring)
        axes_b.add_collection(LineCollection(misses, colors=[colour], linewidths=1.2 + more))
