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
    """What `--quiet` and `--debug` said, and what is worth knowing of the images that this run has read."""

    quiet: bool = False
    debug: bool = False
    image_notes: list[dict[str, str]] = field(default_factory=list)


state = State()


def printable(text: str | os.PathLike[str]) -> str:
    """Text that any terminal can take: bytes that are no UTF-8 and control characters as escapes."""
    raw = os.fspath(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)


def note(text: str) -> None:
    """Something worth knowing, on stderr, unless --quiet."""
    if not state.quiet:
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

    notes = {"notes": list(state.image_notes)} if "skipped" in content else {}
    return {"schema": SCHEMA, "version": __version__, **content, **notes}


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
    from encoders.errors import OutputExistsError

    if path is not None and path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists: choose another name, or --overwrite")


def check_figure(path: Path | None, overwrite: bool, types: Sequence[str] = FIGURES) -> None:
    """`check_target` for a figure, whose type its name tells."""
    from encoders.errors import InputError

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
