"""`fewmatch encode`: images to a feature store."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words


def encode(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Folders, image files, or lists (.txt, .csv).")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The store's folder.")],
    encoder: options.Encoder = None,
    keep: Annotated[
        Literal["global", "patches"], typer.Option("--keep", help="One vector per image, or all patches as well.")
    ] = "global",
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Do part I of N; the last to finish completes the store.")
    ] = "1/1",
    size: options.Size = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    crops: options.Crops = None,
    fast_decode: options.FastDecode = False,
    value_range: options.ValueRange = None,
    compile: options.Compile = False,
    resize: options.Resize = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be used.")] = False,
    overwrite: options.Overwrite = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Encode images into a feature store.

    Run again, it computes only what is missing or changed. In a folder of class folders, the first level of folders is the label.
    """
    from fewmatch.encoders.store.encode import encode_images
    from fewmatch.encoders.store.plan import plan_encoding
    from fewmatch.errors import FewmatchError, InputError

    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not parts:
        raise InputError(f"no part {shard}: expected I/N such as 1/4")
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        size,
        trust_digest=trust_digest,
        layer=layer,
        raw=raw,
        facet=facet,
        stride=stride,
        crops=crops,
        fast_decode=fast_decode,
        value_range=value_range,
        compile=compile,
    )
    rule = resize or "keep"
    if keep == "patches":
        plan = plan_encoding(
            images,
            choice.loaded,
            keep=keep,
            size=size,
            resize=rule,
            fast_decode=fast_decode,
            value_range=choice.values,
            crops=1 if crops is None else crops,
        )
        existing = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
        needed, free = plan.expected_bytes(), shutil.disk_usage(existing).free
        output.note(
            f"{len(plan.images):,} images will take about {output.human_bytes(needed)} in {output.printable(out)}; "
            f"{output.human_bytes(free)} are free there"
        )
        if needed > free:
            raise FewmatchError(
                f"not enough room in {out}: about {output.human_bytes(needed)} needed, {output.human_bytes(free)} free"
            )
    with output.progress("encoding") as update:
        store = encode_images(
            images,
            choice.loaded,
            out=out,
            keep=keep,
            size=size,
            resize=rule,
            fast_decode=fast_decode,
            value_range=choice.values,
            crops=1 if crops is None else crops,
            shard=(int(parts[1]), int(parts[2])),
            overwrite=overwrite,
            strict=strict,
            progress=update,
        )
    output.note_images(store.images)
    if json:
        output.emit_json(
            output.document(
                encoder=encoder_json(store.key),
                store=str(out),
                keep=keep,
                finished=store.finished,
                images=len(store.rows),
                encoded=len(store),
                skipped=output.skipped_json(store.skipped),
            )
        )
    else:
        output.list_skipped(store.skipped)
        classes = len({label for label in store.labels if label is not None})
        labels = f", {classes} classes" if classes else ""
        state = "" if store.finished else f"; part {shard} is done, others are not"
        print(
            f"{output.printable(out)}: {len(store):,} images{labels}, {len(store.skipped):,} skipped, {encoder_words(store.key)}{state}"
        )
    if store.rows and not len(store):
        raise InputError(f"none of the {len(store.rows)} images could be used")
    if store.skipped:
        raise typer.Exit(3)
