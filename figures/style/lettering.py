"""Text on figures: as it is (no mathematics in it), measured, cut and wrapped."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from fewmatch.figures.style.style import INK


def write(axes: Axes, x: float, y: float, text: str, *, size: float, color: Any = INK, **options: Any) -> Any:
    return axes.text(x, y, text, fontsize=size, color=color, parse_math=False, **options)


def text_box(text: str, size: float) -> tuple[float, float]:
    """Width and height of a bold line of text with a little air, in inches."""
    width, height, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight="bold"), False)
    return width / 72 + 0.1, max(height, 0.8 * size) / 72 + 0.08


#: A PNG's letters begin at whole pixels, so a line can be so much wider than its outlines say.
_ROUNDING = 1.04


def text_width(text: str, size: float) -> float:
    """The width that a line of text needs, in inches."""
    width = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0]
    return _ROUNDING * float(width) / 72


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Lines of words that are no wider than so many inches; a word that is wider itself is broken."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
            continue
        while text_width(word, size) > width and len(word) > 1:
            kept = max(1, _longest(word, size, width))
            lines.append(word[:kept])
            word = word[kept:]
        lines.append(word)
    return lines


def fitting(text: str, size: float, width: float) -> str:
    """As much of a text as fits into so many inches, with … where it is cut."""
    if text_width(text, size) <= width:
        return text
    return text[: _longest(text, size, width, "…")] + "…"


def _longest(text: str, size: float, width: float, end: str = "") -> int:
    """How many letters of a text that is too wide fit, with this end; less than all of them."""
    return bisect_right(range(1, len(text)), width, key=lambda kept: text_width(text[:kept] + end, size))


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
