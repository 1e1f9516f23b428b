"""Weights in every format that PyTorch wrote, read as data: the same tensors, nothing run, and wrong files named."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import os
import pickle
import struct
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewmatch.encoders import from_state_dict
from fewmatch.encoders.families import choose_network
from fewmatch.encoders.weights.checkpoint import read_weights
from fewmatch.encoders.weights.torch_files import open_torch_file
from fewmatch.encoders.weights.unpickle import Inert, Name, StoredTensor, read_pickle
from fewmatch.errors import WeightsRefusedError


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: without checks of types, which would refuse hostile values before the code has to."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# --- writers


def save_zip(value: object, path: Path) -> None:
    torch.save(value, path)


def save_sequence(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_tar(value: object, path: Path) -> None:
    """The format of PyTorch's first year, which it reads but no longer writes."""
    tensors: dict[int, Tensor] = {}
    storages: dict[int, Tensor] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, found: object) -> str | None:
            if not isinstance(found, Tensor):
                return None
            tensors[id(found)] = found
            return str(id(found))

    main = io.BytesIO()
    Pickler(main, 2).dump(value)
    for tensor in tensors.values():
        storages[tensor.untyped_storage().data_ptr()] = tensor
    parts = {"sys_info": pickle.dumps({}, 2), "pickle": main.getvalue()}
    out = io.BytesIO()
    pickle.dump(len(storages), out, 2)
    for key, tensor in storages.items():
        pickle.dump((key, "cpu", getattr(torch, tensor.storage().pickle_storage_type())), out, 2)
        raw = bytes(tensor.untyped_storage().tolist())
        out.write(struct.pack("<q", len(raw) // tensor.element_size()) + raw)
    pickle.dump([], out, 2)
    parts["storages"] = out.getvalue()
    out = io.BytesIO()
    pickle.dump(len(tensors), out, 2)
    for key, tensor in tensors.items():
        pickle.dump((key, tensor.untyped_storage().data_ptr(), type(tensor)), out, 2)
        numbers = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
        out.write(struct.pack(f"<i4x{len(numbers)}q", tensor.dim(), *numbers))
    parts["tensors"] = out.getvalue()
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


WRITERS = {"zip": save_zip, "sequence": save_sequence, "tar": save_tar}
writers = pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)


@pytest.fixture(autouse=True)
def old_storages() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        yield


def zipped(path: Path, data: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


def random_tensors() -> dict[str, Tensor]:
    base = torch.randn(7, 5)
    return {
        "plain": torch.randn(3, 1, 4),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "double": torch.randn(2, 2, dtype=torch.float64),
        "int64": torch.randint(-9, 9, (4,)),
        "int8": torch.randint(-9, 9, (3,), dtype=torch.int8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.randn([]),
        "empty": torch.empty(0, 3),
        "base": base,
        "column": base[:, 2],
        "transposed": base.T,
        "part": base[2:5, 1:4],
        "expanded": torch.randn(3, 1).expand(3, 6),
    }


def assert_same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(got) == list(wanted)
    for key, tensor in wanted.items():
        assert (got[key].dtype, got[key].shape, got[key].stride()) == (tensor.dtype, tensor.shape, tensor.stride()), key
        assert torch.equal(got[key], tensor), key
        assert not got[key].requires_grad and got[key].data_ptr() % got[key].element_size() == 0


# --- what is read


@writers
def test_every_format_gives_the_tensors_as_they_were(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    tensors = random_tensors()
    save(tensors, path := tmp_path / "w.pth")
    got = read_weights(path)
    assert_same(got, tensors)
    reference = torch.load(path, weights_only=save is not save_tar)  # PyTorch reads what was written by hand above, too
    assert_same(got, reference)
    got["base"][4, 2] = 77.0
    assert got["column"][4] == got["transposed"][2, 4] == got["part"][2, 1] == 77.0
    assert read_weights(path)["base"][4, 2] != 77.0  # the file is as it was


def test_parameters_buffers_and_dtypes_of_today(tmp_path: Path) -> None:
    values = {
        "parameter": nn.Parameter(torch.randn(2, 3)),
        "buffer": nn.Buffer(torch.randn(4)),
        "uint16": torch.arange(5).to(torch.uint16),
        "float8": torch.randn(6).to(torch.float8_e4m3fn),
    }
    torch.save(collections.OrderedDict(values), path := tmp_path / "w.pt")
    got = read_weights(path)
    assert list(got) == list(values)
    for key, value in values.items():
        assert got[key].dtype == value.dtype and torch.equal(got[key].float(), value.detach().float())
        assert type(got[key]) is Tensor and not got[key].requires_grad


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2)
        self.ln_1 = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.ln_1(x), self.ln_1(x), self.ln_1(x), need_weights=False)[0]


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 4, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(8))
        self.resblocks = nn.Sequential(Attention(), Attention())
        self.shared = self.resblocks[0].ln_1

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(2, 0, 1) + self.class_embedding
        return self.shared(self.resblocks(x))


class TwoTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual()
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.input_resolution = 8
        self.sizes = [1, 2]
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.visual(x) * self.logit_scale * self.sizes[0] + self.steps.sum()


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, and the tracer warns of constants
@pytest.mark.parametrize("made", ["script", "trace"])
@pytest.mark.parametrize("half", [False, True])
def test_torchscript_archives_give_their_state_dict(tmp_path: Path, made: str, half: bool) -> None:
    model = TwoTowers().eval()
    script = torch.jit.script(model) if made == "script" else torch.jit.trace(model, torch.randn(1, 3, 8, 8))
    if half:
        script.visual.half()
    torch.jit.save(script, path := tmp_path / "ViT.pt")
    got = read_weights(path)
    wanted = torch.jit.load(path).state_dict()
    assert {"visual.conv1.weight", "visual.resblocks.1.attn.in_proj_weight", "logit_scale", "steps"} <= set(wanted)
    assert_same({key: got[key] for key in wanted}, {key: value.detach() for key, value in wanted.items()})
    assert set(got) == set(wanted) and got["visual.conv1.weight"].dtype == (torch.half if half else torch.float)


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Objects of a library that is not installed where the weights are read."""
    module = types.ModuleType("trainer_library")

    class Config:
        def __init__(self, **state: object) -> None:
            self.__dict__.update(state)

    class Level(str):
        pass

    class Settings(dict):  # type: ignore[type-arg]
        pass

    for made in (Config, Level, Settings):
        made.__module__, made.__qualname__ = "trainer_library", made.__name__
        setattr(module, made.__name__, made)
    monkeypatch.setitem(sys.modules, "trainer_library", module)
    yield module
    sys.modules["trainer_library"] = module


@writers
@pytest.mark.parametrize("kind", ["fairseq", "vissl", "dino", "numpy"])
def test_training_checkpoints_of_other_libraries(
    tmp_path: Path, foreign: Any, kind: str, save: Callable[[object, Path], None]
) -> None:
    state = collections.OrderedDict((f"blocks.{i}.weight", torch.randn(3, 2)) for i in range(4))
    state["patch_embed.proj.weight"] = torch.randn(3, 3, 2, 2)
    other = collections.OrderedDict((key, value + 1) for key, value in state.items())
    config = foreign.Config(inner=foreign.Settings(a=[1, foreign.Level("high")]), tensor=torch.ones(2))
    whole: dict[str, object] = {
        "fairseq": {
            "args": None,
            "cfg": config,
            "model": {**state, "_ema": dict(other)},
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
            "extra_state": {"train_iterator": {"epoch": 3}},
        },
        "vissl": {
            "phase_idx": 4,
            "loss": np.float64(0.5),
            "config": config,
            "classy_state_dict": {
                "train": foreign.Settings(x=1),
                "base_model": {"model": {"trunk": state, "heads": {"0.clf.weight": torch.ones(2)}}, "meters": {}},
            },
        },
        "dino": {
            "args": argparse.Namespace(lr=0.1, arch="vit_small"),
            "epoch": 100,
            "student": dict(other),
            "teacher": state,
            "center": torch.zeros(1, 5),
        },
        "numpy": {"best": np.float32(81.3), "epoch": np.int64(7), "lr": np.arange(3.0), "state_dict": state},
    }[kind]  # type: ignore[assignment]
    save(whole, path := tmp_path / "checkpoint.pth.tar")
    del sys.modules["trainer_library"]
    assert_same(choose_network(read_weights(path), "dino").network.entries, dict(state))
    assert "trainer_library" not in sys.modules


@pytest.mark.parametrize(
    "nesting",
    [
        ("teacher",),
        ("target_encoder",),
        ("state_dict",),
        ("model",),
        ("module",),
        ("state_dict", "model"),
        ("classy_state_dict", "base_model", "model", "trunk"),
    ],
)
def test_the_network_is_found_where_checkpoints_keep_it(tmp_path: Path, nesting: tuple[str, ...]) -> None:
    state = {"patch_embed.proj.weight": torch.randn(2, 3, 4, 4), "norm.bias": torch.randn(2)}
    whole: Any = state
    for key in reversed(nesting):
        whole = {key: whole, "epoch": 3, "step": torch.tensor(5), "heads": {"other": torch.ones(1)}}
    torch.save(whole, path := tmp_path / "w.pth")
    network = choose_network(read_weights(path), "dino").network
    assert_same(network.entries, state)
    assert network.prefix == "".join(f"{key}." for key in nesting)


def test_nested_keys_are_joined_by_dots(tmp_path: Path) -> None:
    one, two = torch.randn(2), torch.randn(2)
    whole = {"model.a": one, "model": {"b": two, "epoch": 3}, "pair": [one + 1, {"c": one + 2}], 5: {7: two + 1}}
    torch.save(whole, path := tmp_path / "w.pth")
    wanted = {"model.a": one, "model.b": two, "pair.0": one + 1, "pair.1.c": one + 2, "5.7": two + 1}
    assert_same(read_weights(path), wanted)
    torch.save({"model.b": one, "model": {"b": two}}, path)
    with pytest.raises(WeightsRefusedError, match=r"two tensors are called model\.b"):
        read_weights(path)


def test_shared_dictionaries_are_visited_once(tmp_path: Path) -> None:
    """Twelve levels of ten references to the level below would be 10^12 tensors."""
    whole: Any = {"w": torch.ones(1)}
    for _ in range(11):
        whole = {str(i): whole for i in range(10)}
    torch.save(whole, path := tmp_path / "w.pth")
    assert list(read_weights(path)) == ["0." * 11 + "w"]


def test_an_encoder_from_a_training_checkpoint(tmp_path: Path) -> None:
    from fewmatch.encoders import load

    state = load("mini", device="cpu", dtype="float32").model.state_dict()
    wanted = from_state_dict(state, "dinov2_reg", heads=4)(torch.ones(1, 3, 16, 24)).feature_map
    wrapped = {f"module.backbone.{key}": nn.Parameter(value) for key, value in state.items()}
    torch.save({"teacher": wrapped, "args": argparse.Namespace(lr=1.0)}, path := tmp_path / "w.pth")
    got = from_state_dict(read_weights(path), "dinov2_reg", heads=4)(torch.ones(1, 3, 16, 24)).feature_map
    assert torch.equal(got, wanted)


# --- the machine

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inner, max_size=5)
    ),
    max_leaves=30,
)


@settings(deadline=None)
@given(plain, st.integers(0, 5))
def test_plain_containers_come_out_as_pickle_reads_them(value: Any, protocol: int) -> None:
    twice = [value, value, collections.OrderedDict(a=value)]
    got, inert = read_pickle(io.BytesIO(pickle.dumps(twice, protocol)))
    assert got == twice and not inert
    assert not isinstance(value, list | dict) or got[0] is got[1]


def test_an_escape_that_there_is_not_stays_as_it_is_written() -> None:
    """Python warns of it; weights of Python 2 have any bytes in their strings, and a warning may be an error."""
    assert read_pickle(io.BytesIO(b"S'a\\o'\n.")) == ("a\\o", [])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [np.float32(1.5), np.float64(-2), np.int64(2**40), np.uint8(255), np.bool_(True)])
def test_numpy_scalars_become_numbers(value: np.generic, protocol: int) -> None:
    got, inert = read_pickle(io.BytesIO(pickle.dumps(value, protocol)))
    assert (got, type(got), inert) == (value.item(), type(value.item()), [])


def test_numpy_scalars_of_the_other_byte_order() -> None:
    data = pickle.dumps(np.dtype(">f4").type(0), 2).replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>")
    swapped = pickle.dumps(np.float32(1.5), 2).replace(b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00>")
    assert read_pickle(io.BytesIO(data))[0] == 0
    assert read_pickle(io.BytesIO(swapped))[0] == struct.unpack(">f", struct.pack("<f", 1.5))[0]


def test_what_is_unknown_is_inert_and_named() -> None:
    value = {"a": argparse.Namespace(x=1), "b": np.arange(3), "c": {1, 2}, "d": frozenset((3,)), "e": range(3)}
    for protocol in range(6):
        got, inert = read_pickle(io.BytesIO(pickle.dumps(value, protocol)))
        assert isinstance(got["a"], Inert) and not hasattr(got["a"], "x")
        assert isinstance(got["b"], Inert) and isinstance(got["e"], Inert)
        assert {"numpy", "range" if protocol > 2 else "xrange"} <= {str(name).split(".")[-1] for name in inert} | {
            str(name).split(".")[0] for name in inert
        }


# --- what is not run

TRAP = "trap_that_must_not_be_imported"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def glob(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def hostile(marker: Path) -> dict[str, bytes]:
    """Pickles that would make the marker file, by every way that a pickle has of calling something."""
    command = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w')"
    build = b"}" + text("__setstate__") + glob("os", "system") + b"sb" + text(command) + b"b"
    chain = glob("builtins", "getattr") + b"(" + glob("os", "path") + text("os") + b"tR"
    chain = glob("builtins", "getattr") + b"(" + chain + text("system") + b"tR"
    return {
        "os.system": pickle.dumps(Call(os.system, command), 2),
        "eval": pickle.dumps(Call(eval, python), 4),
        "exec": pickle.dumps(Call(exec, python), 0),
        "open": pickle.dumps(Call(open, str(marker), "w"), 2),
        "import": pickle.dumps(Call(__import__, TRAP), 2),
        "global": b"\x80\x02" + glob(TRAP, "anything") + b".",
        "stack global": b"\x80\x04" + b"\x8c\x02os\x8c\x06system\x93(" + text(command) + b"tR.",
        "dotted": b"\x80\x04" + text("os") + text("path.os.system") + b"\x93(" + text(command) + b"tR.",
        "inst": b"(" + text(command) + b"ios\nsystem\n.",
        "obj": b"(" + glob("os", "system") + text(command) + b"o.",
        "newobj": b"\x80\x02" + glob("subprocess", "Popen") + text(command) + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + glob("subprocess", "Popen") + text(command) + b"\x85}\x92.",
        "getattr chain": b"\x80\x02" + chain + b"(" + text(command) + b"tR.",
        "setstate": b"\x80\x02" + glob("collections", "OrderedDict") + b")R" + build + b".",
        "setstate of inert": b"\x80\x02" + glob("argparse", "Namespace") + b")\x81" + build + b".",
        "state of a function": b"\x80\x02"
        + glob("torch._utils", "_rebuild_tensor_v2")
        + b"N}"
        + text("__code__")
        + text(python)
        + b"s\x86b.",
        "append of inert": b"\x80\x02" + glob("os", "system") + b")R(" + text(command) + b"e.",
        "torch.load": b"\x80\x02" + glob("torch", "load") + text(str(marker)) + b"\x85R.",
        "torch.hub": b"\x80\x02" + glob("torch.hub", "load") + text("some/repo") + text("m") + b"\x86R.",
        "torch.compile": b"\x80\x02" + glob("torch._inductor.codecache", "PyCodeCache.load") + text(python) + b"\x85R.",
        "storage class": b"\x80\x02("
        + text("storage")
        + glob("os", "system")
        + text(command)
        + text("cpu")
        + b"K\x01tQ.",
        "from type": b"\x80\x02"
        + glob("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + glob("os", "system")
        + glob("torch", "Tensor")
        + text(command)
        + b"\x85NtR.",
        "codecs": b"\x80\x02" + glob("_codecs", "encode") + text(command) + text(TRAP) + b"\x86R.",
        "dict factory": b"\x80\x02"
        + glob("collections", "defaultdict")
        + glob("os", "getcwd")
        + b"\x85R"
        + text("k")
        + b"K\x01s.",
        "extension": b"\x80\x02\x82\x01.",
        "memo": b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.",
        "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc",
        "long bytes": b"\x80\x04B\xff\xff\xff\xffabc",
        # Deeper than Python may recurse; those that are hashed, deeper than C may, too.
        "deep list": b"\x80\x02" + b"](" * 20_000 + b"e" * 20_000 + b".",
        "deep tuple": b"\x80\x02)" + b"\x85" * 100_000 + b".",
        "deep key": b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
        "deep storage": b"\x80\x02)" + b"\x85" * 100_000 + b"Q.",
        "deep marks": b"\x80\x02" + b"(" * 20_000 + b".",
        "self": b"\x80\x02]q\x00h\x00a.",
    }


audited: list[str] = []
listening = False


def _audit(event: str, arguments: Any) -> None:
    if listening and event in ("os.system", "subprocess.Popen", "pickle.find_class", "os.posix_spawn", "os.exec"):
        audited.append(event)
    if listening and event == "import" and arguments[0] == TRAP:
        audited.append(event)


sys.addaudithook(_audit)


#: Deep ones take their time: alone and in a state dict, and once each in the other kinds of files.
PLACES = [
    (name, where)
    for name in hostile(Path("marker"))
    for where in ("alone", "beside", "sequence", "script")
    if not name.startswith("deep") or where in ("alone", "beside") or f"{name} in a {where}" in (
        "deep list in a script", "deep tuple in a sequence", "deep storage in a script"
    )
]  # fmt: skip


@pytest.mark.parametrize(("name", "where"), PLACES)
def test_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None, name: str, where: str
) -> None:
    global listening
    marker = tmp_path / "executed"
    (tmp_path / f"{TRAP}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    evil = hostile(marker)[name]
    path = tmp_path / "w.pth"
    body = evil[2:-1] if evil[:1] == b"\x80" else evil[:-1]
    tensor = glob("torch._utils", "_rebuild_tensor_v2") + b"(("
    tensor += (
        text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQK\x00K\x02\x85K\x01\x85"
    )
    tensor += b"\x89" + glob("collections", "OrderedDict") + b")RtR"
    numbers = struct.pack("<2f", 3, 4)
    if where == "alone":
        zipped(path, evil)
    elif where == "beside":
        zipped(path, b"\x80\x02}(" + text("evil") + body + text("w") + tensor + b"u.", {"0": numbers})
    elif where == "script":
        modules = b"\x80\x02" + glob("__torch__", "M") + b")\x81}(" + text("evil") + body + text("w") + tensor + b"ub."
        zipped(path, modules, {"0": numbers})
    else:
        save_sequence({"w": 1}, path)
        start = path.read_bytes()
        head = start[: start.rindex(b"\x80\x02}")]
        path.write_bytes(head + evil + pickle.dumps([], 2))
    listening = True
    try:
        got = read_weights(path)
    except WeightsRefusedError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        assert where != "beside" or name in UNREADABLE, str(error)
    else:
        assert where in ("beside", "script")
        assert_same(got, {"w": torch.tensor([3.0, 4.0])})
    finally:
        listening = False
    assert not marker.exists() and TRAP not in sys.modules and not audited


#: Those among them that no tool writes: the whole file is refused, not only what they would have done.
UNREADABLE = ("storage class", "codecs", "extension", "long text", "long bytes", "deep storage", "deep marks", "memo")


def test_the_names_that_can_be_called_are_these_and_no_others() -> None:
    from fewmatch.encoders.weights.unpickle import _CALLS

    assert sorted(_CALLS) == [
        "__builtin__.bytes",
        "_codecs.encode",
        "builtins.bytes",
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray.scalar",
        "numpy.dtype",
        "torch.Size",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
    ]


def test_refusals_name_what_was_left_inert(tmp_path: Path) -> None:
    zipped(path := tmp_path / "w.pth", pickle.dumps({"model": Call(os.system, "true")}, 2))
    with pytest.raises(
        WeightsRefusedError,
        match=r"holds no state dict: .*got objects of other kinds \((posix|nt)\.system\).*nothing was run",
    ):
        read_weights(path)


def test_modules_that_hold_each_other_end(tmp_path: Path, unchecked: None) -> None:
    layers = b"\x80\x02" + glob("__torch__", "M") + b")\x81q\x00"
    for i in range(40):
        layers += b"0" + glob("__torch__", "M") + b")\x81}(" + text("a") + b"h" + bytes([i])
        layers += text("b") + b"h" + bytes([i]) + b"ubq" + bytes([i + 1])
    zipped(path := tmp_path / "w.pt", layers + b".")
    with pytest.raises(WeightsRefusedError, match="more than 1,000,000 modules"):
        read_weights(path)


# --- wrong files


@functools.cache
def _saved(kind: str, folder: Path) -> bytes:
    path = folder / f"saved.{kind}"
    if kind == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(nn.Linear(3, 4)), path)
    else:
        WRITERS[kind]({"weight": torch.randn(6, 7), "bias": torch.randn(3)}, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A small file of each kind, written once."""
    folder = tmp_path_factory.mktemp("saved")
    return lambda kind: _saved(kind, folder)


@pytest.mark.parametrize("kind", [*WRITERS, "script"])
def test_files_cut_at_twenty_places_are_refused_in_one_line(
    tmp_path: Path, unchecked: None, saved: Callable[[str], bytes], kind: str
) -> None:
    whole, path = saved(kind), tmp_path / "w.pth"
    end = len(whole) - 1
    if kind == "tar":  # padded with zeros, which nothing needs, and PAX headers
        end = len(whole.rstrip(b"\0")) - 8
    for length in np.linspace(0, end, 20).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsRefusedError) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value) and "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected weights, got an empty file"),
        (b"<html><body>log in</body></html>", "is a web page: expected weights"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", "is a web page: expected weights"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page: expected weights"),
        (b"GIF89a" + bytes(500), r"expected a file of torch\.save, got one that begins with b'GIF89a"),
        (pickle.dumps({"a": 1}, 2), r"expected a file of torch\.save, got another pickle"),
        (b"PK\x03\x04" + bytes(100), "expected a whole zip archive, got 104 bytes of one"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ""])
