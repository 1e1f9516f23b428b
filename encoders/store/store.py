"""A folder that keeps the features of many images: shards, one manifest, and the key that says what made them.

    meta.json          schema, key (encoder, weights, dtype, preprocessing, …); no times, so equal work gives equal bytes
    manifest.jsonl     one line per image: path, root, label, the state of its file, sha256, status, reason, note, frame, shard, row
    manifest.sha256    its checksum, as `sha256sum` writes it
    shard-*.safetensors  global_repr (n, D) float32; with `keep="patches"` also feature_map (patches of all images, D) float16

A shard is complete in itself (it carries its images' facts and checksums that cover every byte, those of patches image by image), is
written atomically, and its name says which images in which state it was made from. So whatever a killed run left is either a whole
shard or nothing, and the manifest, written when all shards are there, only ever describes shards that are there.
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

from fewmatch.encoders.frame import Frame
from fewmatch.encoders.identity import FileState, canonical, key_digest, require_known_encoder, state_digest
from fewmatch.errors import InputError, StoreDamagedError
from fewmatch.writing import write_atomically

#: What is written. Stores of schema 1 are read where the encoder is known without doubt (`require_known_encoder`).
SCHEMA = 2
META, MANIFEST, CHECKSUM = "meta.json", "manifest.jsonl", "manifest.sha256"
SHARD_NAME = re.compile(r"shard-(\d{5,})-[0-9a-f]{16}\.safetensors")
_TEMPORARY = re.compile(r"\.(.+)\.[^.]+\.tmp")

#: What stands in a shard's header in place of its checksum while that is computed.
_BLANK = b"0" * 64

#: What a line of the manifest says beyond its shard's own row.
_PLACE = ("root", "label", "shard", "row")

Keep = Literal["global", "patches"]
Row = dict[str, Any]


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

    def write(self, path: Path, key: str) -> Path:
        """Write the shard whole or not at all. `key` is the store's `key_digest`."""
        header = {
            "vectors": _sha256(self.global_repr),
            "maps": self._map_digests(),
            "key": key,
            "rows": self.rows,
            "sha256": _BLANK.decode(),
        }
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
            sound = shard._is_sound(header)
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        if not sound:
            raise _damaged(path, "its checksum differs")
        return shard

    def _is_sound(self, header: dict[str, Any]) -> bool:
        if "features" in header:  # schema 1: one checksum over everything
            return state_digest(self._tensors()) == str(header["features"])
        return [_sha256(self.global_repr), self._map_digests()] == [header["vectors"], header["maps"]]

    def _map_digests(self) -> list[str] | None:
        if self.feature_map is None:
            return None
        return [_sha256(self.patches(index)) for index in range(len(self.patch_ends) - 1)]


