"""Episodes: which images are supports and which are queries, thousands at once, as index arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from fewmatch.errors import InputError
from fewmatch.fewshot.episodes.draws import (
    draw_classes,
    draw_distinct,
    draw_ragged,
    rows_of_picks,
    split_by_dirichlet,
    split_evenly,
    use_up,
)
from fewmatch.names import distinct_labels


@dataclass(frozen=True)
class Episodes:
    """Few-shot tasks as indices into one table of features.

    classes: (E, W) indices into the sorted distinct labels, ascending within an episode.
    support: (E, W, K) and query: (E, W, Q) rows of the table; no row is twice in one episode. -1 marks a place
    that is not used: at the end of `classes` where an episode has fewer ways than W, and at the end of a row where a class has
    fewer supports than K or fewer queries than Q.
    seed: what they were drawn from, or None where they were not drawn here.
    sampler: how they were drawn, as JSON: `kind` (uniform, unbalanced, variable, file), its parameters, `replacement` (whether one
    image may be in several episodes) and `queries` (balanced or dirichlet; unbalanced is said of files). Empty where it is not known.
    """

    classes: Int32[np.ndarray, "E W"]
    support: Int32[np.ndarray, "E W K"]
    query: Int32[np.ndarray, "E W Q"]
    seed: int | None = None
    sampler: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def ways(self) -> int:
        """Classes per episode, where they differ the most."""
        return int(self.support.shape[1])

    @property
    def shots(self) -> int:
        """Supports per class, where they differ the most."""
        return int(self.support.shape[2])

    @property
    def queries(self) -> int:
        """Queries per class, where they differ the most."""
        return int(self.query.shape[2])

    @property
    def ragged(self) -> bool:
        """Whether some episode has fewer ways, or some class fewer supports or queries, than others (-1 stands in their place)."""
        return any(bool((part < 0).any()) for part in (self.classes, self.support, self.query))


def sample_episodes(
    labels: Sequence[object] | np.ndarray,
    *,
    ways: int | tuple[int, int],
    shots: int | tuple[int, int],
    queries: int | None = None,
    episodes: int,
    seed: int,
    class_names: Sequence[str] | None = None,
    queries_total: int | None = None,
    dirichlet: float | None = None,
    replacement: bool = True,
) -> Episodes:
    """Draw episodes: distinct classes, then distinct images of each, all equally likely.

    All are drawn with NumPy's PCG64 on the CPU, so a seed gives the same episodes whatever the device.

    Args:
        labels: (N,) one label per row of the feature table, numbers or names.
        ways: classes per episode; a pair (least, most) draws them uniformly for each episode.
        shots: supports per class; a pair (least, most) draws them uniformly for each class of each episode.
        queries: queries per class. Leave it out with `queries_total`.
        episodes: how many.
        seed: 0 or more.
        class_names: names for messages, by index of the sorted distinct labels.
        queries_total: queries per episode instead. Without `dirichlet` they are spread as evenly as can be over the classes, those left
            over to classes drawn at random.
        dirichlet: draw the classes' shares of `queries_total` from a symmetric Dirichlet distribution with this parameter (α-TIM,
            Veilleux et al. 2021: 75 queries in all, parameter 2), rounded to whole queries by largest remainders. A class may get none.
        replacement: whether one image may be in several episodes. If not (Lafargue et al. 2024), each episode's classes are drawn
            uniformly from those that have images left for the largest class of the episode, each class's images are used up in random
            order, and there are fewer episodes than asked for where the images run out: `sampler["exhausted"]` says so.

    Raises:
        InputError: fewer classes than ways, a class with fewer images than an episode may need of it (it is named with both counts), or
            arguments that contradict each other.
    """
    ways, shots = _span("ways", ways, 2), _span("shots", shots, 1)
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        _at_least(name, value, least)
    if (queries is None) == (queries_total is None):
        raise InputError("expected either queries (per class) or queries_total (per episode), one of the two")
    if queries is not None:
        _at_least("queries", queries, 1)
    if queries_total is not None:
        _at_least("queries_total", queries_total, 1)
    if dirichlet is not None and queries_total is None:
        raise InputError("dirichlet spreads queries_total over the classes: expected queries_total with it")
    if dirichlet is not None and not 0 < dirichlet < float("inf"):
        raise InputError(f"expected a dirichlet parameter above 0, got {dirichlet}")
    distinct, index = distinct_labels(labels)
    if len(distinct) < ways[1]:
        wanted = f"{ways[1]} ways" if ways[0] == ways[1] else f"{ways[0]} to {ways[1]} ways"
        raise InputError(f"expected at least {ways[1]} classes for {wanted}, got {len(distinct)}")
    counts = np.bincount(index, minlength=len(distinct))
    names = distinct if class_names is None else class_names
    # Dirichlet shares are only known once they are drawn; they are checked then.
    most_queries = (
        queries if queries is not None else 0 if dirichlet is not None else -(-(queries_total or 0) // ways[0])
    )
    _check_sizes(counts, names, shots[1], most_queries, exact=shots[0] == shots[1] and queries is not None)
    sampler: dict[str, Any] = {
        "kind": "uniform" if ways[0] == ways[1] and shots[0] == shots[1] else "unbalanced",
        "ways": ways[0] if ways[0] == ways[1] else list(ways),
        "shots": shots[0] if shots[0] == shots[1] else list(shots),
        "queries": "balanced" if dirichlet is None else "dirichlet",
        **({"queries_per_class": queries} if queries is not None else {"queries_total": queries_total}),
        **({} if dirichlet is None else {"dirichlet": float(dirichlet)}),
        "replacement": replacement,
        "episodes": episodes,
    }
    rng = np.random.Generator(np.random.PCG64(seed))
    if sampler["kind"] == "uniform" and queries is not None and replacement:
        classes = np.sort(draw_distinct(rng, np.full(episodes, len(distinct)), ways[0]), axis=1)
        picks = draw_distinct(rng, counts[classes].reshape(-1), shots[0] + queries)
        rows = rows_of_picks(index, counts, classes, picks.reshape(episodes, ways[0], -1))
        return Episodes(classes.astype(np.int32), rows[:, :, : shots[0]], rows[:, :, shots[0] :], seed, sampler)
    used = np.arange(ways[1]) < rng.integers(ways[0], ways[1] + 1, (episodes, 1))
    supports = np.where(used, rng.integers(shots[0], shots[1] + 1, used.shape), 0)
    if queries is not None:
        asked = np.where(used, queries, 0)
    elif dirichlet is None:
        asked = split_evenly(rng, used, queries_total or 0)
    else:
        asked = split_by_dirichlet(rng, used, queries_total or 0, dirichlet)
    if replacement:
        classes = draw_classes(rng, len(distinct), used)
        _check_fit(counts, names, classes, supports, asked)
        picks = draw_ragged(rng, counts[classes].reshape(-1), (supports + asked).reshape(-1))
        rows = rows_of_picks(index, counts, classes, picks.reshape(*used.shape, -1))
        return assemble(classes, rows, supports, asked, seed, sampler)
    classes, rows = use_up(rng, index, counts, used, supports + asked)
    if not len(classes):
        raise InputError(
            f"the first episode needs {used[0].sum()} classes with {(supports + asked)[0].max()} images, got "
            f"{(counts >= (supports + asked)[0].max()).sum()} (the largest is {names[int(counts.argmax())]} with {counts.max()}): ask for fewer"
        )
    sampler["exhausted"] = len(classes) < episodes
    return assemble(classes, rows, supports[: len(classes)], asked[: len(classes)], seed, sampler)


def assemble(
    classes: Int[np.ndarray, "E W"],
    rows: Int32[np.ndarray, "E W M"],
    supports: Int[np.ndarray, "E W"],
    queries: Int[np.ndarray, "E W"],
    seed: int | None,
    sampler: dict[str, Any],
) -> Episodes:
    """Episodes from the rows drawn for each class, the first `supports` of them supports and the next `queries` queries."""
    parts = []
    for first, number in ((np.zeros_like(supports), supports), (supports, queries)):
        places = np.arange(int(number.max(initial=0)))
        wanted = np.minimum(first[:, :, None] + places, max(rows.shape[2] - 1, 0))
        part = np.where(places < number[:, :, None], np.take_along_axis(rows, wanted, axis=2), -1)
        parts.append(part.astype(np.int32))
    return Episodes(classes.astype(np.int32), parts[0], parts[1], seed, sampler)


def _span(name: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """A number or a pair (least, most) as a pair."""
    low, high = (value, value) if isinstance(value, int | np.integer) else value
    _at_least(name, low, least)
    if high < low:
        raise InputError(f"expected {name} from a smaller to a larger number, got {low} to {high}")
    return int(low), int(high)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"expected {name} of {least} or more, got {value}")


def _check_sizes(counts: np.ndarray, names: Any, shots: int, queries: int, exact: bool) -> None:
    """Whether every class has enough images for the largest demand that can be known before drawing."""
    short = np.flatnonzero(counts < shots + queries)
    if len(short):
        first = int(short[0])
        others = f" (and {len(short) - 1} more classes)" if len(short) > 1 else ""
        raise InputError(
            f"class {names[first]} has {counts[first]} images, but {'' if exact else 'up to '}{shots} shots and {queries} queries need "
            f"{shots + queries}{others}: ask for fewer, or leave the class out"
        )


def _check_fit(counts: np.ndarray, names: Any, classes: np.ndarray, supports: np.ndarray, queries: np.ndarray) -> None:
    """Whether every class has enough images for what was drawn for it."""
    short = np.argwhere((classes >= 0) & (counts[classes] < supports + queries))
    if len(short):
        e, w = (int(i) for i in short[0])
        c = int(classes[e, w])
        raise InputError(
            f"class {names[c]} has {counts[c]} images, but episode {e} needs {supports[e, w]} shots and {queries[e, w]} queries of it: "
            "ask for fewer queries in all or a larger dirichlet parameter, or leave the class out"
        )
