"""`fewmatch match`: which patch of one image is which patch of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.maps import open_maps
from fewmatch.cli.inputs.match_pairs import chosen_pairs, read_points
from fewmatch.cli.match_steps import MatchSteps, prepared
from fewmatch.cli.results.match import emit_matches
from fewmatch.cli.results.match_files import MatchOutputs, write_outputs

_WHERE, _WHICH, _FINER = "Where to look", "Which matches", "More exact"


def match(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="A B…",
            help="Images (files, folders, lists), or a store with patches. The first is matched with each of the others.",
        ),
    ],
    encoder: options.Encoder = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the result there: a figure (.png, .svg, .pdf), a page to click in (.html), or all matches (.csv, .npz). "
            "Give it again for several.",
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help="CSV with columns a,b: the images to match, each by its path as given or its name.",
        ),
    ] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="X,Y",
            help="Find this point of the first image in the others, in pixels; give it again for more, or a CSV with columns x,y.",
        ),
    ] = None,
    foreground: Annotated[
        Literal["none", "pca", "cls"],
        typer.Option(
            "--foreground",
            rich_help_panel=_WHERE,
            help="Match the foreground alone: pca (told by the principal components of all images' patches) or cls (by the similarity "
            "of patches to their image's global vector).",
        ),
    ] = "none",
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            metavar="PNG|FOLDER",
            rich_help_panel=_WHERE,
            help="Match only where this picture is not black: one for each image, in order, or a folder with <name>.png for all.",
        ),
    ] = None,
    mirror: Annotated[
        Literal["never", "nearest", "mutual"],
        typer.Option(
            "--mirror",
            rich_help_panel=_WHERE,
            help="Mirror A from left to right where it then fits B better, judged by each patch's nearest or by mutual matches.",
        ),
    ] = "never",
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", rich_help_panel=_WHICH, help="Leave out matches with a smaller cosine than this."),
    ] = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(
            "--max-ratio",
            rich_help_panel=_WHICH,
            help="Leave out matches whose cosine distance is more than this share of that of the best place elsewhere (0 to 1).",
        ),
    ] = None,
    exclusion: Annotated[
        float | None,
        typer.Option(
            "--exclusion",
            metavar="PATCHES",
            rich_help_panel=_WHICH,
            help="How far away elsewhere begins for --max-ratio; by default 2 patches.",
        ),
    ] = None,
    max_cycle: Annotated[
        float,
        typer.Option(
            "--max-cycle",
            metavar="PATCHES",
            rich_help_panel=_WHICH,
            help="Take patches whose match leads back to within so many patches of them; 0 is mutual.",
        ),
    ] = 0.0,
    verify: Annotated[
        Literal["none", "homography", "affine", "fundamental"],
        typer.Option(
            "--verify", rich_help_panel=_WHICH, help="Fit this model to the matches and say which agree with it."
        ),
    ] = "none",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="PIXELS",
            rich_help_panel=_WHICH,
            help="How far from the model a match may lie in B for --verify; by default a patch of B.",
        ),
    ] = None,
    inliers: Annotated[
        bool,
        typer.Option(
            "--inliers", rich_help_panel=_WHICH, help="Keep only the matches that agree with the model of --verify."
        ),
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            rich_help_panel=_WHICH,
            help="Keep at most so many matches for each pair, spread out (of those that agree with the model, where there is one).",
        ),
    ] = None,
    select: Annotated[
        Literal["spread", "buddies"] | None,
        typer.Option(
            "--select",
            rich_help_panel=_WHICH,
            help="How --count chooses: spread (the best of their surroundings; the default) or buddies (the best of each cluster of "
            "descriptors).",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            rich_help_panel=_WHICH,
            help="Of the samples of --verify and the clusters of --select buddies; by default 0.",
        ),
    ] = None,
    refine: Annotated[
        Literal["none", "soft-argmax"],
        typer.Option(
            "--refine",
            rich_help_panel=_FINER,
            help="Move points of B between patch centres: soft-argmax of the similarities in a window.",
        ),
    ] = "none",
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            metavar="PATCHES",
            rich_help_panel=_FINER,
            help="How far the window of --refine reaches from its middle; by default 1.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", rich_help_panel=_FINER, help="Of the softmax for --refine; by default 0.02."),
    ] = None,
    coarse_to_fine: Annotated[
        int | None,
        typer.Option(
            "--coarse-to-fine",
            metavar="N",
            rich_help_panel=_FINER,
            help="Match means of N × N patches first, then patches near these matches only: faster with 10,000 patches or more.",
        ),
    ] = None,
    fine_size: Annotated[
        int | None,
        typer.Option(
            "--fine-size",
            metavar="PIXELS",
            rich_help_panel=_FINER,
            help="Encode the images a second time at this larger size, and look there near each match only.",
        ),
    ] = None,
    flow: Annotated[
        Path | None,
        typer.Option(
            "--flow",
            metavar="FILE",
            help="Write where each pixel of A is in B, for one pair (.npz, or Middlebury's .flo).",
        ),
    ] = None,
    warp: Annotated[
        Path | None,
        typer.Option("--warp", metavar="FILE", help="Draw A's colours carried to B (.png, .svg or .pdf)."),
    ] = None,
    colour: Annotated[
        Literal["position", "score", "pca", "inliers"] | None,
        typer.Option(
            "--colour",
            help="What the lines' colours say: position (in A; the default), score, pca (of the patch in A, with both maps below) or "
            "inliers (of --verify).",
        ),
    ] = None,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", help="Lines to draw for each pair, well spread, by default 80; the results hold all matches."
        ),
    ] = None,
    numbered: Annotated[
        bool,
        typer.Option(
            "--numbered",
            help="Draw numbers in circles at both ends, not lines, for the 15 best matches that lie well apart.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    size: options.Size = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    fast_decode: options.FastDecode = False,
    value_range: options.ValueRange = None,
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
    of patches unless told to be more exact.
    """
    from fewmatch.errors import InputError

    outputs = MatchOutputs(out or [], flow, warp, colour, lines, numbered)
    steps = MatchSteps(
        foreground=foreground,
        masks=mask or [],
        mirror=mirror,
        min_score=min_score,
        max_ratio=max_ratio,
        exclusion=exclusion,
        max_cycle=max_cycle,
        coarse_to_fine=coarse_to_fine,
        fine_size=fine_size,
        refine=refine,
        window=window,
        temperature=temperature,
        verify=verify,
        threshold=threshold,
        inliers=inliers,
        count=count,
        select=select,
        seed=seed,
        points=read_points(points or []),
        flow=flow is not None,
        warp=warp is not None,
        heat=bool(points) and outputs.draws,
    )
    steps.check()
    outputs.check(overwrite, verify != "none", bool(points))
    if points and pairs is not None:
        raise InputError("--points and --pairs together: points are in the first image, so expected one of them")
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
        value_range=value_range,
        compile=compile,
    )
    with open_maps(images, choice) as maps:
        if not json:
            output.list_skipped(maps.skipped)
        first = next((row for row in maps.skipped if row["path"] == images[0].as_posix()), None)
        if first is not None and pairs is None:
            raise InputError(f"{first['path']}, the image to match with the others, cannot be used: {first['reason']}")
        if len(maps) < 2:
            bad = "; ".join(f"{row['path']}: {row['reason']}" for row in maps.skipped[:3])
            raise InputError(
                f"expected two images or more, got {len(maps)} that can be used" + (f" ({bad})" if bad else "")
            )
        chosen = chosen_pairs(pairs, [row["path"] for row in maps.rows])
        if flow is not None and len(chosen) > 1:
            raise InputError(f"--flow is for one pair of images, got {len(chosen)}")
        with prepared(maps, images, chosen, steps) as finder:
            with output.progress("matching") as update:
                found = []
                for pair in finder.find(chosen):
                    found.append(pair)
                    update(len(found), len(chosen))
            written = write_outputs(outputs, maps, found, finder)
        emit_matches(maps, found, steps, written, json)
        for path in written:
            output.note(f"wrote {output.printable(path)}")
        output.finish(bool(maps.skipped))
