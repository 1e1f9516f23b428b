"""The options that mean the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewmatch.cli import output

DEFAULT_ENCODER = "dinov2_vits14"


def encoder_names(incomplete: str) -> list[str]:
    """Names to complete what was typed."""
    from fewmatch.encoders import catalogue

    return [record.name for record in catalogue.checkpoints() if record.name.startswith(incomplete)]


def _set_quiet(value: bool) -> bool:
    output.state.quiet = output.state.quiet or value
    return value


def _set_debug(value: bool) -> bool:
    output.state.debug = output.state.debug or value
    return value


Encoder = Annotated[
    str | None,
    typer.Option(
        "-e",
        "--encoder",
        metavar="NAME",
        help="Encoder by name (see `fewmatch encoders`), weights file, hf:REPOSITORY or hf:FOLDER; "
        f"by default {DEFAULT_ENCODER}, or the store's.",
        autocompletion=encoder_names,
    ),
]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "-e",
        "--encoder",
        metavar="NAME",
        help="Encoder by name (see `fewmatch encoders`), weights file, hf:REPOSITORY or hf:FOLDER; "
        f"by default {DEFAULT_ENCODER}, or the store's. "
        "Give it again for several, whose features are put side by side.",
        autocompletion=encoder_names,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"] | None,
    typer.Option(
        "--dtype",
        help="Number format of the network; by default bfloat16 where the hardware has it, or the store's.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        metavar="PIXELS",
        help="Input size, a multiple of the patch size; by default the encoder's, or the store's.",
    ),
]
Resize = Annotated[
    Literal["keep", "crop", "pad", "squash"] | None,
    typer.Option(
        "--resize",
        help="How an image is brought to --size for its patches: keep (short side to it, all of the image, its shape kept; "
        "the default), crop (central square), pad (long side to it, padded to a square) or squash (to a square).",
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer",
        metavar="LAYER",
        help="Blocks to take features from: last (the default), 8 or -4 (counted from 0, or from the end), last4, or 3,7,11; "
        "several are put side by side.",
    ),
]
Raw = Annotated[bool, typer.Option("--raw", help="Features of the layer before the final norm.")]
Facet = Annotated[
    Literal["token", "key", "query", "value"],
    typer.Option(
        "--facet", help="The layer's output, or the keys, queries or values of its attention (vision transformers)."
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(
        "--stride",
        metavar="PIXELS",
        help="Pixels from one patch to the next; less than the patch size gives denser patches that overlap, and takes longer.",
    ),
]
FastDecode = Annotated[
    bool,
    typer.Option(
        "--fast-decode",
        help="Decode large JPEGs at 1/2, 1/4 or 1/8 of their size: faster, and features differ a little.",
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="RANGE",
        help="Values of 16-bit images that become black and white: full (0 and 65535; the default), auto (each image's own 0.1 and "
        "99.9 percentile) or LOW,HIGH for all images, such as 0,4095 for 12-bit data. 8-bit images stay as they are.",
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network with torch.compile first, which takes a minute or less."),
]
Crops = Annotated[
    int | None,
    typer.Option(
        "--crops",
        help="Average the vectors of 1 crop (the centre; the default), 5 (and the corners) or 10 (and their mirror images).",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same episodes.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", callback=_set_quiet, help="No progress bars and notes.")]
Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Tracebacks for errors.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do not keep the features for next time.")]
TrustDigest = Annotated[
    bool, typer.Option("--trust-digest", help="Accept weights whose digest is not the one others observed.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the results there as CSV.")]
FigureOut = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Draw the result there (.png, .svg or .pdf).")
]
Center = Annotated[
    str,
    typer.Option(
        "--center",
        metavar="MODE",
        help="Mean that is subtracted: none, base, support, support+query, separate or feature.",
    ),
]
Base = Annotated[
    Path | None, typer.Option("--base", metavar="DATA", help="Base set for --center base: a store, images or an .npz.")
]
Metric = Annotated[Literal["euclidean", "cosine"], typer.Option("--metric", help="Distance to the class means.")]
Prenormalize = Annotated[bool, typer.Option("--prenormalize", help="Unit-normalise before centring (EASY's E-M-E).")]
