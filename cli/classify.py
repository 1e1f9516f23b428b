"""`fewmatch classify`: labels for new images from a few labelled ones."""

from __future__ import annotations

import contextlib
import csv
import heapq
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from cli import options, output
from cli.data import (
    EncodingChoice,
    encoder_json,
    encoder_words,
    is_store,
    open_features,
    picture_of,
    read_base,
    read_table,
)

#: Above these, results are written as they come and only the likeliest classes are shown.
STREAM_QUERIES = 1_000
STREAM_CLASSES = 50
#: The figure shows this many images, the least certain.
SHEET_IMAGES = 60


def classify(
    support: Annotated[
        Path, typer.Option("--support", metavar="DIR", help="Labelled examples: class folders, a CSV list, or a store.")
    ],
    query: Annotated[
        list[Path],
        typer.Option("--query", metavar="IMAGES…", help="Images to label: folders, files, lists, or a store."),
    ],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES", help="More images to label.", show_default=False)
    ] = None,
    encoder: options.Encoder = None,
    center: options.Center = "support",
    base: options.Base = None,
    metric: options.Metric = "euclidean",
    prenormalize: options.Prenormalize = False,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Factor on the squared distance in the softmax.")
    ] = 10.0,
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
    overwrite: options.Overwrite = False,
    size: options.Size = None,
    layer: options.Layer = None,
    raw: options.Raw = False,
    facet: options.Facet = "token",
    stride: options.Stride = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    no_cache: options.NoCache = False,
    trust_digest: options.TrustDigest = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Label images from a few examples per class: nearest class mean, with probabilities.

    Above 1000 images or 50 classes, --json writes a line per image as it comes, behind a first line that describes the run.
    """
    from encoders import FeatureStore, InputError
    from encoders.plan import key_difference
    from fewshot import Labeller
    from fewshot.centering import TRANSDUCTIVE

    if top is not None and top < 1:
        raise InputError(f"expected --top of 1 or more, got {top}")
    output.check_target(out, overwrite)
    output.check_figure(figure, overwrite)
    choice = EncodingChoice(
        encoder, device, dtype, size, not no_cache, trust_digest, layer=layer, raw=raw, facet=facet, stride=stride
    )
    for path in (support, *query, *(more or [])):
        if is_store(path):  # what a store was made with goes for the images as well
            choice = choice.like(FeatureStore.open(path).key)
            break
    labelled = read_table(support, choice)
    table, key, support_skipped = labelled.table, labelled.key, labelled.skipped
    if key is None:
        raise InputError(f"{support} holds features without their images: give --support as images or a feature store")
    labeller = Labeller(
        table.features,
        [table.class_names[i] for i in table.labels],
        center=center,
        base=read_base(base, choice),
        metric=metric,
        prenormalize=prenormalize,
        temperature=temperature,
    )
    output.list_skipped(support_skipped)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_features([*query, *(more or [])], choice, "encoding queries"))
        if source.key != key:
            raise InputError(
                f"supports and queries were encoded differently ({key_difference(key, source.key)}): encode them alike"
            )
        streaming = source.count > STREAM_QUERIES or len(labeller.class_names) > STREAM_CLASSES
        if streaming and center in TRANSDUCTIVE:
            raise InputError(
                f"--center {center} needs all queries at once, which stops at {STREAM_QUERIES} images and {STREAM_CLASSES} classes: "
                "use --center support"
            )
        listed = top or (5 if streaming else len(labeller.class_names))
        about = output.document(
            encoder=encoder_json(key),
            support=table.describe() | {"skipped": output.skipped_json(support_skipped)},
            queries=source.count,
            method="ncm",
            center=center,
            transductive=center in TRANSDUCTIVE,
            metric=metric,
            prenormalize=prenormalize,
            temperature=temperature,
        )
        table_file = stack.enter_context(_csv_file(out)) if out is not None else None
        writer = (
            _CsvWriter(table_file, labeller.class_names if listed >= len(labeller.class_names) else listed)
            if table_file
            else None
        )
        if json and streaming:
            output.emit_json_line(about | {"stream": True})
        results: list[dict[str, Any]] = []
        skipped: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        doubtful: list[tuple[float, int, dict[str, Any], str]] = []
        for rows, vectors in _portions(source.portions, whole=center in TRANSDUCTIVE):
            for row, result in zip(
                rows, _label(rows, labeller.probabilities(vectors), labeller.class_names, listed), strict=True
            ):
                if "reason" in result:
                    skipped.append(result)
                else:
                    counts[result["label"]] += 1
                    if figure is not None:
                        entry = (
                            -result["probability"],
                            -counts.total(),
                            row,
                            result["label"],
                        )
                        (heapq.heappush if len(doubtful) < SHEET_IMAGES else heapq.heappushpop)(doubtful, entry)
                if writer is not None:
                    writer.write(result)
                if not streaming:
                    results.append(result)
                elif json:
                    output.emit_json_line(result)
    if json and not streaming:
        output.emit_json(
            about | {"results": [r for r in results if "reason" not in r], "skipped": output.skipped_json(skipped)}
        )
    elif not json:
        output.list_skipped(skipped)
        _print_table(
            [r for r in results if "reason" not in r],
            counts,
            labeller.class_names,
            listed,
            encoder_words(key),
            labeller.temperature,
            center,
            streaming,
        )
    if figure is not None and doubtful:
        _draw(doubtful, counts.total(), figure)
        output.note(f"wrote {output.printable(figure)}")
    if out is not None:
        output.note(f"wrote {output.printable(out)}")
    if not counts:
        raise InputError(f"none of the {source.count} query images could be used")
    if skipped or support_skipped:
        raise typer.Exit(3)


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


def _label(
    rows: list[dict[str, Any]], probabilities: Any, class_names: list[str], listed: int
) -> Iterator[dict[str, Any]]:
    """One result per image, in order; `probabilities` has a row for each usable one."""
    index = 0
    for row in rows:
        if row["status"] != "ok":
            yield {"path": row["path"], "reason": row["reason"]}
            continue
        p = probabilities[index]
        index += 1
        order = (-p).argsort(kind="stable")[:listed]
        yield {
            "path": row["path"],
            "label": class_names[order[0]],
            "probability": float(p[order[0]]),
            "probabilities": {class_names[i]: float(p[i]) for i in order},
        }


@contextlib.contextmanager
def _csv_file(out: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name when everything is in it."""
    from encoders.writing import replacing

    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        yield text
        text.detach()


