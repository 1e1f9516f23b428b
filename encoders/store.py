"""A folder that keeps the features of many images: shards, one manifest, and the key that says what made them.

    meta.json          schema, key (encoder, weights, dtype, preprocessing, …) and counts; no times, so equal work gives equal bytes
    manifest.jsonl     one line per image: path, root, label, size, mtime_ns, sha256, status, reason, note, frame, shard, row
    shard-*.safetensors  global_repr (n, D) float32; with `keep="patches"` also feature_map (patches of all images, D) float16

A shard is complete in itself (it carries its images' facts and a checksum over everything), is written atomically, and its name says
which images in which state it was made from. So whatever a killed run left is either a whole shard or nothing, and the
manifest, written last, only ever describes shards that are there.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from encoders.errors import InputError, StoreDamagedError
from encoders.frame import Frame
from encoders.writing import write_atomically

SCHEMA = 1
META, MANIFEST = "meta.json", "manifest.jsonl"

Keep = Literal["global", "patches"]
Row = dict[str, Any]


def canonical(data: Any) -> bytes:
    """JSON in the one spelling that digests are taken of. Names that are not UTF-8 survive as escapes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def key_digest(key: dict[str, Any]) -> str:
    """A short name for a store's key."""
    return hashlib.blake2b(canonical(key), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Shard:
    """The content of one shard: facts for every image of it, features for the usable ones in the same order.

    rows: one record per image (`status` is `ok` or `skipped`).
    global_repr: (n, D) float32. feature_map: the (h·w, D) float16 patches of the same n images on top of each other, or None.
    """

    rows: list[Row]
    global_repr: Float[Tensor, "n d"]
    feature_map: Float[Tensor, "p d"] | None = None

    @cached_property
    def patch_ends(self) -> list[int]:
        """Where each usable image's patches end in `feature_map`, behind a leading 0."""
        counts = [row["frame"]["grid"][0] * row["frame"]["grid"][1] for row in self.rows if row["status"] == "ok"]
        return [0, *np.cumsum(counts, dtype=int).tolist()]

    def patches(self, index: int) -> Float[Tensor, "p d"]:
        """The patches of the usable image with this index."""
        if self.feature_map is None:
            raise InputError("this store keeps one vector per image: encode with --keep patches for feature maps")
        return self.feature_map[self.patch_ends[index] : self.patch_ends[index + 1]]

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"global_repr": self.global_repr.contiguous()}
        if self.feature_map is not None:
            tensors["feature_map"] = self.feature_map.contiguous()
        return tensors

    def _checksum(self, key: str) -> str:
        total = hashlib.sha256(canonical([key, self.rows]))
        for name, tensor in sorted(self._tensors().items()):
            total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()

    def write(self, path: Path, key: str) -> Path:
        """Write the shard whole or not at all. `key` is the store's `key_digest`."""
        # One entry only: safetensors keeps metadata in a hash map, and several would be written in any order.
        header = {"fewmatch": canonical({"key": key, "rows": self.rows, "sha256": self._checksum(key)}).decode()}
        return write_atomically(path, safetensors.torch.save(self._tensors(), header))

    @classmethod
    def read(cls, path: Path, key: str) -> Shard:
        """Read a shard and check every byte of it.

        Raises:
            StoreDamagedError: truncated, altered, or made with another key.
        """
        header = read_header(path, key)
        try:
            tensors = safetensors.torch.load_file(path)
            shard = cls(header["rows"], tensors["global_repr"], tensors.get("feature_map"))
            sound = shard._checksum(key) == header["sha256"]
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise StoreDamagedError(
                f"{path} is damaged ({error}): run `fewmatch encode` again, it makes this shard anew"
            ) from error
        if not sound:
            raise StoreDamagedError(
                f"{path} is damaged (its checksum differs): run `fewmatch encode` again, it makes this shard anew"
            )
        return shard


