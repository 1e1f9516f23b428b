"""`fewmatch encoders`: every checkpoint that has a name, and where its weights are."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fewmatch.cli import options, output

if TYPE_CHECKING:
    from fewmatch.encoders import Checkpoint

_COLUMNS = (
    ("name", "left"),
    ("family", "left"),
    ("params", "right"),
    ("size", "right"),
    ("k-NN", "right"),
    ("licence", "left"),
    ("weights", "left"),
)
#: What goes first where the terminal is too narrow for all of it.
_DISPENSABLE = ("family", "k-NN", "size", "licence")


def encoders(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Part of a name or family, or a shell pattern; any of several."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the encoders: family, size, licence, and where the weights are.

    bundled: inside fewmatch. cached: found on this machine. downloadable: not yet here. gated: to be requested from the publisher first.
    """
    from fewmatch.encoders import catalogue
    from fewmatch.errors import InputError

    for pattern in patterns or ():
        if not catalogue.search(pattern):
            raise InputError(f"no encoder matches {pattern}: {catalogue.nearest(pattern)}")
    records = catalogue.search(*(patterns or ()))
    if json:
        output.emit_json(output.document(encoders=[record.to_json() for record in records]))
        return
    rows = [_row(record) for record in records]
    shown = _columns_that_fit(rows)
    output.emit_table(
        "",
        [_COLUMNS[i] for i in shown],
        [[row[i] for i in shown] for row in rows],
        _caption({_COLUMNS[i][0] for i in shown}, any(record.non_commercial for record in records)),
    )


def _row(record: Checkpoint) -> tuple[str, ...]:
    count = record.parameters
    return (
        record.name,
        record.family,
        "–" if count is None else f"{count / 1e6:.1f} M" if count < 1e9 else f"{count / 1e9:.2f} B",
        f"{record.preprocessing.crop}/{record.architecture['patch_size']}",
        "–" if record.knn is None else f"{record.knn:.1f}",
        record.licence + (" NC" if record.non_commercial and "-NC" not in record.licence else ""),
        record.where(),
    )


def _columns_that_fit(rows: list[tuple[str, ...]]) -> list[int]:
    """Indices of the columns that the terminal has room for without breaking a name; all of them where stdout is no terminal."""
    shown = list(range(len(_COLUMNS)))
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS")):
        return shown
    room = shutil.get_terminal_size().columns
    widths = [
        max(len(text) for text in (heading, *column))
        for (heading, _), column in zip(_COLUMNS, zip(*rows, strict=True), strict=True)
    ]
    for name in _DISPENSABLE:
        if sum(widths[i] for i in shown) + 3 * (len(shown) - 1) + 2 <= room:  # rich puts three spaces between columns
            break
        shown.remove([heading for heading, _ in _COLUMNS].index(name))
    return shown


def _caption(shown: set[str], non_commercial: bool) -> str:
    parts = {
        "size": "size: pixels/patch.",
        "k-NN": "k-NN: published ImageNet-1k top-1, %.",
        "licence": "NC: non-commercial." if non_commercial else "",
    }
    return " ".join([text for column, text in parts.items() if text and column in shown] + ["More: --json."])
