"""Weights files to state dicts: opened without running code, searched for the network, and held against what a model expects."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fewmatch.encoders.weights.torch_files import UNREADABLE, open_torch_file, script_tensors
from fewmatch.encoders.weights.unpickle import ScriptModule, StoredTensor
from fewmatch.errors import InputError, WeightsRefusedError

#: What wrappers of the training insert into names, in front or in the middle: DataParallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"})
#: What a part of a name says where the network under it is a teacher, or another moving average of the one that is trained.
_TEACHER = re.compile(r"teacher|target|momentum|(^|_)(ema|swa)(_|$)", re.IGNORECASE)
#: How deep dictionaries and lists of a checkpoint are looked into.
_MAX_NESTING = 12
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|bin)$")
_WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file or a PyTorch checkpoint, on the CPU, without running anything the file holds.

    A folder in the Hugging Face layout stands for the `model.safetensors` in it. PyTorch checkpoints may have any format that
    `torch.save` ever had, or be TorchScript archives; objects of other classes beside the tensors are ignored. Keys of nested
    dictionaries are joined by dots: `teacher.backbone.cls_token`. Values are read from the disk when they are used.

    Raises:
        InputError: there is no such file.
        WeightsRefusedError: the file is damaged, or holds no tensors.
    """
    path = weights_file(path)
    try:
        with path.open("rb") as file:
            if is_web_page(file.read(512)):
                raise WeightsRefusedError(
                    f"{path} is a web page: expected weights; was it saved from a page that asks for a login or a licence?"
                )
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        archive = open_torch_file(path)
        if isinstance(archive.root, ScriptModule):
            stored = script_tensors(archive.root)
        else:
            stored = _tensors(archive.root)
        if stored:
            return {_printable(name): archive.tensor(tensor) for name, tensor in stored.items()}
    except safetensors.SafetensorError as error:
        raise WeightsRefusedError(
            f"{path} cannot be read: expected a whole .safetensors file, got {path.stat().st_size:,} bytes of something else "
            f"({_first_line(error)}): fetch the file again"
        ) from error
    except UNREADABLE as error:
        raise WeightsRefusedError(
            f"{path} cannot be read as weights ({_first_line(error)}): fetch the file again"
        ) from error
    message = f"{path} holds no state dict: expected tensors by name, in dictionaries of any nesting"
    if archive.inert:
        some = ", ".join(dict.fromkeys(_printable(str(name)) for name in archive.inert[:3]))
        message += f"; got objects of other kinds ({some}), which only code could rebuild: nothing was run"
    raise WeightsRefusedError(message)


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins like this is HTML or XML, as servers send it instead of a file."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGE)


def weights_file(path: str | os.PathLike[str]) -> Path:
    """The file that a path names: itself, or the `model.safetensors` of a folder.

    Raises:
        InputError: there is no such file, or it is one of several that hold a model together.
    """
    path = Path(path)
    if _SHARD.search(path.name):
        raise InputError(f"{path} is a part of a model in several files: write hf:{path.parent} for all of them")
    if path.is_dir():
        folder, path = path, path / "model.safetensors"
        if not path.is_file() and (folder / "model.safetensors.index.json").is_file():
            raise InputError(f"{folder} has its weights in several files: write hf:{folder}, which reads them all")
        if not path.is_file() and (folder / "pytorch_model.bin").is_file():
            raise InputError(
                f"{folder} has no model.safetensors: write {folder / 'pytorch_model.bin'} for its weights; hf:{folder} reads the whole "
                "folder once they are saved as safetensors"
            )
        if not path.is_file() and any(folder.glob("pytorch_model*.bin*")):
            raise InputError(
                f"{folder} has its weights as pickles in several files: save them as safetensors "
                "(`save_pretrained` of transformers does), then write "
                f"hf:{folder}"
            )
    if not path.is_file():
        raise InputError(
            f"no weights at {path}: expected a .safetensors or .pth file, or a folder with model.safetensors"
        )
    return path


def _first_line(error: BaseException) -> str:
    return _printable(str(error).strip().split("\n", maxsplit=1)[0][:160]) or type(error).__name__


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _tensors(root: Any) -> dict[str, StoredTensor]:
    """The tensors in a checkpoint by the keys that lead to them, joined by dots. What stands in several places is taken at the first.

    Raises:
        ValueError: two tensors have one name.
    """
    found: dict[str, StoredTensor] = {}
    seen: set[int] = set()

    def visit(prefix: str, value: Any, depth: int) -> None:
        if isinstance(value, StoredTensor):
            if prefix in found:
                raise ValueError(f"two tensors are called {prefix}")
            found[prefix] = value
        elif isinstance(value, dict | list | tuple) and depth and id(value) not in seen:
            seen.add(id(value))
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                visit(f"{prefix}.{key}" if prefix else str(key), inner, depth - 1)

    visit("", root, _MAX_NESTING)
    return found


