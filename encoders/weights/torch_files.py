"""PyTorch's file formats without `torch.load`: zip archives, TorchScript archives, and the two formats of before 2020."""

from __future__ import annotations

import io
import mmap
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewmatch.encoders.weights.unpickle import Name, ScriptModule, Storage, StoredTensor, read_pickle, storage_dtype

#: First object in a file of `torch.save` between 2017 and 2020.
_MAGIC = 0x1950A86A20F9469CFC6C
#: What taking apart a file that is damaged or made to do harm can raise.
UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,
)
#: More modules than any network has; it bounds a tree whose modules hold each other.
_MAX_MODULES = 1_000_000


class _Names(list[Name]):
    """What was left inert while the parts of a file were read."""

    def read(self, file: Any, persistent: Callable[[Any], Any] | None = None) -> Any:
        value, inert = read_pickle(file, persistent)
        self += inert
        return value


@dataclass(eq=False)
class TorchFile:
    """A file taken apart. `root`: the object in it, with a `StoredTensor` for each tensor; `inert`: what was not rebuilt.

    The file stays mapped while a tensor of it is alive, and only what is used is read from the disk.
    """

    root: Any
    inert: list[Name]
    _data: mmap.mmap
    _spans: dict[str, tuple[int, int]]
    _raw: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """The values of a tensor, in the strides and dtype of the file; tensors that shared a storage share it.

        Raises:
            ValueError: its storage is not in the file, or not whole.
        """
        storage = stored.storage
        needed = (storage.start + storage.count) * storage.dtype.itemsize
        length = self._spans.get(storage.key, (0, 0))[1]
        if length < needed:
            raise ValueError(f"expected {needed:,} bytes in storage {storage.key}, got {length:,}")
        if not needed:
            return torch.empty(stored.size, dtype=stored.dtype)
        if storage.key not in self._raw:
            self._raw[storage.key] = self._numbers(*self._spans[storage.key])
        shift = storage.start * storage.dtype.itemsize // stored.dtype.itemsize
        usable = needed // stored.dtype.itemsize * stored.dtype.itemsize
        typed = self._raw[storage.key][:usable].view(stored.dtype)
        return typed.as_strided(stored.size, stored.stride, stored.offset + shift)

    def _numbers(self, start: int, length: int) -> Tensor:
        raw = torch.frombuffer(self._data, dtype=torch.uint8, count=length, offset=start)
        return raw.clone() if raw.data_ptr() % 16 else raw  # the old formats align nothing


