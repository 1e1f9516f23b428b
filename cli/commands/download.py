"""`fewmatch download`: weights by name, fetched or brought, verified."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewmatch.cli import options, output

if TYPE_CHECKING:
    from fewmatch.encoders import Checkpoint


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Encoders by name (see `fewmatch encoders`), or shell patterns of names and families, such as 'dinov2_*'.",
            autocompletion=options.encoder_names,
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Install this file as the weights, instead of fetching them."),
    ] = None,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Fetch weights, verify them, and say where they are.

    A download that was cut goes on where it stopped. Weights that are here already, in torch.hub's or Hugging Face's caches too,
    are only verified. With several names the rest is done when one fails; the exit code is that of the first failure.
    """
    from fewmatch.errors import FewmatchError, InputError

    records = _records(names)
    if source is not None and len(records) != 1:
        raise InputError(f"--from is for the weights of one encoder: expected one NAME, got {len(records)}")
    results = []
    failures: list[FewmatchError] = []
    for record in records:
        try:
            result = _have(record, source, trust_digest)
        except FewmatchError as error:
            if output.state.debug:
                raise
            failures.append(error)
            output.error(str(error))
            result = {"status": "failed", "path": None, "sha256": None, "error": str(error)}
        else:
            result |= {"error": None}
            if not json:
                _print(record, result)
        results.append({"name": record.name, "licence": record.licence, "digest_trust": record.digest_trust} | result)
    if json:
        output.emit_json(output.document(weights=results))
    if failures:
        raise typer.Exit(failures[0].exit_code)


@contextlib.contextmanager
def shown(name: str) -> Iterator[tuple[Callable[[str], None], Callable[[int, int | None], None]]]:
    """Notes and a bar on stderr for what may fetch weights: its arguments `note` and `progress`. The bar appears with the first byte."""
    if output.state.quiet or not sys.stderr.isatty():
        yield _note, lambda *_: None
        return
    with contextlib.ExitStack() as stack:
        bar: list[Any] = []

        def progress(done: int, total: int | None) -> None:
            if not bar:
                bar.append(stack.enter_context(_bar()))
                bar.append(bar[0].add_task(output.printable(name), total=None))
            bar[0].update(bar[1], completed=done, total=total)

        yield _note, progress


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )


def _note(text: str) -> None:
    output.note(output.printable(text))


def _records(names: list[str]) -> list[Checkpoint]:
    """All that the names and patterns mean, each once; before anything is fetched."""
    from fewmatch.encoders import catalogue
    from fewmatch.errors import InputError

    records: dict[str, Checkpoint] = {}
    for name in names:
        pattern = any(sign in name for sign in "*?[")
        found = catalogue.search(name) if pattern else [catalogue.find(name)]
        if not found:
            raise InputError(f"no encoder matches {name}: {catalogue.nearest(name)}")
        records |= {record.name: record for record in found}
    return list(records.values())


def _have(record: Checkpoint, source: Path | None, trust_digest: bool) -> dict[str, Any]:
    from fewmatch.encoders.weights.files import obtain, verify
    from fewmatch.encoders.weights.installing import install_weights

    if record.non_commercial:
        _note(f"{record.name}: {record.licence}, non-commercial use only")
    place = record.location()
    if source is not None:
        path, status = install_weights(record, source, trust_digest=trust_digest), "installed"
    elif place:
        path, status = place[1], "bundled" if record.bundled else "present"
    else:
        with shown(record.name) as (note, progress):
            path, status = obtain(record, trust_digest=trust_digest, note=note, progress=progress), "fetched"
    digest = verify(record, path, trust_digest)
    return {"status": status, "path": str(path), "sha256": digest, "bytes": path.stat().st_size}


_WORDS = {
    "bundled": "part of fewmatch",
    "present": "here already, verified",
    "fetched": "fetched and verified",
    "installed": "installed",
}


def _print(record: Checkpoint, result: dict[str, Any]) -> None:
    print(f"{record.name}: {output.printable(result['path'])} ({_WORDS[result['status']]}, SHA-256 {result['sha256']})")
