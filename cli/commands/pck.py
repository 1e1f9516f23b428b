"""`fewmatch pck`: the share of keypoints of a benchmark that are found, with everything that decides the number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.pck_run import BenchmarkChoice, run_pck
from fewmatch.cli.results.pck import PCKOutputs, emit_comparison, emit_pck, pck_document, write_pck_files

if TYPE_CHECKING:
    from fewmatch.matching.benchmarks.pck.convention import Convention

_PAIRS, _COUNTING, _FINDING = "Which pairs", "How right points are counted", "How points are found"
_FILTERS = "Which points count as found"
#: Options that --compare goes with.
_WITH_COMPARE = ("compare", "out", "overwrite", "json", "quiet", "debug")


def pck(
    ctx: typer.Context,
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="The benchmark's folder in its official layout.")
    ] = None,
    kind: Annotated[
        Literal["spair", "pf-pascal", "pf-willow", "tss", "cub", "ap10k", "hpatches", "psc6k"] | None,
        typer.Option("--kind", help="Which benchmark it is."),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--compare",
            metavar="A.json B.json",
            help="Compare two results on the same pairs, the second less the first; nothing is encoded.",
        ),
    ] = None,
    encoder: options.Encoder = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write the whole result there as JSON, for --compare."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a line per category there.")] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="Draw right and wrong points of example pairs there (.png), from source to target, at the headline's alpha.",
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option("--examples", metavar="N", help="Pairs for --figure, evenly from the list; by default 6."),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records",
            metavar="FILE",
            help="Keep what was found of each pair there, and go on from it; by default a file in the cache.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", rich_help_panel=_PAIRS, help="Which part of the benchmark; by default test."),
    ] = None,
    layout: Annotated[
        Literal["large", "small"] | None,
        typer.Option(
            "--layout", rich_help_panel=_PAIRS, help="Which list of spair; by default large where it is there."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="FOLDER", rich_help_panel=_PAIRS, help="Where the paths in the lists of psc6k begin."
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs", metavar="N", rich_help_panel=_PAIRS, help="Pairs drawn of each class of cub; by default 10."
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            metavar="PIXELS",
            rich_help_panel=_PAIRS,
            help="Take every so many-th pixel of tss (by default 1) and hpatches (by default 16), across and down.",
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            "--points",
            metavar="N",
            rich_help_panel=_PAIRS,
            help="Draw at most so many points a pair of tss and hpatches.",
        ),
    ] = None,
    all_sequences: Annotated[
        bool,
        typer.Option(
            "--all-sequences", rich_help_panel=_PAIRS, help="All 116 sequences of hpatches and not the usual 108."
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", rich_help_panel=_PAIRS, help="Draw so many pairs, and say so in the result."
        ),
    ] = None,
    limit_per_category: Annotated[
        int | None,
        typer.Option(
            "--limit-per-category", metavar="N", rich_help_panel=_PAIRS, help="Draw so many of each category."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            rich_help_panel=_PAIRS,
            help="Of what is drawn: pairs for the limits and of cub, points of --points; by default 0.",
        ),
    ] = None,
    preset: Annotated[
        Literal["exact", "sd-dino", "geoaware", "dift", "probe3d", "hpf"],
        typer.Option("--preset", help="Whose convention: exact, or a paper's with its offsets; see docs/pck.md."),
    ] = "exact",
    threshold: Annotated[
        Literal[
            "bbox-target",
            "bbox-source",
            "image-target",
            "image-source",
            "keypoints-target",
            "keypoints-source",
            "fixed",
        ]
        | None,
        typer.Option(
            "--threshold",
            rich_help_panel=_COUNTING,
            help="What distances are measured against: the longer side of the object's box, the image or the points' box; "
            "by default what is customary for the benchmark.",
        ),
    ] = None,
    threshold_px: Annotated[
        float | None,
        typer.Option(
            "--threshold-px",
            metavar="PIXELS",
            rich_help_panel=_COUNTING,
            help="So many pixels of the original for all pairs.",
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            "--alpha",
            rich_help_panel=_COUNTING,
            help="A point is right within this share of the threshold; give it again for more; by default what is customary.",
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--inclusive",
            rich_help_panel=_COUNTING,
            help="Whether a point at exactly the threshold is wrong; by default as the preset.",
        ),
    ] = None,
    direction: Annotated[
        Literal["a-to-b", "b-to-a", "both"] | None,
        typer.Option(
            "--direction",
            rich_help_panel=_COUNTING,
            help="Which image's points are looked for in the other; by default a-to-b, source to target.",
        ),
    ] = None,
    average: Annotated[
        Literal["image", "point", "category", "category-weighted", "category-image"] | None,
        typer.Option(
            "--average",
            rich_help_panel=_COUNTING,
            help="The headline's; all are reported; by default what is customary.",
        ),
    ] = None,
    source: Annotated[
        Literal["bilinear", "patch", "align-corners", "pixel", "covering"] | None,
        typer.Option(
            "--source",
            rich_help_panel=_FINDING,
            help="The descriptor of a point (docs/pck.md); by default as the preset.",
        ),
    ] = None,
    target: Annotated[
        Literal["centre", "offset", "pixel", "displacement"] | None,
        typer.Option(
            "--target", rich_help_panel=_FINDING, help="Where a patch that was found lies; by default as the preset."
        ),
    ] = None,
    offset: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--offset",
            metavar="SHARE PIXELS",
            rich_help_panel=_FINDING,
            help="Of --target offset: a share of the patch's side and pixels of the input to add; by default 0.5 0.",
        ),
    ] = None,
    padding: Annotated[
        bool | None,
        typer.Option(
            "--padding/--no-padding",
            rich_help_panel=_FINDING,
            help="Whether padding can be found; by default as the preset.",
        ),
    ] = None,
    refine: Annotated[
        Literal["none", "soft-argmax"] | None,
        typer.Option(
            "--refine",
            rich_help_panel=_FINDING,
            help="Move places between patch centres: soft-argmax of the similarities in a window; by default as the preset.",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            "--window",
            metavar="PATCHES",
            rich_help_panel=_FINDING,
            help="How far the window of the soft-argmax reaches from the best patch; by default as the preset, or 1.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", rich_help_panel=_FINDING, help="Of the window's softmax; by default 0.02."),
    ] = None,
    outside: Annotated[
        Literal["-inf", "zero"] | None,
        typer.Option(
            "--outside",
            rich_help_panel=_FINDING,
            help="The similarity of what lies outside the window; by default -inf.",
        ),
    ] = None,
    flip: Annotated[
        Literal["none", "nearest", "mutual"] | None,
        typer.Option(
            "--flip",
            rich_help_panel=_FINDING,
            help="Take the source as its mirror image where that fits better, judged by each patch's nearest or by mutual "
            "matches; by default as the preset.",
        ),
    ] = None,
    foreground: Annotated[
        Literal["none", "pca", "cls"],
        typer.Option(
            "--foreground",
            rich_help_panel=_FINDING,
            help="Find points on the foreground alone: pca (told by the principal components of all images' patches) or cls (by the "
            "similarity of patches to their image's global vector).",
        ),
    ] = "none",
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FOLDER",
            rich_help_panel=_FINDING,
            help="Find points only where these pictures are not black: <name>.png for each image, in the folder or in one that is called as "
            "the image's.",
        ),
    ] = None,
    fine_size: Annotated[
        int | None,
        typer.Option(
            "--fine-size",
            metavar="PIXELS",
            rich_help_panel=_FINDING,
            help="Encode the images a second time at this larger size, and look there near each place found.",
        ),
    ] = None,
    coarse_to_fine: Annotated[
        int | None,
        typer.Option(
            "--coarse-to-fine",
            metavar="N",
            rich_help_panel=_FINDING,
            help="Look in means of N × N patches first, then among patches near the place found.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            rich_help_panel=_FILTERS,
            help="Take points with a smaller cosine than this for not found: they count as wrong.",
        ),
    ] = None,
    max_ratio: Annotated[
        float | None,
        typer.Option(
            "--max-ratio",
            rich_help_panel=_FILTERS,
            help="The same for points whose cosine distance is more than this share of that of the best place elsewhere (0 to 1).",
        ),
    ] = None,
    exclusion: Annotated[
        float | None,
        typer.Option(
            "--exclusion",
            metavar="PATCHES",
            rich_help_panel=_FILTERS,
            help="How far away elsewhere begins for --max-ratio; by default 2 patches.",
        ),
    ] = None,
    max_cycle: Annotated[
        float | None,
        typer.Option(
            "--max-cycle",
            metavar="PATCHES",
            rich_help_panel=_FILTERS,
            help="The same for points that do not lead back to within so many patches of their own; 0 is mutual.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PIXELS",
            help="Input size, a multiple of the patch size; by default the preset's, or the encoder's.",
        ),
    ] = None,
    layer: options.Layer = None,
    raw: Annotated[
        bool | None,
        typer.Option("--raw/--no-raw", help="Features of the layer before the final norm; by default as the preset."),
    ] = None,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    fast_decode: options.FastDecode = False,
    value_range: options.ValueRange = None,
    compile: options.Compile = False,
    resize: Annotated[
        Literal["keep", "pad", "squash"] | None,
        typer.Option(
            "--resize",
            help="How an image is brought to --size: keep (short side to it), pad (long side to it, padded to a square) or "
            "squash (to a square); by default as the preset.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    no_cache: options.NoCache = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure PCK, the share of keypoints found within α·T of their places, on a correspondence benchmark.

    Every average and α is reported in one run, with all that decides the numbers. A run that was stopped goes on where it was; other α,
    --strict or --average count the same pairs anew without the encoder's work.
    """
    from fewmatch.errors import InputError

    if compare is not None:
        given = [
            name
            for name in ctx.params
            if name not in _WITH_COMPARE and getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ]
        if given:
            raise InputError(f"--compare reads two results, so {_spelt(given[0])} is not used: leave it out")
        output.check_target(out, overwrite)
        emit_comparison(compare, out, json)
        return
    if dataset is None or kind is None:
        raise InputError("expected a benchmark's folder and its --kind, or --compare with two results")
    outputs = PCKOutputs(out, csv, figure, examples)
    outputs.check(overwrite)
    chosen = BenchmarkChoice(
        dataset,
        kind,
        split=split or "test",
        layout=layout,
        images=images,
        pairs=pairs,
        step=step,
        points=points,
        all_sequences=all_sequences or None,
        limit=limit,
        limit_per_category=limit_per_category,
        seed=seed,
    )
    chosen.check()
    changes: dict[str, Any] = {
        "threshold": threshold,
        "fixed": threshold_px,
        "alphas": None if not alpha else tuple(alpha),
        "inclusive": None if strict is None else not strict,
        "direction": direction,
        "average": average,
        "size": size,
        "resize": resize,
        "layer": layer,
        "raw": raw,
        "facet": facet,
        "stride": stride,
        "source": source,
        "target": target,
        "offset": offset,
        "exclude_padding": None if padding is None else not padding,
        "window": window,
        "temperature": temperature,
        "outside": outside,
        "flip": flip,
        "where": "masks" if mask is not None else None if foreground == "none" else foreground,
        "fine_size": fine_size,
        "coarse_to_fine": coarse_to_fine,
        "min_score": min_score,
        "max_ratio": max_ratio,
        "exclusion": exclusion,
        "max_cycle": max_cycle,
    }
    if mask is not None and foreground != "none":
        raise InputError("--mask and --foreground together: expected one of them")
    changes = {name: value for name, value in changes.items() if value is not None}
    convention = _convention(kind, preset, changes, refine)
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        size,
        not no_cache,
        trust_digest,
        convention.resize,
        layer=convention.layer,
        raw=convention.raw,
        facet=convention.facet,
        stride=convention.stride,
        fast_decode=fast_decode,
        value_range=value_range,
        compile=compile,
    )
    result = run_pck(chosen, convention, choice, records, mask, outputs.draw)
    document = pck_document(result)
    written = write_pck_files(outputs, result, document)
    if json:
        output.emit_json(document)
    else:
        output.list_skipped(result.skipped)
        emit_pck(result)
    for path in written:
        output.note(f"wrote {output.printable(path)}")
    output.finish(bool(result.skipped))


