"""Identity of features: the state of files, the facts of an encoder, and keys that cover everything the numbers depend on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fewmatch.encoders.devices import dtype_name
from fewmatch.encoders.features import Encoder
from fewmatch.encoders.paths import fewmatch_home
from fewmatch.errors import InputError
from fewmatch.writing import write_atomically

#: A digest is remembered only for files that have been left alone for this long: some file systems count time in steps of two
#: seconds, and within one step a second change would go unnoticed.
_SETTLED_NS = 2_000_000_000

#: What keys of stores and models made before version 0.2 do not have.
_SINCE_SCHEMA_2 = ("family", "architecture")


class FileState(NamedTuple):
    """What a file system says of a file. A file in the same state has the same content; one in another state may have.

    Size and time of change alone do not tell: `cp -p`, `rsync` and `tar` set the time. No program can set `ctime_ns`.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """The state of a file; -1 throughout for one that cannot be looked at, which reading it will then explain."""
        try:
            found = path.stat()
        except (OSError, ValueError):
            return cls(-1, -1, -1, -1)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    @classmethod
    def in_row(cls, row: Mapping[str, Any]) -> FileState:
        """The state that a line of a manifest records; -1 for what older versions did not record, so that no file matches it."""
        return cls(*(row.get(name, -1) for name in cls._fields))


