"""Families of encoders: how each one's weights are recognised, brought under the names of its model, and built.

To add a family, add a module here with a tuple `FAMILIES` (found by itself) and, where the plain vision transformer does not do,
a model in `encoders/models/`.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor

from encoders.errors import InputError, WeightsRefusedError
from encoders.models import Backbone
from encoders.models.vit import ViTArchitecture
from encoders.preprocessing import Preprocessing

State = Mapping[str, Tensor]

#: What can be said about a plain vision transformer that its keys and shapes do not tell, such as `heads`.
VIT_OPTIONS = tuple(field.name for field in fields(ViTArchitecture))


@dataclass(frozen=True)
class Family:
    """One family of released encoders.

    name: as in results and on the command line. paper: author and year.
    preprocessing: for weights that are no checkpoint of the catalogue; sizes need not fit the patch (see `encoders.loading`).
    recognises: whether unwrapped keys (official or Hugging Face layout) are this family's. At most one family recognises a state dict.
    official: from unwrapped entries in either layout to exactly those that the model has, under its names; what the family's files
        hold besides the encoder is dropped, and anything else is left for the strict check to name.
    build: the model that entries under its names imply, with options that they cannot tell. It raises KeyError for an entry that every
        such model has, ValueError for shapes that contradict each other or another family's.
    options: names of the options that `build` takes.
    """

    name: str
    paper: str
    preprocessing: Preprocessing
    recognises: Callable[[State], bool]
    official: Callable[[State], dict[str, Tensor]]
    build: Callable[..., Backbone]
    options: tuple[str, ...] = VIT_OPTIONS

    def model(self, state: State, **options: Any) -> Backbone:
        """The model for entries under its names, on the meta device: without values, which are about to be loaded.

        Raises:
            InputError: an option that the family does not have, or a value that it cannot have.
            WeightsRefusedError: the entries are not this family's.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise InputError(
                f"no architecture option {', '.join(unknown)}: expected one of {', '.join(self.options) or 'none'}"
            )
        try:
            with torch.device("meta"):
                return self.build(state, **options)
        except InputError:
            raise
        except KeyError as error:
            raise WeightsRefusedError(
                f"not the weights of {self.name}: no entry {error.args[0]} among {len(state)}"
            ) from error
        except (ValueError, IndexError) as error:
            raise WeightsRefusedError(f"not the weights of {self.name}: {error}") from error


@cache
def families() -> dict[str, Family]:
    """All families by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [
        family for name in modules for family in getattr(importlib.import_module(f"{__name__}.{name}"), "FAMILIES", ())
    ]
    return {family.name: family for family in found}


def find_family(name: str) -> Family:
    """The family of this name.

    Raises:
        InputError: there is none.
    """
    known = families()
    if name not in known:
        raise InputError(f"no family called {name}: expected one of {', '.join(known)}")
    return known[name]


def recognise(state: State) -> Family:
    """The family that unwrapped keys belong to (reference/encoders.md 23.5).

    Raises:
        WeightsRefusedError: no known family has such keys.
    """
    for family in families().values():
        if family.recognises(state):
            return family
    some = ", ".join(sorted(state)[:3]) or "none"
    raise WeightsRefusedError(
        f"weights of no known family ({', '.join(families())}): got {len(state)} keys ({some} …); "
        "write FAMILY:PATH if you know which it is"
    )


def renamed(state: State, names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """The entries under new names: the first pattern that matches a whole key gives its name; other keys stay as they are."""
    compiled = [(re.compile(pattern), name) for pattern, name in names]
    out = {}
    for key, value in state.items():
        found = next(((pattern, name) for pattern, name in compiled if pattern.fullmatch(key)), None)
        out[found[0].sub(found[1], key) if found else key] = value
    return out


def without(state: State, *patterns: str) -> dict[str, Tensor]:
    """The entries whose keys match none of these shell patterns."""
    return {
        key: value for key, value in state.items() if not any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)
    }


def stacked(state: State, pattern: str, parts: tuple[str, ...], name: str) -> dict[str, Tensor]:
    """Entries that come in parts (query, key and value, say) as one, on top of each other.

    Args:
        pattern: of the keys, with a group `part`, and groups that `name` refers to.
        parts: what stands in the group, in the order of the stack.
        name: the new key, with references such as `\\1` to the other groups.

    Raises:
        WeightsRefusedError: one part is there and another is not.
    """
    out = {}
    for key, value in state.items():
        match = re.fullmatch(pattern, key)
        if match is None or match["part"] not in parts:
            out[key] = value
        elif match["part"] == parts[0]:
            start, stop = match.span("part")
            keys = [key[:start] + part + key[stop:] for part in parts]
            missing = [other for other in keys if other not in state]
            if missing:
                raise WeightsRefusedError(f"{key} comes without {missing[0]}")
            out[match.expand(name)] = torch.cat([state[other] for other in keys])
    return out
