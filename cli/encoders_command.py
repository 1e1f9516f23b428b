"""`fewmatch encoders`: every checkpoint that has a name, and where its weights are."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import options, output


def encoders(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help="Part of a name or family, or a shell pattern.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """List the encoders: family, size, licence, and where the weights are.

    bundled: inside fewmatch. cached: found on this machine. absent: `fewmatch encode -e NAME` says how to get it.
    """
    from encoders import InputError, catalogue

    records = catalogue.search(pattern)
    if not records:
        raise InputError(f"no encoder matches {pattern}: `fewmatch encoders` lists them all")
    if json:
        output.emit_json(output.document(encoders=[record.to_json() for record in records]))
        return
    rows = []
    for record in records:
        place = record.location()
        a = record.architecture
        rows.append(
            (
                record.name,
                record.family,
                f"{(record.parameters or 0) / 1e6:,.1f} M",
                f"{a['embed_dim']}",
                f"{a['patch_size']}",
                "–" if record.knn is None else f"{record.knn:.1f}",
                record.licence + (" (non-commercial)" if record.non_commercial else ""),
                place[0] if place else "absent",
            )
        )
    columns = (("name", "left"), ("family", "left"), ("parameters", "right"), ("dim", "right"), ("patch", "right"))
    output.emit_table(
        "",
        (*columns, ("k-NN", "right"), ("licence", "left"), ("weights", "left")),
        rows,
        "k-NN: published ImageNet-1k top-1 in percent. `-e` also takes the path of a weights file of these families.",
    )
