"""What to tell of an episode: which images are worth showing, and what the plane shows in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewmatch.fewshot.plane import EpisodePlane


@dataclass(frozen=True)
class TellingImage:
    """An image that is worth a thumbnail: support or query `number` (from 0) of class `way`.

    role: `wrong` (a query that is classified wrong), `doubtful` (one that is right, but least sure) or `support` (one near its mean).
    """

    role: Literal["wrong", "support", "doubtful"]
    way: int
    number: int


def telling_images(plane: EpisodePlane, limit: int = 12) -> list[TellingImage]:
    """The images that say most about an episode, most telling first.

    Up to five wrong queries, the surest first; of each class the support nearest to its mean in the plane, where there are no more than
    six classes; then up to four right queries that are least sure.
    """
    if limit < 1:
        return []
    sure = plane.probabilities.max(axis=2)
    wrong = sorted(np.argwhere(~plane.right).tolist(), key=lambda q: -sure[tuple(q)])
    doubtful = sorted(np.argwhere(plane.right).tolist(), key=lambda q: sure[tuple(q)])
    told = [TellingImage("wrong", *q) for q in wrong[:5]]
    if plane.ways <= 6:
        off = np.linalg.norm(plane.support - plane.means[:, None], axis=2)
        told += [TellingImage("support", way, int(number)) for way, number in enumerate(off.argmin(axis=1))]
    told += [TellingImage("doubtful", *q) for n, q in enumerate(doubtful[:4]) if n < 2 or sure[tuple(q)] < 0.9]
    return told[:limit]


def explain(plane: EpisodePlane) -> str:
    """What the picture shows, in a sentence or two: how many are right, and what the plane can say about it."""
    count = plane.right.size
    text = f"{int(plane.right.sum())} of {count} {'query' if count == 1 else 'queries'} right. "
    dimensions = f"all {plane.dimensions:,} dimensions"
    if plane.rank == 0:
        return text + "The class means coincide: nothing decides, and every query goes to the first class."
    if plane.rank == 1:
        return text + (
            f"Exact from left to right, which decides every query as {dimensions} do; up and down is the largest "
            "remaining spread of the images and decides nothing."
        )
    if plane.exact:
        return text + f"Exact: the class mean nearest to a query in this plane is the nearest one in {dimensions}."
    astray = int((plane.nearest(plane.query) != plane.predicted).sum())
    return text + (
        f"The best two of {min(plane.ways - 1, plane.dimensions)} directions, with {100 * plane.shown:.0f} % of the spread of the "
        f"class means. Regions are those of the picture; right and wrong are decided in {dimensions}"
        + (
            f", where {astray} of the queries {'goes' if astray == 1 else 'go'} to another class than here."
            if astray
            else "."
        )
    )
