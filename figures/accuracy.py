"""Accuracy against shots: a line a method, with its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fewmatch.figures.style.lettering import cut, wrapped
from fewmatch.figures.style.palette import class_colours
from fewmatch.figures.style.style import INK, MUTED

_MARKS = "os^Dv<>ph*XP"


def accuracy_figure(
    series: Mapping[str, Sequence[tuple[int, float, float | None]]],
    *,
    title: str = "",
    note: str = "",
    chance: float | None = None,
) -> Figure:
    """Draw the accuracy of methods over the number of shots.

    Args:
        series: for each method, by name: (shots, accuracy, half-width of the interval or None), accuracies as fractions.
        title: a line above. note: small lines below. chance: accuracy of guessing, drawn as a dashed line.

    Returns:
        A matplotlib figure, not connected to any window; see `save_figure`.

    Raises:
        ValueError: nothing to draw.
    """
    if not any(series.values()):
        raise ValueError("expected at least one method with an accuracy")
    lines = wrapped(note, 8.5, 8.2)
    figure = Figure(figsize=(9.0, 5.2 + 0.17 * len(lines)), dpi=120, facecolor="white")
    height = figure.get_figheight()
    axes = figure.add_axes((0.08, (0.75 + 0.17 * len(lines)) / height, 0.58, 3.95 / height))
    all_shots = sorted({shots for points in series.values() for shots, *_ in points})
    # Equal steps for unequal shots: 1, 5 and 20 are what is compared, not their distances.
    place = {shots: i for i, shots in enumerate(all_shots)}
    spread = np.linspace(-0.12, 0.12, len(series)) if len(series) > 1 else [0.0]
    order = sorted(series, key=lambda name: -max(point[1] for point in series[name]) if series[name] else 0.0)
    colours = dict(zip(series, class_colours(len(series)), strict=True))
    marks = {name: _MARKS[i % len(_MARKS)] for i, name in enumerate(series)}
    for name, shift in zip(order, spread, strict=True):
        points = sorted(series[name])
        axes.errorbar(
            [place[shots] + shift for shots, *_ in points],
            [100 * accuracy for _, accuracy, _ in points],
            yerr=[100 * (half or 0.0) for *_, half in points],
            color=colours[name],
            marker=marks[name],
            markersize=6,
            markeredgecolor=INK,
            markeredgewidth=0.5,
            linewidth=1.6,
            elinewidth=1.1,
            capsize=2.5,
            label=cut(name, 34),
        )
    if chance is not None:
        axes.axhline(100 * chance, color=MUTED, linestyle="--", linewidth=0.9)
        axes.annotate(
            "chance",
            (1.0, 100 * chance),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
            annotation_clip=False,
        )
    axes.set_xticks(range(len(all_shots)), [str(shots) for shots in all_shots])
    axes.set_xlim(-0.4, len(all_shots) - 0.6)
    axes.set_xlabel("shots (supports per class)", color=INK)
    axes.set_ylabel("accuracy, %", color=INK)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.legend(loc="upper left", bbox_to_anchor=(1.1, 1.02), frameon=False, fontsize=8.8, labelspacing=0.55)
    if title:
        figure.text(0.02, 1 - 0.14 / height, title, va="top", fontsize=12, color=INK, parse_math=False)
    for number, line in enumerate(lines):
        figure.text(
            0.02,
            (0.17 * (len(lines) - number) - 0.05) / height,
            line,
            va="bottom",
            fontsize=8.5,
            color=MUTED,
            parse_math=False,
        )
    return figure
