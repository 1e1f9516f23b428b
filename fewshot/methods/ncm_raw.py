"""Nearest class mean straight from raw vectors: `center_episodes` and `ncm` in one, for many episodes on a CPU.

With m the mean that is subtracted, n = ‖x − m‖ and μ a prototype, the score 2 z·μ − ‖μ‖² of z = (x − m)/n is 2 (x·μ − m·μ)/n − ‖μ‖², and
n² = ‖x‖² − 2 x·m + ‖m‖². So one product of the raw queries with the prototypes and m gives all that is asked of a query, and no
centred or normalised query is ever written. NumPy's matrix product is used because torch's is three times slower for so narrow a shape.
"""

from __future__ import annotations

import threading

import numpy as np
from jaxtyping import Float, Float32, Int, Integer

from fewmatch.fewshot.centering import Center

#: n² / (‖x‖² + ‖m‖²) at and below which the expansion loses too many digits (and where it is zero or not a number).
_SAFE = 1 / 8


class RawNearestMean:
    """Nearest class mean over the rows of one table, for episodes of one shape.

    Its buffers belong to the thread that uses them: one object serves any number of threads.
    """

    def __init__(
        self,
        x: Float32[np.ndarray, "n d"],
        *,
        ways: int,
        shots: int,
        queries: int,
        center: Center,
        metric: str,
        episodes_at_once: int,
    ) -> None:
        """Take in a table: already centred and of unit length for none, base and feature, near the origin for the other modes."""
        self.x, self.ways, self.shots, self.center, self.metric = x, ways, shots, center, metric
        self._squared = np.einsum("nd,nd->n", x, x)
        self._rows, self._at_once = ways * (shots + queries), episodes_at_once
        # Places of class w's supports in row w of a (ways, supports) matrix laid flat.
        supports = ways * shots
        self._own = np.arange(supports) // shots * supports + np.arange(supports)
        self._memory = threading.local()

    def predict(
        self, support: Integer[np.ndarray, "e w k"], query: Integer[np.ndarray, "e w q"]
    ) -> Int[np.ndarray, "e w*q"] | None:
        """The nearest class of each query, in the order of `query`; ties go to the lowest.

        None where the expansion would lose digits or a centred vector is zero: then vectors have to be centred one by one.
        """
        e, supports = len(support), self.ways * self.shots
        memory = self._memory
        if not hasattr(memory, "gathered"):
            memory.gathered = np.empty((self._at_once, self._rows, self.x.shape[1]), np.float32)
            memory.right = np.empty((self._at_once, self.ways + 1, self.x.shape[1]), np.float32)
            memory.weights = np.zeros((self._at_once, self.ways * supports), np.float32)
            memory.weights[:, self._own] = 1 / self.shots
        gathered, right, weights = memory.gathered[:e], memory.right[:e], memory.weights[:e]
        rows = np.concatenate([support.reshape(e, -1), query.reshape(e, -1)], axis=1)
        # The rows are known to exist; the mode that would check them again copies through a buffer.
        self.x.take(rows, axis=0, out=gathered, mode="clip")
        s, q, mu = gathered[:, :supports], gathered[:, supports:], right[:, : self.ways]
        if self.center in ("support", "support+query", "separate"):
            dots = self._centered_dots(rows, gathered, supports, right, weights)
            if dots is None:
                return None
        else:
            np.matmul(weights.reshape(e, self.ways, supports), s, out=mu)
            dots = np.matmul(q, mu.transpose(0, 2, 1))
        squared = np.einsum("ewd,ewd->ew", mu, mu)[:, None, :]
        if self.metric == "cosine":
            dots /= np.sqrt(np.where(squared > 0, squared, 1))
        else:
            dots *= 2
            dots -= squared
        return np.asarray(dots.argmax(axis=2))

    def _centered_dots(
        self,
        rows: Integer[np.ndarray, "e r"],
        gathered: Float32[np.ndarray, "e r d"],
        supports: int,
        right: Float32[np.ndarray, "e w1 d"],
        weights: Float32[np.ndarray, "e ws"],
    ) -> Float[np.ndarray, "e q w"] | None:
        """z·μ of every query and class; leaves the prototypes in the first places of `right`."""
        e = len(rows)
        s, q, mu, m = gathered[:, :supports], gathered[:, supports:], right[:, : self.ways], right[:, self.ways :]
        _mean(gathered if self.center == "support+query" else s, out=m)
        m_support = m
        if self.center == "separate":
            m_support = m.copy()
            _mean(q, out=m)
        squared = self._squared[rows]
        m_squared = np.einsum("eod,eod->eo", m_support, m_support)
        n2 = squared[:, :supports] - 2 * np.matmul(s, m_support.transpose(0, 2, 1))[:, :, 0] + m_squared
        if not (n2 > _SAFE * (squared[:, :supports] + m_squared)).all():
            return None
        share = 1 / (self.shots * np.sqrt(n2))
        weights[:, self._own] = share
        np.matmul(weights.reshape(e, self.ways, supports), s, out=mu)
        mu -= share.reshape(e, self.ways, self.shots).sum(axis=2)[:, :, None] * m_support
        products = np.matmul(q, right.transpose(0, 2, 1))
        m_squared = np.einsum("eod,eod->eo", m, m)
        n2 = squared[:, supports:] - 2 * products[:, :, self.ways] + m_squared
        if not (n2 > _SAFE * (squared[:, supports:] + m_squared)).all():
            return None
        dots: np.ndarray = products[:, :, : self.ways] - np.matmul(m, mu.transpose(0, 2, 1))
        dots /= np.sqrt(n2)[:, :, None]
        return dots


def _mean(vectors: Float32[np.ndarray, "e r d"], out: Float32[np.ndarray, "e 1 d"]) -> None:
    """The mean of each episode's vectors, as a product: twice as fast as `mean(axis=1)`."""
    count = vectors.shape[1]
    np.matmul(np.full((1, count), 1 / count, np.float32), vectors, out=out)
