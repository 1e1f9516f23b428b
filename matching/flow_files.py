"""Flows as files: NumPy's .npz with the confidence, and Middlebury's .flo."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fewmatch.errors import InputError
from fewmatch.matching.flow import Flow
from fewmatch.writing import replacing

#: What a flow can be written as, by the end of the file's name.
FLOW_FORMATS = (".npz", ".flo")
#: The first four bytes of a .flo file, "PIEH" read as a float32, and what it holds where the flow is unknown; above 1e9 is unknown.
_MAGIC, _UNKNOWN, _KNOWN = 202021.25, 1e10, 1e9


def write_flow(flow: Flow, path: str | os.PathLike[str]) -> Path:
    """Write a flow, whole or not at all; the same flow gives the same bytes. Returns the path.

    `.npz` holds `flow` (H, W, 2) float32, NaN where unknown, `confidence` (H, W) float32, and `size_a` and `size_b`, width and
    height. `.flo` (Middlebury, TSS) holds the flow alone, little-endian: float32 202021.25, int32 width and height, then x and y of every
    pixel row by row as float32, 1e10 where unknown. Both speak of pixels of the original images, B minus A.

    Raises:
        InputError: a name with another end.
    """
    path = Path(path)
    _check_end(path)
    with replacing(path) as file:
        if path.suffix.lower() == ".npz":
            np.savez(
                file,
                flow=flow.flow.astype(np.float32),
                confidence=flow.confidence.astype(np.float32),
                size_a=np.array(flow.size_a, np.int64),
                size_b=np.array(flow.size_b, np.int64),
            )
        else:
            file.write(np.array([_MAGIC], "<f4").tobytes())
            file.write(np.array(flow.flow.shape[1::-1], "<i4").tobytes())
            file.write(np.where(flow.known[..., None], flow.flow, _UNKNOWN).astype("<f4").tobytes())
    return path


def read_flow(path: str | os.PathLike[str]) -> Float[np.ndarray, "H W 2"]:
    """The flow of a file that `write_flow` or another program wrote: (H, W, 2) float32, x then y, NaN where unknown.

    Raises:
        InputError: no such file, a name with another end, or no flow in it.
    """
    path = Path(path)
    _check_end(path)
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                flow = np.asarray(arrays["flow"])
        else:
            data = path.read_bytes()
            if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(_MAGIC):
                raise ValueError("it does not begin as a .flo file does")
            width, height = np.frombuffer(data, "<i4", 2, 4).tolist()
            if min(width, height) < 1 or len(data) != 12 + 8 * width * height:
                raise ValueError(f"{width}×{height} px need {12 + 8 * width * height} bytes, it has {len(data)}")
            flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} cannot be read as a flow: {error}") from error
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.dtype.kind != "f":
        raise InputError(f"expected a flow of shape (H, W, 2) in {path}, got {flow.shape} of {flow.dtype}")
    with np.errstate(invalid="ignore"):
        unknown = ~(np.abs(flow) <= _KNOWN).all(axis=2, keepdims=True)
    return np.where(unknown, np.float32(np.nan), flow).astype(np.float32)


def _check_end(path: Path) -> None:
    if path.suffix.lower() not in FLOW_FORMATS:
        raise InputError(f"expected a flow's file to end in {' or '.join(FLOW_FORMATS)}, got {path.name}")
