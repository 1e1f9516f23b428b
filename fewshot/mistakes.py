"""Which classes are taken for which, over all episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.report import Report


@dataclass(frozen=True)
class Confusion:
    """Queries by their class and by the class they were given, summed over episodes.

    counts: (C, C) queries of class i (row) that were labelled j (column). met: (C, C) queries of class i in episodes in which j was
    among the classes, so that counts/met is comparable between pairs that met often and seldom. On the diagonal, met is all of them.
    """

    counts: Int64[np.ndarray, "C C"]
    met: Int64[np.ndarray, "C C"]

    @property
    def recall(self) -> Float[np.ndarray, "C"]:
        """Share of each class's queries that are right; not a number for a class that was never asked for."""
        return self._share(np.diagonal(self.counts), np.diagonal(self.met))

    @property
    def rates(self) -> Float[np.ndarray, "C C"]:
        """counts/met; not a number for classes that never met."""
        return self._share(self.counts, self.met)

    @staticmethod
    def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def confusion(report: Report, episodes: Episodes, classes: int) -> Confusion:
    """Count the predictions of a report on the episodes that it was made from.

    Args:
        classes: C, how many classes the table has; rows and columns are their indices, as in `episodes.classes`.
    """
    count, ways, queries = episodes.query.shape
    asked = episodes.query >= 0
    chosen = report.predictions[:, : ways * queries].reshape(count, ways, queries).astype(np.int64)
    given = np.take_along_axis(episodes.classes, chosen.clip(min=0).reshape(count, -1), axis=1).reshape(chosen.shape)
    truth = np.broadcast_to(episodes.classes[:, :, None], given.shape)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth[asked], given[asked]), 1)
    met = np.zeros((classes, classes), np.int64)
    number = asked.sum(axis=2)
    for way in range(ways):  # class `way` of every episode against all of its classes
        both = (episodes.classes >= 0) & (episodes.classes[:, way, None] >= 0)
        rows = np.broadcast_to(episodes.classes[:, way, None], both.shape)
        np.add.at(met, (rows[both], episodes.classes[both]), np.broadcast_to(number[:, way, None], both.shape)[both])
    return Confusion(counts, met)
