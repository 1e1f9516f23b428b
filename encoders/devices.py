"""Which device and which number format to compute in."""

from __future__ import annotations

import torch

from fewmatch.errors import InputError

#: Patches in one batch: on a CPU, where more would not be faster; and at most on an accelerator.
BATCH_PATCHES, MOST_PATCHES = 8192, 65_536

#: Numbers that a forward pass holds for each patch at its peak, in widths of a token: the stream, its norm, queries, keys and values, and
#: the four-fold layer before and after its activation, with as much again for what the allocator cannot use.
WIDTHS_PER_PATCH = 32

DeviceLike = str | torch.device
DtypeLike = str | torch.dtype

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: DeviceLike = "auto") -> torch.device:
    """The device meant: `auto` is CUDA where there is one, then Apple's MPS, then the CPU.

    Raises:
        InputError: no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"no device called {device}: expected auto, cpu, cuda or mps") from error
    if (chosen.type == "cuda" and not torch.cuda.is_available()) or (
        chosen.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise InputError(f"no {chosen.type} device on this machine: expected auto or cpu")
    return chosen


def choose_dtype(dtype: DtypeLike, device: torch.device) -> torch.dtype:
    """The dtype meant: `auto` is bfloat16 where the hardware multiplies it natively (CUDA from Ampere on, AMX), else float32.

    Raises:
        InputError: a dtype that encoders do not run in.
    """
    if dtype == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise InputError(f"no dtype {dtype} for encoders: expected auto, {', '.join(_DTYPES)}")
    return chosen


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run on hardware made for them, so that they are faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public question for AMX yet; without the private one the answer is the safe one.
        probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
        return bool(probe and probe())
    return False


def batch_patches(encoder: object) -> int:
    """How many patches a batch of this encoder holds, about.

    On a CPU always `BATCH_PATCHES`, so that equal work gives equal bytes there. On CUDA what half of the memory that is free now has room
    for, between an eighth of that and `MOST_PATCHES`. Elsewhere there is no such question to ask, and it is as on a CPU.
    """
    device = getattr(encoder, "device", None)
    if device is None or torch.device(device).type != "cuda":
        return BATCH_PATCHES
    dtype = getattr(encoder, "dtype", torch.float32)
    # What torch keeps for itself and does not use now counts as free, or every shard would get smaller batches than the one before.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    per_patch = WIDTHS_PER_PATCH * int(getattr(encoder, "embed_dim", 1024)) * dtype.itemsize
    return int(min(MOST_PATCHES, max(BATCH_PATCHES // 8, free // 2 // per_patch)))


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
