"""Confusion: which classes are labelled as which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from fewmatch.figures.style.lettering import cut
from fewmatch.figures.style.style import INK, MUTED

#: More classes than this cannot be read; the worst are shown.
MOST = 30


def confusion_figure(
    rates: Float[np.ndarray, "C C"], class_names: Sequence[str], *, title: str = "", note: str = ""
) -> Figure:
    """Draw how often queries of each class (row) get each label (column).

    Args:
        rates: (C, C) fractions, not a number where two classes never met.
        class_names: the C classes. With more than `MOST`, those with the lowest diagonal are drawn.
        title: a line above. note: a small line below.

    Returns:
        A matplotlib figure, not connected to any window; see `save_figure`.

    Raises:
        ValueError: shapes that do not fit.
    """
    if rates.shape != (len(class_names), len(class_names)):
        raise ValueError(f"expected rates of shape ({len(class_names)}, {len(class_names)}), got {rates.shape}")
    kept = np.arange(len(class_names))
    if len(kept) > MOST:
        kept = np.sort(np.argsort(np.nan_to_num(np.diagonal(rates), nan=2.0), kind="stable")[:MOST])
        note = f"{note + '; ' if note else ''}the {MOST} classes with the lowest accuracy of {len(class_names)}"
    shown, names = rates[np.ix_(kept, kept)], [cut(class_names[int(i)], 22) for i in kept]
    n = len(kept)
    cell = max(0.32, min(0.62, 7.0 / n))
    label = 0.072 * max(len(name) for name in names) + 0.25
    above, right, below = (0.5 if title else 0.2), 0.35, label + (0.5 if note else 0.3)
    width, height = label + n * cell + right + 0.35, above + n * cell + below
    figure = Figure(figsize=(max(width, 4.6), height), dpi=120, facecolor="white")
    width = figure.get_figwidth()
    axes = figure.add_axes(((label + 0.35) / width, below / height, n * cell / width, n * cell / height))
    axes.imshow(np.ma.masked_invalid(shown), vmin=0, vmax=1, cmap="Blues", aspect="equal", interpolation="nearest")
    size = 6.0 + 3.0 * (cell - 0.32) / 0.3
    for row in range(n):
        for column in range(n):
            value = shown[row, column]
            if np.isfinite(value) and round(100 * value) > 0:
                axes.text(
                    column,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=size,
                    color="white" if value > 0.55 else INK,
                )
    axes.set_xticks(range(n), names, rotation=90 if n > 8 or label > 0.9 else 0, fontsize=8.5, parse_math=False)
    axes.set_yticks(range(n), names, fontsize=8.5, parse_math=False)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("labelled as", color=INK, fontsize=9.5)
    axes.set_ylabel("class", color=INK, fontsize=9.5)
    axes.spines[:].set_visible(False)
    if title:
        figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", fontsize=11.5, color=INK, parse_math=False)
    if note:
        figure.text(0.1 / width, 0.07 / height, note, va="bottom", fontsize=8, color=MUTED, parse_math=False)
    return figure
