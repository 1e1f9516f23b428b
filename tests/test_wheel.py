"""The wheel: what is in it, and that it works in a clean environment far from the sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_rooms_and_the_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "encoders",
        "fewshot",
        "figures",
        "matching",
        "cli",
        "fewmatch",
    }
    for needed in (
        "encoders/weights/mini.safetensors",
        "encoders/weights/MODEL_CARD.md",
        "encoders/__init__.pyi",
        "fewmatch/py.typed",
    ):
        assert needed in names
    assert "Requires-Dist: torch>=" in metadata and "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, env=environment)
    binaries = tmp_path / "venv" / "bin"
    install = [str(binaries / "python"), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for arguments in (["--version"], ["doctor"], ["demo", "-o", str(tmp_path / "demo-output")]):
        command = [str(binaries / "fewmatch"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo-output" / "results" / "labels.png").stat().st_size > 10_000
    where = [
        str(binaries / "python"),
        "-c",
        "import fewmatch, cli, encoders; print(fewmatch.__file__, cli.__file__, encoders.load)",
    ]
    done = subprocess.run(where, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    assert str(ROOT) not in done.stdout