def test_other_files_are_named(tmp_path: Path, content: bytes, message: str, suffix: str) -> None:
    (path := tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(WeightsRefusedError, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_archives_of_other_things_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "w.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(
        WeightsRefusedError, match=r"expected the zip archive of torch\.save, .* got one of readme\.txt"
    ):
        read_weights(path)
    with tarfile.open(path, "w:") as other:
        other.addfile(tarfile.TarInfo("readme.txt"), io.BytesIO())
    with pytest.raises(
        WeightsRefusedError, match=r"expected the tar archive of an early torch\.save, got one of readme"
    ):
        read_weights(path)


def tensor_pickle(key: str = "0", count: int = 6, offset: int = 0, size: Any = (2, 3), stride: Any = (3, 1)) -> bytes:
    """{'w': tensor} over a storage of floats, with whatever numbers."""
    out = b"\x80\x02}" + text("w") + glob("torch._utils", "_rebuild_tensor_v2") + b"(("
    out += text("storage") + glob("torch", "FloatStorage") + text(key) + text("cpu")
    out += pickle.dumps(count, 2)[2:-1] + b"tQ"
    parts = [pickle.dumps(part, 2)[2:-1] for part in (offset, tuple(size), tuple(stride))]
    return out + b"".join(parts) + b"\x89NtRs."


NUMBERS = struct.pack("<6f", *range(6))


def test_the_pickle_written_out_is_read(tmp_path: Path) -> None:
    """So that those below fail for what they change alone."""
    zipped(path := tmp_path / "w.pth", tensor_pickle(), {"0": NUMBERS})
    assert_same(read_weights(path), {"w": torch.arange(6.0).view(2, 3)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, r"a tensor of size \(2, 3\) in a storage of 6 numbers"),
        ({"offset": -1}, "a tensor of size"),
        ({"size": (3, 3)}, "a tensor of size"),
        ({"size": (2, -3)}, "a tensor of size"),
        ({"stride": (4, 1)}, "a tensor of size"),
        ({"stride": (1,)}, "a tensor of size"),
        ({"stride": (-1, 1)}, "a tensor of size"),
        ({"size": (2**40, 2**40), "stride": (0, 0)}, "a tensor of size"),
        ({"size": (2.0, 3)}, "a tensor of size"),
        ({"count": 7, "offset": 1}, "expected 28 bytes in storage 0, got 24"),
        ({"count": 2**70}, "expected .* bytes in storage 0, got 24"),
        ({"count": -1}, "a storage of -1 numbers"),
        ({"key": "1"}, r"expected archive/data/1 in the archive, got none"),
        ({"key": "../data.pkl"}, "expected .* in the archive, got none"),
    ],
)
def test_tensors_that_lie_about_their_storage_are_refused(
    tmp_path: Path, unchecked: None, changes: Any, message: str
) -> None:
    zipped(path := tmp_path / "w.pth", tensor_pickle(**changes), {"0": NUMBERS})
    with pytest.raises(WeightsRefusedError, match=message):
        read_weights(path)


