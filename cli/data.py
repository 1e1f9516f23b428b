"""Paths on the command line to features: a store is read, images are encoded and kept, an .npz is a table already."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import output
from cli.download import shown
from cli.options import DEFAULT_ENCODER

if TYPE_CHECKING:
    import numpy as np

    from encoders import FrozenEncoder
    from fewshot import FeatureTable


@dataclass(frozen=True)
class EncodingChoice:
    """What the user said about encoding; None is the default, or what a store already used."""

    encoder: str | None = None
    device: str = "auto"
    dtype: str | None = None
    size: int | None = None
    cache: bool = True
    trust_digest: bool = False
    said: EncodingChoice | None = None  # before `like` filled in what the user left open

    @cached_property
    def loaded(self) -> FrozenEncoder:
        """The encoder, loaded once."""
        from encoders import load

        name = self.encoder or DEFAULT_ENCODER
        with shown(name) as (note, progress):
            return load(
                name,
                device=self.device,
                dtype=self.dtype or "auto",
                trust_digest=self.trust_digest,
                note=note,
                progress=progress,
            )

    def like(self, key: dict[str, Any]) -> EncodingChoice:
        """The same with a store's encoder, dtype and size wherever the user said nothing."""
        facts = key["encoder"]
        return replace(
            self,
            encoder=self.encoder or facts["name"],
            dtype=self.dtype or facts["dtype"],
            size=self.size or key["preprocessing"].get("crop"),
            said=self.said or self,
        )

    def check(self, key: dict[str, Any], path: Path) -> None:
        """Refuse a store that was made with something else than what the user asks for."""
        from encoders import InputError

        facts, said = key["encoder"], self.said or self
        for option, asked, got in (
            ("--encoder", said.encoder, facts["name"]),
            ("--dtype", None if said.dtype == "auto" else said.dtype, facts["dtype"]),
            ("--size", said.size, key["preprocessing"].get("crop", key["preprocessing"].get("dense"))),
        ):
            if asked is not None and got not in (asked, Path(str(asked)).stem, Path(str(asked)).name):
                raise InputError(
                    f"the store {path} was made with {option} {got}, not {asked}: leave {option} out, or encode again"
                )


@dataclass(frozen=True)
class FeatureSource:
    """Features on their way in: what made them, how many images, and their portions of (manifest lines, vectors)."""

    key: dict[str, Any]
    count: int
    portions: Iterator[tuple[list[dict[str, Any]], np.ndarray]]


def is_store(path: Path) -> bool:
    return (path / "meta.json").is_file()


@contextlib.contextmanager
def open_features(paths: Sequence[Path], choice: EncodingChoice, description: str) -> Iterator[FeatureSource]:
    """Features of a store, or of images, which are encoded while the portions are taken."""
    from encoders import FeatureStore, InputError
    from encoders.encode import encode_shards
    from encoders.plan import cache_folder, plan_encoding

    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(f"{stores[0]} is a feature store: give it alone, not together with other images")
    if stores:
        store = FeatureStore.open(stores[0])
        choice.check(store.key, stores[0])
        yield FeatureSource(store.key, len(store.rows), store.portions())
        return
    plan = plan_encoding(paths, choice.loaded, size=choice.size)
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(output.progress(description))
        folder = (
            cache_folder(plan)
            if choice.cache
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewmatch-")))
        )
        yield FeatureSource(plan.key, len(plan.images), encode_shards(plan, folder, wait=True, progress=update))


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


def read_table(data: Path, choice: EncodingChoice) -> tuple[FeatureTable, dict[str, Any] | None, list[dict[str, Any]]]:
    """A labelled table, what encoded it (None for an .npz), and the skipped images.

    DATA is a folder of class folders (or a CSV list with labels), a feature store with labels, or an .npz.
    """
    from encoders import InputError
    from fewshot import read_npz, table_of_images

    if data.suffix.lower() == ".npz":
        if choice.encoder is not None:
            output.note(f"note: {output.printable(data)} holds features already, so --encoder is not used")
        return read_npz(data), None, []
    key, rows, vectors = read_features([data], choice, f"encoding {output.printable(data.name)}")
    usable = [row for row in rows if row["status"] == "ok"]
    labelled = [i for i, row in enumerate(usable) if row["label"] is not None]
    if not labelled:
        reason = (
            "holds no usable image"
            if not usable
            else f"has no labels: expected class folders, {data.name}/<class>/<image>"
        )
        output.list_skipped([row for row in rows if row["status"] != "ok"])
        raise InputError(f"{data} {reason}")
    skipped = [row for row in rows if row["status"] != "ok"]
    skipped += [row | {"reason": "no-label: not in a class folder"} for row in usable if row["label"] is None]
    table = table_of_images(
        vectors[labelled],
        [usable[i]["label"] for i in labelled],
        [usable[i]["path"] for i in labelled],
        data.resolve().name,
    )
    return table, key, skipped


def read_base(base: Path | None, choice: EncodingChoice) -> np.ndarray | None:
    """The features of a base set; labels do not matter."""
    from encoders import InputError
    from fewshot import read_npz

    if base is None:
        return None
    if base.suffix.lower() == ".npz":
        return read_npz(base).features
    _, rows, vectors = read_features([base], choice, f"encoding {output.printable(base.name)}")
    output.list_skipped([row for row in rows if row["status"] != "ok"])
    if not len(vectors):
        raise InputError(f"{base} holds no usable image")
    return vectors


def encoder_json(key: dict[str, Any] | None) -> dict[str, Any] | None:
    """The entry `encoder` of results; None where features came without one."""
    if key is None:
        return None
    facts = key["encoder"]
    return {
        "name": facts["name"],
        "digest": facts["digest"],
        "dtype": facts["dtype"],
        "size": key["preprocessing"].get("crop", key["preprocessing"].get("dense")),
        "layer": key["layer"],
    }


def encoder_words(key: dict[str, Any] | None) -> str:
    """The encoder for captions."""
    facts = encoder_json(key)
    return "given features" if facts is None else f"{facts['name']} at {facts['size']} px, {facts['dtype']}"
