"""Compiled encoders: the same features within rounding for every size, layer and facet; and one line where nothing can be compiled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from encoders import FewmatchError, InputError, from_state_dict, load

ROOT = Path(__file__).parent.parent.parent

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler, which torch.compile needs on a CPU"
)

#: In a process of its own, without the checks of shapes around every function, which users do not have either.
SAME = """
import torch
from encoders import load, tapped
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


@pytest.mark.slow
@needs_compiler
def test_compiled_features_are_the_same_within_rounding() -> None:
    done = subprocess.run([sys.executable, "-c", SAME], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


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
import json, sys, torch
from safetensors import safe_open
from encoders import from_state_dict
name = sys.argv[1]
with safe_open(f"tests/golden/{name}.safetensors", "pt") as file:
    heads = json.loads(file.metadata()["heads"])
    state = {key.removeprefix("state/"): file.get_tensor(key) for key in file.keys() if key.startswith("state/")}
plain, compiled = (from_state_dict(state, name, heads=heads) for _ in range(2))
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


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["capi"])
def test_other_transformers_compiled_are_the_same_within_rounding(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", OTHERS, name], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_a_compiler_it_is_one_line(tmp_path: Path) -> None:
    from skimage import data, io

    io.imsave(tmp_path / "a.png", data.coffee()[:64, :64], check_contrast=False)
    io.imsave(tmp_path / "b.png", data.coffee()[64:128, :64], check_contrast=False)
    # Nothing on the path, and no compiled form of an earlier run.
    without = {"CXX": str(tmp_path / "none"), "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "fewmatch", "match", tmp_path / "a.png", tmp_path / "b.png", "-e", "mini"]
    done = subprocess.run(
        [*command, "--device", "cpu", "--compile"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=os.environ | without,
    )
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
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
