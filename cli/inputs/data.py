"""Paths on the command line to features: a store is read, images are encoded and kept, an .npz is a table already."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import EncodingChoice

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import FeatureTable


_Portions = Iterator[tuple[list[dict[str, Any]], "np.ndarray"]]


@dataclass(frozen=True)
class FeatureSource:
    """Features on their way in: what made them, how many images, and their portions of (manifest lines, vectors)."""

    key: dict[str, Any]
    count: int
    portions: _Portions


def image_file(row: dict[str, Any]) -> Path:
    """The file that a manifest line is of; it may be gone since."""
    return Path(str(row["root"]), str(row["path"]))


def picture_of(row: dict[str, Any], file: Path | None = None) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of a manifest line; None where the image is gone or no longer the one that was encoded (see `output.finish`)."""
    from fewmatch.encoders import read_image
    from fewmatch.errors import ImageError

    file = file or image_file(row)
    try:
        low_high = row.get("values")  # as the encoder saw it
        image = read_image(file, "full" if low_high is None else (int(low_high[0]), int(low_high[1])))
    except ImageError as error:  # a store may have been carried away from its images
        output.state.missing[str(file)] = str(error)
        return None
    if image.sha256 != row["sha256"]:
        output.state.missing[str(file)] = "changed since it was encoded"
        return None
    return image.rgb


def is_store(path: Path) -> bool:
    return (path / "meta.json").is_file()


@contextlib.contextmanager
def open_features(paths: Sequence[Path], choice: EncodingChoice, description: str) -> Iterator[FeatureSource]:
    """Features of a store, or of images, which are encoded while the portions are taken."""
    from fewmatch.encoders import FeatureStore
    from fewmatch.encoders.store.encode import encode_shards
    from fewmatch.encoders.store.plan import cache_folder, plan_encoding
    from fewmatch.errors import InputError

    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(f"{stores[0]} is a feature store: give it alone, not together with other images")
    if stores:
        store = FeatureStore.open(stores[0])
        choice.check(store.key, stores[0])
        yield FeatureSource(store.key, len(store.rows), _noted(store.portions()))
        return
    plan = plan_encoding(
        paths,
        choice.loaded,
        size=choice.size,
        fast_decode=choice.fast_decode,
        value_range=choice.values,
        crops=1 if choice.crops is None else choice.crops,
    )
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(output.progress(description))
        folder = (
            cache_folder(plan)
            if choice.cache
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewmatch-")))
        )
        portions = encode_shards(plan, folder, wait=True, progress=update)
        yield FeatureSource(plan.key, len(plan.images), _noted(portions))


def _noted(portions: _Portions) -> _Portions:
    for rows, vectors in portions:
        output.note_images(rows)
        yield rows, vectors


def read_features(
    paths: Sequence[Path], choice: EncodingChoice, description: str
) -> tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]:
    """All at once: the key, the manifest lines of every image, and the vectors of the usable ones."""
    import numpy as np

    with open_features(paths, choice, description) as source:
        portions = list(source.portions)
    rows = [row for part, _ in portions for row in part]
    vectors = [part for _, part in portions if len(part)]
    return (
        source.key,
        rows,
        np.concatenate(vectors) if vectors else np.zeros((0, source.key["encoder"]["embed_dim"]), np.float32),
    )


@dataclass(frozen=True)
class LabelledData:
    """A labelled table and where it comes from.

    key: what encoded it, None for an .npz. skipped: manifest lines of the images that could not be used.
    rows: the manifest line behind each row of the table, None for an .npz.
    """

    table: FeatureTable
    key: dict[str, Any] | None
    skipped: list[dict[str, Any]]
    rows: list[dict[str, Any]] | None


def read_table(data: Path, choice: EncodingChoice, *, unlabelled: bool = False) -> LabelledData:
    """The table of DATA: a folder of class folders (or a CSV list with labels), a feature store with labels, or an .npz.

    With `unlabelled`, images without a label are taken too, under the label "": a split file may give theirs.
    """
    from fewmatch.errors import InputError
    from fewmatch.fewshot import read_npz, table_of_images

    if data.suffix.lower() == ".npz":
        if choice.encoder is not None:
            output.note(f"note: {output.printable(data)} holds features already, so --encoder is not used")
        table = read_npz(data)
        say_notes(table)
        return LabelledData(table, None, [], None)
    key, rows, vectors = read_features([data], choice, f"encoding {output.printable(data.name)}")
    usable = [row for row in rows if row["status"] == "ok"]
    labelled = [i for i, row in enumerate(usable) if unlabelled or row["label"] is not None]
    if not labelled:
        reason = (
            "holds no usable image"
            if not usable
            else f"has no labels: expected class folders, {data.name}/<class>/<image>"
        )
        output.list_skipped([row for row in rows if row["status"] != "ok"])
        raise InputError(f"{data} {reason}")
    skipped = [row for row in rows if row["status"] != "ok"]
    if not unlabelled:
        skipped += [row | {"reason": "no-label: not in a class folder"} for row in usable if row["label"] is None]
    table = table_of_images(
        vectors[labelled],
        [usable[i]["label"] or "" for i in labelled],
        [usable[i]["path"] for i in labelled],
        data.resolve().name,
    )
    say_notes(table)
    return LabelledData(table, key, skipped, [usable[i] for i in labelled])


def say_notes(table: FeatureTable) -> None:
    """What a user should know of a table."""
    for text in table.notes:
        output.note(f"note: {output.printable(text)}")


def read_base(base: Path | None, choice: EncodingChoice, like: dict[str, Any] | None) -> np.ndarray | None:
    """The features of a base set, encoded as the data were; labels do not matter.

    Args:
        like: the key of the data; None where they came as an .npz, which says nothing of its encoder.

    Raises:
        InputError: no usable image, or a base set that was encoded differently.
    """
    from fewmatch.encoders.identity import key_difference
    from fewmatch.errors import InputError
    from fewmatch.fewshot import read_npz

    if base is None:
        return None
    if base.suffix.lower() == ".npz":
        return read_npz(base).features
    choice = choice if like is None else choice.like(like)
    key, rows, vectors = read_features([base], choice, f"encoding {output.printable(base.name)}")
    difference = None if like is None else key_difference(like, key)
    if difference:
        raise InputError(f"the base set {base} was encoded differently than the data ({difference}): encode them alike")
    output.list_skipped([row for row in rows if row["status"] != "ok"])
    if not len(vectors):
        raise InputError(f"{base} holds no usable image")
    return vectors
