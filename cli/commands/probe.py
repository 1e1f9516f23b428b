"""`fewmatch probe`: k-NN and logistic regression on a training set, as in the evaluations of DINOv2 and DINOv3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fewmatch.cli import options, output
from fewmatch.cli.inputs.data import LabelledData, image_file, is_store, read_table
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words

if TYPE_CHECKING:
    from fewmatch.fewshot import FewShotResult, ProbeResult, ProbeSet


def probe(
    train: Annotated[
        Path,
        typer.Argument(
            metavar="TRAIN", help="Labelled images: class folders, a CSV list, a feature store, or an .npz of features."
        ),
    ],
    test: Annotated[Path, typer.Argument(metavar="TEST", help="The same of other images, of the same classes.")],
    encoder: options.Encoder = None,
    method: Annotated[Literal["knn", "logistic", "both"], typer.Option("--method", help="What to run.")] = "both",
    k: Annotated[
        str, typer.Option("--k", metavar="K[,K…]", help="Numbers of neighbours; above the training set's size: all.")
    ] = "10,20,100,200",
    temperature: Annotated[
        float, typer.Option("--temperature", help="T of a neighbour's weight exp(cosine/T).")
    ] = 0.07,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Logistic regression on vectors of length one (the DINO papers: raw).")
    ] = False,
    val: Annotated[
        Path | None,
        typer.Option("--val", metavar="DATA", help="Choose C on these images; by default on a part of TRAIN."),
    ] = None,
    val_share: Annotated[
        float | None,
        typer.Option(
            "--val-share",
            metavar="SHARE",
            help="Part of each class of TRAIN that is held out to choose C; by default 0.1, with --per-class 0.01.",
        ),
    ] = None,
    per_class: Annotated[
        str | None,
        typer.Option("--per-class", metavar="N[,N…]", help="Train on N images of each class, drawn --tries times."),
    ] = None,
    tries: Annotated[int | None, typer.Option("--tries", help="Draws for each N of --per-class; by default 5.")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the accuracy of every class there as CSV.")
    ] = None,
    overwrite: options.Overwrite = False,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same images held out and drawn.")] = 0,
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
    """Evaluate features on a training and a test set: weighted k-NN, and logistic regression whose C is chosen on images held out.

    With --per-class, on a few images of each class: mean and standard deviation over several draws.
    """
    import numpy as np

    from fewmatch.encoders import FeatureStore
    from fewmatch.encoders.devices import choose_device
    from fewmatch.errors import InputError
    from fewmatch.fewshot import ProbeSet, few_shot_probe, hold_out, knn_probe, logistic_probe
    from fewmatch.fewshot.probes.probes import FEW_SHOT_VAL_SHARE, VAL_SHARE

    ks = _numbers(k, "--k")
    counts = None if per_class is None else _numbers(per_class, "--per-class")
    if seed < 0:
        raise InputError(f"expected --seed of 0 or more, got {seed}")
    if tries is not None and counts is None:
        raise InputError("--tries is used with --per-class N only")
    if val is not None and val_share is not None:
        raise InputError("--val-share is of TRAIN: with --val nothing of it is held out, so leave one of them out")
    if val_share is not None and not 0 < val_share < 1:
        raise InputError(f"expected --val-share between 0 and 1, got {val_share:g}")
    output.check_target(out, overwrite)
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
    paths = {"TRAIN": train, "TEST": test} | ({} if val is None else {"--val": val})
    for path in paths.values():
        if is_store(path):  # what a store was made with goes for the images as well
            choice = choice.like(FeatureStore.open(path).key)
            break
    data = {name: read_table(path, choice) for name, path in paths.items()}
    names = data["TRAIN"].table.class_names
    for name in list(paths)[1:]:
        _check_alike(name, paths, data)
    sets = {name: _numbered(part, names) for name, part in data.items()}
    skipped = [row for part in data.values() for row in part.skipped]
    if not json:
        output.list_skipped(skipped)
    shared = _shared(data)
    for (first, second), these in shared.items():
        output.note(
            f"note: {len(these)} images of {second} are in {first} as well ({output.printable(these[0])}"
            + (", …" if len(these) > 1 else "")
            + "): accuracies are too high"
        )
    share = (VAL_SHARE if counts is None else FEW_SHOT_VAL_SHARE) if val_share is None else val_share
    whole, held = sets["TRAIN"], sets.get("--val")
    # Held out whether or not C is chosen, so that every method learns from the same images of a draw.
    split = None
    if held is None and (counts is not None or method != "knn"):
        split = hold_out(whole.labels, share, seed)
        held = ProbeSet(whole.features[split], whole.labels[split])
    rest = whole if split is None else ProbeSet(whole.features[~split], whole.labels[~split])
    with output.progress("probing") as update:

        def run(training: ProbeSet, learning: ProbeSet) -> list[ProbeResult]:
            results: list[ProbeResult] = []
            if method != "logistic":
                results += knn_probe(
                    training,
                    sets["TEST"],
                    classes=len(names),
                    ks=ks,
                    temperature=temperature,
                    device=choose_device(device),
                    progress=update,
                )
            if method != "knn":
                results.append(
                    logistic_probe(
                        learning,
                        sets["TEST"],
                        classes=len(names),
                        val=held,
                        refit=counts is None,
                        normalize=normalize,
                        progress=update,
                    )
                )
            return results

        results: list[ProbeResult] | list[FewShotResult]
        if counts is None:
            results = run(whole, rest)
        else:
            attempts = 5 if tries is None else tries
            results = few_shot_probe(rest, counts, attempts, seed, lambda drawn: run(drawn, drawn), names)
    _note_what_was_odd(results, ks, method, held)
    key = data["TRAIN"].key or data["TEST"].key
    if out is not None:
        _write_csv(out, results, names)
        output.note(f"wrote {output.printable(out)}")
    if json:
        output.emit_json(
            output.document(
                encoder=encoder_json(key),
                train=data["TRAIN"].table.describe(),
                test=data["TEST"].table.describe(),
                val=None if val is None else data["--val"].table.describe(),
                val_share=share if split is not None else None,
                held_out=0 if split is None else int(np.count_nonzero(split)),
                method=method,
                k=ks,
                temperature=temperature,
                normalize=normalize,
                per_class=counts,
                tries=None if counts is None else attempts,
                seed=seed,
                std_ddof=None if counts is None else 1,
                results=[result.to_json() for result in results],
                shared_images=[
                    {"first": first, "second": second, "images": these} for (first, second), these in shared.items()
                ],
                skipped=output.skipped_json(skipped),
            )
        )
    else:
        _print(results, data, encoder_words(key), bool(shared), len(names))
    if skipped:
        raise typer.Exit(3)


def _check_alike(name: str, paths: dict[str, Path], data: dict[str, LabelledData]) -> None:
    """Whether a table fits to the training table: encoded alike, of as many dimensions, and of its classes."""
    from fewmatch.encoders.identity import key_difference
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    train, other = data["TRAIN"], data[name]
    different = None if train.key is None or other.key is None else key_difference(train.key, other.key)
    if different:
        raise InputError(f"TRAIN and {name} were encoded differently ({different}): encode them alike")
    dims = [part.table.features.shape[1] for part in (train, other)]
    if dims[0] != dims[1]:
        raise InputError(f"expected features of {dims[0]} dimensions in {paths[name]} as in TRAIN, got {dims[1]}")
    known = {same_name(name) for name in train.table.class_names}
    unknown = [name for name in other.table.class_names if same_name(name) not in known]
    if unknown:
        listed = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
        raise InputError(
            f"{len(unknown)} of {len(other.table.class_names)} classes in {paths[name]} are not in {paths['TRAIN']} ({listed}): "
            "expected the classes of TRAIN"
        )


def _numbered(data: LabelledData, names: list[str]) -> ProbeSet:
    """The features with labels that are places in the training table's classes."""
    import numpy as np

    from fewmatch.fewshot import ProbeSet
    from fewmatch.names import same_name

    place = {same_name(name): i for i, name in enumerate(names)}
    own = np.array([place[same_name(name)] for name in data.table.class_names], np.int64)
    return ProbeSet(data.table.features, own[data.table.labels])


