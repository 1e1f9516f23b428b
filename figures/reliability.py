"""Reliability: how often the answers are right that are given with some confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewmatch.figures.style.lettering import cut
from fewmatch.figures.style.style import INK, MUTED

_BLUE, _ORANGE = "#7ea6d6", "#d65f0e"


def draw_reliability(
    axes: Axes,
    count: Int[np.ndarray, "b"],
    confidence: Float[np.ndarray, "b"],
    accuracy: Float[np.ndarray, "b"],
    *,
    title: str = "",
    text: str = "",
) -> None:
    """Draw one reliability diagram (Guo et al. 2017) on given axes.

    Args:
        axes: a square field; it is cleared of nothing and set from 0 to 1.
        count, confidence, accuracy: (b,) for b equal bins of confidence; what an empty bin holds is not drawn.
        title: above. text: in the corner, such as the calibration error.
    """
    bins = len(count)
    there = np.flatnonzero(count > 0)
    left = there / bins
    share = count[there] / max(1, count.sum())
    axes.bar(
        left, accuracy[there], width=1 / bins, align="edge", color=_BLUE, edgecolor="white", linewidth=0.6, zorder=2
    )
    axes.hlines(confidence[there], left, left + 1 / bins, color=_ORANGE, linewidth=2.2, zorder=5)
    axes.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=0.9, zorder=4)
    axes.bar(
        left,
        0.09 * share / max(share.max(), 1e-12) if len(share) else share,
        width=1 / bins,
        align="edge",
        bottom=-0.12,
        color=MUTED,
        edgecolor="white",
        linewidth=0.4,
        zorder=2,
    )
    axes.axhline(0, color=INK, linewidth=0.8, zorder=5)
    axes.set(xlim=(0, 1), ylim=(-0.13, 1), aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5)
    axes.set_xlabel("confidence", color=INK, fontsize=9.5)
    axes.set_ylabel("share that is right", color=INK, fontsize=9.5)
    if title:
        axes.set_title(cut(title, 40), fontsize=10, color=INK, loc="left", parse_math=False)
    if text:
        axes.text(
            0.03,
            0.97,
            text,
            transform=axes.transAxes,
            va="top",
            fontsize=8.8,
            color=INK,
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
            zorder=6,
        )


def reliability_figure(
    diagrams: Sequence[tuple[str, str, Int[np.ndarray, "b"], Float[np.ndarray, "b"], Float[np.ndarray, "b"]]],
    *,
    title: str = "",
) -> Figure:
    """Several reliability diagrams side by side.

    Args:
        diagrams: (title, text, count, confidence, accuracy) of each; see `draw_reliability`.
        title: a line above all.

    Returns:
        A matplotlib figure, not connected to any window; see `save_figure`.

    Raises:
        ValueError: no diagrams.
    """
    if not diagrams:
        raise ValueError("expected at least one diagram")
    columns = min(4, len(diagrams))
    rows = -(-len(diagrams) // columns)
    above, below = 0.75 if title else 0.4, 0.75
    figure = Figure(figsize=(3.3 * columns + 0.2, 3.6 * rows + above + below - 0.85), dpi=120, facecolor="white")
    width, height = figure.get_size_inches()
    for number, (name, text, count, confidence, accuracy) in enumerate(diagrams):
        row, column = divmod(number, columns)
        axes = figure.add_axes(
            ((0.7 + 3.3 * column) / width, 1 - (above + 2.75 + 3.6 * row) / height, 2.45 / width, 2.75 / height)
        )
        draw_reliability(axes, count, confidence, accuracy, title=name, text=text)
        if column:
            axes.set_ylabel("")
    if title:
        figure.text(0.15 / width, 1 - 0.12 / height, title, va="top", fontsize=12, color=INK, parse_math=False)
    figure.text(
        0.15 / width,
        0.09 / height,
        "blue: share that is right; orange: mean confidence; grey, below: how many answers",
        va="bottom",
        fontsize=8,
        color=MUTED,
    )
    return figure
