"""Every checkpoint that has a name: one frozen record each, one module of records per family.

To add a checkpoint, add a record to its family's module; to add a family, add a module here with a tuple `RECORDS`. Nothing else
has to change: the modules of this folder are found by themselves.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from encoders.errors import InputError
from encoders.places import hf_hub_cache, torch_checkpoints, weights_folder
from encoders.preprocessing import Preprocessing


@dataclass(frozen=True)
class Checkpoint:
    """One released set of weights.

    filename: its name in caches (`bundled` ones: inside the package, see `location`).
    sha256: digest of that file in hex, or the start of it where only that is known; `digest_trust` says who vouches for it.
    bytes: size of the file, None where unknown. hf_repo: the Hugging Face repository with the same weights.
    architecture: what keys and shapes cannot tell, plus the sizes shown in listings (`embed_dim`, `depth`, `heads`, `patch_size`, …).
    knn, linear: published ImageNet-1k accuracies in percent. source: where the facts stand.
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
    digest_trust: Literal["published", "observed", "none"] = "none"
    bytes: int | None = None
    parameters: int | None = None
    hf_repo: str | None = None
    bundled: bool = False
    non_commercial: bool = False
    knn: float | None = None
    linear: float | None = None
    notes: str = ""

    def location(self) -> tuple[Literal["bundled", "cached"], Path] | None:
        """Where the weights are on this machine: in the package, or in a cache where users already have them; None if nowhere."""
        if self.bundled:
            return "bundled", Path(__file__).parent.parent / "weights" / self.filename
        places = [weights_folder() / self.filename, torch_checkpoints() / self.filename]
        if self.hf_repo:
            snapshots = hf_hub_cache() / ("models--" + self.hf_repo.replace("/", "--")) / "snapshots"
            places += sorted(snapshots.glob("*/model.safetensors"))
        found = next((place for place in places if place.is_file()), None)
        return ("cached", found) if found else None

    def to_json(self) -> dict[str, Any]:
        place = self.location()
        return asdict(self) | {
            "preprocessing": self.preprocessing.to_json(),
            "where": place[0] if place else "absent",
            "path": str(place[1]) if place else None,
        }


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """All records, family by family."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(record for name in modules for record in importlib.import_module(f"{__name__}.{name}").RECORDS)


def find(name: str) -> Checkpoint:
    """The record of a name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known = {record.name: record for record in checkpoints()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`fewmatch encoders` lists them"
    raise InputError(f"no encoder called {name}, and no such file: {hint}")


def search(pattern: str | None) -> list[Checkpoint]:
    """The records whose name or family matches a shell pattern (`*reg*`) or contains it; all of them without one."""
    if pattern is None:
        return list(checkpoints())
    wild = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [r for r in checkpoints() if fnmatch.fnmatchcase(r.name, wild) or fnmatch.fnmatchcase(r.family, wild)]
