"""Weights files to state dicts: opened without running code, un-nested, unwrapped, and held against what a model expects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from encoders.errors import InputError, WeightsRefusedError
from encoders.torch_files import UNREADABLE, open_torch_file, script_tensors
from encoders.unpickle import ScriptModule, StoredTensor

#: Where training checkpoints keep the network, in the order in which they are looked for (reference/encoders.md 23.2).
_NESTING = (
    "teacher",
    "target_encoder",
    "state_dict",
    "model",
    "module",
    "classy_state_dict.base_model.model.trunk",
)
_WRAPPERS = ("module.", "backbone.", "_orig_mod.")
_WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint, on the CPU, without running anything the file holds.

    A folder in the Hugging Face layout stands for the `model.safetensors` in it. PyTorch checkpoints may have any format that
    `torch.save` ever had, or be TorchScript archives; objects of other classes beside the tensors are ignored.

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
            stored = _innermost(archive.root)
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
    message = f"{path} holds no state dict: expected tensors by name, or one of {', '.join(_NESTING)} with them inside"
    if archive.inert:
        some = ", ".join(dict.fromkeys(_printable(str(name)) for name in archive.inert[:3]))
        message += f"; got objects of other kinds ({some}), which only code could rebuild: nothing was run"
    raise WeightsRefusedError(message)


def is_web_page(start: bytes) -> bool:
    """Whether a file that begins like this is HTML or XML, as servers send it instead of a file."""
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_WEB_PAGE)


def weights_file(path: str | os.PathLike[str]) -> Path:
    """The file that a path names: itself, or the `model.safetensors` of a folder."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise InputError(
            f"no weights at {path}: expected a .safetensors or .pth file, or a folder with model.safetensors"
        )
    return path


def _first_line(error: BaseException) -> str:
    return _printable(str(error).strip().split("\n", maxsplit=1)[0][:160]) or type(error).__name__


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _innermost(loaded: Any, depth: int = 4) -> dict[str, StoredTensor]:
    """The tensors by name of a checkpoint, wherever it keeps them; what lies beside them (`epoch`, `_ema`, a config) is not looked at."""
    if not isinstance(loaded, dict):
        return {}
    here = {str(key): value for key, value in loaded.items() if isinstance(value, StoredTensor)}
    for path in _NESTING if depth else ():
        inner: Any = loaded
        for key in path.split("."):
            inner = inner.get(key) if isinstance(inner, dict) else None
        deeper = _innermost(inner, depth - 1)
        if len(deeper) > len(here):  # a checkpoint may have a tensor or two beside its network
            return deeper
    return here


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries without what training wrappers put in front, and FSDP chunks joined (`blocks.{chunk}.{i}.` to `blocks.{i}.`)."""
    state = dict(state)
    for prefix in _WRAPPERS * 2:
        if state and all(key.startswith(prefix) for key in state if not key.startswith("head")):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if any(re.match(r"blocks\.\d+\.\d+\.", key) for key in state):
        state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value for key, value in state.items()}
    return state


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