def read_header(path: Path, key: str) -> dict[str, Any]:
    """A shard's own description, without reading its features.

    Raises:
        StoreDamagedError: as `Shard.read`.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["fewmatch"])
        made_with, _, _ = header["key"], header["rows"], header["sha256"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(
            f"{path} is damaged ({error}): run `fewmatch encode` again, it makes this shard anew"
        ) from error
    if made_with != key:
        raise StoreDamagedError(
            f"{path} belongs to another store: run `fewmatch encode` again, it makes this shard anew"
        )
    return dict(header)


@dataclass(frozen=True)
class FeatureStore:
    """A finished store, opened for reading.

    path: its folder. key: what made it. rows: the manifest, skipped images included.
    """

    path: Path
    key: dict[str, Any]
    rows: list[Row] = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """Open a folder that `encode_images` finished.

        Raises:
            InputError: the folder is no store, or an unfinished one.
            StoreDamagedError: its meta.json or manifest cannot be read, or is of a newer fewmatch.
        """
        path = Path(path)
        meta = read_meta(path)
        if meta is None:
            raise InputError(f"{path} is not a feature store: expected {META} and {MANIFEST} in it")
        if not (path / MANIFEST).is_file():
            raise InputError(
                f"the store {path} is unfinished: run `fewmatch encode` with its images again (with every --shard i/n if it was split)"
            )
        try:
            rows = [json.loads(line) for line in (path / MANIFEST).read_text(encoding="ascii").splitlines()]
        except (OSError, ValueError) as error:
            raise StoreDamagedError(
                f"{path / MANIFEST} cannot be read ({error}): delete it and run `fewmatch encode` again"
            ) from error
        return cls(path, meta["key"], rows)

    @cached_property
    def images(self) -> list[Row]:
        """The manifest lines of the usable images, in the order of `global_repr`."""
        return [row for row in self.rows if row["status"] == "ok"]

    @property
    def skipped(self) -> list[Row]:
        """The manifest lines of the images that could not be used."""
        return [row for row in self.rows if row["status"] != "ok"]

    @property
    def names(self) -> list[str]:
        return [row["path"] for row in self.images]

    @property
    def labels(self) -> list[str | None]:
        return [row["label"] for row in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def global_repr(self) -> Float[np.ndarray, "n d"]:
        """One float32 vector per usable image. Every shard's checksum is verified on the way.

        Raises:
            StoreDamagedError: a shard is damaged.
        """
        parts = [vectors for _, vectors in self.portions() if len(vectors)]
        return np.concatenate(parts) if parts else np.zeros((0, self.key["encoder"]["embed_dim"]), np.float32)

    def portions(self) -> Iterator[tuple[list[Row], Float[np.ndarray, "n d"]]]:
        """Shard by shard: the manifest lines of all its images, and the vectors of the usable ones.

        Raises:
            StoreDamagedError: a shard is damaged.
        """
        for name, rows in itertools.groupby(self.rows, key=lambda row: row["shard"]):
            yield list(rows), Shard.read(self.path / name, key_digest(self.key)).global_repr.numpy()

    def frame(self, index: int) -> Frame:
        """The geometry of the usable image with this index."""
        return Frame.from_json(self.images[index]["frame"])

    def feature_map(self, index: int) -> Float[np.ndarray, "h w d"]:
        """The patches of the usable image with this index as float32, read from its shard alone and without a checksum.

        Raises:
            InputError: the store was made without patches.
        """
        row = self.images[index]
        header = read_header(self.path / row["shard"], key_digest(self.key))
        ends = Shard(header["rows"], torch.zeros(0, 0)).patch_ends
        with safetensors.safe_open(self.path / row["shard"], "np") as file:
            if "feature_map" not in file.keys():  # noqa: SIM118 - not a dict
                raise InputError(
                    f"the store {self.path} keeps one vector per image: encode with --keep patches for feature maps"
                )
            patches = file.get_slice("feature_map")[ends[row["row"]] : ends[row["row"] + 1]]
        h, w = row["frame"]["grid"]
        return np.asarray(patches, np.float32).reshape(h, w, -1)

    def verify(self) -> None:
        """Check every byte of every shard.

        Raises:
            StoreDamagedError: naming the first shard that is missing or damaged.
        """
        for name in dict.fromkeys(row["shard"] for row in self.rows):
            Shard.read(self.path / name, key_digest(self.key))


def read_meta(path: Path) -> dict[str, Any] | None:
    """A store's meta.json, or None where there is none.

    Raises:
        StoreDamagedError: it cannot be read, or its schema is unknown.
    """
    try:
        meta = json.loads((path / META).read_text(encoding="ascii"))
        schema, _ = meta["schema"], meta["key"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(
            f"{path / META} cannot be read ({error}): use another folder, or --overwrite"
        ) from error
    if schema != SCHEMA:
        raise StoreDamagedError(
            f"{path} has schema {schema}, this fewmatch reads schema {SCHEMA}: use another folder, or --overwrite"
        )
    return dict(meta)


def write_meta(path: Path, key: dict[str, Any]) -> None:
    """Claim a folder for a key, before any feature is in it."""
    write_atomically(
        path / META,
        json.dumps({"schema": SCHEMA, "key": key}, indent=2, sort_keys=True, ensure_ascii=True).encode() + b"\n",
    )


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Finish a store: from here on readers see these images."""
    write_atomically(path / MANIFEST, b"".join(canonical(row) + b"\n" for row in rows))
