"""Left and right: which of the named points of an object is which other's mirror image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: The entry of a point whose mirror image is not among the points.
ABSENT = -1

_OTHER = {"left": "right", "right": "left"}
_SIDE = re.compile(r"(?<![A-Za-z])(left|right)(?![A-Za-z])", re.IGNORECASE)


def twins_of(names: Sequence[str]) -> tuple[int, ...]:
    """For each name the index of the one that says left for right and right for left.

    A name with neither word is its own mirror image and has its own index; one whose counterpart is missing has `ABSENT`.

    >>> twins_of(["left_eye", "nose", "right_eye", "left wing"])
    (2, 1, 0, -1)
    """
    index = {name.lower(): i for i, name in enumerate(names)}
    return tuple(
        index.get(_SIDE.sub(lambda side: _OTHER[side[0].lower()], name).lower(), ABSENT) if _SIDE.search(name) else i
        for i, name in enumerate(names)
    )


def twins_by_number(numbers: Sequence[int], pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """The same for points with numbers, of which `pairs` are left and right of each other and all others their own mirror images.

    >>> twins_by_number([4, 7, 5, 9], [(4, 5), (8, 9)])
    (2, 1, 0, -1)
    """
    other = {one: two for pair in pairs for one, two in (pair, pair[::-1])}
    index = {number: i for i, number in enumerate(numbers)}
    return tuple(index.get(other[number], ABSENT) if number in other else i for i, number in enumerate(numbers))
