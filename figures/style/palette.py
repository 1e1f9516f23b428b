"""Colours for classes, and for right and wrong."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgb

#: Okabe and Ito's colours, told apart with every common form of colour blindness; their black as a dark grey, for marks have dark outlines.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#5A5A5A")
#: With more classes the colours come again: darker, then lighter.
_TURNS = ((0.0, 0.0), (0.0, 0.45), (1.0, 0.45))
#: Right and wrong: blue and orange-red are told apart with every common form of colour blindness, and are bright enough for lines on photos.
RIGHT, WRONG = (0.18, 0.56, 1.0), (1.0, 0.36, 0.06)
#: What is not to be looked at.
ASIDE = (0.72, 0.72, 0.72)


def class_colours(ways: int) -> list[tuple[float, float, float]]:
    """A colour for each class: eight, then the same eight darker, then lighter, then again."""
    colours = []
    for way in range(ways):
        towards, share = _TURNS[way // len(_COLOURS) % len(_TURNS)]
        colours.append(mixed(to_rgb(_COLOURS[way % len(_COLOURS)]), towards, share))
    return colours


def mixed(colour: tuple[float, float, float], towards: float, share: float) -> tuple[float, float, float]:
    """A colour mixed with black (0) or white (1)."""
    r, g, b = (float(part + (towards - part) * share) for part in colour)
    return r, g, b


def luminance(colours: Float[np.ndarray, "*s 3"]) -> Float[np.ndarray, "*s"]:
    """How bright colours are, from 0 to 1: the weights of ITU-R BT.601 on RGB as it is stored."""
    return np.asarray(colours @ np.array([0.299, 0.587, 0.114]))
