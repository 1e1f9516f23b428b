"""`fewmatch plane`: the picture of one episode."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.data import read_base, read_table
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words
from fewmatch.cli.results.plane import EpisodeDrawing

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import EpisodePlane, FeatureTable

#: Ways where neither --ways nor --classes says it: the most that a plane shows exactly.
WAYS = 3
#: An image of this type is a page to explore.
PAGE = ".html"
#: Of the shots that are drawn, those that the page offers (and all of them).
PAGE_SHOTS = (1, 2, 3, 5, 10, 20, 50, 100)

PlaneOut = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE",
        help="Draw the episode there (.png, .svg or .pdf), or as a page to explore in a browser (.html).",
    ),
]


def plane(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Class folders, a CSV list with labels, a feature store, or an .npz with features and labels.",
        ),
    ],
    encoder: options.Encoder = None,
    out: PlaneOut = None,
    ways: Annotated[int | None, typer.Option("--ways", help=f"Classes in the episode; by default {WAYS}.")] = None,
    shots: Annotated[int, typer.Option("--shots", help="Supports per class.")] = 5,
    queries: Annotated[int, typer.Option("--queries", help="Queries per class.")] = 5,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="A,B…", help="These classes instead of drawn ones.")
    ] = None,
    center: options.Center = "support",
    base: options.Base = None,
    metric: options.Metric = "euclidean",
    prenormalize: options.Prenormalize = False,
    seed: options.Seed = 0,
    no_thumbnails: Annotated[bool, typer.Option("--no-thumbnails", help="Draw points only, no images.")] = False,
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
    """Draw one episode in the plane of its class means: which query is near which class, and which went wrong.

    With three classes the plane is exact: the nearest class mean in the picture is the nearest one in all dimensions. As .html it is a
    page that needs no network: point at an image to see it with its distances and probabilities; shots and centring change at a click.
    """
    from fewmatch.errors import InputError
    from fewmatch.fewshot import episode_plane, sample_episodes
    from fewmatch.fewshot.centering import CENTERS, check_base, check_center
    from fewmatch.fewshot.plane import episode_planes
    from fewmatch.figures.notable import explain

    if out is None and not json:
        raise InputError("nothing to write: give -o FILE for the picture, or --json")
    output.check_figure(out, overwrite, (*output.FIGURES, PAGE))
    check_base(check_center(center), base is not None)
    wanted = None if classes is None else _class_list(classes, ways)
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
    labelled = read_table(data, choice)
    if not json:
        output.list_skipped(labelled.skipped)
    chosen, rows = labelled.table, list(range(len(labelled.table.labels)))
    if wanted is not None:
        chosen, rows = _only(chosen, wanted)
    drawn = sample_episodes(
        chosen.labels,
        ways=len(wanted) if wanted is not None else WAYS if ways is None else ways,
        shots=shots,
        queries=queries,
        episodes=1,
        seed=seed,
        class_names=chosen.class_names,
    )
    base_features = read_base(base, choice, labelled.key)
    result = episode_plane(
        chosen.features,
        chosen.labels,
        drawn,
        center=center,
        base=base_features,
        metric=metric,
        prenormalize=prenormalize,
    )
    names = [chosen.class_names[i] for i in drawn.classes[0]]
    support, query = (
        [[rows[row] for row in of_class] for of_class in part[0]] for part in (drawn.support, drawn.query)
    )
    if out is not None:
        drawing = EpisodeDrawing(
            labelled,
            names,
            support,
            query,
            pictures=not no_thumbnails,
            rule=f"{metric}{', prenormalised' if prenormalize else ''}; seed {seed}",
        )
        if out.suffix.lower() == PAGE:
            planes = episode_planes(
                chosen.features,
                chosen.labels,
                drawn,
                shots=sorted({*(k for k in PAGE_SHOTS if k < shots), shots}),
                centers=[mode for mode in CENTERS if mode != "base" or base_features is not None],
                base=base_features,
                metric=metric,
                prenormalize=prenormalize,
            )
            drawing.page(planes, (shots, center), out)
        else:
            drawing.figure(result, out)
    if json:
        output.emit_json(
            output.document(
                encoder=encoder_json(labelled.key),
                dataset=labelled.table.describe(),
                seed=seed,
                method="ncm",
                center=center,
                transductive=result.transductive,
                metric=metric,
                prenormalize=prenormalize,
                ways=result.ways,
                shots=result.shots,
                queries_per_class=result.queries,
                exact=result.exact,
                shown=result.shown,
                temperature=result.temperature,
                accuracy=result.accuracy,
                classes=names,
                **_places(result, names, support, query, labelled.rows),
                skipped=output.skipped_json(labelled.skipped),
                figure=None if out is None else os.fspath(out),
                **output.drawing_json(),
            )
        )
    else:
        table = labelled.table
        output.emit_table(
            f"{table.name}: {len(table.labels):,} images, {len(table.class_names)} classes; {encoder_words(labelled.key)}",
            (("class", "left"), ("right", "right"), ("wrong: taken for", "left")),
            [
                (name, f"{given.count(way)} of {len(given)}", _mistakes(given, way, names))
                for way, (name, given) in enumerate(zip(names, result.predicted.tolist(), strict=True))
            ],
            f"{explain(result)} Centre {center}, {metric}, seed {seed}"
            + (" (transductive: uses the queries as a set)" if result.transductive else ""),
        )
    output.finish(bool(labelled.skipped))


def _class_list(classes: str, ways: int | None) -> list[str]:
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    wanted = [name.strip() for name in classes.split(",")]
    keys = [same_name(name) for name in wanted]
    twice = next((name for name, key in zip(wanted, keys, strict=True) if keys.count(key) > 1), None)
    if twice is not None:
        raise InputError(f"--classes names {twice or 'an empty class'} twice: name each class once")
    if len(wanted) < 2:
        raise InputError(f"expected two classes or more in --classes, got {classes}: separate them by commas")
    if ways is not None and ways != len(wanted):
        raise InputError(f"--ways {ways} contradicts the {len(wanted)} classes of --classes: leave --ways out")
    return wanted


def _only(table: FeatureTable, wanted: list[str]) -> tuple[FeatureTable, list[int]]:
    """The part of a table with these classes, and its rows in the whole."""
    import numpy as np

    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    place = {same_name(name): i for i, name in enumerate(table.class_names)}
    for name in wanted:
        if same_name(name) not in place:
            near = difflib.get_close_matches(name, table.class_names, n=3, cutoff=0.0)
            raise InputError(f"no class called {name} in {table.name}: the nearest are {', '.join(near)}")
    kept = sorted(place[same_name(name)] for name in wanted)
    rows = np.flatnonzero(np.isin(table.labels, kept))
    part = replace(
        table,
        features=table.features[rows],
        labels=np.searchsorted(kept, table.labels[rows]),
        class_names=[table.class_names[i] for i in kept],
    )
    return part, rows.tolist()


def _places(
    result: EpisodePlane,
    names: list[str],
    support: list[list[int]],
    query: list[list[int]],
    rows: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """`means`, `supports` and `queries` of the JSON; `path` is null where features came without images."""

    def path(row: int) -> str | None:
        return None if rows is None else str(rows[row]["path"])

    def place(xy: np.ndarray) -> dict[str, float]:
        return {"x": float(xy[0]), "y": float(xy[1])}

    def by_class(values: np.ndarray) -> dict[str, float]:
        return {name: float(value) for name, value in zip(names, values, strict=True)}

    return {
        "means": [{"label": name} | place(xy) for name, xy in zip(names, result.means, strict=True)],
        "supports": [
            {"path": path(row), "row": row, "label": name} | place(result.support[way, i])
            for way, name in enumerate(names)
            for i, row in enumerate(support[way])
        ],
        "queries": [
            {"path": path(row), "row": row, "label": name, "predicted": names[result.predicted[way, i]]}
            | place(result.query[way, i])
            | {
                "distances": by_class(result.distances[way, i]),
                "probabilities": by_class(result.probabilities[way, i]),
            }
            for way, name in enumerate(names)
            for i, row in enumerate(query[way])
        ],
    }


def _mistakes(given: list[int], way: int, names: list[str]) -> str:
    """`dog (2), horse`: what queries of a class were taken for, most frequent first."""
    counts = Counter(other for other in given if other != way)
    return ", ".join(
        f"{names[other]} ({count})" if count > 1 else names[other] for other, count in counts.most_common()
    )
