"""Episodes over a table of features: accuracy with its interval."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from encoders.errors import InputError
from fewshot.centering import (
    TRANSDUCTIVE,
    Center,
    center_episodes_,
    center_table,
    check_base,
    check_center,
    mean_vector,
    shifted,
    unit,
)
from fewshot.episodes import Episodes
from fewshot.methods import find_method
from fewshot.methods.ncm import check_metric
from fewshot.methods.ncm_raw import RawNearestMean
from fewshot.parallel import in_chunks
from fewshot.table import as_table

#: Bytes of gathered vectors that are worked on at a time. On a CPU they should fit in the caches, or every step waits for memory.
_CHUNK_BYTES = {"cpu": 8 * 2**20}
_CHUNK_BYTES_ELSEWHERE = 256 * 2**20


@dataclass(frozen=True)
class Report:
    """The result of one method on one set of episodes.

    accuracy: mean over episodes, as a fraction. ci95: half-width 1.96·s/√n over the n episodes, s with ddof 1; None for one episode.
    per_episode: (E,) the accuracy of each episode, so that methods on the same episodes can be compared in pairs.
    transductive: whether the queries were used as a set. seconds: what the computation took.
    """

    method: str
    center: Center
    metric: str
    prenormalize: bool
    ways: int
    shots: int
    queries: int
    episodes: int
    accuracy: float
    ci95: float | None
    seconds: float
    per_episode: Float[np.ndarray, "E"]

    @property
    def transductive(self) -> bool:
        return self.center in TRANSDUCTIVE

    def to_json(self) -> dict[str, Any]:
        """One entry of `results` in the command's JSON."""
        return {
            "method": self.method,
            "center": self.center,
            "transductive": self.transductive,
            "metric": self.metric,
            "prenormalize": self.prenormalize,
            "ways": self.ways,
            "shots": self.shots,
            "queries": self.queries,
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "seconds": self.seconds,
        }


def evaluate(
    features: Float[np.ndarray | Tensor, "N D"],
    labels: Sequence[object] | np.ndarray,
    episodes: Episodes,
    *,
    method: str = "ncm",
    center: str = "support",
    base: Float[np.ndarray | Tensor, "B D"] | None = None,
    metric: str = "euclidean",
    prenormalize: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Classify the queries of every episode and report the accuracy.

    Args:
        features: (N, D) raw features, one row per image.
        labels: (N,) their labels.
        episodes: rows of `features`; they must have been drawn from these labels.
        method: one of `fewshot.methods.METHODS`.
        center: one of `fewshot.centering.CENTERS`; see there for which mean each subtracts.
        base: (B, D) raw features of the base set, for `center="base"`.
        metric: `euclidean` or `cosine`.
        prenormalize: bring vectors to length one before the mean is taken (EASY's E-M-E).
        device: where to compute (the CPU for MPS, which has no float64).
        progress: called with (episodes done, episodes in all).

    Raises:
        InputError: shapes, labels and episodes do not fit each other, an unknown name, a base set too many or missing, or a
            vector that is zero after centring.
    """
    started = time.perf_counter()
    mode = check_center(center)
    run = find_method(method)
    check_metric(metric)
    check_base(mode, base is not None)
    if torch.device(device).type == "mps":
        device = "cpu"  # MPS has no float64, which the means need; and this is quick on a CPU
    x = as_table(features, device)
    check_episodes(episodes, np.asarray(labels), len(x))
    if prenormalize:
        x = unit(x, what="feature vector")
    if mode in ("none", "base", "feature"):
        mean = None
        if base is not None:
            b = as_table(base, device)
            mean = mean_vector(unit(b, what="base vector") if prenormalize else b)
        x = center_table(x, mode, mean)
    else:
        # These modes do not change when everything is moved, and near the origin float32 loses no digits to a common offset.
        x = shifted(x, mean_vector(x))
    count, ways, shots = episodes.support.shape
    queries = episodes.queries
    support_rows = torch.from_numpy(episodes.support.astype(np.int64)).to(x.device)
    query_rows = torch.from_numpy(episodes.query.astype(np.int64)).to(x.device)
    truth = torch.arange(ways, device=x.device).repeat_interleave(queries)
    per_episode = ways * (shots + queries) * x.shape[1] * x.element_size()
    chunk = max(1, _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES_ELSEWHERE) // per_episode)
    memory = threading.local()
    raw = None
    if method == "ncm" and x.device.type == "cpu" and x.dtype == torch.float32:
        raw = RawNearestMean(
            x.numpy(), ways=ways, shots=shots, queries=queries, center=mode, metric=metric, episodes_at_once=chunk
        )

    def count_correct(start: int) -> Tensor:
        """How many queries are right, for each episode of the chunk that starts here."""
        part = slice(start, min(start + chunk, count))
        quick = None if raw is None else raw.predict(episodes.support[part], episodes.query[part])
        return ((predict(part) if quick is None else torch.from_numpy(quick)) == truth).sum(dim=-1)

    def predict(part: slice) -> Tensor:
        """The nearest classes of a chunk by any method, step by step."""
        if not hasattr(memory, "support"):  # each thread gathers and centres in the same memory again and again
            memory.support = x.new_empty(chunk * ways * shots, x.shape[1])
            memory.query = x.new_empty(chunk * ways * queries, x.shape[1])
        e = part.stop - part.start
        s = torch.index_select(x, 0, support_rows[part].reshape(-1), out=memory.support[: e * ways * shots])
        q = torch.index_select(x, 0, query_rows[part].reshape(-1), out=memory.query[: e * ways * queries])
        s, q = s.view(e, ways * shots, -1), q.view(e, ways * queries, -1)
        if mode in ("support", "support+query", "separate"):
            s, q = center_episodes_(s, q, mode, first=part.start)
        return run(s.view(e, ways, shots, -1), q, metric).argmax(dim=-1)

    done: list[Tensor] = []
    for right in in_chunks(count_correct, range(0, count, chunk), x.device):
        done.append(right)
        if progress is not None:
            progress(min(len(done) * chunk, count), count)
    correct = torch.cat(done)
    accuracies = correct.cpu().numpy() / (ways * queries)
    mean_accuracy, ci95 = mean_and_interval(accuracies)
    return Report(
        method=method,
        center=mode,
        metric=metric,
        prenormalize=prenormalize,
        ways=ways,
        shots=shots,
        queries=queries,
        episodes=count,
        accuracy=mean_accuracy,
        ci95=ci95,
        seconds=time.perf_counter() - started,
        per_episode=accuracies,
    )


def mean_and_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float | None]:
    """The mean and the half-width 1.96·s/√n of its 95 % interval (s with ddof 1); no half-width for a single value."""
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))


def check_episodes(episodes: Episodes, labels: np.ndarray, rows: int) -> None:
    """Whether episodes fit a table with these labels and this many rows.

    Raises:
        InputError: they refer to rows that are not there, or to classes that are not the labels'; or there are none.
    """
    if labels.shape != (rows,):
        raise InputError(
            f"expected one label for each of the {rows} feature vectors, got labels of shape {labels.shape}"
        )
    used = np.concatenate([episodes.support, episodes.query], axis=2)
    if used.size == 0:
        raise InputError("no episodes to evaluate")
    if used.min() < 0 or used.max() >= rows:
        raise InputError(
            f"episodes refer to rows {used.min()} to {used.max()} of a table with {rows}: were they drawn from other data?"
        )
    index = np.unique(labels, return_inverse=True)[1]
    if (index[used] != episodes.classes[:, :, None]).any():
        raise InputError(
            "episodes and labels disagree about the class of an image: were the episodes drawn from other data?"
        )
