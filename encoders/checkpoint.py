"""Weights files to state dicts: opened without running code, un-nested, unwrapped, and held against what a model expects."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from encoders.errors import InputError, WeightsRefusedError
from encoders.places import fewmatch_home
from encoders.writing import write_atomically

#: Where training checkpoints keep the network, in the order in which they are looked for (reference/encoders.md 23.2).
_NESTING = ("teacher", "target_encoder", "state_dict", "model", "module")
_WRAPPERS = ("module.", "backbone.", "_orig_mod.")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or a PyTorch checkpoint, on the CPU, without running anything the file holds.

    A folder in the Hugging Face layout stands for the `model.safetensors` in it.

    Raises:
        InputError: there is no such file.
        WeightsRefusedError: the file is damaged, needs code to load, or holds no tensors.
    """
    path = weights_file(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise WeightsRefusedError(
            f"{path} holds more than tensors and would have to run code to load: refused, nothing was run. "
            "Save the bare state dict again as .safetensors"
        ) from error
    except (safetensors.SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsRefusedError(
            f"{path} cannot be read as weights ({_first_line(error)}): fetch the file again"
        ) from error
    return _descend(loaded, path)


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


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path)  # torch can map only its zip format


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:160] or type(error).__name__


def _descend(loaded: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        inner = next((key for key in _NESTING if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = loaded[inner]
    raise WeightsRefusedError(
        f"{path} holds no state dict: expected tensors by name, or one of {', '.join(_NESTING)} with them inside"
    )


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


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file in hex. It is remembered by path, size and time of change, because weights of 4 GB take seconds to read."""
    path = Path(path).resolve()
    information = path.stat()
    identity = [information.st_size, information.st_mtime_ns]
    memory = fewmatch_home() / "digests.json"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    entry = known.get(str(path)) if isinstance(known, dict) else None
    if isinstance(entry, list) and entry[:2] == identity:
        return str(entry[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        write_atomically(
            memory, json.dumps((known if isinstance(known, dict) else {}) | {str(path): [*identity, digest]}).encode()
        )
    except OSError:
        return digest  # a cache folder that cannot be written only costs the time to read the file again
    return digest
