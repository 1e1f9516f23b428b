"""Text on figures: as it is (no mathematics in it), measured, cut and wrapped."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from figures.style import INK


def write(axes: Axes, x: float, y: float, text: str, *, size: float, color: Any = INK, **options: Any) -> Any:
    return axes.text(x, y, text, fontsize=size, color=color, parse_math=False, **options)


def text_box(text: str, size: float) -> tuple[float, float]:
    """Width and height of a bold line of text with a little air, in inches."""
    width, height, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight="bold"), False)
    return width / 72 + 0.1, max(height, 0.8 * size) / 72 + 0.08


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Lines of words that are no wider than so many inches."""
    lines: list[str] = []
    for word in text.split():
        if (
            lines
            and text_to_path.get_text_width_height_descent(f"{lines[-1]} {word}", FontProperties(size=size), False)[0]
            <= 72 * width
        ):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
