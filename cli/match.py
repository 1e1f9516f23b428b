"""`fewmatch match`: which patch of one image is which patch of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import options, output
from cli.data import EncodingChoice, ImageMaps, encoder_json, encoder_words, open_maps

if TYPE_CHECKING:
    from matching import Matches

#: The figure shows this many pairs, the first ones.
FIGURE_PAIRS = 12


def match(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B…",
            help="Images (files, folders, lists), or a store with patches. The first is matched with each of the others.",
        ),
    ],
    encoder: options.Encoder = None,
    out: options.FigureOut = None,
    lines: Annotated[
        int, typer.Option("--lines", help="Lines to draw for each pair, well spread; the results hold all matches.")
    ] = 80,
    overwrite: options.Overwrite = False,
    size: options.Size = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    fast_decode: options.FastDecode = False,
    compile: options.Compile = False,
    resize: options.Resize = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    no_cache: options.NoCache = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Match the first image with each of the others: mutual nearest patches, best first.

    Two patches match if each is the other's nearest by cosine similarity. Coordinates are pixels of the original images, at the centres
    of patches.
    """
    from encoders import InputError
    from matching import match as match_maps

    if lines < 0:
        raise InputError(f"expected --lines of 0 or more, got {lines}")
    output.check_figure(out, overwrite)
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        size,
        not no_cache,
        trust_digest,
        resize,
        layer=layer,
        raw=raw,
        facet=facet,
        stride=stride,
        fast_decode=fast_decode,
        compile=compile,
    )
    with open_maps(images, choice) as maps:
        if not json:
            output.list_skipped(maps.skipped)
        first = next((row for row in maps.skipped if row["path"] == images[0].as_posix()), None)
        if first is not None:
            raise InputError(f"{first['path']}, the image to match with the others, cannot be used: {first['reason']}")
        if len(maps) < 2:
            bad = "; ".join(f"{row['path']}: {row['reason']}" for row in maps.skipped[:3])
            raise InputError(
                f"expected two images or more, got {len(maps)} that can be used" + (f" ({bad})" if bad else "")
            )
        map_a, frame_a = maps.map(0), maps.frame(0)
        with output.progress("matching") as update:
            found = []
            for b in range(1, len(maps)):
                found.append(match_maps(map_a, frame_a, maps.map(b), maps.frame(b)))
                update(b, len(maps) - 1)
        if out is not None:
            _draw(maps, found, lines, out)
        if json:
            output.emit_json(
                output.document(
                    encoder=encoder_json(maps.key),
                    images=[
                        {
                            "path": row["path"],
                            "width": maps.frame(i).width,
                            "height": maps.frame(i).height,
                            "grid": list(maps.frame(i).grid),
                        }
                        for i, row in enumerate(maps.rows)
                    ],
                    pairs=[
                        {"a": 0, "b": b, "confidence": m.confidence, "model": None, "matches": m.to_json()}
                        for b, m in enumerate(found, start=1)
                    ],
                    figure=str(out) if out is not None else None,
                    skipped=output.skipped_json(maps.skipped),
                )
            )
        else:
            rows_a, columns_a = frame_a.grid
            output.emit_table(
                f"{maps.rows[0]['path']}: {rows_a} × {columns_a} patches; {encoder_words(maps.key)}",
                (("matched with", "left"), ("patches", "right"), ("matches", "right"), ("confidence", "right")),
                [
                    (row["path"], "{} × {}".format(*maps.frame(b).grid), f"{len(m):,}", f"{m.confidence:.2f}")
                    for b, (row, m) in enumerate(zip(maps.rows[1:], found, strict=True), start=1)
                ],
                "matches: mutual nearest patches; confidence: the mean cosine over the patches of the smaller grid, an unmatched one "
                "counting 0; --json lists every match",
            )
        if out is not None:
            output.note(f"wrote {output.printable(out)}")
        if maps.skipped:
            raise typer.Exit(3)


def _draw(maps: ImageMaps, found: list[Matches], lines: int, out: Path) -> None:
    from encoders import InputError
    from figures import MatchedPair, match_figure, save_figure
    from figures.lettering import cut

    if len(found) > FIGURE_PAIRS:
        output.note(f"the figure shows the first {FIGURE_PAIRS} of {len(found)} pairs")
        found = found[:FIGURE_PAIRS]
    pictures = [maps.picture(i) for i in range(len(found) + 1)]
    pairs = []
    for b, (matches, picture) in enumerate(zip(found, pictures[1:], strict=True), start=1):
        if pictures[0] is None or picture is None:
            continue
        drawn = f", {lines} of them drawn" if lines < len(matches) else ""
        caption = (
            f"{cut(maps.files[0].name, 40)} – {cut(maps.files[b].name, 40)}: {len(matches):,} mutual nearest patches{drawn}; "
            f"confidence {matches.confidence:.2f}; {encoder_words(maps.key)}"
        )
        pairs.append(MatchedPair(pictures[0], picture, matches, lines, output.printable(caption)))
    if not pairs:
        raise InputError(f"{out} cannot be drawn: the images are no longer where the store found them")
    save_figure(match_figure(pairs), out)
