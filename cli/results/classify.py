"""What `fewmatch classify` says of each image: as a record, a CSV line, a table, and a sheet of pictures."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.data import picture_of

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import Labeller

#: What people read where a query is rejected; in data it is null, and an empty cell.
NONE = "none of these"


def results_of(
    rows: list[dict[str, Any]], vectors: np.ndarray, labeller: Labeller, listed: int
) -> Iterator[dict[str, Any]]:
    """One record per image, in order; `vectors` has a row for each usable one.

    `similarity` and `rejected` are there where the labeller rejects.
    """
    probabilities, similarity, rejected = labeller.answer(vectors)
    names, index = labeller.class_names, 0
    for row in rows:
        if row["status"] != "ok":
            yield {"path": row["path"], "reason": row["reason"]}
            continue
        p = probabilities[index]
        order = (-p).argsort(kind="stable")[:listed]
        record: dict[str, Any] = {
            "path": row["path"],
            "label": None if rejected[index] else names[order[0]],
            "probability": float(p[order[0]]),
            "probabilities": {names[i]: float(p[i]) for i in order},
        }
        if similarity is not None:
            record |= {"similarity": float(similarity[index]), "rejected": bool(rejected[index])}
        index += 1
        yield record


@contextlib.contextmanager
def csv_file(out: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name when everything is in it."""
    from fewmatch.writing import replacing

    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="", write_through=True)
        yield text
        text.detach()


class CsvWriter:
    """path, label, probability, skipped; similarity and rejected where that is asked; then a column per class, or the likeliest classes
    with their probabilities."""

    def __init__(self, file: IO[str], classes: list[str] | int, *, rejects: bool) -> None:
        self._writer = csv.writer(file)
        self._classes, self._rejects = classes, rejects
        if isinstance(classes, int):
            more = [f"{kind}_{i}" for i in range(2, classes + 1) for kind in ("label", "probability")]
        else:
            more = [f"p({name})" for name in classes]
        known = ["similarity", "rejected"] if rejects else []
        self._writer.writerow(["path", "label", "probability", "skipped", *known, *more])

    def write(self, result: dict[str, Any]) -> None:
        if "reason" in result:
            self._writer.writerow([result["path"], "", "", result["reason"]])
            return
        p = result["probabilities"]
        known = [f"{result['similarity']:.6f}", str(result["rejected"]).lower()] if self._rejects else []
        if isinstance(self._classes, int):
            more = [cell for name, value in list(p.items())[1:] for cell in (name, f"{value:.6f}")]
        else:
            more = [f"{p[name]:.6f}" for name in self._classes]
        label = "" if result["label"] is None else result["label"]
        self._writer.writerow([result["path"], label, f"{result['probability']:.6f}", "", *known, *more])


#: Minus the probability, minus the number of the image, its manifest line, its label.
Doubtful = tuple[float, int, dict[str, Any], str | None]


def draw_sheet(doubtful: list[Doubtful], count: int, path: Path) -> None:
    """The least certain images with their labels.

    Raises:
        NotDrawnError: none of them is there any more.
    """
    from fewmatch.figures import contact_sheet, save_figure

    pictures, labels, probabilities, rejected = [], [], [], []
    for negative, _, row, label in sorted(doubtful, key=lambda entry: entry[:2], reverse=True):
        picture = picture_of(row)
        if picture is None:
            continue
        pictures.append(picture)
        labels.append(NONE if label is None else output.printable(label))
        probabilities.append(-negative)
        rejected.append(label is None)
    if not pictures:
        raise output.NotDrawnError("the images are no longer where they were encoded")
    few = "" if len(pictures) == count else f"the {len(pictures)} least certain of "
    title = f"{few}{count:,} images, least certain first"
    save_figure(contact_sheet(pictures, labels, probabilities, rejected=rejected, title=title), path)


def print_results(results: list[dict[str, Any]], counts: Counter[str | None], classes: int, caption: str) -> None:
    """The table of a run that is small enough to be read."""
    rows = []
    for result in results:
        others = [f"{name} {value:.2f}" for name, value in list(result["probabilities"].items())[1:3]]
        label = NONE if result["label"] is None else result["label"]
        row = [result["path"], label, f"{result['probability']:.2f}", ", ".join(others)]
        if "similarity" in result:
            row.insert(3, f"{result['similarity']:.2f}")
        rows.append(row)
    columns = [("image", "left"), ("label", "left"), ("probability", "right"), ("next", "left")]
    title = f"{len(results):,} images, {classes} classes"
    if any("similarity" in result for result in results):
        columns.insert(3, ("similarity", "right"))
        title += f", {counts[None]:,} {NONE}"
    output.emit_table(title, columns, rows, caption)


def print_counts(counts: Counter[str | None], caption: str) -> None:
    """The table of a run with more images or classes than anybody reads."""
    names = sorted((name for name in counts if name is not None), key=lambda name: (-counts[name], name))
    rows = [(name, f"{counts[name]:,}") for name in names]
    if counts[None]:
        rows.append((NONE, f"{counts[None]:,}"))
    output.emit_table(
        f"{counts.total():,} images",
        (("label", "left"), ("images", "right")),
        rows,
        caption + "; --json or --out list every image",
    )


def caption_of(labeller: Labeller, encoder: str) -> str:
    """What was computed, in one line."""
    fitted = labeller.fitted
    tau = f"{labeller.temperature:.3g}"
    if fitted.temperature.chosen == "leave-one-out":
        tau += f" (from {fitted.temperature.held_out} held-out supports)"
    if fitted.method.name == "ncm":
        words = f"centre {fitted.center}, softmax of −{tau}·distance²"
    else:
        words = f"{fitted.method.name}, centre {fitted.center}, softmax of {tau}·score"
    if fitted.reject is not None:
        words += f"; {NONE} below similarity {fitted.reject.value:.3f}"
        if fitted.reject.accept is not None:
            words += f", which {100 * fitted.reject.accept:g} % of {fitted.reject.held_out} held-out supports reach"
    return f"{encoder}; {words}"