def open_torch_file(path: Path) -> TorchFile:
    """Take a file apart, whichever of PyTorch's formats it has, without running anything.

    Raises:
        Any of `UNREADABLE`: it is none of them, damaged or cut; the message says what was expected.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("expected weights, got an empty file")
        # A private mapping can be written to, as tensors have to be; nothing gets back to the file.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if data[:4] == b"PK\x03\x04":
        return _open_zip(path, data)
    if data[257:262] == b"ustar":
        return _open_tar(path, data)
    if data[:1] == b"\x80":
        return _open_sequence(data)
    raise ValueError(f"expected a file of torch.save, got one that begins with {data[:8]!r}")


def script_tensors(root: ScriptModule) -> dict[str, StoredTensor]:
    """The tensors of a TorchScript module and those below it, by attribute path, as its state dict names them."""
    found: dict[str, StoredTensor] = {}
    waiting = [("", root)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return found
        prefix, module = waiting.pop()
        for name, value in module.attributes.items():
            if isinstance(value, StoredTensor):
                found[prefix + name] = value
            elif isinstance(value, ScriptModule) and prefix.count(".") < 64:
                waiting.append((f"{prefix}{name}.", value))
    raise ValueError(f"more than {_MAX_MODULES:,} modules")


def _open_zip(path: Path, data: mmap.mmap) -> TorchFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, struct.error, UnicodeError) as error:
        raise ValueError(f"expected a whole zip archive, got {len(data):,} bytes of one: {error}") from error
    top = next((name for name in members if re.fullmatch(r"([^/]+/)?data\.pkl", name)), None)
    if top is None:
        some = ", ".join(list(members)[:3]) or "nothing"
        raise ValueError(f"expected the zip archive of torch.save, with data.pkl in it, got one of {some}")
    folder = top.removesuffix("data.pkl")

    def span(name: str) -> tuple[int, int]:
        info = members[name]
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"expected {name} as it is, got it compressed or encrypted")
        header = data[info.header_offset : info.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"expected {name} at {info.header_offset:,}, got something else: the file is damaged")
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        start = info.header_offset + 30 + name_length + extra_length
        if start + info.file_size > len(data):
            raise ValueError(f"expected {info.file_size:,} bytes of {name}, got {len(data) - start:,}: the file is cut")
        return start, info.file_size

    def content(name: str) -> bytes:
        start, length = span(name)
        return data[start : start + length]

    if folder + "byteorder" in members and content(folder + "byteorder") != b"little":
        raise ValueError("expected little-endian numbers, got big-endian ones")
    names = _Names()
    spans: dict[str, tuple[int, int]] = {}

    def persistent(given: Any) -> Storage:
        storage = _storage(given)
        if storage.key not in spans:
            member = f"{folder}data/{storage.key}"
            if member not in members:
                raise ValueError(f"expected {member} in the archive, got none")
            spans[storage.key] = span(member)
        return storage

    root = names.read(io.BytesIO(content(top)), persistent)
    return TorchFile(root, names, data, spans)


def _storage(given: Any) -> Storage:
    """The storage of a persistent id: ('storage', class, key, location, count[, view])."""
    if not isinstance(given, tuple) or len(given) not in (5, 6) or given[0] not in ("storage", b"storage"):
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, count = given[:5]
    if type(count) is not int or count < 0 or not isinstance(key, str | int):
        raise ValueError(f"a storage of {count!r} numbers")
    view = given[5] if len(given) == 6 else None
    if view is None:
        return Storage(str(key), storage_dtype(kind), count)
    _, start, length = view
    if not (type(start) is type(length) is int and 0 <= start <= start + length <= count):
        raise ValueError("a part of a storage that is outside it")
    return Storage(str(key), storage_dtype(kind), length, start)


def _open_sequence(data: mmap.mmap) -> TorchFile:
    """Magic number, protocol, system, object, keys: five pickles; then the storages in the order of the keys."""
    names = _Names()
    roots: dict[str, torch.dtype] = {}

    def persistent(given: Any) -> Any:
        if isinstance(given, tuple) and given and given[0] in ("module", b"module"):
            return given[1]  # the class of a whole pickled model, with its source code
        storage = _storage(given)
        roots[storage.key] = storage.dtype
        return storage

    if names.read(data) != _MAGIC:
        raise ValueError("expected a file of torch.save, got another pickle")
    names.read(data)
    system = names.read(data)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError("expected little-endian numbers, got big-endian ones")
    root = names.read(data, persistent)
    keys = names.read(data)
    if not isinstance(keys, list):
        raise ValueError("expected a list of storages behind the object, got none")
    spans = {}
    position = data.tell()
    for key in map(str, keys):
        spans[key] = span = _counted(data, position, roots[key].itemsize if key in roots else 1)
        position = sum(span)
    return TorchFile(root, names, data, spans)


def _counted(data: mmap.mmap, position: int, itemsize: int) -> tuple[int, int]:
    """Where numbers lie that come after their count."""
    if position + 8 > len(data):
        raise ValueError(f"expected a storage at {position:,}, got the end: the file is cut")
    (count,) = struct.unpack_from("<q", data, position)
    if count < 0 or position + 8 + count * itemsize > len(data):
        raise ValueError(f"expected {count * itemsize:,} bytes at {position:,}, got {len(data) - position - 8:,}")
    return position + 8, count * itemsize


def _numbers(data: mmap.mmap, layout: str) -> tuple[int, ...]:
    raw = data.read(struct.calcsize(layout))
    if len(raw) < struct.calcsize(layout):
        raise ValueError(f"expected {struct.calcsize(layout)} bytes at the end, got {len(raw)}: the file is cut")
    return struct.unpack(layout, raw)


def _number(key: Any) -> int:
    if type(key) is not int:
        raise ValueError("expected a number for a storage, got something else")
    return key


def _open_tar(path: Path, data: mmap.mmap) -> TorchFile:
    """The first format (2016): a tar archive of `storages`, `tensors` and `pickle`."""
    try:
        with tarfile.open(path, "r:") as archive:
            starts = {member.name: member.offset_data for member in archive if member.isreg() and not member.issparse()}
    except tarfile.TarError as error:
        raise ValueError(f"expected a whole tar archive, got a damaged one: {error}") from error
    if not {"storages", "tensors", "pickle"} <= set(starts):
        some = ", ".join(list(starts)[:3]) or "nothing"
        raise ValueError(f"expected the tar archive of an early torch.save, got one of {some}")
    names = _Names()
    spans: dict[str, tuple[int, int]] = {}
    objects: dict[int, Any] = {}

    data.seek(starts["storages"])
    for _ in range(names.read(data)):
        key, _, kind = names.read(data)
        key = _number(key)
        dtype = storage_dtype(kind)
        spans[str(key)] = span = _counted(data, data.tell(), dtype.itemsize)
        objects[key] = Storage(str(key), dtype, span[1] // dtype.itemsize)
        data.seek(sum(span))
    for key, whole, start, count in names.read(data):
        base = objects[_number(whole)]
        if not (type(start) is type(count) is int and 0 <= start <= start + count <= base.count):
            raise ValueError("a part of a storage that is outside it")
        objects[_number(key)] = Storage(base.key, base.dtype, count, base.start + start)

    data.seek(starts["tensors"])
    for _ in range(names.read(data)):
        key, storage_key, _ = names.read(data)
        storage = objects[_number(storage_key)]
        (dimensions,) = _numbers(data, "<i4x")
        if not 0 <= dimensions <= 64:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        numbers = _numbers(data, f"<{2 * dimensions + 1}q")
        size, stride = numbers[:dimensions], numbers[dimensions:-1]
        objects[_number(key)] = StoredTensor(storage, storage.dtype, numbers[-1], size, stride)

    def persistent(given: Any) -> Any:
        return given[0] if isinstance(given, tuple) else objects[int(given)]

    data.seek(starts["pickle"])
    return TorchFile(names.read(data, persistent), names, data, spans)
