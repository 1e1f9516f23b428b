"""The wheel: what is in it, and that the demo runs from it beside nothing but its dependencies, offline, and makes what it says."""

from __future__ import annotations

import email.message
import email.parser
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).parent))
from check_types import make_tree

ROOT = Path(__file__).parent.parent
ROOMS = ["labels", "encoders", "fewshot", "matching", "figures", "cli", "fewmatch"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def headers_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_the_rooms_and_the_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"fewmatch"}
    for needed in (
        "fewmatch/encoders/weights/mini.safetensors",
        "fewmatch/encoders/weights/MODEL_CARD.md",
        "fewmatch/encoders/__init__.pyi",
        "fewmatch/labels/__init__.pyi",
        "fewmatch/figures/page/document.css",
        "fewmatch/py.typed",
    ):
        assert needed in names
    sources = {
        str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py*") if path.suffix != ".pyc"
    }
    inside = {f"fewmatch/{name}".replace("fewmatch/fewmatch/", "fewmatch/") for name in sources}
    assert {name for name in names if name.endswith((".py", ".pyi"))} == inside
    headers = headers_of(wheel)
    assert any(line.startswith("torch>=") for line in headers.get_all("Requires-Dist", []))
    assert headers["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    """From the archive of sources alone, in a folder of its own; that is also what an installer does without a wheel."""
    if not (ROOT / "build" / "types").exists():
        make_tree(ROOT, ROOT / "build" / "types")  # its links to the rooms must not keep the rooms themselves out
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # an sdist, and the wheel made of it
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {name: first.read(name) for name in first.namelist()} == {
            name: second.read(name) for name in second.namelist()
        }


def test_an_editable_install_imports_the_checkout_under_one_name(tmp_path: Path) -> None:
    """What `pip install -e .` does, but for the fetching of dependencies."""
    code = f"import hatchling.build; hatchling.build.build_editable({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    binaries = environment_of(next(tmp_path.glob("*.whl")), tmp_path / "venv")
    code = f"""
import sys, fewmatch, fewmatch.cli.main
from fewmatch import errors, labels
bare = {ROOMS!r}
print(fewmatch.__file__, fewmatch.cli.__file__, labels.read_labels.__module__, fewmatch.InputError is errors.InputError)
print([name for name in sys.modules if name.split(".")[0] in bare and name.split(".")[0] != "fewmatch"])
"""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [binaries / "python", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=clean
    )
    files = [str(ROOT / "fewmatch" / "__init__.py"), str(ROOT / "cli" / "__init__.py")]
    assert (done.stdout.splitlines(), done.stderr) == (
        [" ".join([*files, "fewmatch.labels.reading", "True"]), "[]"],
        "",
    )
    ran = subprocess.run(
        [binaries / "fewmatch", "--version"], capture_output=True, text=True, check=False, cwd=tmp_path, env=clean
    )
    assert (ran.returncode, ran.stdout.split()[0]) == (0, "fewmatch")


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def dependencies(wheel: Path) -> dict[str, metadata.Distribution]:
    """What an installer would put beside the wheel, taken from where the tests run; each is of a version that all who need it allow.

    So are the versions in constraints.txt.
    """
    pins, found = pinned(), dict[str, metadata.Distribution]()
    waiting = [(Requirement(line), "") for line in headers_of(wheel).get_all("Requires-Dist", [])]
    seen = set[str]()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = distribution = metadata.distribution(name)
        for version in (distribution.version, pins.get(name, distribution.version)):
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, but {version}"
        for wanted in {"", *requirement.extras}:
            if f"{name}[{wanted}]" not in seen:
                seen.add(f"{name}[{wanted}]")
                waiting += [(Requirement(line), wanted) for line in distribution.requires or []]
    return found


def environment_of(wheel: Path, folder: Path) -> Path:
    """A virtual environment of the wheel and its dependencies, these as links, and no way to a network; its `bin`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, env=clean)
    binaries = folder / "bin"
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in dependencies(wheel).values():
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution.locate_file(top))))
    refuse = "import socket\n\n\ndef refuse(*_):\n    raise AssertionError('it tried to reach a network')\n\n\n"
    (packages / "sitecustomize.py").write_text(refuse + "socket.socket.connect = refuse\n")
    install = ["install", "-q", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    command = [sys.executable, "-m", "pip", "--python", str(binaries / "python"), *install]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=folder)
    assert done.returncode == 0, done.stderr
    return binaries


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_beside_its_dependencies_alone(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries, out = environment_of(wheel, tmp_path / "venv"), tmp_path / "demo"
    for variable in [name for name in os.environ if name.startswith(("PYTHON", "VIRTUAL_ENV"))]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("FEWMATCH_OFFLINE")  # it needs no network, so it need not be told to leave it alone

    def ran(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    code = "import fewmatch, fewmatch.cli, fewmatch.encoders; print(fewmatch.__path__, fewmatch.cli.__file__, fewmatch.load)"
    assert str(ROOT) not in ran(binaries / "python", "-c", code)
    assert ran(binaries / "fewmatch", "--version").startswith("fewmatch ")
    assert "nothing is wrong" in ran(binaries / "fewmatch", "doctor")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    text = ran(binaries / "fewmatch", "demo", "-o", out, "--quiet")
    for part in (
        "$ fewmatch encode",
        "$ fewmatch episodes",
        "$ fewmatch classify",
        "20 images, 10 classes",
        "$ fewmatch plane",
        "$ fewmatch match",
        "$ fewmatch pca",
        "index.html",
    ):
        assert part in text
    results = out / "results"
    names = ["drawing", "episodes-digits", "episodes-textures", "labels", "pca", "plane", "portraits", "stereo"]
    figures = ["drawing.png", "labels.png", "pca.png", "plane.png", "portraits.png", "stereo.png"]
    assert sorted(path.name for path in results.iterdir()) == sorted(
        [f"{name}.json" for name in names] + ["labels.csv", "plane.html", *figures]
    )
    assert all((results / name).stat().st_size > 10_000 for name in figures)
    assert all(json.loads((results / f"{name}.json").read_text())["schema"] == 1 for name in names)
    textures = json.loads((results / "episodes-textures.json").read_text())
    assert max(result["accuracy"] for result in textures["results"]) > 0.95
    labels = json.loads((results / "labels.json").read_text())["results"]
    right = sum(f"-shows-{result['label']}.png" in result["path"] for result in labels)
    assert len(labels) == 20 and right >= 12

    # Where the truth is known, the shares beside SIFT's are as they were when this was written.
    shares = {
        (name, order): int(share)
        for order, (name, share) in enumerate(re.findall(r"^(mini|SIFT): (\d+) % of", text, flags=re.MULTILINE))
    }
    assert shares[("mini", 0)] >= 82 and shares[("mini", 2)] >= 85
    assert shares[("SIFT", 1)] >= 80 and 40 <= shares[("SIFT", 3)] <= 70

    # The page shows every figure and every command, and needs nothing from elsewhere.
    page = (out / "index.html").read_text()
    links = re.findall(r'src="([^"]*)"', page)
    assert sorted(links) == [f"results/{name}" for name in figures]
    assert all((out / link).is_file() for link in links)
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert page.count("$ fewmatch") == text.count("$ fewmatch")
    for line in re.findall(r"^(?:mini|SIFT): .*$", text, flags=re.MULTILINE):
        assert line in page

    from fewmatch.cli.commands.demo import _clear

    (out / "my notes.txt").touch()
    _clear(out)  # what a second run begins with: its own is gone, the rest stays
    assert sorted(path.name for path in out.iterdir()) == [".fewmatch-demo", "my notes.txt", "results"]