def _shared(data: dict[str, LabelledData]) -> dict[tuple[str, str], list[str]]:
    """Images that are in two of the sets, by name: the same file, or one with the same content; for bare features the same vector."""
    names = list(data)
    shared = {}
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            bare = data[first].rows is None or data[second].rows is None
            seen = {mark for marks in _marks(data[first], bare) for mark in marks}
            these = [
                str(row["path"]) if (row := _row(data[second], place)) else f"row {place}"
                for place, marks in enumerate(_marks(data[second], bare))
                if any(mark in seen for mark in marks)
            ]
            if these:
                shared[first, second] = these
    return shared


def _row(data: LabelledData, place: int) -> dict[str, Any] | None:
    return None if data.rows is None else data.rows[place]


def _marks(data: LabelledData, bare: bool) -> list[tuple[Any, ...]]:
    """What each image is known by."""
    import numpy as np

    if bare or data.rows is None:
        return [(vector.tobytes(),) for vector in np.asarray(data.table.features, np.float32)]
    return [(row["sha256"], image_file(row).resolve()) for row in data.rows]


def _note_what_was_odd(
    results: Sequence[ProbeResult | FewShotResult], ks: list[int], method: str, held: ProbeSet | None
) -> None:
    from fewmatch.fewshot import FewShotResult
    from fewmatch.fewshot.probes.probes import C_UNCHOSEN

    clipped: dict[int, int] = {}
    unconverged, fits = 0, 0
    for result in results:
        tries = result.tries if isinstance(result, FewShotResult) else [result]
        for one in tries:
            if one.method == "logistic":
                fits += 1
                unconverged += bool(one.settings["unconverged"])
            elif one.train < max(ks):
                clipped[one.train] = sum(k > one.train for k in ks)
    for count, number in clipped.items():
        output.note(f"note: {number} of {len(ks)} k are above the {count} training images: clipped to {count}")
    if method != "knn" and held is not None and not len(held.labels):
        output.note(f"note: no class has an image to spare, so C is not chosen but {C_UNCHOSEN:g}: give --val")
    if unconverged:
        output.note(
            f"note: in {unconverged} of {fits} logistic regressions some C did not converge (--json lists them as unconverged)"
        )