@dataclass(frozen=True)
class Network:
    """A network in a file.

    prefix: what stands in front of its entries there, with its last dot: `teacher.backbone.`; empty where nothing does.
    anchor: the entry that it was found by. entries: its tensors under their names behind the prefix, without wrappers in the middle.
    """

    prefix: str
    anchor: str
    entries: dict[str, Tensor]

    @property
    def place(self) -> str:
        """The prefix in words."""
        return self.prefix.removesuffix(".") or "the top level"

    @property
    def is_teacher(self) -> bool:
        return any(map(_TEACHER.search, self.prefix.split(".")))


def find_networks(state: Mapping[str, Tensor], anchors: Collection[str]) -> list[Network]:
    """The networks among the tensors of a file, found by an entry that each of them has.

    Whatever stands in front of that entry is the network's prefix, and the network is what has this prefix; but not what belongs to
    another network further in. Wrappers are taken out of names, and chunks of FSDP joined (`blocks.{chunk}.{i}.` to `blocks.{i}.`).

    Args:
        anchors: names of such entries, usually the weight of the patch embedding. Where several fit a name, the longest counts.

    Raises:
        WeightsRefusedError: two entries of a network have one name once wrappers are taken out.
    """
    places: dict[str, str] = {}
    for name in state:
        found = _anchor(name, anchors)
        if found:
            places.setdefault(*found)
    networks = []
    for prefix, anchor in places.items():
        inside = [other for other in places if other.startswith(prefix) and other != prefix]
        names = [name for name in state if name.startswith(prefix) and not name.startswith(tuple(inside))]
        networks.append(Network(prefix, anchor, _without_wrappers(state, names, prefix)))
    return networks


def outside(state: Mapping[str, Tensor], network: Network, others: Collection[Network] = ()) -> dict[str, int]:
    """How many entries of a file are no part of a network, by the outermost name that tells them apart from it.

    others: networks of the file that were not taken.
    """
    own = network.prefix.split(".")
    inside = tuple(other.prefix for other in others if len(other.prefix) > len(network.prefix))
    groups: dict[str, int] = {}
    for name in state:
        if not name.startswith(network.prefix) or name.startswith(inside):
            parts = name.split(".")
            depth = next(i for i, (a, b) in enumerate(zip([*parts, ""], own, strict=False)) if a != b)
            group = ".".join(parts[: depth + 1])
            groups[group] = groups.get(group, 0) + 1
    return groups


def _anchor(name: str, anchors: Collection[str]) -> tuple[str, str] | None:
    """The prefix and the anchor that a name consists of; None where it ends in none."""
    parts = name.split(".")
    kept = [index for index, part in enumerate(parts) if part not in _WRAPPERS]
    plain = ".".join(parts[index] for index in kept)
    fitting = [anchor for anchor in anchors if plain == anchor or plain.endswith("." + anchor)]
    if not fitting:
        return None
    anchor = max(fitting, key=len)
    start = kept[len(kept) - anchor.count(".") - 1]
    return "".join(part + "." for part in parts[:start]), anchor


def _without_wrappers(state: Mapping[str, Tensor], names: list[str], prefix: str) -> dict[str, Tensor]:
    short = {
        name: ".".join(part for part in name.removeprefix(prefix).split(".") if part not in _WRAPPERS) for name in names
    }
    if any(re.match(r"blocks\.\d+\.\d+\.", new) for new in short.values()):
        short = {name: re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", new) for name, new in short.items()}
    entries: dict[str, Tensor] = {}
    for name, new in short.items():
        if new in entries:
            raise WeightsRefusedError(
                f"two entries are {prefix}{new} once wrappers are taken out of names: {name} is one"
            )
        entries[new] = state[name]
    return entries


def require_match(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse a state dict whose keys or shapes are not exactly the expected ones.

    Raises:
        WeightsRefusedError: naming what is missing, what is too much, and the first shape that differs.
    """
    missing = sorted(set(expected) - set(state))
    extra = sorted(set(state) - set(expected))
    if missing or extra:
        parts = [
            f"{len(names)} {kind} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
            for kind, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise WeightsRefusedError(
            f"not the weights of {what}: expected {len(expected)} entries, got {len(state)}: " + ", ".join(parts)
        )
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape:
            raise WeightsRefusedError(
                f"not the weights of {what}: {key} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}"
            )
