"""`fewmatch episodes`: n-way k-shot accuracy of methods over many episodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.data import LabelledData, say_notes
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.ensemble import Encoders, read_base_together, read_together
from fewmatch.cli.inputs.episode_sets import COUNT, EpisodeChoice, EpisodeSet, episode_sets
from fewmatch.cli.inputs.method_runs import MethodRun, method_runs
from fewmatch.cli.results.episodes import Result, chance_of, differences_json, notes_of, show, write_folder

if TYPE_CHECKING:
    from fewmatch.fewshot import FeatureTable, Split

#: Episodes that a temperature is fitted on, at most.
FITTED_ON = 1_000


def episodes(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Class folders, a feature store, or an .npz with features and labels."),
    ],
    encoder: options.Encoders = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="NAME[,NAME…]", help="Methods to compare, or all; see docs/few-shot.md.")
    ] = "ncm",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="METHOD.OPTION=VALUE", help="An option of a method, such as knn.k=5; repeat for more."
        ),
    ] = None,
    ways: Annotated[
        str | None, typer.Option("--ways", metavar="N", help="Classes per episode; 3-10 draws them; by default 5.")
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            "--shots",
            metavar="K[,K…]",
            help="Supports per class, one or several values; 1-10 draws them; by default 1,5.",
        ),
    ] = None,
    queries: Annotated[int | None, typer.Option("--queries", help="Queries per class; by default 15.")] = None,
    queries_total: Annotated[
        int | None,
        typer.Option("--queries-total", metavar="N", help="Queries per episode instead, spread over the classes."),
    ] = None,
    dirichlet: Annotated[
        float | None,
        typer.Option("--dirichlet", metavar="A", help="Draw the classes' shares of --queries-total from Dirichlet(A)."),
    ] = None,
    sampler: Annotated[
        Literal["uniform", "meta-dataset"] | None,
        typer.Option("--sampler", help="How ways and shots are drawn; meta-dataset varies both; by default uniform."),
    ] = None,
    no_replacement: Annotated[
        bool,
        typer.Option("--no-replacement", help="Use no image in two episodes; there are fewer of them then."),
    ] = False,
    count: Annotated[
        int | None, typer.Option("--episodes", help=f"How many episodes; by default {COUNT}, or the file's.")
    ] = None,
    unknown_classes: Annotated[
        int | None,
        typer.Option(
            "--unknown-classes", metavar="N", help="Ask also for N classes without supports: AUROC and FPR95."
        ),
    ] = None,
    episodes_file: Annotated[
        Path | None,
        typer.Option("--episodes-file", metavar="FILE", help="Episodes kept earlier (.npz), or PMF's JSON."),
    ] = None,
    save_episodes: Annotated[
        Path | None,
        typer.Option("--save-episodes", metavar="FILE", help="Keep the episodes there (.npz, .json or .jsonl)."),
    ] = None,
    split: Annotated[
        Path | None, typer.Option("--split", metavar="FILE", help="Only the classes or images of this split file.")
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="NAME", help="Which part of the split file: train, val or test.")
    ] = None,
    center: Annotated[
        str | None,
        typer.Option(
            "--center",
            metavar="MODE[,MODE…]",
            help="Means to subtract: none, base, support, support+query, separate, feature; by default each method's.",
        ),
    ] = None,
    base: options.Base = None,
    transform: Annotated[
        str | None,
        typer.Option(
            "--transform",
            metavar="STEP[,STEP…]",
            help="Steps before centring: relu, power, signed-power, unit, center, pca=N, whiten, ica=N (see docs/few-shot.md).",
        ),
    ] = None,
    metric: Annotated[
        Literal["euclidean", "cosine"] | None,
        typer.Option("--metric", help="Distance to the class means; by default each method's."),
    ] = None,
    prenormalize: options.Prenormalize = False,
    validation: Annotated[
        Path | None,
        typer.Option("--val", metavar="DATA", help="Other classes, to fit the temperature of the probabilities on."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Write config, metrics, per-class tables and figures there."),
    ] = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
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
    """Evaluate few-shot classification: random episodes, several methods on the same ones, accuracy with its 95 % intervals, over
    episodes of these images and for new images of the same classes.

    Every method and centring is tried on the same episodes, so that their differences have an interval of their own.
    """
    from fewmatch.encoders.devices import choose_device
    from fewmatch.errors import InputError

    runs = method_runs(methods, settings or [], center, metric, base=base is not None)
    if base is not None and transform is None and not any(run.center == "base" for run in runs):
        raise InputError(
            "--base is used with --center base and --transform only, and neither asks for it: leave it out"
        )
    if part is not None and split is None:
        raise InputError("--part names a part of a split file: give --split FILE with it")
    choice = EpisodeChoice(
        ways,
        shots,
        queries,
        queries_total,
        dirichlet,
        sampler,
        no_replacement,
        count,
        seed,
        unknown_classes,
        episodes_file,
        save_episodes,
    )
    choice.check()
    for target in (out, save_episodes):
        output.check_target(target, overwrite)

    def choose(name: str | None) -> EncodingChoice:
        return EncodingChoice(
            name,
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

    labelled, encoders = read_together(data, encoder or [], choose, unlabelled=split is not None)
    table, found = _within(labelled.table, split, part)
    base_features = read_base_together(base, encoders)
    held_out = None if validation is None else _validation(validation, encoders, choose, table)
    steps = None
    if transform is not None:
        from fewmatch.fewshot import fit_transforms

        steps = fit_transforms(transform, base_features)
        table = dataclasses.replace(table, features=steps(table.features))
        base_features = None if base_features is None else steps(base_features)
        held_out = held_out and dataclasses.replace(held_out, features=steps(held_out.features))
    if not json:
        output.list_skipped(labelled.skipped)
    _warn_of_twins(labelled)
    sets = episode_sets(table, choice)
    common = {"metric": "euclidean", "prenormalize": prenormalize, "device": choose_device(device)}
    fitting = None
    if held_out is not None:
        fitting = dataclasses.replace(
            choice, count=min(count or COUNT, FITTED_ON), file=None, keep=None, unknown_classes=None
        )
        validation_sets = episode_sets(held_out, fitting)
    results: list[Result] = []
    deep = out is not None or validation is not None or unknown_classes is not None
    with output.progress("episodes") as update:
        for number, chosen in enumerate(sets):
            temperatures = {}
            if held_out is not None:
                for run in runs:
                    temperatures[run.label] = _temperature(
                        held_out, validation_sets[number], run, base_features, common
                    )
            results += _run_all(table, chosen, runs, base_features, common, number, deep, temperatures, update)
    drawn = sets[0].episodes
    notes = notes_of(results)
    for text in notes:
        output.note(f"note: {output.printable(text)}")
    document = output.document(
        encoder=encoders.to_json(),
        dataset=table.describe(),
        split=None if found is None else found.describe(),
        episodes=len(drawn),
        seed=drawn.seed,
        sampler=[chosen.episodes.sampler for chosen in sets],
        transform=None if steps is None else steps.describe(),
        validation=None if held_out is None else held_out.describe(),
        results=[result.to_json() for result in results],
        differences=differences_json(results),
        notes=notes,
        skipped=output.skipped_json(labelled.skipped),
    )
    where = f"{table.name}{'' if found is None else f' ({found.name})'}"
    about = f"{where}: {len(table.labels):,} images, {len(table.class_names)} classes; {encoders.words()}"
    told = _told(sets)
    if out is not None:
        config = {
            "data": str(data),
            "methods": [
                {"method": run.method, "options": results[i].report.options, "center": run.center}
                for i, run in enumerate(runs)
            ],
            "choices": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in dataclasses.asdict(choice).items()
                if value is not None
            },
            "base": None if base is None else str(base),
            "transform": transform,
            "prenormalize": prenormalize,
            "validation": None if validation is None else str(validation),
            "split": None if split is None else str(split),
            "encoder": encoders.to_json(),
            "version": document["version"],
        }
        write_folder(out, results, document, config, table.class_names, f"{output.printable(about)}; {told}")
        output.note(f"wrote {output.printable(out)}")
    if json:
        output.emit_json(document)
    else:
        show(results, about, told)
    if labelled.skipped:
        raise typer.Exit(3)


def _run_all(
    table: FeatureTable,
    chosen: EpisodeSet,
    runs: list[MethodRun],
    base: Any,
    common: dict[str, Any],
    number: int,
    deep: bool,
    temperatures: dict[str, float],
    update: Callable[..., None],
) -> list[Result]:
    """Every method on one set of episodes."""
    from fewmatch.fewshot import METHODS, evaluate, paired
    from fewmatch.fewshot.calibration import measure_calibration
    from fewmatch.fewshot.mistakes import confusion
    from fewmatch.fewshot.open_set import unknown_detection

    results: list[Result] = []
    for run in runs:
        report = evaluate(
            table.features,
            table.labels,
            chosen.episodes,
            method=run.method,
            options=run.options,
            center=run.center,
            base=base if run.center == "base" else None,
            unknown=chosen.unknown,
            keep_scores=deep,
            progress=update,
            **common,
        )
        tau = temperatures.get(run.label)
        result = Result(
            run,
            number,
            dataclasses.replace(report, scores=None),
            METHODS[run.method].assumes_balance(report.options),
            chance_of((chosen.episodes.classes >= 0).sum(axis=1)),
            difference=paired(report, results[0].report, chosen.episodes, table.labels) if results else None,
        )
        if deep:
            result = dataclasses.replace(
                result,
                confusion=confusion(report, chosen.episodes, len(table.class_names)),
                calibration=measure_calibration(report, chosen.episodes, tau),
                detection=[] if chosen.unknown is None else unknown_detection(report, chosen.episodes, tau),
            )
        results.append(result)
    return results


def _temperature(table: FeatureTable, drawn: EpisodeSet, run: MethodRun, base: Any, common: dict[str, Any]) -> float:
    """The temperature that fits a method best on classes held out for it."""
    from fewmatch.fewshot import evaluate
    from fewmatch.fewshot.calibration import fit_temperature

    report = evaluate(
        table.features,
        table.labels,
        drawn.episodes,
        method=run.method,
        options=run.options,
        center=run.center,
        base=base if run.center == "base" else None,
        keep_scores=True,
        **common,
    )
    return fit_temperature(report, drawn.episodes)


def _within(table: FeatureTable, split: Path | None, part: str | None) -> tuple[FeatureTable, Split | None]:
    """The part of the table that a split file names."""
    if split is None:
        return table, None
    from fewmatch.fewshot import read_split, restrict

    found = read_split(split, part)
    for warning in found.warnings:
        output.note(f"note: {output.printable(split.name)}: {output.printable(warning)}")
    kept = restrict(table, found)
    say_notes(kept)
    return kept, found


def _validation(
    path: Path, encoders: Encoders, choose: Callable[[str | None], EncodingChoice], table: FeatureTable
) -> FeatureTable:
    """The classes to fit on, through the same encoders.

    Raises:
        InputError: classes that are evaluated as well: fitting on them would inflate the result. Features of another encoder.
    """
    from fewmatch.encoders.identity import key_difference
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    like = {
        choice.encoder: choice.like(key)
        for choice, key in zip(encoders.choices, encoders.keys or [{}] * len(encoders.choices), strict=True)
        if key
    }
    names = [choice.encoder for choice in encoders.choices if choice.encoder is not None]
    labelled, used = read_together(path, names, lambda name: like.get(name) or choose(name))
    for key, other in zip(encoders.keys, used.keys, strict=bool(encoders.keys and used.keys)):
        if different := key_difference(key, other):
            raise InputError(f"--val {path} was encoded differently than the data ({different}): encode them alike")
    evaluated = {same_name(name) for name in table.class_names}
    shared = [name for name in labelled.table.class_names if same_name(name) in evaluated]
    if shared:
        raise InputError(
            f"--val {path} has classes that are evaluated: {', '.join(shared[:3])}{', …' if len(shared) > 3 else ''} "
            f"({len(shared)} in all); fit on other classes"
        )
    return labelled.table


def _warn_of_twins(labelled: LabelledData) -> None:
    """Say that images are there twice: a query may then be among the supports, which flatters every method."""
    if labelled.rows is None:
        return
    counts = Counter(row["sha256"] for row in labelled.rows)
    twins = [row["path"] for row in labelled.rows if counts[row["sha256"]] > 1]
    if twins:
        output.note(
            f"note: {len(twins)} images are byte for byte the same as another, such as {output.printable(twins[0])}: "
            "where one is a support and the other a query, accuracy is flattered"
        )


def _told(sets: list[EpisodeSet]) -> str:
    """The episodes in words."""
    first = sets[0].episodes
    sampler = first.sampler
    parts = [f"{len(first):,} episodes"]
    if first.seed is not None:
        parts[0] += f", seed {first.seed}"
    if sampler.get("kind") == "uniform":
        parts.append(f"{first.ways} ways")
        parts.append(
            f"{first.queries} queries a class" if sampler.get("queries") == "balanced" and not first.ragged else ""
        )
    if sampler.get("queries") == "dirichlet":
        parts.append(f"{sampler['queries_total']} queries in all, Dirichlet({sampler['dirichlet']:g})")
    if sampler.get("kind") == "variable":
        parts.append("ways and shots by Meta-Dataset's rule")
    if sampler.get("replacement") is False:
        parts.append("no image in two episodes" + (", until the images ran out" if sampler.get("exhausted") else ""))
    if sampler.get("unknown_classes"):
        parts.append(f"{sampler['unknown_classes']} unknown classes")
    return ", ".join(text for text in parts if text)
