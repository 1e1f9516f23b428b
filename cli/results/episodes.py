"""What an evaluation by episodes is shown as: a table, one JSON document, and a folder of tables and figures."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.method_runs import MethodRun

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import Report
    from fewmatch.fewshot.calibration import Calibration
    from fewmatch.fewshot.mistakes import Confusion
    from fewmatch.fewshot.open_set import OpenSet
    from fewmatch.fewshot.report import Difference


@dataclass(frozen=True)
class Result:
    """One method on one set of episodes, and all that was read off it.

    number: of the set of episodes. report: without its scores. balanced: whether it takes every class to have as many queries.
    chance: accuracy of guessing. difference: to the first method on the same episodes, None for that one.
    """

    run: MethodRun
    number: int
    report: Report
    balanced: bool
    chance: float
    difference: Difference | None = None
    confusion: Confusion | None = None
    calibration: Calibration | None = None
    detection: list[OpenSet] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        out = self.report.to_json() | {"set": self.number, "assumes_balanced_queries": self.balanced}
        if self.calibration is not None:
            out["calibration"] = self.calibration.to_json()
        if self.detection:
            out["open_set"] = [found.to_json() for found in self.detection]
        return out


def differences_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Every method minus the first one on the same episodes."""
    return [
        {
            "set": result.number,
            "method": result.run.method,
            "center": result.run.center,
            "minus": {"method": d.second.method, "center": d.second.center},
            "difference": d.mean,
            "ci95": d.ci95,
            "ci95_new_images": d.ci95_new_images,
            "ci95_new_images_reason": d.ci95_new_images_reason,
        }
        for result in results
        if (d := result.difference) is not None
    ]


def notes_of(results: Sequence[Result]) -> list[str]:
    """What the user should know about the results, one sentence each: of the methods' options, and where images are few."""
    notes = list(dict.fromkeys(note for result in results for note in result.report.notes))
    few = [result for result in results if result.report.few_images]
    if few:
        # Where no interval can be given at all, images are fewest.
        worst = max(few, key=lambda result: result.report.ci95_new_images or math.inf)
        report = worst.report
        found = (
            report.ci95_new_images_reason
            if report.ci95_new_images is None
            else f"± {_points(report.ci95)} points over episodes of these images, but ± {_points(report.ci95_new_images)} "
            "for new images of the same classes"
        )
        remedy = (
            "add images, or ask for fewer queries"
            if report.ci95_new_images is None
            else "add images, more episodes do not help"
        )
        others = f" (and {len(few) - 1} more result{'s' * (len(few) > 2)})" if len(few) > 1 else ""
        notes.append(f"few images: {worst.run.label}, {_shots(worst)}: {found}{others}; {remedy}")
    return notes


def show(results: Sequence[Result], title: str, episodes: str) -> None:
    """The table, with a column only where there is something in it."""
    marks = {id(r): (" *" if r.report.transductive else "") + (" †" if r.balanced else "") for r in results}
    varied = len({_words(r.report.ways) for r in results}) > 1 or len({_words(r.report.queries) for r in results}) > 1
    columns: list[tuple[str, str, Callable[[Result], str]]] = [
        (
            "method",
            "left",
            lambda r: r.run.method + "".join(f" {name}={value}" for name, value in r.run.options.items()),
        ),
        ("centre", "left", lambda r: r.report.center + marks[id(r)]),
        ("shots", "right", lambda r: _words(r.report.shots)),
        ("accuracy %", "right", lambda r: _percent(r.report.accuracy, r.report.ci95)),
        ("new images", "right", lambda r: _half(r.report.ci95_new_images)),
    ]
    if varied:
        columns.insert(2, ("ways", "right", lambda r: _words(r.report.ways)))
        columns.insert(4, ("queries", "right", lambda r: _words(r.report.queries)))
    if any(r.difference for r in results):
        columns.append(("to the first", "right", lambda r: _signed(r.difference)))
        columns.append(("new images", "right", lambda r: _half(r.difference.ci95_new_images) if r.difference else ""))
    if any(r.calibration for r in results):
        columns.append(("ECE %", "right", lambda r: "" if r.calibration is None else f"{100 * r.calibration.ece:.1f}"))
        columns.append(("τ", "right", lambda r: "" if r.calibration is None else f"{r.calibration.temperature:.3g}"))
    if any(r.detection for r in results):
        best = {id(r): max(r.detection, key=lambda found: found.auroc) for r in results if r.detection}
        columns.append(("AUROC %", "right", lambda r: _percent(best[id(r)].auroc, best[id(r)].auroc_ci95)))
        columns.append(("FPR95 %", "right", lambda r: _percent(best[id(r)].fpr95, best[id(r)].fpr95_ci95)))
        columns.append(("by", "left", lambda r: best[id(r)].measure))
    columns.append(("seconds", "right", lambda r: f"{r.report.seconds:.2f}"))
    notes = [
        f"{episodes}; ± is the 95 % interval over episodes of these images, 1.96·s/√n; new images: the 95 % interval for other "
        "images of the same classes; neither covers other classes"
    ]
    missing = [r.report.ci95_new_images_reason for r in results] + [
        r.difference.ci95_new_images_reason for r in results if r.difference
    ]
    notes += [f"no interval for new images (–): {reason}" for reason in dict.fromkeys(missing) if reason]
    if any(r.difference for r in results):
        notes.append("to the first: paired, on the same episodes")
    if any(r.report.transductive for r in results):
        notes.append("* uses the queries as a set")
    if any(r.balanced for r in results):
        notes.append("† takes every class to have as many queries, which helps where that is so")
    output.emit_table(
        title,
        [(name, side) for name, side, _ in columns],
        [[cell(r) for _, _, cell in columns] for r in results],
        "; ".join(notes),
    )


