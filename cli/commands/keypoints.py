"""`fewmatch keypoints`: points marked in a few images, found in all the others."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.data import is_store
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.keypoint_sources import (
    LabelChoice,
    SizedMaps,
    VideoFrames,
    labelled_images,
    parse_sizes,
    read_all_labels,
    sized_maps,
    truth_of_files,
    truth_of_frames,
)
from fewmatch.cli.results.keypoints import (
    KeypointOutputs,
    KeypointResult,
    emit_keypoints,
    keypoint_document,
    write_keypoint_files,
)

if TYPE_CHECKING:
    from fewmatch.labels.labels import Labels

_SEARCH, _WRITTEN = "How parts are found", "What is written"


def keypoints(
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="Points marked in a few images: DeepLabCut's or Lightning Pose's CSV, COCO keypoints (JSON), or a CSV image,part,x,y.",
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES…",
            help="Where to find the same parts: images (files, folders, lists), a store with patches, or one video. Labelled images "
            "among them are left out.",
        ),
    ],
    encoder: options.Encoder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the points there (.csv, or .json for COCO).",
            rich_help_panel=_WRITTEN,
        ),
    ] = None,
    format: Annotated[
        Literal["deeplabcut", "coco", "csv"] | None,
        typer.Option(
            "--format", rich_help_panel=_WRITTEN, help="Format of --out; by default that of LABELS, or COCO for .json."
        ),
    ] = None,
    likelihood: Annotated[
        bool | None,
        typer.Option(
            "--likelihood/--no-likelihood",
            rich_help_panel=_WRITTEN,
            help="For DeepLabCut: write scores as likelihoods, or leave parts that are not visible empty; by default likelihoods.",
        ),
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option(
            "--overlays",
            metavar="FOLDER",
            rich_help_panel=_WRITTEN,
            help="Draw every image with its parts into this folder.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            metavar="FILE",
            rich_help_panel=_WRITTEN,
            help="Contact sheet (.png, .svg or .pdf), the least sure images first.",
        ),
    ] = None,
    sheet_images: Annotated[
        int | None,
        typer.Option(
            "--sheet-images", rich_help_panel=_WRITTEN, help="Images on the contact sheet at most; by default 60."
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            "--review",
            metavar="FILE",
            rich_help_panel=_WRITTEN,
            help="A page (.html) to correct the points in, the least sure images first; what it saves is for --corrections.",
        ),
    ] = None,
    review_images: Annotated[
        int | None,
        typer.Option("--review-images", rich_help_panel=_WRITTEN, help="Images on that page at most; by default 100."),
    ] = None,
    images_root: Annotated[
        Path | None,
        typer.Option(
            "--images-root",
            metavar="FOLDER",
            help="What paths in LABELS are relative to; by default the nearest of its folder and the three above that holds any.",
        ),
    ] = None,
    rescale_labels: Annotated[
        bool,
        typer.Option(
            "--rescale-labels",
            help="Move the points of COCO images whose width and height differ from the file's by one factor; by default such "
            "images are skipped.",
        ),
    ] = False,
    visible: Annotated[
        int | None,
        typer.Option(
            "--visible",
            min=1,
            max=2,
            help="Least v of a COCO point that counts as visible; by default 2, but 1 in a file without any 2.",
        ),
    ] = None,
    corrections: Annotated[
        list[Path] | None,
        typer.Option(
            "--corrections",
            metavar="FILE",
            help="Labels that replace those of the same images in LABELS, and join them for others; give it again for several.",
        ),
    ] = None,
    score: Annotated[
        Path | None,
        typer.Option(
            "--score", metavar="LABELS", help="Compare with these labels of the images: PCK@.05 and .1, median error."
        ),
    ] = None,
    suggest: Annotated[
        int | None, typer.Option("--suggest", metavar="N", help="Name the N images that are most worth labelling next.")
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="PIXELS,…",
            rich_help_panel=_SEARCH,
            help="Input sizes whose similarities are averaged; by default the encoder's own, or 256,384 where that is smaller than 256.",
        ),
    ] = None,
    prototypes: Annotated[
        Literal["mean", "nearest"],
        typer.Option(
            "--prototypes",
            rich_help_panel=_SEARCH,
            help="Average a part's labelled points, or take the best of them at every place.",
        ),
    ] = "mean",
    center: Annotated[
        Literal["none", "image", "labelled"],
        typer.Option(
            "--center",
            rich_help_panel=_SEARCH,
            help="Mean that is subtracted from patches: none, each image's own, or that of the labelled images.",
        ),
    ] = "labelled",
    whitening: Annotated[
        float | None,
        typer.Option(
            "--whitening",
            metavar="λ",
            rich_help_panel=_SEARCH,
            help="How weakly directions in which all patches of the labelled images vary are damped (the larger, the less; 0 is not at "
            "all); by default 0.1.",
        ),
    ] = None,
    contrast: Annotated[
        float | None,
        typer.Option(
            "--contrast",
            rich_help_panel=_SEARCH,
            help="Share of other parts' similarity that is taken off; by default 0.2.",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="PATCHES",
            rich_help_panel=_SEARCH,
            help="Reach of the soft-argmax around the best place; by default 2.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", rich_help_panel=_SEARCH, help="Of that soft-argmax; by default 0.2."),
    ] = None,
    position_prior: Annotated[
        bool,
        typer.Option(
            "--position-prior",
            rich_help_panel=_SEARCH,
            help="Look near where a part is in the labelled images (fixed cameras).",
        ),
    ] = False,
    left_right: Annotated[
        list[str] | None,
        typer.Option(
            "--left-right",
            metavar="PART:PART",
            rich_help_panel=_SEARCH,
            help="Two parts that look alike and are never at one place; give it again for more pairs.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            rich_help_panel=_SEARCH,
            help="Score from which on a part counts as visible; by default chosen on the labels for each part, leaving one image out.",
        ),
    ] = None,
    video: Annotated[
        bool,
        typer.Option(
            "--video",
            rich_help_panel=_SEARCH,
            help="The images are frames in order: look near a part's place in the one before.",
        ),
    ] = False,
    every: Annotated[
        int | None, typer.Option("--every", metavar="N", help="Of a video, each N-th frame; by default all.")
    ] = None,
    start: Annotated[
        int | None, typer.Option("--start", metavar="N", help="Of a video, the first frame, counted from 0.")
    ] = None,
    stop: Annotated[
        int | None, typer.Option("--stop", metavar="N", help="Of a video, the frame before which to end.")
    ] = None,
    overwrite: options.Overwrite = False,
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
    """Find keypoints in many images from a few labelled ones.

    Each part's prototype is the mean of its patch descriptors in the labelled images, whitened by all their patches; in every other
    image the part is where the similarity is largest, between patches. Coordinates are pixels of the original images, their
    centres at integers.
    """
    import numpy as np

    from fewmatch.encoders.video import is_video
    from fewmatch.errors import InputError
    from fewmatch.matching.keypoints.options import KeypointOptions
    from fewmatch.matching.keypoints.search import KeypointFinder, find_keypoints

    outputs = KeypointOutputs(out, format, likelihood, overlays, sheet, sheet_images, review, review_images)
    outputs.check(overwrite)
    if suggest is not None and suggest < 1:
        raise InputError(f"expected --suggest of 1 or more, got {suggest}")
    film = None
    if any(is_video(path) for path in images):
        if len(images) > 1:
            raise InputError("expected one video alone, not together with other images")
        if suggest is not None:
            raise InputError("--suggest is for image files: save the frames of the video as images first")
        if fast_decode:
            raise InputError("--fast-decode is for JPEG files, not for a video")
        film = VideoFrames(images[0], 1 if every is None else every, start or 0, stop)
    elif every is not None or start is not None or stop is not None:
        raise InputError("--every, --start and --stop are for a video")
    reading = LabelChoice(images_root, rescale_labels, {1: 1, 2: 2, None: None}[visible])
    every_label = read_all_labels(labels, corrections or [], reading)
    known = labelled_images(every_label)
    truth = None if score is None else reading.read(score) if film is not None else reading.located(score)
    reading.check([*every_label, *([] if truth is None else [truth])])
    notes = [*known.notes, *(() if truth is None else truth.notes)]
    for text in notes:
        output.note(f"note: {output.printable(text)}")
    if outputs.out is not None:
        outputs.layout(known.layout)
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        None,
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
    how = KeypointOptions(
        center=center,
        prototypes=prototypes,
        position_prior=position_prior,
        left_right=_pairs(left_right or [], known.keypoints.parts),
        **_given(whitening=whitening, contrast=contrast, half_width=window, temperature=temperature),
    )
    with contextlib.ExitStack() as stack:
        if film is None and any(is_store(path) for path in images):
            if sizes is not None:
                raise InputError("--sizes is for images: a store has the size that it was made with")
            query = stack.enter_context(sized_maps(images, choice, [], ""))
            made = query.of_size[0].key
            chosen = [int(made["preprocessing"]["dense"])]
            choice = dataclasses.replace(choice.like(made), resize=made["preprocessing"]["rule"])
        else:
            query, chosen = None, parse_sizes(sizes, choice.loaded)
        assert known.files is not None
        taught = stack.enter_context(sized_maps(known.files, choice, chosen, "encoding labelled images"))
        known = _usable(known, taught)
        taught = taught.only(known.files or ())
        finder = KeypointFinder.fit([taught.views(i) for i in range(len(taught))], known.keypoints, how)
        if threshold is not None:
            finder = dataclasses.replace(finder, threshold=np.full_like(finder.threshold, threshold))
        skipped: list[dict[str, Any]] = [skip.to_json() for skip in known.skipped]
        if film is None:
            if query is None:
                query = stack.enter_context(sized_maps(images, choice, chosen, "encoding"))
            everything = len(query)
            query = query.without({Path(os.path.realpath(file)) for file in known.files or ()})
            if not len(query):
                raise InputError("all of these images are labelled: expected others to find the parts in")
            if len(query) < everything:
                output.note(f"{everything - len(query)} labelled images among them are left out")
            skipped += output.skipped_json(query.skipped)
            frame_sizes = [query.size(i) for i in range(len(query))]
            names = query.names(known.root)
            if truth is not None:  # looked at before the search, so that nothing is lost if it does not fit
                truth = truth_of_files(truth, query.files, names, frame_sizes)
            stream: Iterator[tuple[str, list[Any]]] = ((name, query.views(i)) for i, name in enumerate(names))
            source: SizedMaps | VideoFrames = query
            key, total = query.of_size[0].key, len(query)
        else:
            frame_sizes, total, source = [], 0, film
            stream = _noted(film.views(choice, chosen), frame_sizes)
            key = taught.of_size[0].key
        with output.progress("finding") as update:
            found = find_keypoints(
                finder, stream, video=video, progress=lambda done: update(done, total) if total else update(done, done)
            )
        result = KeypointResult(found, frame_sizes, source, key, chosen, len(known), finder.threshold)
        if truth is not None:
            if film is not None:
                truth = truth_of_frames(truth, found.paths, frame_sizes, reading)
            result = _scored(result, truth)
            skipped += [skip.to_json() for skip in truth.skipped]
        if suggest is not None:
            assert query is not None
            result = _suggested(result, query, taught, suggest)
        written = write_keypoint_files(outputs, result, known.layout)
    if json:
        options_json = _options_json(how, video, threshold)
        output.emit_json(keypoint_document(result, options_json, written, skipped, notes))
    else:
        emit_keypoints(result)
        for row in skipped:
            output.note(f"skipped {output.printable(row['path'] or '')}: {output.printable(row['reason'])}")
    for path in written:
        output.note(f"wrote {output.printable(path)}")
    output.finish(bool(skipped))


def _given(**values: float | None) -> dict[str, Any]:
    """Options that the user gave; a whitening of 0 is none."""
    return {
        name: None if name == "whitening" and value == 0 else value
        for name, value in values.items()
        if value is not None
    }


def _pairs(texts: Sequence[str], parts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    place = {same_name(part): i for i, part in enumerate(parts)}
    pairs = []
    for text in texts:
        found = [place.get(same_name(name)) for name in text.split(":")]
        if len(found) != 2 or found[0] is None or found[1] is None:
            raise InputError(f"expected --left-right PART:PART with two of {', '.join(parts)}, got {text}")
        pairs.append((found[0], found[1]))
    return tuple(pairs)


def _usable(known: Labels, taught: SizedMaps) -> Labels:
    """The labels of images that could be encoded and that hold all their points."""
    from fewmatch.matching.keypoints.locating import keep_inside

    assert known.files is not None
    reasons = {row["path"]: row["reason"] for row in taught.skipped}
    place = {file: i for i, file in enumerate(taught.files)}
    bad = {
        i: reasons.get(file.as_posix(), "cannot be used")
        for i, file in enumerate(known.files)
        if file.absolute() not in place
    }
    known = known.without(bad)
    assert known.files is not None
    return keep_inside(known, [taught.size(place[file.absolute()]) for file in known.files])


def _noted(stream: Iterator[tuple[str, list[Any]]], sizes: list[tuple[int, int]]) -> Iterator[tuple[str, list[Any]]]:
    """The same, with the size of every frame noted."""
    for name, views in stream:
        sizes.append((views[0][1].width, views[0][1].height))
        yield name, views


def _scored(result: KeypointResult, truth: Labels) -> KeypointResult:
    """With the scores of those images that these labels know; they are named as in the result."""
    import numpy as np

    from fewmatch.matching.keypoints.score import score_keypoints

    row = {name: i for i, name in enumerate(truth.keypoints.paths)}
    there = [n for n, name in enumerate(result.found.paths) if name in row]
    index = [row.get(name) for name in result.found.paths]
    known = truth.keypoints.in_order(result.found.parts).for_images(index, result.found.paths)
    scores = score_keypoints(result.found.take(there), known.take(there), np.array([result.sizes[n] for n in there]))
    return dataclasses.replace(result, truth=known, scores=scores)


def _suggested(result: KeypointResult, query: SizedMaps, taught: SizedMaps, count: int) -> KeypointResult:
    from fewmatch.matching.keypoints.suggest import suggest_images

    chosen = suggest_images(result.found, query.vectors(), count, labelled=taught.vectors())
    return dataclasses.replace(result, suggested=[result.found.paths[i] for i in chosen])


def _options_json(how: Any, video: bool, threshold: float | None) -> dict[str, Any]:
    return dataclasses.asdict(how) | {"video": video, "threshold": threshold}
