"""Episodes over a table of features: the accuracy of a method with its interval."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.fewshot.batch import EpisodeBatch
from fewmatch.fewshot.centering import Center, center_episodes_, center_table, check_base, mean_vector, shifted, unit
from fewmatch.fewshot.episodes.episodes import Episodes
from fewmatch.fewshot.methods import Method, find_method
from fewmatch.fewshot.methods.ncm import ncm
from fewmatch.fewshot.methods.ncm_raw import RawNearestMean
from fewmatch.fewshot.new_images import new_images_interval
from fewmatch.fewshot.parallel import in_chunks
from fewmatch.fewshot.report import Report, mean_and_interval
from fewmatch.fewshot.table import as_table
from fewmatch.names import distinct_labels

#: Bytes of gathered vectors that are worked on at a time. On a CPU they should fit in the caches, or every step waits for memory.
_CHUNK_BYTES = {"cpu": 8 * 2**20}
_CHUNK_BYTES_ELSEWHERE = 256 * 2**20
#: Bytes of float64 inner products that a method gets at a time: many episodes, since its steps are many and small.
_GRAM_BYTES = {"cpu": 16 * 2**20}
_GRAM_BYTES_ELSEWHERE = 512 * 2**20


def evaluate(
    features: Float[np.ndarray | Tensor, "N D"],
    labels: Sequence[object] | np.ndarray,
    episodes: Episodes,
    *,
    method: str = "ncm",
    options: Mapping[str, Any] | None = None,
    center: str | None = None,
    base: Float[np.ndarray | Tensor, "B D"] | None = None,
    metric: str = "euclidean",
    prenormalize: bool = False,
    unknown: Int[np.ndarray, "E U"] | None = None,
    keep_scores: bool = False,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Classify the queries of every episode and report the accuracy.

    Args:
        features: (N, D) raw features, one row per image.
        labels: (N,) their labels.
        episodes: rows of `features`; they must have been drawn from these labels. -1 is padding.
        method: one of `fewmatch.METHODS`. options: of the method, by name.
        center: one of `fewmatch.CENTERS`; see there for which mean each subtracts. None is the method's own choice.
        base: (B, D) raw features of the base set, for `center="base"`.
        metric: `euclidean` or `cosine`, for methods that have this option.
        prenormalize: bring vectors to length one before the mean is taken (EASY's E-M-E).
        unknown: rows of queries of none of the episode's classes: they are asked after the others (the last U columns of the report's
            predictions and scores) and do not count for the accuracy.
        keep_scores: whether the report keeps the scores of all queries.
        device: where to compute (the CPU for MPS, which has no float64).
        progress: called with (episodes done, episodes in all).

    Raises:
        InputError: shapes, labels and episodes do not fit each other, an unknown name, a base set too many or missing, or a
            vector that is zero after centring.
    """
    started = time.perf_counter()
    how = find_method(method)
    chosen = how.chosen_with(options or {}, metric)
    mode = how.centring(center)
    check_base(mode, base is not None)
    if torch.device(device).type == "mps":
        device = "cpu"  # MPS has no float64, which the means need; and this is quick on a CPU
    x = as_table(features, device)
    check_episodes(episodes, np.asarray(labels), len(x), padding=True)
    tasks = _Tasks(_prepared(x, base, how, mode, prenormalize), episodes, unknown, mode)
    raw = None
    uniform = not tasks.padded and unknown is None and not keep_scores
    if how.run is ncm and uniform and tasks.x.device.type == "cpu" and tasks.x.dtype == torch.float32:
        raw = RawNearestMean(
            tasks.x.numpy(),
            ways=tasks.ways,
            shots=episodes.shots,
            queries=episodes.queries,
            center=mode,
            metric=chosen.get("metric", "euclidean"),
            episodes_at_once=tasks.at_once,
        )
    count = len(episodes)
    together = tasks.at_once if how.vectors else tasks.grams_at_once

    def answer(start: int) -> tuple[Tensor, Tensor | None]:
        """The classes chosen in the episodes of the chunk that starts here, and the scores if they are kept."""
        part = slice(start, min(start + together, count))
        quick = None if raw is None else raw.predict(episodes.support[part], episodes.query[part])
        if quick is not None:
            return torch.from_numpy(quick).to(torch.int16), None
        batch = tasks.batch(part, vectors=how.vectors)
        scores = how.scores(batch, **chosen)
        scores = scores.masked_fill(~batch.classes[:, None, :], -torch.inf)
        best = scores.argmax(dim=-1).masked_fill(~batch.asked, -1)
        return best.to(torch.int16).cpu(), scores.float().cpu() if keep_scores else None

    done: list[Tensor] = []
    scored: list[Tensor] = []
    for best, scores in in_chunks(answer, range(0, count, together), tasks.x.device):
        done.append(best)
        if scores is not None:
            scored.append(scores)
        if progress is not None:
            progress(min(len(done) * together, count), count)
    predictions = torch.cat(done).numpy()
    truth, asked = np.repeat(np.arange(tasks.ways), episodes.queries), episodes.query.reshape(count, -1) >= 0
    right = (predictions[:, : asked.shape[1]] == truth) & asked
    accuracies = right.sum(axis=1) / asked.sum(axis=1)
    mean_accuracy, ci95 = mean_and_interval(accuracies)
    transductive = how.uses_queries(mode)
    new_images = new_images_interval(right, episodes, labels, transductive=transductive, unknown=unknown is not None)
    return Report(
        method=method,
        center=mode,
        options=chosen,
        prenormalize=prenormalize,
        transductive=transductive,
        ways=_range((episodes.classes >= 0).sum(axis=1)),
        shots=_range(_present(episodes.support, episodes.classes)),
        queries=_range(_present(episodes.query, episodes.classes)),
        episodes=count,
        accuracy=mean_accuracy,
        ci95=ci95,
        temperature=how.temperature,
        seconds=time.perf_counter() - started,
        per_episode=accuracies,
        predictions=predictions,
        scores=torch.cat(scored).numpy() if keep_scores else None,
        ci95_new_images=new_images.ci95,
        ci95_new_images_reason=new_images.reason,
        few_images=new_images.few,
        notes=how.notes(options or {}, mode),
    )


