"""Pickles as data: a machine that rebuilds tensors and plain containers, and leaves everything else inert.

`pickle.Unpickler` imports and calls what a file names, and `torch.load(weights_only=True)` has been made to run code (CVE-2025-32434)
and overflows the C stack on tuples nested deep enough. Here the standard library's `pickletools` only takes the pickle apart; what its
opcodes do is written out below. Nothing is imported, looked up or called beyond `_CALLS`. A name that a pickle refers to is a `Name`,
what it makes of a name that is not in that list is an `Inert` that ignores its state, and tensors are descriptions (`StoredTensor`)
until somebody asks for their values (`fewmatch.encoders.weights.torch_files`).
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

#: More than any checkpoint has (some hundred thousand, with the state of its optimiser); it bounds what a hostile one can cost.
MAX_OPCODES = 20_000_000


@dataclass(frozen=True)
class Name:
    """What a pickle calls by its name, such as `torch._utils._rebuild_tensor_v2`; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """Stands for an object of a class that is not rebuilt; it holds nothing."""

    name: Name


@dataclass(eq=False)
class ScriptModule(Inert):
    """A module of a TorchScript archive: its attributes, without its code."""

    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Numbers that lie elsewhere in the file: `count` of them from the `start`-th of those under `key`."""

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that was not read yet: offset and strides count numbers of its dtype within the storage."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(n) is int and 0 <= n < 2**62 for n in numbers) or len(self.size) != len(self.stride):
            raise ValueError(f"a tensor of size {self.size} with strides {self.stride}")
        room = self.storage.count * self.storage.dtype.itemsize // self.dtype.itemsize
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        elements = math.prod(self.size)
        # Strides of 0 make much of little: what is expanded beyond 2**28 numbers is meant to fill the memory.
        if self.offset + (last + 1 if elements else 0) > room or elements > max(room, 2**28):
            raise ValueError(f"a tensor of size {self.size} in a storage of {room} numbers")


def read_pickle(file: io.BytesIO | mmap.mmap, persistent: Callable[[Any], Any] | None = None) -> tuple[Any, list[Name]]:
    """The object pickled at a file's position, and the names that were left inert; the file then stands behind it.

    Args:
        file: bytes in memory, or a mapped file, where a length that is a lie costs nothing.
        persistent: turns a persistent id (already rebuilt) into what it stands for; by default there must be none.

    Raises:
        pickle.UnpicklingError: it is no pickle, or one that no tool for weights writes. Nothing was run.
    """
    machine = _Machine(persistent)
    try:
        with warnings.catch_warnings():
            # Python 2 wrote any bytes into its strings, and an escape that there is not only warns.
            warnings.simplefilter("ignore", DeprecationWarning)
            for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
                if count > MAX_OPCODES:
                    raise pickle.UnpicklingError(f"more than {MAX_OPCODES:,} steps")
                machine.step(opcode.name, argument)
        return machine.stack.pop(), machine.inert
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        first = str(error).split("\n", maxsplit=1)[0][:120]
        raise pickle.UnpicklingError(
            f"expected a pickle of weights, got a broken or foreign one: {first or type(error).__name__}"
        ) from error


_INTEGERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_LITERALS = frozenset((*_INTEGERS, "FLOAT", "BINFLOAT", *_TEXTS, *_BYTES))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# No set is rebuilt as one: its members would have to be hashed, and nothing in a state dict is one.
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, the marks in it and the memo of one pickle."""

    def __init__(self, persistent: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}
        self.inert: list[Name] = []
        self.persistent = persistent

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _PUT:
            self.memo[argument] = self.stack[-1]
        elif opcode in _GET:
            self.stack.append(self.memo[argument])
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self.stack.append(_EMPTY[opcode]())
        elif opcode in _TUPLES:
            count = _TUPLES[opcode]
            if len(self.stack) < count:
                raise IndexError("a tuple of more than there is")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        else:
            self._rare(opcode, argument)

    def _rare(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "LIST" | "FROZENSET":
                items = self._since_mark()
                self.stack.append(items)
            case "DICT":
                items = self._since_mark()
                self.stack.append({})
                self._set(items)
            case "APPEND":
                value = stack.pop()
                self._extend([value])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self._since_mark())
            case "GLOBAL":
                stack.append(Name(*argument.split(" ", maxsplit=1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not (isinstance(name, str) and isinstance(module, str)):
                    raise TypeError("a name that is no text")
                stack.append(Name(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "NEWOBJ_EX":
                _, arguments, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "OBJ":
                items = self._since_mark()
                self.stack.append(self._call(items[0], tuple(items[1:])))
            case "INST":
                items = self._since_mark()
                self.stack.append(self._call(Name(*argument.split(" ", maxsplit=1)), tuple(items)))
            case "BUILD":
                state = stack.pop()
                self._build(stack[-1], state)
            case "PERSID" | "BINPERSID":
                if self.persistent is None:
                    raise ValueError("a persistent id where there is none")
                stack.append(self.persistent(argument if opcode == "PERSID" else stack.pop()))
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                if stack:
                    stack.pop()
                else:
                    self._since_mark()
            case "POP_MARK":
                self._since_mark()
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:  # the extension registry and out-of-band buffers: nothing in a file can refer to them
                raise ValueError(f"opcode {opcode}")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError(f"items for a {type(target).__name__}")

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError(f"{len(items)} keys and values for a {type(target).__name__}")
        _fill(target, zip(items[::2], items[1::2], strict=True))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            if isinstance(function, Inert):
                return function
            raise TypeError(f"a call of a {type(function).__name__}")
        call = _CALLS.get(str(function))
        if call is not None:
            return call(*arguments)
        if function.module.split(".", maxsplit=1)[0] == "__torch__":
            return ScriptModule(function)
        self.inert.append(function)
        return Inert(function)

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, ScriptModule) and isinstance(state, dict):
            target.attributes.update((key, value) for key, value in state.items() if isinstance(key, str))
        elif isinstance(target, _NumpyDtype) and isinstance(state, tuple) and len(state) > 1:
            target.order = str(state[1])
        # Whatever else has a state (the version notes of a state dict, say) is complete without it.


def _fill(target: dict[Any, Any], pairs: Any) -> None:
    """Entries with keys that hash without a surprise; others name no tensor, and tuples nested deep enough overflow the C stack."""
    target.update((key, value) for key, value in pairs if _is_plain(key) or _is_flat(key))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | int | float)


def _is_flat(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_plain, value))


@dataclass(eq=False)
class _NumpyDtype:
    code: str
    order: str = "|"


def _numpy_dtype(code: Any, *_: Any) -> Any:
    plain = isinstance(code, str) and re.fullmatch(r"[biuf][1248]", code)
    return _NumpyDtype(code) if plain else Inert(Name("numpy", "dtype"))


def _numpy_scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, _NumpyDtype):
        return Inert(Name("numpy", "generic"))
    order = {"<": "<", ">": ">"}.get(dtype.order, "=")
    raw = raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)  # Python 2 wrote its bytes as text
    (value,) = np.frombuffer(raw, np.dtype(order + dtype.code))
    return value.item()


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    if arguments and isinstance(arguments[0], list | tuple):
        _fill(out, arguments[0])
    return out


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return StoredTensor(storage, storage.dtype, offset, tuple(size), tuple(stride))


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    _requires_grad, _hooks, dtype = rest[:3]
    return StoredTensor(storage, _DTYPES[str(dtype)], offset, tuple(size), tuple(stride))


def _from_type(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """A tensor of a subclass: the plain tensor inside."""
    if str(function) not in _TENSORS:
        return Inert(Name("torch", "Tensor"))
    return _TENSORS[str(function)](*arguments)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes, in the way that Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("bytes that are no text")
    return text.encode("latin-1")


def _empty_bytes(*arguments: Any) -> Any:
    """`bytes()`, as Python 3 writes empty bytes for Python 2; with arguments it could ask for any amount of memory."""
    return Inert(Name("builtins", "bytes")) if arguments else b""


_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}


def storage_dtype(kind: Any) -> torch.dtype:
    """The dtype of a class of storages, such as `torch.FloatStorage`.

    Raises:
        LookupError: it is none.
    """
    if not isinstance(kind, Name) or kind.module not in ("torch", "torch.cuda", "torch.storage"):
        raise LookupError("a storage of no known class")
    return _STORAGES[kind.name.removesuffix("Storage")]


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
}
#: All that a pickle can have called, by the name it uses.
_CALLS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": lambda size=(), *_: tuple(size),
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "_codecs.encode": _encode,
    "__builtin__.bytes": _empty_bytes,
    "builtins.bytes": _empty_bytes,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