def file_digest(path: str | os.PathLike[str], algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Digest of a file in hex, remembered for as long as the file stays in the same state: 4 GB of weights take seconds to read."""
    path = Path(path).resolve()
    name = str(path) if algorithm == "sha256" else f"{algorithm}:{path}"
    state = FileState.of(path)
    entry = _known_digests().get(name)
    if isinstance(entry, list) and entry[:-1] == list(state):
        return str(entry[-1])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    settled = time.time_ns() - max(state.mtime_ns, state.ctime_ns) > _SETTLED_NS
    if settled and FileState.of(path) == state:
        try:
            write_atomically(
                fewmatch_home() / "digests.json", json.dumps(_known_digests() | {name: [*state, digest]}).encode()
            )
        except OSError:
            return digest  # a cache folder that cannot be written only costs the time to read the file again
    return digest


def _known_digests() -> dict[str, Any]:
    try:
        known = json.loads((fewmatch_home() / "digests.json").read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def canonical(data: Any) -> bytes:
    """JSON in the one spelling that digests are taken of. Names that are not UTF-8 survive as escapes."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def key_digest(key: Mapping[str, Any]) -> str:
    """A short name for a key. Equal digests mean equal numbers, but for rounding on another device or version of torch."""
    return hashlib.blake2b(canonical(key), digest_size=16).hexdigest()


def encoder_facts(encoder: Encoder) -> dict[str, Any]:
    """Everything about an encoder that its numbers depend on, JSON-ready; the part `encoder` of every key.

    Keys:
        name: as the user calls it.
        family, architecture: every option that the network was built with; for Hugging Face models their configuration.
        digest: SHA-256 of the weights. An encoder without one gets a `fingerprint` instead: a digest of what it makes of one fixed
            image, so that two encoders of the same name differ by their numbers.
        dtype, embed_dim, patch_size, stride: `stride` only where patches overlap.

    What an encoder does with pixels before the network (sizes, mean, deviation) and its layer stand in the key beside this part.
    """
    stride = stride_of(encoder)
    facts = {
        "name": encoder.name,
        "family": getattr(encoder, "family", None),
        "digest": getattr(encoder, "digest", None),
        "architecture": plain_json(getattr(encoder, "architecture", None)),
        "dtype": dtype_name(getattr(encoder, "dtype", torch.float32)),
        "embed_dim": encoder.embed_dim,
        "patch_size": encoder.patch_size,
    }
    if facts["digest"] is None:
        facts["fingerprint"] = _fingerprint(encoder)
    return facts | ({} if stride == encoder.patch_size else {"stride": stride})


def identity_at_any_size(key: Mapping[str, Any]) -> str | None:
    """A digest of all that features depend on but the size, the resize rule and the decoder; None for keys that do not say it."""
    if "architecture" not in key["encoder"]:
        return None
    part = {
        "encoder": _without(key["encoder"], ("name",)),
        "layer": key["layer"],
        "preprocessing": _without(key["preprocessing"], ("dense", "rule")),
    }
    return key_digest(part)


def stride_of(encoder: Encoder) -> int:
    """Pixels from one patch of an encoder to the next: its patch size, unless it says otherwise."""
    return int(getattr(encoder, "stride", None) or encoder.patch_size)


@torch.no_grad()
def _fingerprint(encoder: Encoder) -> str:
    side = max(1, encoder.preprocessing.crop // encoder.patch_size) * encoder.patch_size
    # A pattern with all frequencies and colours; any fixed one would do.
    steps = torch.arange(3 * side * side, dtype=torch.float64).view(1, 3, side, side)
    image = torch.sin(steps * steps * 1e-3).float().to(getattr(encoder, "device", "cpu"))
    out = encoder(image)
    total = hashlib.blake2b(digest_size=16)
    for tensor in (out.global_repr, out.feature_map):
        total.update(_bytes(tensor.float()))
    return total.hexdigest()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """A digest of tensors by name: of their names, shapes, types and values."""
    total = hashlib.sha256()
    for key in sorted(state):
        total.update(f"{key} {tuple(state[key].shape)} {state[key].dtype}".encode())
        total.update(_bytes(state[key]))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def plain_json(value: Any) -> Any:
    """A value with everything that JSON lacks made a list or text, so that it is the same after it was written and read."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


def key_difference(old: Any, new: Mapping[str, Any]) -> str | None:
    """The first thing in which two keys differ, in words; None where nothing does.

    A key from before version 0.2 says neither family nor architecture. It is only read where the catalogue says both (see
    `require_known_encoder`), so there the rest decides.
    """
    if isinstance(old, Mapping) and isinstance(old.get("encoder"), Mapping) and isinstance(new.get("encoder"), Mapping):
        if "architecture" not in old["encoder"]:
            new = {**new, "encoder": _without(new["encoder"], _SINCE_SCHEMA_2)}
        elif "architecture" not in new["encoder"]:
            old = {**old, "encoder": _without(old["encoder"], _SINCE_SCHEMA_2)}
    return _difference(old, new)


def _difference(old: Any, new: Mapping[str, Any], prefix: str = "") -> str | None:
    before_all = old if isinstance(old, Mapping) else {}
    for name in dict.fromkeys((*new, *before_all)):
        value, before = new.get(name), before_all.get(name)
        if before == value:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            return _difference(before, value, f"{prefix}{name} ")
        if isinstance(value, Mapping) or isinstance(before, Mapping):
            return f"{prefix}{name} differs"
        return f"{prefix}{name} was {before}, now {value}"
    return None if isinstance(old, Mapping) else "another version"


def _without(facts: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def require_known_encoder(facts: Mapping[str, Any], what: str, remedy: str) -> None:
    """Refuse what was made before keys said family and architecture, unless the catalogue says them for these weights.

    Args:
        facts: the part `encoder` of a key. what: what holds it, for the message. remedy: what the user can do.

    Raises:
        InputError: the encoder is none of the catalogue's, or its weights are not those that the catalogue knows by their digest.
    """
    if "architecture" in facts:
        return
    from fewmatch.encoders import catalogue

    name, digest = facts.get("name"), facts.get("digest")
    record = next((record for record in catalogue.checkpoints() if record.name == name), None)
    if record is not None and record.sha256 and isinstance(digest, str) and digest.startswith(record.sha256):
        return
    if record is None:
        reason = f"{name} is no encoder of the catalogue"
    elif not record.sha256:
        reason = f"no SHA-256 of {name} is known"
    else:
        reason = f"its weights are not those of {name} in the catalogue"
    raise InputError(
        f"{what} was made by an older fewmatch, which did not record the encoder's family and architecture, and {reason}: {remedy}"
    )
