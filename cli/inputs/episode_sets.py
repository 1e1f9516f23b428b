"""What the user says about episodes: how they are drawn, read from a file, or kept in one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import Episodes, FeatureTable


#: Where the user says nothing.
WAYS, SHOTS, QUERIES, COUNT = "5", "1,5", 15, 10_000


@dataclass(frozen=True)
class EpisodeChoice:
    """How episodes are to be made; None is not said."""

    ways: str | None
    shots: str | None
    queries: int | None
    queries_total: int | None
    dirichlet: float | None
    sampler: str | None
    no_replacement: bool
    count: int | None
    seed: int
    unknown_classes: int | None
    file: Path | None
    keep: Path | None

    def all_shots(self) -> list[int | tuple[int, int]]:
        """One entry for each set of episodes.

        Raises:
            InputError: no number and no range.
        """
        return [_span("--shots", part) for part in (self.shots or SHOTS).split(",")]

    def check(self) -> None:
        """Refuse what contradicts itself, before anything is encoded.

        Raises:
            InputError: an option that would not be used, or one that lacks another.
        """
        from fewmatch.errors import InputError

        said = {
            "--ways": self.ways,
            "--shots": self.shots,
            "--queries": self.queries,
            "--queries-total": self.queries_total,
            "--dirichlet": self.dirichlet,
            "--no-replacement": self.no_replacement or None,
            "--sampler": self.sampler,
            "--unknown-classes": self.unknown_classes,
            "--save-episodes": self.keep,
        }

        def useless(options: tuple[str, ...], because: str) -> None:
            used = [option for option in options if said[option] is not None]
            if used:
                raise InputError(f"{used[0]} is not used {because}: leave it out")

        drawing = ("--ways", "--shots", "--queries", "--queries-total", "--dirichlet", "--no-replacement")
        if self.file is not None:
            useless((*drawing, "--sampler", "--unknown-classes", "--save-episodes"), "with --episodes-file")
            return
        if self.sampler == "meta-dataset":
            useless(
                (*drawing, "--unknown-classes"),
                "with --sampler meta-dataset, which draws ways, shots and queries itself",
            )
        if self.unknown_classes is not None:
            useless(("--queries-total", "--dirichlet", "--no-replacement", "--save-episodes"), "with --unknown-classes")
        if self.queries_total is not None and self.queries is not None:
            raise InputError("--queries is per class, --queries-total per episode: give one of the two")
        if self.dirichlet is not None and self.queries_total is None:
            raise InputError(
                "--dirichlet spreads a number of queries over the classes: give --queries-total, such as 75"
            )
        _span("--ways", self.ways or WAYS)
        if self.keep is not None and self.sampler != "meta-dataset" and len(self.all_shots()) > 1:
            raise InputError(
                f"one file holds episodes of one kind: give --save-episodes with one value of --shots, not {self.shots or SHOTS}"
            )


@dataclass(frozen=True)
class EpisodeSet:
    """Episodes that every method runs on. unknown: (E, U) rows of queries of none of the classes."""

    episodes: Episodes
    unknown: np.ndarray | None = None


def episode_sets(table: FeatureTable, choice: EpisodeChoice) -> list[EpisodeSet]:
    """Draw or read the episodes; write them where that is asked for."""
    from fewmatch.errors import InputError
    from fewmatch.fewshot import load_episodes, sample_episodes, sample_variable_episodes, save_episodes
    from fewmatch.fewshot.open_set import sample_open_episodes

    if choice.file is not None:
        episodes = load_episodes(choice.file, table)
        return [EpisodeSet(episodes if choice.count is None else _first(episodes, choice.count))]
    common: dict[str, Any] = {
        "episodes": choice.count or COUNT,
        "seed": choice.seed,
        "class_names": table.class_names,
    }
    if choice.sampler == "meta-dataset":
        sets = [EpisodeSet(sample_variable_episodes(table.labels, **common))]
    else:
        ways = _span("--ways", choice.ways or WAYS)
        queries = choice.queries if choice.queries is not None else QUERIES
        sets = []
        for shots in choice.all_shots():
            if choice.unknown_classes is not None:
                if isinstance(ways, tuple) or isinstance(shots, tuple):
                    raise InputError("--unknown-classes needs fixed --ways and --shots, not a range")
                unknown = choice.unknown_classes
                sets.append(
                    EpisodeSet(
                        *sample_open_episodes(
                            table.labels, ways=ways, shots=shots, unknown_classes=unknown, queries=queries, **common
                        )
                    )
                )
                continue
            drawn = sample_episodes(
                table.labels,
                ways=ways,
                shots=shots,
                queries=queries if choice.queries_total is None else None,
                queries_total=choice.queries_total,
                dirichlet=choice.dirichlet,
                replacement=not choice.no_replacement,
                **common,
            )
            sets.append(EpisodeSet(drawn))
    if choice.keep is not None:
        save_episodes(choice.keep, sets[0].episodes, table)
        output.note(f"wrote {output.printable(choice.keep)}")
    return sets


def _first(episodes: Episodes, count: int) -> Episodes:
    """The first episodes of a file that has more than are asked for."""
    import dataclasses

    if len(episodes) <= count:
        return episodes
    return dataclasses.replace(
        episodes, classes=episodes.classes[:count], support=episodes.support[:count], query=episodes.query[:count]
    )


def _span(option: str, text: str) -> int | tuple[int, int]:
    """`5`, or `3-10`."""
    from fewmatch.errors import InputError

    found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if found is None:
        raise InputError(f"no {option} {text}: expected a number such as 5, or a range such as 3-10")
    least, most = int(found[1]), int(found[2] or found[1])
    if most < least:
        raise InputError(f"no {option} {text}: expected the smaller number first")
    return least if least == most else (least, most)
