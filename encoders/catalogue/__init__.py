"""Every checkpoint that has a name: one frozen record each, one module of records per family.

To add a checkpoint, add a record to its family's module; to add a family, add a module here with a tuple `RECORDS`. Nothing else
has to change: the modules of this folder are found by themselves. `docs/encoders.md` shows them all.
"""

from __future__ import annotations

import difflib
import fnmatch
import glob
import importlib
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from fewmatch.encoders.paths import hf_hub_cache, torch_checkpoints, weights_folder
from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.errors import InputError

#: Entries of `architecture` that keys and shapes of the weights tell; they are there for listings.
_SHOWN_BY_WEIGHTS = frozenset(
    {"embed_dim", "depth", "patch_size", "position_grid", "hidden_dim", "registers", "ffn", "layer_scale"}
)


@dataclass(frozen=True)
class Checkpoint:
    """One released set of weights.

    filename: its name in caches (`bundled` ones: inside the package, see `location`).
    sha256: digest of that file in hex, or the start of it where only that is known; `digest_trust` says who vouches for it.
    md5: the same in MD5, for files of which no SHA-256 is known.
    bytes: size of the file, None where unknown. hf_repo: the Hugging Face repository with the same weights.
    architecture: what keys and shapes cannot tell, plus the sizes shown in listings (`embed_dim`, `depth`, `heads`, `patch_size`, …).
    parameters: of the image encoder alone, without text towers, heads and decoders that features do not need (DINOv2: as published,
        with the mask token).
    gated: its publisher asks for a request before a download. non_commercial: its licence allows no other use.
    knn, linear: published ImageNet-1k accuracies in percent. source: where the facts stand. notes: what else to know.
    """

    name: str
    family: str
    filename: str
    preprocessing: Preprocessing
    architecture: Mapping[str, Any]
    licence: str
    source: str
    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    digest_trust: Literal["published", "observed", "none"] = "none"
    bytes: int | None = None
    parameters: int | None = None
    hf_repo: str | None = None
    bundled: bool = False
    non_commercial: bool = False
    gated: bool = False
    knn: float | None = None
    linear: float | None = None
    notes: str = ""

    def location(self) -> tuple[Literal["bundled", "cached"], Path] | None:
        """Where the weights are on this machine: in the package, or in a cache where users already have them; None if nowhere."""
        if self.bundled:
            return "bundled", Path(__file__).parent.parent / "weights" / self.filename
        own, hub = weights_folder(), torch_checkpoints()
        places = [own / self.filename, own / f"{self.name}.safetensors", own / f"{self.name}.pth"]
        places += [hub / name for name in self.official_names()]
        published = re.fullmatch(r"https?://[^/]+/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.url or "")
        for repo, file in (
            *([(published[1], unquote(published[2]))] if published else []),
            *((self.hf_repo, file) for file in ("model.safetensors", "pytorch_model.bin")),
        ):
            if repo:
                snapshots = hf_hub_cache() / ("models--" + repo.replace("/", "--")) / "snapshots"
                places += sorted(snapshots.glob("*/" + glob.escape(file)))
        found = next((place for place in places if place.is_file()), None)
        return ("cached", found) if found else None

    def official_names(self) -> tuple[str, ...]:
        """What the released file is called in caches: `filename`, and its name in the URL where that tells it from all others."""
        name = (self.url or "").rpartition("/")[2]
        alone = sum((record.url or "").endswith("/" + name) for record in checkpoints()) == 1
        return (self.filename, unquote(name)) if alone and unquote(name) != self.filename else (self.filename,)

    def untold(self, options: Iterable[str]) -> dict[str, Any]:
        """What a network needs to be told of its architecture, of these options: the rest shows in the shapes of its weights."""
        return {o: self.architecture[o] for o in options if o in self.architecture and o not in _SHOWN_BY_WEIGHTS}

    def where(self) -> Literal["bundled", "cached", "gated", "downloadable", "absent"]:
        """Whether the weights are on this machine, and if not, how they can come here (`absent`: no address is known)."""
        place = self.location()
        if place:
            return place[0]
        if self.gated:
            return "gated"
        return "downloadable" if self.url else "absent"

    def to_json(self) -> dict[str, Any]:
        """All fields, with `where` and the path of the weights on this machine."""
        place = self.location()
        return asdict(self) | {
            "preprocessing": self.preprocessing.to_json(),
            "where": self.where(),
            "path": str(place[1]) if place else None,
        }


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """All records, family by family."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(
        record for name in modules for record in getattr(importlib.import_module(f"{__name__}.{name}"), "RECORDS", ())
    )


def find(name: str) -> Checkpoint:
    """The record of a name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known = {record.name: record for record in checkpoints()}
    if name in known:
        return known[name]
    raise InputError(f"no encoder called {name}, and no such file: {nearest(name)}")


def of_digest(*, sha256: str = "", md5: str = "") -> Checkpoint | None:
    """The record whose file has this digest, as far as digits of it are known; None where none has."""
    known = ((record, record.sha256 if sha256 else record.md5) for record in checkpoints())
    return next((record for record, digits in known if digits and (sha256 or md5).startswith(digits)), None)


def released_heads(family: str, width: int) -> int | None:
    """The attention heads of the released networks of a family and width; None where there are none, or they differ."""
    sizes = [r.architecture for r in checkpoints() if r.family == family and r.architecture.get("embed_dim") == width]
    heads = {size["heads"] for size in sizes if isinstance(size.get("heads"), int)}
    return heads.pop() if len(heads) == 1 else None


def nearest(name: str) -> str:
    """For messages: the names and families that look most like one that does not exist."""
    known = {record.name for record in checkpoints()} | {record.family for record in checkpoints()}
    near = difflib.get_close_matches(name.lower().strip("*?"), sorted(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else "`fewmatch encoders` lists them"


def search(*patterns: str) -> list[Checkpoint]:
    """The records whose name or family contains one of the patterns, or matches it as a shell pattern (`*reg*`); all without any.

    Families in alphabetical order, names within them in natural order (`dino_vitb8` before `dino_vitb16`). Case does not count.
    """
    wild = [p if any(sign in p for sign in "*?[") else f"*{p}*" for p in map(str.lower, patterns or ("*",))]
    found = [
        record
        for record in checkpoints()
        if any(fnmatch.fnmatchcase(text, w) for w in wild for text in (record.name, record.family))
    ]
    return sorted(found, key=lambda record: (record.family, _natural(record.name)))


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