class _CsvWriter:
    """path, label, probability, skipped; then a column per class, or the likeliest classes with their probabilities."""

    def __init__(self, file: IO[str], classes: list[str] | int) -> None:
        self._writer = csv.writer(file)
        self._classes = classes
        if isinstance(classes, int):
            more = [f"{kind}_{i}" for i in range(2, classes + 1) for kind in ("label", "probability")]
        else:
            more = [f"p({name})" for name in classes]
        self._writer.writerow(["path", "label", "probability", "skipped", *more])

    def write(self, result: dict[str, Any]) -> None:
        if "reason" in result:
            self._writer.writerow([result["path"], "", "", result["reason"]])
            return
        p = result["probabilities"]
        if isinstance(self._classes, int):
            more = [cell for name, value in list(p.items())[1:] for cell in (name, f"{value:.6f}")]
        else:
            more = [f"{p[name]:.6f}" for name in self._classes]
        self._writer.writerow([result["path"], result["label"], f"{result['probability']:.6f}", "", *more])


def _draw(doubtful: list[tuple[float, int, dict[str, Any], str]], count: int, path: Path) -> None:
    from figures import contact_sheet, save_figure

    pictures, labels, probabilities = [], [], []
    for negative, _, row, label in sorted(doubtful, key=lambda entry: entry[:2], reverse=True):
        picture = picture_of(row)
        if picture is None:
            continue
        pictures.append(picture)
        labels.append(output.printable(label))
        probabilities.append(-negative)
    if pictures:
        few = "" if len(pictures) == count else f"the {len(pictures)} least certain of "
        save_figure(
            contact_sheet(pictures, labels, probabilities, title=f"{few}{count:,} images, least certain first"), path
        )


def _print_table(
    results: list[dict[str, Any]],
    counts: Counter[str],
    class_names: list[str],
    listed: int,
    encoder: str,
    temperature: float,
    center: str,
    streaming: bool,
) -> None:
    caption = f"{encoder}; centre {center}, softmax of −{temperature:g}·distance²"
    if streaming:
        rows = [(name, f"{counts[name]:,}") for name in sorted(counts, key=lambda name: (-counts[name], name))]
        output.emit_table(
            f"{counts.total():,} images",
            (("label", "left"), ("images", "right")),
            rows,
            caption + "; --json or --out list every image",
        )
        return
    rows_shown = []
    for result in results:
        others = [f"{name} {value:.2f}" for name, value in list(result["probabilities"].items())[1 : min(listed, 3)]]
        rows_shown.append((result["path"], result["label"], f"{result['probability']:.2f}", ", ".join(others)))
    columns = (("image", "left"), ("label", "left"), ("probability", "right"), ("next", "left"))
    output.emit_table(f"{len(results):,} images, {len(class_names)} classes", columns, rows_shown, caption)
