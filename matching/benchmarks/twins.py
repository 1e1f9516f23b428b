"""Left and right: which of the named points of an object is which other's mirror image."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OTHER = {"left": "right", "right": "left"}
_SIDE = re.compile(r"(?<![A-Za-z])(left|right)(?![A-Za-z])", re.IGNORECASE)


def twins_of(names: Sequence[str]) -> tuple[int, ...]:
    """Of each name the index of the one that says left for right and right for left; its own where there is none.

    >>> twins_of(["left_eye", "nose", "right_eye", "left wing"])
    (2, 1, 0, 3)
    """
    index = {name.lower(): i for i, name in enumerate(names)}
    return tuple(
        index.get(_SIDE.sub(lambda side: _OTHER[side[0].lower()], name).lower(), i) for i, name in enumerate(names)
    )
