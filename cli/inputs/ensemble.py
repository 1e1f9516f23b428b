"""One data set through one encoder, or through several whose features are put side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli.inputs.data import LabelledData, read_base, read_table
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Encoders:
    """What encoded the data: one choice for each encoder, and the keys of what they made (empty for given features)."""

    choices: list[EncodingChoice]
    keys: list[dict[str, Any]]

    def to_json(self) -> Any:
        """The entry `encoder` of results: None, one, or a list of several."""
        found = [encoder_json(key) for key in self.keys]
        return None if not found else found[0] if len(found) == 1 else found

    def words(self) -> str:
        """For captions."""
        return " + ".join(encoder_words(key) for key in self.keys) or encoder_words(None)


def read_together(
    data: Path,
    names: Sequence[str],
    choose: Callable[[str | None], EncodingChoice],
    *,
    unlabelled: bool = False,
) -> tuple[LabelledData, Encoders]:
    """The table of DATA through the encoders of these names, or through the default one.

    Features of several are brought to length one each, and put side by side (a larger network must not weigh more by its norms).
    Images that any of them could not use are left out.

    Raises:
        InputError: several encoders for features that are there already, or one encoder twice.
    """
    from fewmatch.errors import InputError

    if len(set(names)) < len(names):
        raise InputError(f"the same encoder twice: {', '.join(names)}")
    choices = [choose(name) for name in names] or [choose(None)]
    parts = [read_table(data, choice, unlabelled=unlabelled) for choice in choices]
    first = parts[0]
    keys = [part.key for part in parts if part.key is not None]
    if len(parts) == 1:
        return first, Encoders(choices, keys)
    if not keys or first.rows is None:
        raise InputError(f"{data} holds features already: give one encoder or none, not {len(names)}")
    from fewmatch.fewshot import concatenate

    paths = [[row["path"] for row in part.rows or []] for part in parts]
    common = set(paths[0]).intersection(*paths[1:])
    # Every encoder lists the images in the same order, so that what is common is in the same order too.
    kept = [[i for i, path in enumerate(listed) if path in common] for listed in paths]
    table = dataclasses.replace(
        first.table,
        features=concatenate([part.table.features[rows] for part, rows in zip(parts, kept, strict=True)]),
        labels=first.table.labels[kept[0]],
        paths=None if first.table.paths is None else [first.table.paths[i] for i in kept[0]],
    )
    return (
        dataclasses.replace(first, table=table, rows=[first.rows[i] for i in kept[0]]),
        Encoders(choices, keys),
    )


def read_base_together(base: Path | None, encoders: Encoders) -> np.ndarray | None:
    """The features of a base set through the same encoders, put side by side alike."""
    if base is None:
        return None
    keys: list[dict[str, Any] | None] = [*encoders.keys] or [None] * len(encoders.choices)
    parts = [
        part
        for choice, key in zip(encoders.choices, keys, strict=True)
        if (part := read_base(base, choice, key)) is not None
    ]
    if len(parts) == 1:
        return parts[0]
    from fewmatch.fewshot import concatenate

    return concatenate(parts)
