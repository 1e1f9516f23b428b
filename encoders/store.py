"""A folder that keeps the features of many images: shards, one manifest, and the key that says what made them.

    meta.json          schema, key (encoder, weights, dtype, preprocessing, …); no times, so equal work gives equal bytes
    manifest.jsonl     one line per image: path, root, label, size, mtime_ns, sha256, status, reason, note, frame, shard, row
    shard-*.safetensors  global_repr (n, D) float32; with `keep="patches"` also feature_map (patches of all images, D) float16

A shard is complete in itself (it carries its images' facts and checksums that cover every byte), is written atomically, and its name
says which images in which state it was made from. So whatever a killed run left is either a whole shard or nothing, and the
manifest, written last, only ever describes shards that are there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
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
SHARD_NAME = re.compile(r"shard-(\d{5,})-[0-9a-f]{16}\.safetensors")
_TEMPORARY = re.compile(r"\.(.+)\.[^.]+\.tmp")

#: What stands in a shard's header in place of its checksum while that is computed.
_BLANK = b"0" * 64

#: What a line of the manifest says beyond its shard's own row.
_PLACE = ("root", "label", "shard", "row")

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

    def _checksum(self) -> str:
        total = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()

    def write(self, path: Path, key: str) -> Path:
        """Write the shard whole or not at all. `key` is the store's `key_digest`."""
        header = {"features": self._checksum(), "key": key, "rows": self.rows, "sha256": _BLANK.decode()}
        # One entry only: safetensors keeps metadata in a hash map, and several would be written in any order.
        data = safetensors.torch.save(self._tensors(), {"fewmatch": canonical(header).decode()})
        head = data[: 8 + int.from_bytes(data[:8], "little")]
        before, _, after = head.rpartition(_BLANK)
        signed = before + hashlib.sha256(head).hexdigest().encode() + after
        return write_atomically(path, signed, memoryview(data)[len(head) :])

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
            sound = shard._checksum() == header["features"]
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        if not sound:
            raise _damaged(path, "its checksum differs")
        return shard


def read_header(path: Path, key: str) -> dict[str, Any]:
    """A shard's own description, checked, without reading its features.

    Raises:
        StoreDamagedError: as `Shard.read`.
    """
    header = _read_header(path)
    if header["key"] != key:
        raise StoreDamagedError(
            f"{path} belongs to another store: run `fewmatch encode` again, it makes this shard anew"
        )
    return header


def _read_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            length = file.read(8)
            announced = int.from_bytes(length, "little")
            if announced > os.fstat(file.fileno()).st_size:
                raise ValueError("its header is cut off")
            head = length + file.read(announced)
        header = dict(json.loads(json.loads(head[8:])["__metadata__"]["fewmatch"]))
        before, _, after = head.rpartition(header["sha256"].encode())
        if hashlib.sha256(before + _BLANK + after).hexdigest() != header["sha256"]:
            raise ValueError("the checksum of its header differs")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return header


def _without_place(row: Row) -> Row:
    """A line of the manifest as its shard has it."""
    return {name: value for name, value in row.items() if name not in _PLACE}


def _outdated(path: Path) -> StoreDamagedError:
    """For a shard that is sound but not the one the manifest was written for: a run that was killed may have renewed it."""
    return StoreDamagedError(
        f"{path} holds other images than {MANIFEST} says: run `fewmatch encode` again, it writes {MANIFEST} anew"
    )


def _damaged(path: Path, found: Exception | str) -> StoreDamagedError:
    if isinstance(found, FileNotFoundError):
        return StoreDamagedError(f"{path} is missing: run `fewmatch encode` again, it makes this shard anew")
    what = found.strerror if isinstance(found, OSError) else found
    return StoreDamagedError(f"{path} is damaged ({what}): run `fewmatch encode` again, it makes this shard anew")


