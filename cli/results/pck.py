"""What `fewmatch pck` prints and writes: tables, one JSON document, a CSV of categories, a picture of example pairs."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import encoder_facts_words, encoder_json, encoder_words

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.cli.pck_run import Draw, PairMaps, PCKResult
    from fewmatch.matching.benchmarks.pair import Benchmark, BenchmarkPair
    from fewmatch.matching.benchmarks.pck.convention import Convention

#: Pairs in the picture unless told otherwise, and points that are drawn of one pair.
EXAMPLES, DRAWN_POINTS = 6, 40
#: How the averages are called in the table.
_NAMES = {
    "image": "per image",
    "point": "per point",
    "category": "per category",
    "category-weighted": "per category, weighted",
    "category-image": "per category, per image",
}


@dataclass(frozen=True)
class PCKOutputs:
    """What is to be written; as the options of those names."""

    out: Path | None = None
    csv: Path | None = None
    figure: Path | None = None
    examples: int | None = None

    def check(self, overwrite: bool) -> None:
        """Refuse what cannot be written, or would be ignored, before anything is encoded."""
        from fewmatch.errors import InputError

        output.check_target(self.out, overwrite)
        output.check_target(self.csv, overwrite)
        output.check_figure(self.figure, overwrite, (".png",))
        targets = [path.absolute() for path in (self.out, self.csv, self.figure) if path is not None]
        if len(set(targets)) < len(targets):
            raise InputError("two outputs have the same name: expected a file for each")
        if self.examples is not None and self.figure is None:
            raise InputError("--examples is for --figure, which is not asked for")
        if self.examples is not None and self.examples < 1:
            raise InputError(f"expected --examples of 1 or more, got {self.examples}")

    @property
    def draw(self) -> Draw | None:
        """What draws the picture, where one is wanted."""
        if self.figure is None:
            return None
        path, count = self.figure, self.examples or EXAMPLES

        def draw(benchmark: Benchmark, convention: Convention, maps: PairMaps) -> None:
            with output.drawing(path):
                _draw_examples(path, count, benchmark, convention, maps)

        return draw


def pck_document(result: PCKResult) -> dict[str, Any]:
    """The whole result, which `--json` prints, `-o` writes and `--compare` reads."""
    return output.document(
        encoder=encoder_json(result.key),
        **result.report.to_json(),
        records=result.records.to_json(),
        notes=list(result.notes),
        skipped=output.skipped_json(result.skipped),
        **output.drawing_json(),
    )


def write_pck_files(outputs: PCKOutputs, result: PCKResult, document: dict[str, Any]) -> list[Path]:
    """The files that are wanted, the picture being there already; their paths."""
    from fewmatch.writing import write_atomically

    if outputs.out is not None:
        write_atomically(outputs.out, _json_bytes(document))
    if outputs.csv is not None:
        write_atomically(outputs.csv, result.report.to_csv().encode("utf-8", "surrogateescape"))
    wanted = (outputs.out, outputs.csv, outputs.figure)
    return [path for path in wanted if path is not None and str(path) not in output.state.failed]


def _json_bytes(document: dict[str, Any]) -> bytes:
    return (json_module.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def emit_pck(result: PCKResult) -> None:
    """Every average at every α, and below it everything that decides the numbers."""
    report = result.report
    data = report.to_json()
    alphas = list(data["pck"])
    columns = [("PCK in %", "left"), *((f"α = {alpha}", "right") for alpha in alphas)]
    headline = data["headline"]["average"]
    rows = [
        [f"{words}{' *' if name == headline else ''}", *(_cell(data["pck"][alpha][name]) for alpha in alphas)]
        for name, words in _NAMES.items()
    ]
    rows.append(["PCK†, per image", *(_cell(data["pck_dagger"][alpha]["image"]) for alpha in alphas)])
    aware = data["geometry_aware"]
    if aware is not None:
        rows.append(["geometry-aware, per image", *(_cell(aware["pck"][alpha]["image"]) for alpha in alphas)])
    kept = data["kept"]
    if kept is not None and kept["pck"] is not None:
        rows.append(["of points kept, per image", *(_cell(kept["pck"][alpha]["image"]) for alpha in alphas)])
    about = data["benchmark"]
    title = (
        f"{about['kind']}, {about['split']}: {data['pairs']:,} pairs, {data['points']:,} points, "
        f"{data['categories']:,} {'category' if data['categories'] == 1 else 'categories'}; {encoder_words(result.key)}"
    )
    words = [f"{name.replace('_', ' ')}: {text}" for name, text in data["convention"]["in_words"].items()]
    lines = [
        f"* the headline, at α = {data['headline']['alpha']:g}; ± is half of a 95 % interval over pairs",
        f"convention: {data['convention']['name']}",
        *words,
        f"pairs: {_pairs_words(about['choices'], data['pairs'])}",
    ]
    if data["dropped"]:
        first = data["dropped"][0]
        lines.append(f"dropped: {len(data['dropped']):,} pairs, the first is {first['name']}: {first['reason']}")
    if kept is not None:
        lines.append(
            f"points kept by the filters: {kept['points']:,} of {data['points']:,} ({100 * kept['share']:.1f} %); the others count as wrong"
        )
    if data["points_outside"]:
        lines.append(f"points outside their image, looked up at its border: {data['points_outside']:,}")
    if report.convention.flip_rule is not None:
        lines.append(f"sources taken as their mirror image: {data['mirrored']:,}")
    output.emit_table(output.printable(title), columns, rows, "\n".join(map(output.printable, lines)))


def _pairs_words(choices: Mapping[str, Any], pairs: int) -> str:
    """Which pairs they are, with what was drawn at the end."""
    own = {name: value for name, value in choices.items() if not name.startswith("limit")}
    words = [f"{name.replace('_', ' ')} {value}" for name, value in own.items()]
    if "limit_of" in choices:
        each = "" if "limit" in choices else f", {choices['limit_per_category']} of each category"
        words.append(f"{pairs:,} of {choices['limit_of']:,}{each}, drawn with seed {choices['limit_seed']}")
    return ", ".join(words)


def _cell(estimate: dict[str, float | None]) -> str:
    assert estimate["pck"] is not None
    return f"{100 * estimate['pck']:.1f}" + _half(estimate["ci95"])


def _half(ci95: float | None) -> str:
    return "" if ci95 is None else f" ± {100 * ci95:.1f}"


def emit_comparison(paths: tuple[Path, Path], out: Path | None, json: bool) -> None:
    """The difference of two results, as a table or as JSON, and in a file where one is wanted."""
    from fewmatch.matching.benchmarks.pck.compare import compare_pck
    from fewmatch.writing import write_atomically

    first, second = (_read_result(path) for path in paths)
    comparison = compare_pck(first, second)
    data = comparison.to_json()
    document = output.document(first=str(paths[0]), second=str(paths[1]), **data)
    if out is not None:
        write_atomically(out, _json_bytes(document))
    if json:
        output.emit_json(document)
    else:
        rows = [
            [
                alpha,
                _NAMES[name],
                *(f"{100 * entry[which]:.1f}" for which in ("first", "second")),
                f"{100 * entry['difference']:+.1f}{_half(entry['ci95'])}",
            ]
            for alpha, averages in data["pck"].items()
            for name, entry in averages.items()
        ]
        columns = [("α", "left"), ("PCK in %", "left")]
        columns += [(name, "right") for name in ("first", "second", "second − first")]
        lines = [
            f"{which}: {path}: {encoder_facts_words(result.get('encoder'))}"
            for which, path, result in zip(("first", "second"), paths, (first, second), strict=True)
        ]
        lines.append("± is half of a 95 % interval of the paired difference, over pairs")
        lines += [f"conventions differ: {name}: {a} and {b}" for name, (a, b) in data["differs"].items()]
        if not data["same_images"]:
            unknown = "not known whether the images are the same: a result does not hold their digest, run it again"
            lines.append(
                unknown if data["same_images"] is None else "images differ: their files changed between the results"
            )
        output.emit_table(f"{data['pairs']:,} pairs", columns, rows, "\n".join(map(output.printable, lines)))
    if out is not None:
        output.note(f"wrote {output.printable(out)}")


def _read_result(path: Path) -> dict[str, Any]:
    from fewmatch.errors import InputError

    try:
        result = json_module.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is no JSON: expected a result of fewmatch pck -o") from error
    if not isinstance(result, dict) or "per_pair" not in result:
        raise InputError(f"{path} is no result of fewmatch pck: expected what -o writes")
    return result


def _draw_examples(path: Path, count: int, benchmark: Benchmark, convention: Convention, maps: PairMaps) -> None:
    """Pairs from the beginning, the end and evenly between, one below the other."""
    import io

    import numpy as np
    from PIL import Image

    from fewmatch.writing import write_atomically

    chosen = np.unique(np.linspace(0, len(benchmark.pairs) - 1, min(count, len(benchmark.pairs))).round().astype(int))
    with output.progress("drawing") as update:
        pictures = []
        for done, index in enumerate(chosen, start=1):
            key = "Blue is right, orange wrong; rings are α·T around the true places." if done == 1 else ""
            picture = _picture(benchmark.pairs[index], convention, maps, key)
            pictures += [] if picture is None else [picture]
            update(done, len(chosen))
    if not pictures:
        raise output.NotDrawnError("the images are gone or have changed since they were encoded")
    data = io.BytesIO()
    Image.fromarray(np.concatenate(pictures)).save(data, "PNG")
    write_atomically(path, data.getvalue())


def _picture(pair: BenchmarkPair, convention: Convention, maps: PairMaps, key: str) -> np.ndarray | None:
    """(h, 1200, 3) uint8 of one pair, the key at the end of its caption; None where an image is gone."""
    import math

    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from fewmatch.figures.transferred_points import TransferredPoints, transfer_figure
    from fewmatch.matching.benchmarks.pck.scoring import locate_pair, pair_threshold

    a_first = convention.direction != "b-to-a"
    direction: Literal["a-to-b", "b-to-a"] = "a-to-b" if a_first else "b-to-a"
    path_a, path_b = (pair.path_a, pair.path_b) if a_first else (pair.path_b, pair.path_a)
    points_a, points_b = (pair.points_a, pair.points_b) if a_first else (pair.points_b, pair.points_a)
    image_a, image_b = (maps.views.maps.picture(maps.place[path.absolute()]) for path in (path_a, path_b))
    if image_a is None or image_b is None:
        return None
    a, b = maps.of(pair.path_a), maps.of(pair.path_b)
    located = locate_pair(pair, a, b, convention, direction)
    size_a, size_b = ((image.frame.width, image.frame.height) for image in (a, b))
    threshold = pair_threshold(pair, convention, direction, size_a=size_a, size_b=size_b)
    # The figure counts <=: where the convention has <, the radius is the largest number below.
    radius = threshold * convention.alpha
    radius = radius if convention.inclusive else max(math.nextafter(radius, 0), 0.0)
    known = np.flatnonzero(located.kept)
    shown = known[np.unique(np.linspace(0, len(known) - 1, min(DRAWN_POINTS, len(known))).round().astype(int))]
    words = [pair.name, convention.name, f"α = {convention.alpha:g}"]
    words += ["source mirrored"] if located.choice is not None and located.choice.mirrored else []
    words += [f"{len(known):,} of {len(points_a):,} points kept"] if convention.filters else []
    words += [f"{len(shown)} of {len(known):,} points drawn"] if len(shown) < len(known) else []
    figure = transfer_figure(
        TransferredPoints(
            image_a,
            image_b,
            points_a[shown],
            located.xy_b[shown],
            points_b[shown],
            radius,
            output.printable(f"{'; '.join([*words, encoder_words(maps.views.maps.key)])}. {key}".strip()),
        )
    )
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
