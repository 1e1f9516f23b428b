"""Compiled encoders: the same features within rounding for every size, layer and facet; and one line where nothing can be compiled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from fewmatch.encoders import from_state_dict, load
from fewmatch.errors import FewmatchError, InputError

ROOT = Path(__file__).parent.parent.parent

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler, which torch.compile needs on a CPU"
)

SAME = """
from fewmatch.encoders import load, tapped
plain, compiled = (load("mini", device="cpu", dtype="float32", compile=c) for c in (False, True))
assert not any(b._compiled_call_impl for b in plain.model.blocks) and all(b._compiled_call_impl for b in compiled.model.blocks)
def check(a, b):
    for x, y in ((a.global_repr, b.global_repr), (a.registers, b.registers), (a.feature_map, b.feature_map)):
        assert x.shape == y.shape and (x - y).abs().max() <= 2e-5 * y.abs().max(), float((x - y).abs().max())
def compilations():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]
before = compilations()
assert before == 1, before
for shape in [(2, 3, 16, 16), (3, 3, 40, 24), (5, 3, 24, 64), *((2, 3, 8 * n, 16) for n in range(3, 15))]:
    x = torch.randn(shape)
    check(compiled(x), plain(x))
    for options in ({"layers": [3, -1]}, {"layers": [2], "norm": False}, {"layers": [4, 1], "facet": "key"}):
        for a, b in zip(compiled(x, **options), plain(x, **options), strict=True):
            check(a, b)
check(tapped(compiled, "last2")(x), tapped(plain, "last2")(x))
assert compilations() == before, "sizes, layers and facets must not be compiled one by one"
x = torch.randn(1, 3, 32, 32)
check(compiled(x), plain(x))
assert compilations() <= before + 1
"""


@pytest.mark.parametrize(("name", "network"), [("sam", "SAM"), ("esvit", "Swin"), ("seer", "RegNet")])
def test_networks_that_would_be_compiled_for_every_size_are_refused(golden: Path, name: str, network: str) -> None:
    with safe_open(golden / f"{name}.safetensors", "pt") as file:
        heads = json.loads(file.metadata()["heads"])
        keys = [key for key in file.keys() if key.startswith("state/")]  # noqa: SIM118 - not a dict
        state = {key.removeprefix("state/"): file.get_tensor(key) for key in keys}
    encoder = from_state_dict(state, name, heads=heads)
    with pytest.raises(InputError, match=rf"{name} is a {network}, which is not compiled: .* leave out --compile"):
        encoder.compile()


#: A decoder with cross-attention, rotary positions, and attention with a norm in front.
OTHERS = """
import json
from safetensors import safe_open
from fewmatch.encoders import from_state_dict
with safe_open("tests/golden/capi.safetensors", "pt") as file:
    heads = json.loads(file.metadata()["heads"])
    state = {key.removeprefix("state/"): file.get_tensor(key) for key in file.keys() if key.startswith("state/")}
plain, compiled = (from_state_dict(state, "capi", heads=heads) for _ in range(2))
compiled.compile()
graphs = []
for n in (2, 3, 4, 5):
    x = torch.randn(n, 3, plain.patch_size * (2 + n), plain.patch_size * 9)
    a, b = compiled(x), plain(x)
    for u, v in ((a.global_repr, b.global_repr), (a.feature_map, b.feature_map)):
        assert u.shape == v.shape and (u - v).abs().max() <= 2e-5 * v.abs().max(), (n, float((u - v).abs().max()))
    graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
assert graphs[1] == graphs[-1] <= graphs[0] + 1, graphs
"""
#: The command where nothing is on the path, and no compiled form of an earlier run.
WITHOUT = """
os.environ |= {"CXX": f"{folder}/none", "PATH": folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"}
from fewmatch.cli.main import main
sys.argv = ["fewmatch", "match", f"{folder}/a.png", f"{folder}/b.png", "-e", "mini", "--device", "cpu", "--compile"]
main()
"""
#: Each in a process of its own, without the checks of shapes around every function, which users do not have either; the processes are
#: forked from one that has imported what compiles, since that takes longer than they do.
EACH = """
import os, sys, torch, traceback
import torch._inductor.compile_fx
folder, *scripts = sys.argv[1:]
for number, script in enumerate(scripts):
    if process := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        continue
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
    code = 0
    try:
        exec(script, {"__name__": "script"} | {name: globals()[name] for name in ("os", "sys", "torch", "folder")})
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Exit status, output and errors of each script."""
    from skimage import data, io

    folder = tmp_path_factory.mktemp("compiled")
    io.imsave(folder / "a.png", data.coffee()[:64, :64], check_contrast=False)
    io.imsave(folder / "b.png", data.coffee()[64:128, :64], check_contrast=False)
    command = [sys.executable, "-c", EACH, folder, SAME, OTHERS, WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return {
        name: (code, (folder / f"{i}.out").read_text(), (folder / f"{i}.err").read_text())
        for i, (name, code) in enumerate(zip(("same", "others", "without"), map(int, done.stdout.split()), strict=True))
    }


@pytest.mark.slow
@needs_compiler
def test_compiled_features_are_the_same_within_rounding(ran: dict[str, tuple[int, str, str]]) -> None:
    code, _, errors = ran["same"]
    assert code == 0, errors


@pytest.mark.slow
@needs_compiler
def test_other_transformers_compiled_are_the_same_within_rounding(ran: dict[str, tuple[int, str, str]]) -> None:
    code, _, errors = ran["others"]
    assert code == 0, errors


@pytest.mark.slow
def test_without_a_compiler_it_is_one_line(ran: dict[str, tuple[int, str, str]]) -> None:
    code, output, errors = ran["without"]
    assert (code, output) == (1, "")
    (line,) = errors.strip().splitlines()
    assert "torch.compile failed on cpu" in line and "needs a C++ compiler" in line and "without --compile" in line


def test_only_what_is_asked_for_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: asked.append({"of": type(self).__name__, **options})
    )
    load("mini", device="cpu", dtype="float32")
    assert asked == []
    encoder = load("mini", device="cpu", dtype="float32", compile=True)
    assert asked == [{"of": "Block", "dynamic": True}] * encoder.model.depth


def test_what_torch_says_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_failing(self: torch.nn.Module, **_: object) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("\nno working toolchain\n\nand many\nmore lines")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", compile_failing)
    with pytest.raises(
        FewmatchError, match=r"^torch.compile failed on cpu \(no working toolchain\): it needs a C\+\+"
    ) as error:
        load("mini", device="cpu", dtype="float32", compile=True)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