@dataclass(frozen=True)
class FeatureStore:
    """A store, opened for reading.

    path: its folder. key: what made it. rows: the manifest, skipped images included.
    finished: False where these are only one part's images, and other parts of the work are still to be done.
    """

    path: Path
    key: dict[str, Any]
    rows: list[Row] = field(repr=False)
    finished: bool = True

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
            if not rows or not all(isinstance(row, dict) and {*_PLACE, "path", "status"} <= row.keys() for row in rows):
                raise ValueError("its lines do not describe images")
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
            StoreDamagedError: a shard is damaged, or holds other images than the manifest says.
        """
        for name, group in itertools.groupby(self.rows, key=lambda row: row["shard"]):
            rows = list(group)
            shard = Shard.read(self.path / name, key_digest(self.key))
            if [_without_place(row) for row in rows] != shard.rows:
                raise _outdated(self.path / name)
            yield rows, shard.global_repr.numpy()

    def frame(self, index: int) -> Frame:
        """The geometry of the usable image with this index."""
        return Frame.from_json(self.images[index]["frame"])

    def feature_map(self, index: int) -> Float[np.ndarray, "h w d"]:
        """The patches of the usable image with this index as float32, read from its shard alone and without a checksum.

        Raises:
            InputError: the store was made without patches.
            StoreDamagedError: the shard's header is damaged, or it holds other images than the manifest says.
        """
        row = self.images[index]
        path = self.path / row["shard"]
        kept = read_header(path, key_digest(self.key))["rows"]
        usable = [line for line in kept if line["status"] == "ok"]
        if row["row"] not in range(len(usable)) or usable[row["row"]] != _without_place(row):
            raise _outdated(path)
        ends = Shard(kept, torch.zeros(0, 0)).patch_ends
        try:
            with safetensors.safe_open(path, "np") as file:
                if "feature_map" not in file.keys():  # noqa: SIM118 - not a dict
                    raise InputError(
                        f"the store {self.path} keeps one vector per image: encode with --keep patches for feature maps"
                    )
                patches = file.get_slice("feature_map")[ends[row["row"]] : ends[row["row"] + 1]]
        except (safetensors.SafetensorError, OSError) as error:
            raise _damaged(path, error) from error
        h, w = row["frame"]["grid"]
        return np.asarray(patches, np.float32).reshape(h, w, -1)

    def verify(self) -> None:
        """Check every byte of every shard.

        Raises:
            StoreDamagedError: naming the first shard that is missing or damaged.
        """
        for _ in self.portions():
            pass


def is_store_file(name: str) -> bool:
    """Whether a store makes files of this name; temporary ones on the way to them count."""
    final = _TEMPORARY.fullmatch(name)
    name = final[1] if final else name
    return name in (META, MANIFEST) or SHARD_NAME.fullmatch(name) is not None


def leftovers(folder: Path, part: int, parts: int) -> list[Path]:
    """Temporary files that a killed run of this part of the work (counted from 0) may have left."""
    found = []
    for path in folder.glob(".*.tmp"):
        final = _TEMPORARY.fullmatch(path.name)
        shard = SHARD_NAME.fullmatch(final[1]) if final else None
        if is_store_file(path.name) and (shard is None or int(shard[1]) % parts == part):
            found.append(path)
    return found


def shard_key(path: Path) -> str | None:
    """The `key_digest` that a shard was made with, or None for a damaged one."""
    try:
        return str(_read_header(path)["key"])
    except StoreDamagedError:
        return None


def worth_another_try(rows: Sequence[Row]) -> bool:
    """Whether there are files that could not be read: a disk may be back, or permissions mended."""
    return any(str(row["reason"]).startswith("io-error") for row in rows)


def read_meta(path: Path) -> dict[str, Any] | None:
    """A store's meta.json, or None where there is none.

    Raises:
        StoreDamagedError: it cannot be read, or its schema is unknown.
    """
    try:
        meta = json.loads((path / META).read_text(encoding="ascii"))
        schema, _ = meta["schema"], dict(meta["key"])
    except (FileNotFoundError, NotADirectoryError):
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
    """Finish a store: from here on readers see these images. A manifest that says so already is left alone."""
    data = b"".join(canonical(row) + b"\n" for row in rows)
    with contextlib.suppress(OSError):  # there may be none yet, or none that can be read
        if (path / MANIFEST).read_bytes() == data:
            return
    write_atomically(path / MANIFEST, data)
