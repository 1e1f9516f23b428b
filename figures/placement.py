"""Where labels and thumbnails go: near what they belong to, on none of what is there already."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

#: A cell of the paper, and the distance between places that are tried, in inches (a whole number of cells).
_CELL, _STEP = 0.02, 0.06
#: What an inch of line over other marks costs, in inches of line: so much further away is better than crossing them.
_CROSSING = 20.0
#: Of so many nearest free places the lines are looked at.
_TRIED = 250
#: Samples along a line.
_SAMPLES = 80


class Paper:
    """A sheet of paper, in inches from its lower left corner, that remembers what lies on it."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        shape = (math.ceil(height / _CELL), math.ceil(width / _CELL))
        self._marks = np.zeros(
            shape, bool
        )  # points and lines: nothing may lie on them, lines would rather not cross them
        self._solid = np.zeros(shape, bool)  # texts and pictures: nothing may lie on them, no line may cross them

    def add_disc(self, x: float, y: float, radius: float) -> None:
        """A point that must not be covered."""
        rows, columns = self._cells(x - radius, y - radius, x + radius, y + radius)
        across = (np.arange(columns.start, columns.stop) + 0.5) * _CELL - x
        up = (np.arange(rows.start, rows.stop) + 0.5) * _CELL - y
        self._marks[rows, columns] |= across**2 + up[:, None] ** 2 <= radius**2

    def add_box(self, x: float, y: float, width: float, height: float) -> None:
        """A text or picture with its lower left corner at (x, y)."""
        self._solid[self._cells(x, y, x + width, y + height)] = True

    def place(
        self,
        anchor: tuple[float, float],
        size: tuple[float, float],
        *,
        away: float = 0.0,
        reach: float = math.inf,
        covering: float | None = None,
    ) -> tuple[float, float] | None:
        """The lower left corner of the best free place for a box that belongs to a point, or None; the box and its line then lie there.

        Best is near, with a line from the point to the box that crosses little.

        Args:
            anchor: (x, y) of the point. size: width and height of the box.
            away, reach: least and largest distance of the box from the point.
            covering: None for a box that must lie on nothing. Else it may lie on marks (never on texts and pictures), and a box all on marks
                counts as so many inches further away.
        """
        width, height = size
        x, y = np.meshgrid(
            np.arange(0, self.width - width, _STEP), np.arange(0, self.height - height, _STEP), indexing="xy"
        )
        corners = np.stack([x.ravel(), y.ravel()], axis=1)
        distance = np.hypot(*(np.clip(anchor, corners, corners + size) - anchor).T)
        marked = _filled(self._marks, corners, size)
        possible = (_filled(self._solid, corners, size) == 0) & (distance >= away) & (distance <= reach)
        if covering is None:
            possible &= marked == 0
        else:
            distance = distance + covering * marked
        candidates = np.flatnonzero(possible)
        candidates = candidates[np.argsort(distance[candidates], kind="stable")[:_TRIED]]
        if not len(candidates):
            return None
        share = np.linspace(0, 1, _SAMPLES)[:, None, None]
        ends = line_end(anchor, corners[candidates], size)
        lines = anchor + share * (ends - anchor)  # (samples, candidates, 2)
        rows = np.minimum((lines[..., 1] / _CELL).astype(int), self._marks.shape[0] - 1)
        columns = np.minimum((lines[..., 0] / _CELL).astype(int), self._marks.shape[1] - 1)
        length = np.hypot(*(ends - anchor).T)
        # A line leaves from amid its own point and its neighbours: what lies there is not crossed.
        counted = np.linspace(0, 1, _SAMPLES)[:, None] * length > away
        crossed = (self._marks[rows, columns] & counted).mean(axis=0) * length
        blocked = (self._solid[rows, columns] & counted).any(axis=0)
        cost = np.where(blocked, np.inf, distance[candidates] + _CROSSING * crossed)
        best = int(cost.argmin())
        if not np.isfinite(cost[best]):
            return None
        self._marks[rows[:, best], columns[:, best]] |= counted[:, best]
        corner = corners[candidates[best]]
        self.add_box(float(corner[0]), float(corner[1]), width, height)
        return float(corner[0]), float(corner[1])

    def _cells(self, left: float, bottom: float, right: float, top: float) -> tuple[slice, slice]:
        rows, columns = self._marks.shape
        return (
            slice(max(0, int(bottom / _CELL)), min(rows, math.ceil(top / _CELL))),
            slice(max(0, int(left / _CELL)), min(columns, math.ceil(right / _CELL))),
        )


def line_end(
    anchor: tuple[float, float], corners: Float[np.ndarray, "n 2"], size: tuple[float, float]
) -> Float[np.ndarray, "n 2"]:
    """Where lines from a point outside of boxes towards their middles reach them; the point itself where it is inside."""
    half = np.array(size) / 2
    way = corners + half - anchor
    inside = 1 / np.maximum(np.abs(way / half).max(axis=1, keepdims=True), 1)  # share of the line that lies in the box
    return np.asarray(anchor + way * (1 - inside))


def _filled(cells: np.ndarray, corners: Float[np.ndarray, "n 2"], size: tuple[float, float]) -> Float[np.ndarray, "n"]:
    """The share of cells that are taken under a box at each of these corners, from sums over all rectangles that start at the origin."""
    sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1))
    sums[1:, 1:] = cells.cumsum(axis=0).cumsum(axis=1)
    left, bottom = (corners / _CELL + 1e-6).astype(int).T
    right = np.minimum(np.ceil((corners[:, 0] + size[0]) / _CELL).astype(int), cells.shape[1])
    top = np.minimum(np.ceil((corners[:, 1] + size[1]) / _CELL).astype(int), cells.shape[0])
    taken = sums[top, right] - sums[bottom, right] - sums[top, left] + sums[bottom, left]
    return np.asarray(taken / ((top - bottom) * (right - left)))
