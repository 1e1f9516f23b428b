"""What goes where: data on stdout, everything else on stderr, one line for an error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
FIGURES = (".png", ".svg", ".pdf")


@dataclass
class State:
    """What `--quiet` and `--debug` said, and what happened in this run.

    noted: its notes, none of which is repeated. missing: images that could not be drawn, by path with the reason.
    failed: figures that could not be written, by path with the reason. image_notes: what is worth knowing of the images that are used.
    sources: what was taken of the weights files that were loaded by their paths, by digest and family.
    """

    quiet: bool = False
    debug: bool = False
    noted: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    image_notes: list[dict[str, str]] = field(default_factory=list)
    sources: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


state = State()


def start() -> None:
    """Begin a run: forget the one before."""
    state.quiet = state.debug = False
    for kept in (state.noted, state.missing, state.failed, state.image_notes, state.sources):
        kept.clear()


class NotDrawnError(Exception):
    """A figure needs images that are no longer there; what was computed is not lost."""


@contextlib.contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Go on after the block where it finds that nothing can be drawn; `finish` says so and ends the run with exit code 1."""
    try:
        yield
    except NotDrawnError as problem:
        state.failed[str(path)] = str(problem)


def drawing_json() -> dict[str, list[dict[str, str]]]:
    """The entries of a document about images that could not be drawn and figures that could not be written."""
    return {
        name: [{"path": path, "reason": reason} for path, reason in of.items()]
        for name, of in (("not_drawn", state.missing), ("not_written", state.failed))
    }


def finish(skipped: bool) -> None:
    """The end of a run that draws: what could not be drawn, in a line each for images and for figures, and the exit code."""
    import typer

    if state.missing:
        path, reason = next(iter(state.missing.items()))
        count = len(state.missing)
        more = f" (and {count - 1} more)" if count > 1 else ""
        note(f"not drawn: {count} image{'s' * (count > 1)}: {printable(path)}: {printable(reason)}{more}")
    for path, reason in state.failed.items():
        error(f"{path} is not written: {reason}")
    if state.failed:
        raise typer.Exit(1)
    if skipped:
        raise typer.Exit(3)


def printable(text: str | os.PathLike[str]) -> str:
    """Text that any terminal can take: bytes that are no UTF-8 and control characters as escapes."""
    raw = os.fspath(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)


def note(text: str) -> None:
    """Something worth knowing, on stderr, unless --quiet."""
    if not state.quiet and text not in state.noted:
        state.noted.add(text)
        print(text, file=sys.stderr)


def error(text: str) -> None:
    """What went wrong, on stderr, always."""
    lines = [printable(line) for line in text.split("\n")]
    print("fewmatch: error: " + "\n".join(lines), file=sys.stderr)


def list_skipped(rows: Sequence[dict[str, Any]]) -> None:
    """Every image that could not be used, with its reason."""
    for row in rows:
        note(f"skipped {printable(row['path'])}: {printable(str(row['reason']))}")


def note_images(rows: Iterable[dict[str, Any]]) -> None:
    """What is worth knowing of images that are used, such as further pages that are not: once an image, alike notes in one line."""
    known = {(entry["path"], entry["note"]) for entry in state.image_notes}
    entries = [{"path": row["path"], "note": row["note"]} for row in rows if row.get("note")]
    new = [entry for entry in entries if (entry["path"], entry["note"]) not in known]
    state.image_notes += new
    for text in dict.fromkeys(entry["note"] for entry in new):
        paths = [printable(entry["path"]) for entry in new if entry["note"] == text]
        which = paths[0] if len(paths) == 1 else f"{len(paths):,} images, such as {paths[0]}"
        note(f"note: {which}: {printable(text)}")


def skipped_json(rows: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"path": row["path"], "reason": row["reason"]} for row in rows]


def document(**content: Any) -> dict[str, Any]:
    """A JSON result with what every one starts with; where it lists skipped images, the notes on those that were used follow."""
    from fewmatch import __version__

    notes = notes_json() if "skipped" in content else {}
    return {"schema": SCHEMA, "version": __version__, **content, **notes}


def notes_json() -> dict[str, list[dict[str, str]]]:
    """The entry of a document about images that are used and have something worth knowing."""
    return {"image_notes": list(state.image_notes)}


def emit_json(content: dict[str, Any]) -> None:
    """The one document on stdout; ASCII, so that every locale and every file name passes."""
    print(json.dumps(content, indent=2, allow_nan=False))


def emit_json_line(content: dict[str, Any]) -> None:
    print(json.dumps(content, allow_nan=False), flush=True)


def emit_table(
    title: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], caption: str | None = None
) -> None:
    """A table on stdout. `columns` are (heading, `left` or `right`); cells are plain text, never markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A pipe has no width: make the table as wide as its content instead of cutting names.
    console = Console() if sys.stdout.isatty() or os.environ.get("COLUMNS") else Console(width=1000)
    if title:
        console.print(Text(title, style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in columns:
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    if caption:
        console.print(Text(caption, style="dim"))


def check_target(path: Path | None, overwrite: bool) -> None:
    """Refuse to replace a file that nobody said to overwrite, before anything is computed for it."""
    from fewmatch.errors import OutputExistsError

    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another name, or --overwrite")


def check_figure(path: Path | None, overwrite: bool, types: Sequence[str] = FIGURES) -> None:
    """`check_target` for a figure, whose type its name tells."""
    from fewmatch.errors import InputError

    check_target(path, overwrite)
    if path is not None and path.suffix.lower() not in types:
        raise InputError(f"no figure of type {path.suffix or path.name}: expected a name ending in {', '.join(types)}")


@contextlib.contextmanager
def progress(description: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr where that is a terminal; yields a callback (done, all, skipped=0)."""
    if state.quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=None)

        def update(done: int, total: int, skipped: int = 0) -> None:
            text = description + (f" ({skipped} skipped)" if skipped else "")
            bar.update(task, completed=done, total=total, description=text)

        yield update


def human_bytes(count: float) -> str:
    """`12.8 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
