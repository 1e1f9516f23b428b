"""`fewmatch classify`: labels for new images from a few labelled ones."""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.data import is_store, open_features
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words
from fewmatch.cli.inputs.labellers import Asked, make_labeller, read_labeller
from fewmatch.cli.results.classify import (
    CsvWriter,
    Doubtful,
    caption_of,
    csv_file,
    draw_sheet,
    print_counts,
    print_results,
    results_of,
)
from fewmatch.cli.sort import SortPlan

#: Above these, results are written as they come and only the likeliest classes are shown.
STREAM_QUERIES = 1_000
STREAM_CLASSES = 50
#: The figure shows this many images, the least certain.
SHEET_IMAGES = 60


def classify(
    support: Annotated[
        Path | None,
        typer.Option("--support", metavar="DIR", help="Labelled examples: class folders, a CSV list, or a store."),
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option("--query", metavar="IMAGES…", help="Images to label: folders, files, lists, or a store."),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES", help="More images to label.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="What --save-model kept, in place of --support.")
    ] = None,
    save_model: Annotated[
        Path | None,
        typer.Option(
            "--save-model",
            metavar="FILE",
            help="Keep all that was found in the examples as one file, to label without them later.",
        ),
    ] = None,
    encoder: options.Encoder = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help="Few-shot method, see docs/few-shot.md; by default ncm."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.OPTION=VALUE", help="An option of the method, such as knn.k=5; repeat for more."
        ),
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(
            "--center",
            metavar="MODE",
            help="Mean that is subtracted: none, base, support, support+query, separate or feature; by default the method's "
            "(support for ncm).",
        ),
    ] = None,
    base: options.Base = None,
    metric: Annotated[
        Literal["euclidean", "cosine"] | None,
        typer.Option("--metric", help="Distance to the class means, for methods that have a choice."),
    ] = None,
    prenormalize: options.Prenormalize = False,
    temperature: Annotated[
        str | None,
        typer.Option(
            "--temperature",
            metavar="auto|VALUE",
            help="Factor on the scores (ncm: the squared distance) in the softmax; auto fits it to examples held out one by one. "
            "By default the method's (10 for ncm).",
        ),
    ] = None,
    reject: Annotated[
        str | None,
        typer.Option(
            "--reject",
            metavar="auto|VALUE",
            help="Images less similar to every class than this, a cosine, are none of these; auto finds a value with examples "
            "held out one by one.",
        ),
    ] = None,
    accept: Annotated[
        float | None,
        typer.Option("--accept", help="Share of held-out examples that --reject auto accepts; by default 0.95."),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", help="Classes to list per image; by default all; 5 above 50 classes or 1000 images."),
    ] = None,
    out: options.Out = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="Draw the images with their labels, least certain first (.png, .svg or .pdf).",
        ),
    ] = None,
    sort_into: Annotated[
        Path | None,
        typer.Option("--sort-into", metavar="DIR", help="Plan copies of the images in class folders below DIR."),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --sort-into: hard links instead of copies.")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="With --sort-into: do it; without, the plan is shown and nothing written.")
    ] = False,
    overwrite: options.Overwrite = False,
    size: options.Size = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    crops: options.Crops = None,
    fast_decode: options.FastDecode = False,
    value_range: options.ValueRange = None,
    compile: options.Compile = False,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    no_cache: options.NoCache = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Label images from a few examples per class, with probabilities, and tell what is none of these.

    Above 1000 images or 50 classes, --json writes a line per image as it comes, behind a first line that describes the run.
    """
    from fewmatch.encoders import FeatureStore
    from fewmatch.encoders.identity import key_difference
    from fewmatch.errors import InputError

    queries = [*(query or []), *(more or [])]
    if support is not None and model is not None:
        raise InputError("--support and --model exclude each other: the model holds what its examples said")
    if support is None and model is None:
        raise InputError("expected either --support DIR with labelled examples or --model FILE")
    if not queries and save_model is None:
        raise InputError("expected --query IMAGES to label (or --save-model FILE to keep what the examples say)")
    if top is not None and top < 1:
        raise InputError(f"expected --top of 1 or more, got {top}")
    if sort_into is None and (link or apply):
        raise InputError(f"{'--link' if link else '--apply'} goes with --sort-into DIR")
    if not queries and (out or figure or sort_into):
        raise InputError("--out, --figure and --sort-into need --query IMAGES to label")
    if sort_into is not None:
        _check_apart(sort_into, queries)
    output.check_target(out, overwrite)
    output.check_target(save_model, overwrite)
    output.check_figure(figure, overwrite)
    choice = EncodingChoice(
        encoder,
        device,
        dtype,
        size,
        not no_cache,
        trust_digest,
        layer=layer,
        raw=raw,
        facet=facet,
        stride=stride,
        crops=crops,
        fast_decode=fast_decode,
        value_range=value_range,
        compile=compile,
    )
    asked = Asked(method, settings or [], center, base, metric, prenormalize, temperature, reject, accept)
    if support is None:
        labelled = read_labeller(model or Path(), asked)
        choice = choice.like(labelled.key)
    else:
        for path in (support, *queries):
            if is_store(path):  # what a store was made with goes for the images as well
                choice = choice.like(FeatureStore.open(path).key)
                break
        labelled = make_labeller(support, asked, choice)
    labeller, key = labelled.labeller, labelled.key
    if save_model is not None:
        from fewmatch.fewshot.labelling.model_file import save_labeller

        save_labeller(labeller, save_model, key)
        output.note(f"wrote {output.printable(save_model)}")
    plan = None if sort_into is None else SortPlan(sort_into, labeller.class_names, link=link)
    about = output.document(encoder=encoder_json(key), **labelled.describe())
    if not queries:
        if json:
            output.emit_json(about | {"queries": 0, "results": [], "skipped": []} | output.notes_json())
        if labelled.skipped:
            raise typer.Exit(3)
        return
    run = _Run(json=json, figure=figure is not None, plan=plan)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_features(queries, choice, "encoding queries"))
        difference = key_difference(key, source.key)
        if difference:
            raise InputError(f"support and query images were encoded differently ({difference}): encode them alike")
        run.streaming = source.count > STREAM_QUERIES or len(labeller.class_names) > STREAM_CLASSES
        if run.streaming and labeller.transductive:
            fitted = labeller.fitted
            what = f"--method {fitted.method.name}" if fitted.method.transductive else f"--center {fitted.center}"
            raise InputError(
                f"{what} needs all queries at once, which stops at {STREAM_QUERIES} images and {STREAM_CLASSES} classes: "
                f"use {'--method ncm' if fitted.method.transductive else '--center support'}"
            )
        listed = top or (5 if run.streaming else len(labeller.class_names))
        about["queries"] = source.count
        if out is not None:
            shown = labeller.class_names if listed >= len(labeller.class_names) else listed
            run.writer = CsvWriter(stack.enter_context(csv_file(out)), shown, rejects=labeller.reject is not None)
        if json and run.streaming:
            output.emit_json_line(about | {"stream": True})
        for rows, vectors in _portions(source.portions, whole=labeller.transductive):
            for row, result in zip(rows, results_of(rows, vectors, labeller, listed), strict=True):
                run.take(row, result)
    if plan is not None and apply:
        plan.apply()
    caption = caption_of(labeller, encoder_words(key))
    drawn = False
    if figure is not None and run.doubtful:
        with output.drawing(figure):
            draw_sheet(run.doubtful, run.counts.total(), figure)
            drawn = True
    if json:
        sorted_json = {} if plan is None else {"sort": plan.to_json(apply)}
        if run.streaming:
            if plan is not None:
                output.emit_json_line(sorted_json)
            last = output.notes_json() | output.drawing_json()
            if any(last.values()):
                output.emit_json_line(last)
        else:
            found = {"results": run.results, "skipped": output.skipped_json(run.skipped)}
            output.emit_json(about | found | output.notes_json() | output.drawing_json() | sorted_json)
    else:
        output.list_skipped(run.skipped)
        if run.streaming:
            print_counts(run.counts, caption)
        else:
            print_results(run.results, run.counts, len(labeller.class_names), caption)
        if plan is not None:
            plan.show(apply)
    if drawn and figure is not None:
        output.note(f"wrote {output.printable(figure)}")
    if out is not None:
        output.note(f"wrote {output.printable(out)}")
    lost = [] if plan is None else plan.of("gone", "conflict")
    for file in lost:
        why = "it is gone from where it was" if file.action == "gone" else f"{file.target} is another file"
        output.note(f"not sorted: {output.printable(file.name)}: {output.printable(why)}")
    if not run.counts:
        raise InputError(f"none of the {source.count} query images could be used")
    output.finish(bool(run.skipped or labelled.skipped or lost))


class _Run:
    """Results on their way to where they are wanted; only what is shown or drawn in the end is kept."""

    def __init__(self, *, json: bool, figure: bool, plan: SortPlan | None) -> None:
        self.results: list[dict[str, Any]] = []
        self.skipped: list[dict[str, Any]] = []
        self.counts: Counter[str | None] = Counter()
        self.doubtful: list[Doubtful] = []
        self.writer: CsvWriter | None = None
        self.streaming = False
        self._json, self._figure, self._plan = json, figure, plan

    def take(self, row: dict[str, Any], result: dict[str, Any]) -> None:
        """One image's manifest line and result."""
        if self.writer is not None:
            self.writer.write(result)
        if self.streaming and self._json:
            output.emit_json_line(result)
        if "reason" in result:
            self.skipped.append(result)
            return
        if not self.streaming:
            self.results.append(result)
        label = result["label"]
        self.counts[label] += 1
        if self._plan is not None:
            self._plan.add(row, label)
        if self._figure:
            entry = (-result["probability"], -self.counts.total(), row, label)
            (heapq.heappush if len(self.doubtful) < SHEET_IMAGES else heapq.heappushpop)(self.doubtful, entry)


def _check_apart(into: Path, queries: list[Path]) -> None:
    """Refuse to sort into what is being labelled: the next run would label the copies."""
    from fewmatch.errors import InputError

    for path in queries:
        if path.is_dir() and not is_store(path) and into.resolve().is_relative_to(path.resolve()):
            raise InputError(f"{into} lies in {path}, whose images are labelled: choose another folder for --sort-into")


def _portions(
    portions: Iterator[tuple[list[dict[str, Any]], Any]], whole: bool
) -> Iterator[tuple[list[dict[str, Any]], Any]]:
    """As they come, or all in one where the queries count as a set."""
    if not whole:
        yield from portions
        return
    import numpy as np

    parts = list(portions)
    yield [row for rows, _ in parts for row in rows], np.concatenate([vectors for _, vectors in parts])
