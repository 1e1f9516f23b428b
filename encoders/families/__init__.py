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
from typing import Any, NoReturn

import torch
from torch import Tensor

from fewmatch.encoders.models import Backbone
from fewmatch.encoders.models.vit import ViTArchitecture
from fewmatch.encoders.preprocessing import Preprocessing
from fewmatch.encoders.weights.checkpoint import Network, find_networks
from fewmatch.errors import InputError, WeightsRefusedError

State = Mapping[str, Tensor]

#: What can be said about a plain vision transformer that its keys and shapes do not tell, such as `heads`.
VIT_OPTIONS = tuple(field.name for field in fields(ViTArchitecture))


def never(_: State) -> bool:
    """For families that no entries belong to alone, or that share their layout with nobody."""
    return False


@dataclass(frozen=True)
class Family:
    """One family of released encoders.

    name: as in results and on the command line. paper: author and year.
    preprocessing: for weights that are no checkpoint of the catalogue; sizes need not fit the patch (see `fewmatch.encoders.loading`).
    anchors: an entry that each of its networks has, usually the weight of the patch embedding, one name for each layout; by it a network
        is found in a file, and what stands in front of it is taken off the names (see `fewmatch.encoders.weights.checkpoint.find_networks`).
    recognises: whether entries (official or Hugging Face layout) can only be this family's. At most one family recognises a network.
    official: from entries in either layout to exactly those that the model has, under its names; what the family's files hold besides
        the encoder is dropped, and anything else is left for the strict check to name.
    build: the model that entries under its names imply, with options that they cannot tell. It raises KeyError for an entry that every
        such model has, ValueError for shapes that contradict each other or another family's.
    possible: whether entries may be this family's, but as well those of others that share its layout: then the family has to be told.
    hint: what tells it from those, for messages.
    options: names of the options that `build` takes.
    """

    name: str
    paper: str
    preprocessing: Preprocessing
    anchors: tuple[str, ...]
    recognises: Callable[[State], bool]
    official: Callable[[State], dict[str, Tensor]]
    build: Callable[..., Backbone]
    possible: Callable[[State], bool] = never
    hint: str = ""
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


@cache
def anchors() -> frozenset[str]:
    """The anchors of all families."""
    return frozenset(anchor for family in families().values() for anchor in family.anchors)


def find_family(name: str) -> Family:
    """The family of this name.

    Raises:
        InputError: there is none.
    """
    known = families()
    if name not in known:
        raise InputError(f"no family called {name}: expected one of {', '.join(known)}")
    return known[name]


class FamilyOpenError(WeightsRefusedError):
    """The entries of a network are those of several families, or of one and of networks that are none: the family has to be told."""


def recognise(entries: State) -> Family:
    """The family that the entries of a network belong to (reference/encoders.md 23.5).

    Raises:
        FamilyOpenError: several families have such entries; the message names the spellings that say which it is.
        WeightsRefusedError: no known family has such entries.
    """
    for family in families().values():
        if family.recognises(entries):
            return family
    possible = [family for family in families().values() if family.possible(entries)]
    some = ", ".join(sorted(entries)[:3]) or "none"
    if not possible:
        raise WeightsRefusedError(
            f"weights of no known family ({', '.join(families())}): got {len(entries)} entries ({some} …)"
        )
    names = [f"{family.name}:PATH" + (f" ({family.hint})" if family.hint else "") for family in possible]
    spelled = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
    raise FamilyOpenError(
        f"the entries leave the family open: write {spelled}, whichever it is (in Python family=); other networks of this layout, "
        "such as classifiers, may expect other pixels and are none of these"
    )


@dataclass(frozen=True)
class Choice:
    """A network of a file and its family. `others`: networks that were there as well and not taken."""

    network: Network
    family: Family
    others: list[Network]


def choose_network(state: State, family: str | None = None) -> Choice:
    """The network that a file is about: the only one, or of several the teacher.

    Args:
        state: all tensors of the file by name. family: only networks of this family are looked for; None reads it off the entries.

    Raises:
        InputError: no such family.
        FamilyOpenError: the entries leave the family open.
        WeightsRefusedError: there is no network of a known family, or of this one; or there are several that differ, none or more than
            one of them a teacher's.
    """
    rules = find_family(family) if family is not None else None
    known = [rules] if rules else list(families().values())
    found = find_networks(state, anchors())
    own = [network for network in found if any(network.anchor in one.anchors for one in known)]
    if not own:
        _refuse_without_network(state, rules, found)
    fitting = [n for n in own if any(one.recognises(n.entries) or one.possible(n.entries) for one in known)]
    network = _preferred(fitting or own)
    return Choice(network, rules or recognise(network.entries), [other for other in found if other is not network])


def _preferred(networks: list[Network]) -> Network:
    # fairseq keeps its training target under `_ema`; the network itself stands beside it.
    networks = [network for network in networks if "_ema" not in network.prefix.split(".")] or networks
    teachers = [network for network in networks if network.is_teacher]
    first, *more = teachers or networks
    if any(not _same(first.entries, other.entries) for other in more):
        places = ", ".join(network.place for network in teachers or networks)
        kind = "teachers" if teachers else "networks, none of them called teacher or EMA,"
        raise WeightsRefusedError(
            f"{1 + len(more)} different {kind} are in this file ({places}): save the one that you mean in a file of its own"
        )
    return first


def _same(one: State, other: State) -> bool:
    """Whether two networks have the same weights, as a module has that is registered under two names."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def _refuse_without_network(state: State, rules: Family | None, found: list[Network]) -> NoReturn:
    some = ", ".join(sorted(state)[:3]) or "none"
    if rules is None:
        raise WeightsRefusedError(
            f"weights of no known family ({', '.join(families())}): no patch embedding among {len(state)} entries ({some} …)"
        )
    message = f"not the weights of {rules.name}: no entry {' or '.join(rules.anchors)} among {len(state)} ({some} …)"
    for network in found:
        names = [one.name for one in families().values() if network.anchor in one.anchors]
        message += f"; the network at {network.place} has {network.anchor}, as {' or '.join(names)}"
    raise WeightsRefusedError(message)


#: Names of modules behind the features, or of no part of the network: heads, losses, the optimiser.
_HEAD = re.compile(
    r"(.*_)?(heads?|classifier|fc|linear|projectors?|projection|predictors?|prototypes?|decoder|pooler|logits|loss(es)?|optimizer"
    r"|scheduler|criterion|metrics?|queue|center)(_(?!norm).*)?|fc\d"
)


def without_heads(entries: State, expected: State) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The entries without heads, and of what was left out how many entries, by the name of the module.

    A head is what has a head's name at the top level of the network, where the model has no such module. Anything else that the model
    does not have stays, for the strict check to refuse: it may change the features.
    """
    parts = {key.partition(".")[0] for key in expected}
    heads = {part for part in (key.partition(".")[0] for key in entries) if part not in parts and _HEAD.fullmatch(part)}
    kept: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    for key, value in entries.items():
        part = key.partition(".")[0]
        if part in heads:
            dropped[part] = dropped.get(part, 0) + 1
        else:
            kept[key] = value
    return kept, dropped


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