class _Tasks:
    """Episodes as batches: vectors gathered from one table, centred by episode, padded with zeros."""

    def __init__(
        self, x: Float[Tensor, "n d"], episodes: Episodes, unknown: Int[np.ndarray, "E U"] | None, center: Center
    ) -> None:
        """Take in a table that needs at most an episode's own mean any more."""
        self.x, self.center = x, center
        count, self.ways, shots = episodes.support.shape
        more = [] if unknown is None else [unknown]
        rows = np.concatenate([part.reshape(count, -1) for part in (episodes.support, episodes.query, *more)], axis=1)
        self._supports = self.ways * shots
        self.padded = bool((rows < 0).any())
        self._rows = torch.from_numpy(rows.astype(np.int64)).to(x.device)
        self._classes = torch.from_numpy(episodes.classes >= 0).to(x.device)
        self._own = torch.eye(self.ways, device=x.device).repeat_interleave(shots, dim=0)
        n = rows.shape[1]
        room = _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES_ELSEWHERE)
        self.at_once = max(1, room // (n * x.shape[1] * x.element_size()))
        self.grams_at_once = max(1, _GRAM_BYTES.get(x.device.type, _GRAM_BYTES_ELSEWHERE) // (8 * n * n))
        self._memory = threading.local()

    def batch(self, part: slice, *, vectors: bool) -> EpisodeBatch:
        """The episodes of a part, with their vectors or with inner products only. The vectors live until the thread's next batch."""
        rows = self._rows[part]
        real = rows >= 0
        onehot = self._own * real[:, : self._supports, None]
        asked, classes = real[:, self._supports :], self._classes[part]
        dimensions = self.x.shape[1]
        if vectors:
            points = self._points(part)
            support, query = points[:, : self._supports], points[:, self._supports :]
            return EpisodeBatch(onehot, asked, classes, support, query, dimensions=dimensions)
        gram = self.x.new_empty(len(rows), rows.shape[1], rows.shape[1])
        for start in range(0, len(rows), self.at_once):
            stop = min(start + self.at_once, len(rows))
            points = self._points(slice(part.start + start, part.start + stop))
            torch.bmm(points, points.transpose(1, 2), out=gram[start:stop])
        return EpisodeBatch(onehot, asked, classes, given_gram=gram.double(), dimensions=dimensions)

    def _points(self, part: slice) -> Float[Tensor, "e n d"]:
        """Supports, then queries, centred and projected."""
        rows = self._rows[part]
        if not hasattr(self._memory, "points"):  # each thread gathers and centres in the same memory again and again
            self._memory.points = self.x.new_empty(self.at_once * rows.shape[1], self.x.shape[1])
        flat = torch.index_select(self.x, 0, rows.clamp(min=0).reshape(-1), out=self._memory.points[: rows.numel()])
        points = flat.view(*rows.shape, -1)
        real: tuple[Bool[Tensor, "e s"], Bool[Tensor, "e q"]] | None = None
        if self.padded:
            there = rows >= 0
            points.masked_fill_(~there[..., None], 0.0)
            real = there[:, : self._supports], there[:, self._supports :]
        if self.center in ("support", "support+query", "separate"):
            center_episodes_(
                points[:, : self._supports], points[:, self._supports :], self.center, first=part.start, real=real
            )
        return points


def _prepared(
    x: Float[Tensor, "n d"],
    base: Float[np.ndarray | Tensor, "b d"] | None,
    method: Method,
    mode: Center,
    prenormalize: bool,
) -> Float[Tensor, "n d"]:
    """The table after all that does not depend on the episode."""
    if prenormalize:
        x = unit(x, what="feature vector")
    if mode not in ("none", "base", "feature"):
        # These modes do not change when everything is moved, and near the origin float32 loses no digits to a common offset.
        return shifted(x, mean_vector(x))
    if not method.project:
        return x
    mean = None
    if base is not None:
        b = as_table(base, x.device)
        mean = mean_vector(unit(b, what="base vector") if prenormalize else b)
    return center_table(x, mode, mean)


def _present(rows: Int[np.ndarray, "E W K"], classes: Int[np.ndarray, "E W"]) -> Int[np.ndarray, "n"]:
    """How many rows each class of each episode has."""
    return np.asarray((rows >= 0).sum(axis=2)[classes >= 0])


def _range(counts: Int[np.ndarray, "n"]) -> int | tuple[int, int]:
    least, most = int(counts.min()), int(counts.max())
    return least if least == most else (least, most)


def check_episodes(episodes: Episodes, labels: np.ndarray, rows: int, *, padding: bool = False) -> None:
    """Whether episodes fit a table with these labels and this many rows; with `padding`, -1 may stand where there is none.

    Raises:
        InputError: they refer to rows that are not there, or to classes that are not the labels'; an episode without queries or a
            class without supports; or there are none.
    """
    if labels.shape != (rows,):
        raise InputError(
            f"expected one label for each of the {rows} feature vectors, got labels of shape {labels.shape}"
        )
    used = np.concatenate([episodes.support, episodes.query], axis=2)
    if used.size == 0:
        raise InputError("no episodes to evaluate")
    if used.min() < (-1 if padding else 0) or used.max() >= rows:
        raise InputError(
            f"episodes refer to rows {used.min()} to {used.max()} of a table with {rows}: were they drawn from other data?"
        )
    index = distinct_labels(labels)[1]
    if ((index[used] != episodes.classes[:, :, None]) & (used >= 0)).any():
        raise InputError(
            "episodes and labels disagree about the class of an image: were the episodes drawn from other data?"
        )
    there = episodes.classes >= 0
    if ((episodes.support >= 0).any(axis=2) != there).any():
        raise InputError("expected a support at least for every class of an episode, and none for a class it has not")
    if not (episodes.query >= 0).any(axis=(1, 2)).all():
        raise InputError("expected a query at least in every episode")