def _write_csv(out: Path, results: Sequence[ProbeResult | FewShotResult], names: list[str]) -> None:
    """A row for each classifier, try and class of the test set."""
    import csv
    import io

    from fewmatch.fewshot import FewShotResult
    from fewmatch.writing import write_atomically

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["method", "k", "per_class", "try", "class", "images", "right", "accuracy"])
    for result in results:
        few = isinstance(result, FewShotResult)
        for number, one in enumerate(result.tries if isinstance(result, FewShotResult) else [result]):
            head = [one.method, one.settings.get("k", ""), result.per_class if few else "", number if few else ""]
            for c, (right, count) in one.per_class().items():
                writer.writerow([*head, names[c], count, right, f"{right / count:.6f}"])
    write_atomically(out, text.getvalue().encode("utf-8", "surrogateescape"))


def _print(
    results: Sequence[ProbeResult | FewShotResult],
    data: dict[str, LabelledData],
    encoder: str,
    shared: bool,
    classes: int,
) -> None:
    from fewmatch.fewshot import FewShotResult

    few = isinstance(results[0], FewShotResult)
    rows = []
    for result in results:
        if isinstance(result, FewShotResult):
            one, accuracy = result.tries[0], result.mean
            spread = [str(result.per_class), "–" if result.std is None else f"{100 * result.std:.2f}"]
            spread.append("–" if result.ci95_t is None else f"{100 * result.ci95_t:.2f}")
            top5 = result.to_json()["top5"]
        else:
            one, accuracy, spread, top5 = result, result.accuracy, [], result.top5
        setting = (
            f"k {one.settings['k']}" if one.method == "knn" else "C chosen" if few else f"C {one.settings['c']:.3g}"
        )
        cells = [one.method, setting, *spread[:1], f"{100 * accuracy:.2f}", *spread[1:]]
        rows.append([*cells, *([f"{100 * top5:.2f}"] if top5 is not None else [])])
    columns = [("method", "left"), ("setting", "left"), *([("per class", "right")] if few else [])]
    columns += [("accuracy %", "right"), *([("std", "right"), ("± 95 %", "right")] if few else [])]
    columns += [("top-5 %", "right")] if classes >= 5 else []
    train, test = data["TRAIN"].table, data["TEST"].table
    logistic = [r for r in results if (r.tries[0] if isinstance(r, FewShotResult) else r).method == "logistic"]
    caption = []
    if any(r not in logistic for r in results):
        first = next(r for r in results if r not in logistic)
        one = first.tries[0] if isinstance(first, FewShotResult) else first
        caption.append(f"k-NN: unit vectors, weights exp(cosine/{one.settings['temperature']:g})")
    if logistic:
        one = logistic[0].tries[0] if isinstance(logistic[0], FewShotResult) else logistic[0]
        kind = "unit vectors" if one.settings["normalize"] else "raw vectors"
        chosen = f", C chosen on {one.settings['val_images']:,} images" if one.settings["val_images"] else ""
        caption.append(f"logistic: {kind}, L2{chosen}, fitted to {one.settings['refit']}")
    if few:
        number = len(results[0].tries) if isinstance(results[0], FewShotResult) else 0
        caption.append(f"{number} tries; std with ddof 1, ± is Student's t·s/√n")
    if shared:
        caption.append("images are shared between the sets: accuracies are too high")
    title = f"{len(train.labels):,} training and {len(test.labels):,} test images, {classes} classes; {encoder}"
    output.emit_table(title, columns, rows, "\n".join(caption))


def _numbers(text: str, option: str) -> list[int]:
    from fewmatch.errors import InputError

    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"no {option} {text}: expected a number or several, such as 10,20") from error
    if min(numbers) < 1:
        raise InputError(f"expected {option} of 1 or more, got {min(numbers)}")
    return numbers