def _convention(
    kind: str, preset: str, changes: dict[str, Any], refine: Literal["none", "soft-argmax"] | None
) -> Convention:
    """The convention that is asked for; options that it would not use are refused."""
    from fewmatch.errors import InputError
    from fewmatch.matching.benchmarks.pck.presets import PRESETS, choose_convention
    from fewmatch.matching.refinement import HALF_WIDTH

    if refine == "none" and "window" in changes:
        raise InputError("--window is of the soft-argmax, which --refine none leaves out: expected one of them")
    if refine == "none":
        changes["window"] = None
    elif refine is not None:
        changes.setdefault("window", PRESETS[preset].get("window", HALF_WIDTH))

    if "fixed" in changes:
        changes.setdefault("threshold", "fixed")
    convention = choose_convention(kind, preset, **changes)
    for option in ("temperature", "outside"):
        if option in changes and convention.window is None:
            raise InputError(f"--{option} is of the soft-argmax: expected --refine soft-argmax with it")
    if "exclusion" in changes and convention.max_ratio is None:
        raise InputError("--exclusion is for --max-ratio, which is not asked for")
    if "offset" in changes and convention.target != "offset":
        raise InputError(f"--offset is for --target offset, got --target {convention.target}")
    return convention


def _spelt(name: str) -> str:
    """A parameter as the user writes it."""
    return "DATASET" if name == "dataset" else f"--{name.replace('_', '-')}"