def _sha256(tensor: Tensor) -> str:
    """Of the values; names, shapes and types stand in the shard's header, which has a checksum of its own."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def read_vectors(path: Path, key: str) -> tuple[list[Row], Float[np.ndarray, "n d"]]:
    """A shard's rows and the vectors of its usable images, checked; its patches are not read.

    Raises:
        StoreDamagedError: as `Shard.read`.
    """
    header = read_header(path, key)
    if "features" in header:  # schema 1: the only checksum covers the patches as well
        shard = Shard.read(path, key)
        return shard.rows, shard.global_repr.numpy()
    try:
        with safetensors.safe_open(path, "pt") as file:
            vectors = file.get_tensor("global_repr")
        sound = _sha256(vectors) == header["vectors"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if not sound:
        raise _damaged(path, "the checksum of its vectors differs")
    return header["rows"], vectors.numpy()


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

    Whatever is read is checked on the way: manifest and vectors as a whole, patches image by image.

    path: its folder. key: what made it. rows: the manifest, skipped images included.
    finished: False where these are only one part's images, and other parts of the work are still to be done.
    """

    path: Path
    key: dict[str, Any]
    rows: list[Row] = field(repr=False)
    finished: bool = True
    _indices: dict[Path, tuple[FileState, tuple[dict[str, Any], list[Row], list[int]]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> FeatureStore:
        """Open a folder that `encode_images` finished.

        Raises:
            InputError: the folder is no store, or an unfinished one, or one of an older fewmatch that does not say enough of its encoder.
            StoreDamagedError: its meta.json or manifest cannot be read or was altered, or is of a newer fewmatch.
        """
        path = Path(path)
        meta = read_meta(path)
        if meta is None:
            raise InputError(f"{path} is not a feature store: expected {META} and {MANIFEST} in it")
        if not all((path / name).is_file() for name in (MANIFEST, CHECKSUM)[: meta["schema"]]):
            raise InputError(
                f"the store {path} is unfinished: run `fewmatch encode` with its images again (with every --shard i/n if it was split)"
            )
        if meta["schema"] == 1:
            facts = meta["key"].get("encoder")
            require_known_encoder(
                facts if isinstance(facts, dict) else {},
                f"the store {path}",
                "encode its images again into a new folder",
            )
        try:
            with (path / MANIFEST).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if meta["schema"] != 1 and (path / CHECKSUM).read_bytes() != _checksum_line(digest):
                    raise ValueError(f"it is not the one that {CHECKSUM} was made of")
                file.seek(0)
                rows = [json.loads(line) for line in file]
            if not rows or not all(isinstance(row, dict) and {*_PLACE, "path", "status"} <= row.keys() for row in rows):
                raise ValueError("its lines do not describe images")
        except (OSError, ValueError) as error:
            raise StoreDamagedError(
                f"{path / MANIFEST} cannot be used ({error}): run `fewmatch encode` with its images again, which replaces it "
                "and computes nothing twice; labels come from class folders or from the column label of a CSV list"
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
        """One float32 vector per usable image.

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
            kept, vectors = read_vectors(self.path / name, key_digest(self.key))
            if [_without_place(row) for row in rows] != kept:
                raise _outdated(self.path / name)
            yield rows, vectors

    def frame(self, index: int) -> Frame:
        """The geometry of the usable image with this index."""
        return Frame.from_json(self.images[index]["frame"])

    def feature_map(self, index: int) -> Float[np.ndarray, "h w d"]:
        """The patches of the usable image with this index as float32, read from its shard alone.

        Raises:
            InputError: the store was made without patches.
            StoreDamagedError: the shard's header or these patches are damaged, or it holds other images than the manifest says.
        """
        row = self.images[index]
        path = self.path / row["shard"]
        header, usable, ends = self._shard_index(path)
        if row["row"] not in range(len(usable)) or usable[row["row"]] != _without_place(row):
            raise _outdated(path)
        if self.key.get("keep") == "global":
            raise InputError(
                f"the store {self.path} keeps one vector per image: encode with --keep patches for feature maps"
            )
        try:
            with safetensors.safe_open(path, "pt") as file:
                patches = file.get_slice("feature_map")[ends[row["row"]] : ends[row["row"] + 1]]
            sound = "features" in header or _sha256(patches) == header["maps"][row["row"]]
        except (safetensors.SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise _damaged(path, error) from error
        if not sound:
            raise _damaged(path, f"the checksum of the patches of {row['path']} differs")
        h, w = row["frame"]["grid"]
        return np.asarray(patches.numpy(), np.float32).reshape(h, w, -1)

    def _shard_index(self, path: Path) -> tuple[dict[str, Any], list[Row], list[int]]:
        """A shard's header, the rows of its usable images, and where their patches end; read once for as long as the file stays."""
        state = FileState.of(path)
        known = self._indices.get(path)
        if known is None or known[0] != state:
            key = key_digest(self.key)
            header = read_header(path, key)
            if "features" in header:  # schema 1: the only checksum is one over the whole shard
                Shard.read(path, key)
            usable = [line for line in header["rows"] if line["status"] == "ok"]
            known = self._indices[path] = (state, (header, usable, Shard(header["rows"], torch.zeros(0, 0)).patch_ends))
        return known[1]

    def verify(self) -> None:
        """Check every byte of every shard.

        Raises:
            StoreDamagedError: naming the first shard that is missing or damaged.
        """
        for _ in self.portions():
            pass
        for name in dict.fromkeys(row["shard"] for row in self.rows):
            Shard.read(self.path / name, key_digest(self.key))


def is_store_file(name: str) -> bool:
    """Whether a store makes files of this name; temporary ones on the way to them count."""
    final = _TEMPORARY.fullmatch(name)
    name = final[1] if final else name
    return name in (META, MANIFEST, CHECKSUM) or SHARD_NAME.fullmatch(name) is not None


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
    if schema not in (1, SCHEMA):
        raise StoreDamagedError(
            f"{path} has schema {schema}, this fewmatch reads schemas 1 and {SCHEMA}: use another folder, or --overwrite"
        )
    return dict(meta)


def write_meta(path: Path, key: dict[str, Any]) -> None:
    """Claim a folder for a key, before any feature is in it."""
    write_atomically(
        path / META,
        json.dumps({"schema": SCHEMA, "key": key}, indent=2, sort_keys=True, ensure_ascii=True).encode() + b"\n",
    )


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Finish a store: from here on readers see these images. Files that say so already are left alone."""
    manifest = b"".join(canonical(row) + b"\n" for row in rows)
    for name, data in ((MANIFEST, manifest), (CHECKSUM, _checksum_line(hashlib.sha256(manifest).hexdigest()))):
        with contextlib.suppress(OSError):  # there may be none yet, or none that can be read
            if (path / name).read_bytes() == data:
                continue
        write_atomically(path / name, data)


def _checksum_line(digest: str) -> bytes:
    return f"{digest}  {MANIFEST}\n".encode()
