"""`fewmatch episodes`: n-way k-shot accuracy over many episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import options, output
from cli.data import EncodingChoice, encoder_json, encoder_words, read_base, read_table


def episodes(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Class folders, a feature store, or an .npz with features and labels."),
    ],
    encoder: options.Encoder = None,
    ways: Annotated[int, typer.Option("--ways", help="Classes per episode.")] = 5,
    shots: Annotated[
        str, typer.Option("--shots", metavar="K[,K…]", help="Supports per class, one or several values.")
    ] = "1,5",
    queries: Annotated[int, typer.Option("--queries", help="Queries per class.")] = 15,
    count: Annotated[int, typer.Option("--episodes", help="How many episodes.")] = 10_000,
    center: Annotated[
        str,
        typer.Option(
            "--center",
            metavar="MODE[,MODE…]",
            help="Means to subtract: none, base, support, support+query, separate, feature.",
        ),
    ] = "support",
    base: options.Base = None,
    metric: options.Metric = "euclidean",
    prenormalize: options.Prenormalize = False,
    seed: options.Seed = 0,
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
    """Evaluate few-shot classification: random episodes, nearest class mean, accuracy with its 95 % interval.

    Every centring is tried on the same episodes. `support+query` and `separate` use the queries as a set (transductive).
    """
    from encoders import InputError
    from encoders.devices import choose_device
    from fewshot import evaluate, sample_episodes
    from fewshot.centering import check_center

    all_shots = _numbers(shots)
    modes = [check_center(mode.strip()) for mode in center.split(",")]
    if base is None and "base" in modes:
        raise InputError("--center base needs --base DATA, the images or features whose mean is subtracted")
    if base is not None and "base" not in modes:
        raise InputError(f"--base is used with --center base only, not with {center}")
    choice = EncodingChoice(
        encoder, device, dtype, size, not no_cache, trust_digest, layer=layer, raw=raw, facet=facet, stride=stride
    )
    labelled = read_table(data, choice)
    table, key, skipped = labelled.table, labelled.key, labelled.skipped
    base_features = read_base(base, choice.like(key) if key else choice)
    reports = []
    with output.progress("episodes") as update:
        for k in all_shots:
            drawn = sample_episodes(
                table.labels,
                ways=ways,
                shots=k,
                queries=queries,
                episodes=count,
                seed=seed,
                class_names=table.class_names,
            )
            for mode in modes:
                report = evaluate(
                    table.features,
                    table.labels,
                    drawn,
                    center=mode,
                    base=base_features if mode == "base" else None,
                    metric=metric,
                    prenormalize=prenormalize,
                    device=choose_device(device),
                    progress=update,
                )
                reports.append(report)
    if json:
        output.emit_json(
            output.document(
                encoder=encoder_json(key),
                dataset=table.describe(),
                episodes=count,
                seed=seed,
                results=[report.to_json() for report in reports],
                skipped=output.skipped_json(skipped),
            )
        )
    else:
        output.list_skipped(skipped)
        output.emit_table(
            f"{table.name}: {len(table.labels):,} images, {len(table.class_names)} classes; {encoder_words(key)}",
            (
                ("method", "left"),
                ("centre", "left"),
                ("metric", "left"),
                ("ways", "right"),
                ("shots", "right"),
                ("queries", "right"),
                ("accuracy %", "right"),
                ("seconds", "right"),
            ),
            [
                (
                    r.method,
                    r.center + (" *" if r.transductive else ""),
                    r.metric,
                    str(r.ways),
                    str(r.shots),
                    str(r.queries),
                    f"{100 * r.accuracy:.2f}" + (f" ± {100 * r.ci95:.2f}" if r.ci95 is not None else ""),
                    f"{r.seconds:.2f}",
                )
                for r in reports
            ],
            f"{count:,} episodes, seed {seed}; ± is the 95 % interval of the mean, 1.96·s/√n over episodes"
            + (" (* transductive: uses the queries as a set)" if any(r.transductive for r in reports) else ""),
        )
    if skipped:
        raise typer.Exit(3)


def _numbers(text: str) -> list[int]:
    from encoders import InputError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"no shots {text}: expected a number or several, such as 1,5") from error