def write_folder(
    folder: Path,
    results: Sequence[Result],
    document: dict[str, Any],
    config: dict[str, Any],
    class_names: Sequence[str],
    about: str,
) -> None:
    """config.json, metrics.json, results.csv, per_class.csv, and figures: accuracy, reliability, confusion."""
    from fewmatch.figures import save_figure
    from fewmatch.figures.accuracy import accuracy_figure
    from fewmatch.figures.confusion import confusion_figure
    from fewmatch.figures.reliability import reliability_figure

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("metrics.json", document)):
        _write(folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")
    _write_csv(folder / "results.csv", *_results_table(results))
    _write_csv(folder / "per_class.csv", *_class_table(results, class_names))
    lines: dict[str, list[tuple[int, float, float | None]]] = {}
    for result in results:
        if isinstance(result.report.shots, int):
            lines.setdefault(result.run.label, []).append(
                (result.report.shots, result.report.accuracy, result.report.ci95)
            )
    names = [output.printable(name) for name in class_names]
    if lines:
        chance = results[0].chance
        figure = accuracy_figure(
            {output.printable(name): points for name, points in lines.items()},
            title=f"Accuracy against shots: {about.partition(':')[0]}",
            note=f"{about}. Bars are 95 % intervals over episodes of these images; results.csv has those for new images, and "
            "the differences on the same episodes.",
            chance=chance,
        )
        save_figure(figure, folder / "accuracy.png")
    calibrated = [r for r in results if r.calibration is not None]
    if calibrated:
        diagrams = [
            (
                f"{r.run.label}, {_shots(r)}",
                f"ECE {100 * c.ece:.1f} %\nτ {c.temperature:.3g}",
                c.count,
                c.confidence,
                c.accuracy,
            )
            for r in calibrated[:12]
            if (c := r.calibration) is not None
        ]
        save_figure(reliability_figure(diagrams, title="Reliability"), folder / "reliability.png")
    last = max(result.number for result in results)
    for result in results:
        if result.number == last and result.confusion is not None:
            title = f"{result.run.label}, {_shots(result)}: per cent of the queries"
            figure = confusion_figure(
                result.confusion.rates, names, title=title, note="among queries in episodes that had both classes"
            )
            plain = "".join(c if c.isalnum() or c in "-+.=" else "_" for c in result.run.label.replace(", ", "-"))
            save_figure(figure, folder / f"confusion-{plain}.png")


def _results_table(results: Sequence[Result]) -> tuple[list[str], list[list[Any]]]:
    heading = [
        "method",
        "options",
        "center",
        "transductive",
        "ways",
        "shots",
        "queries",
        "episodes",
        "accuracy",
        "ci95",
        "ci95_new_images",
    ]
    heading += [
        "difference_to_first",
        "difference_ci95",
        "difference_ci95_new_images",
        "ece",
        "temperature",
        "auroc",
        "fpr95",
        "seconds",
    ]
    rows = []
    for r in results:
        best = max(r.detection, key=lambda found: found.auroc, default=None)
        report, d, c = r.report, r.difference, r.calibration
        options = " ".join(f"{name}={value}" for name, value in report.options.items())
        rows.append(
            [report.method, options, report.center, report.transductive, _words(report.ways), _words(report.shots)]
            + [_words(report.queries), report.episodes, report.accuracy, report.ci95, report.ci95_new_images]
            + ([d.mean, d.ci95, d.ci95_new_images] if d else [None, None, None])
            + ([c.ece, c.temperature] if c else [None, None])
            + ([best.auroc, best.fpr95] if best else [None, None])
            + [report.seconds]
        )
    return heading, rows


def _class_table(results: Sequence[Result], class_names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    """A line for each class and result: its accuracy, and what it is taken for most often."""
    rows: list[list[Any]] = []
    for r in results:
        if r.confusion is None:
            continue
        counts, met = r.confusion.counts, r.confusion.met
        for i, name in enumerate(class_names):
            asked, right = int(met[i, i]), int(counts[i, i])
            wrong = counts[i].copy()
            wrong[i] = 0
            worst = int(wrong.argmax())
            rows.append(
                [r.run.method, r.run.center, _words(r.report.shots), name, asked, right / asked if asked else None]
                + ([class_names[worst], int(wrong[worst])] if wrong[worst] else [None, 0])
            )
    return ["method", "center", "shots", "class", "queries", "accuracy", "most_taken_for", "times"], rows


def _write_csv(path: Path, heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(heading)
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    from fewmatch.writing import write_atomically

    write_atomically(path, text.encode("utf-8", "surrogateescape"))


def _percent(value: float, half: float | None) -> str:
    return f"{100 * value:.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def _half(half: float | None) -> str:
    """Half-width of an interval in per cent."""
    return "–" if half is None else f"± {_points(half)}"


def _points(half: float | None) -> str:
    return "" if half is None else f"{100 * half:.2f}"


def _signed(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return f"{100 * difference.mean:+.2f}" + ("" if difference.ci95 is None else f" ± {100 * difference.ci95:.2f}")


def _shots(result: Result) -> str:
    words = _words(result.report.shots)
    return f"{words} shot{'' if words == '1' else 's'}"


def _words(value: int | tuple[int, int] | None) -> str:
    """`5`, or `1–10` where it varies."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value[0]}–{value[1]}"


def chance_of(ways: np.ndarray) -> float:
    """Accuracy of guessing, for episodes of so many classes each."""
    return float((1 / ways).mean())