def test_big_endian_and_compressed_archives_are_refused(tmp_path: Path) -> None:
    zipped(path := tmp_path / "w.pth", tensor_pickle(), {"0": NUMBERS}, byteorder=b"big")
    with pytest.raises(WeightsRefusedError, match="expected little-endian"):
        read_weights(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        archive.writestr("archive/data/0", NUMBERS * 100)
    with pytest.raises(WeightsRefusedError, match="compressed"):
        read_weights(path)


def test_an_archive_that_lies_about_the_length_of_a_storage_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(count=600, size=(600,), stride=(1,)))
        archive.writestr("archive/data/0", NUMBERS)
        archive.getinfo("archive/data/0").file_size = 2400
    with pytest.raises(WeightsRefusedError, match=r"expected 2,400 bytes of archive/data/0, got .*: the file is cut"):
        read_weights(path)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), kind=st.sampled_from([*WRITERS, "script"]))
def test_damage_anywhere_is_refused_or_harmless(
    data: Any, kind: str, saved: Callable[[str], bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damage"
    folder.mkdir(exist_ok=True)
    whole, path = bytearray(saved(kind)), folder / f"{kind}.pth"
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole))
    try:
        got = read_weights(path)
    except WeightsRefusedError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in got.values())
        _ = [value.float().sum() for value in got.values() if value.numel() < 10**6]


def test_only_what_is_used_is_read_and_kept_in_the_strides_of_the_file(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.randn(4, 5).T}, "optimizer": torch.randn(10)}, path := tmp_path / "w.pth")
    archive = open_torch_file(path)
    stored = archive.root["model"]["w"]
    assert isinstance(stored, StoredTensor) and (stored.size, stored.stride) == ((5, 4), (1, 5))
    assert archive.tensor(stored).stride() == (1, 5) and archive.inert == []
    assert isinstance(archive.root["optimizer"], StoredTensor)
    assert str(Name("a.b", "C")) == "a.b.C"
