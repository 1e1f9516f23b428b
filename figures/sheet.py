"""Contact sheets: many small pictures with what was said of each."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from fewmatch.figures.style.lettering import cut
from fewmatch.figures.style.style import INK, MUTED

# Blue to orange-red passes every common form of colour blindness, and grey prints keep the order.
_SURE, _DOUBTFUL = np.array([0.27, 0.46, 0.71]), np.array([0.84, 0.37, 0.05])
_NONE = np.array([0.6, 0.6, 0.6])


def contact_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    labels: Sequence[str],
    probabilities: Sequence[float],
    *,
    rejected: Sequence[bool] | None = None,
    title: str = "",
    columns: int = 10,
) -> Figure:
    """Pictures in rows, in the order given, each with its label and probability and a bar that shows the probability.

    Args:
        pictures: (h, w, 3) uint8 RGB, of any size and shape; each is shown whole.
        labels, probabilities: one per picture; probabilities from 0 to 1.
        rejected: which pictures belong to no class; their labels are slanted, their bars grey and without a number.
        title: a line above the sheet.
        columns: pictures in a row.

    Returns:
        A matplotlib figure, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no pictures, or not as many labels or probabilities.
    """
    if not pictures or not len(pictures) == len(labels) == len(probabilities):
        raise ValueError(
            f"expected as many labels and probabilities as pictures, got {len(pictures)}, {len(labels)}, {len(probabilities)}"
        )
    if rejected is not None and len(rejected) != len(pictures):
        raise ValueError(f"expected to hear of {len(pictures)} pictures whether they are rejected, got {len(rejected)}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell, header = 1.25, 0.45 if title else 0.1
    figure = Figure(figsize=(max(columns * cell, 5.0), rows * (cell + 0.35) + header), dpi=120, facecolor="white")
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.02,
        right=0.98,
        bottom=0.3 / figure.get_figheight(),
        top=1 - header / figure.get_figheight(),
        wspace=0.12,
        hspace=0.42,
    )
    for index, (picture, label, probability) in enumerate(zip(pictures, labels, probabilities, strict=True)):
        axes = figure.add_subplot(grid[index // columns, index % columns])
        # On a square field, so that tall and wide pictures keep their shape and the rows stay level.
        side = max(picture.shape[:2])
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side * 1.09 - 0.5, -0.5), aspect="equal")
        axes.axis("off")
        top, left = (side - picture.shape[0]) / 2 - 0.5, (side - picture.shape[1]) / 2 - 0.5
        axes.imshow(
            picture,
            extent=(left, left + picture.shape[1], top + picture.shape[0], top),
            interpolation="nearest" if side < 64 else "antialiased",
            zorder=1,
        )
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side * 1.09 - 0.5, -0.5))
        axes.barh(side * 1.045 - 0.5, side, left=-0.5, height=side * 0.05, color="#e6e6e6", zorder=2)
        none = rejected is not None and rejected[index]
        colour = _NONE if none else _DOUBTFUL + (_SURE - _DOUBTFUL) * probability
        axes.barh(side * 1.045 - 0.5, side * probability, left=-0.5, height=side * 0.05, color=tuple(colour), zorder=3)
        axes.text(
            -0.5,
            side * 1.11 - 0.5,
            cut(label, 13 if none else 12),
            ha="left",
            va="top",
            fontsize=9.0 if none else 9.5,
            color=MUTED if none else INK,
            style="italic" if none else "normal",
            parse_math=False,
        )
        if not none:  # the probability of a class that the picture is not given to would only puzzle
            axes.text(
                side - 0.5, side * 1.11 - 0.5, f"{probability:.2f}", ha="right", va="top", fontsize=8.5, color=MUTED
            )
    if title:
        figure.text(
            0.02,
            1 - 0.12 / figure.get_figheight(),
            title,
            ha="left",
            va="top",
            fontsize=11,
            color=INK,
            parse_math=False,
        )
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure; the same figure gives the same bytes (no dates, no version stamps). Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    changing = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix.lower())
    with (
        matplotlib.rc_context({"svg.hashsalt": "fewmatch"}),  # else every SVG gets random ids
        warnings.catch_warnings(),
    ):
        # A name in letters that the font lacks is drawn as boxes; the figure is good all the same.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        figure.savefig(path, metadata=None if changing is None else {changing: None})
    return path
