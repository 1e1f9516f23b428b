"""Weights files to official state dicts: opened without running code, un-nested, renamed, and told apart by family."""

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


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the official names, whatever it was wrapped in.

    Strips what training wrappers put in front, joins FSDP chunks (`blocks.{chunk}.{i}.` to `blocks.{i}.`), and turns the Hugging
    Face layout into the official one (reference/encoders.md 3.6), which makes the official features come out of it.
    """
    state = dict(state)
    for prefix in _WRAPPERS * 2:
        if state and all(key.startswith(prefix) for key in state if not key.startswith("head")):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if any(re.match(r"blocks\.\d+\.\d+\.", key) for key in state):
        state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value for key, value in state.items()}
    for prefix in ("dinov2.", "dinov2_with_registers."):
        if prefix + "embeddings.cls_token" in state:
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "embeddings.cls_token" in state:
        state = _from_hugging_face_dinov2(state)
    return state


_HUGGING_FACE_DINOV2 = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12]\..*)", r"blocks.\1.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.*)", r"blocks.\1.mlp.w12.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.(.*)", r"blocks.\1.mlp.w3.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)


def _from_hugging_face_dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    official: dict[str, Tensor] = {}
    for key, value in state.items():
        qkv = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)", key)
        if qkv:
            if qkv[2] == "query":
                parts = [state.get(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
                if any(part is None for part in parts):
                    raise WeightsRefusedError(f"layer {qkv[1]} has {key} but not its key and value")
                official[f"blocks.{qkv[1]}.attn.qkv.{qkv[3]}"] = torch.cat([part for part in parts if part is not None])
            continue
        for pattern, name in _HUGGING_FACE_DINOV2:
            if re.fullmatch(pattern, key):
                official[re.sub(pattern, name, key)] = value
                break
        else:
            official[key] = value  # left for the strict check to name
    return official


def detect_family(state: Mapping[str, Tensor]) -> str:
    """The family that a state dict under official names belongs to, by its tell-tale keys (reference/encoders.md 23.5).

    Raises:
        WeightsRefusedError: no known family has such keys.
    """
    if "blocks.0.ls1.gamma" in state:
        return "dinov2_reg" if "register_tokens" in state else "dinov2"
    some = ", ".join(sorted(state)[:3]) or "none"
    raise WeightsRefusedError(
        f"weights of no known family: expected DINOv2's keys such as blocks.0.ls1.gamma, got {len(state)} keys ({some} …)"
    )


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
