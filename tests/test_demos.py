"""Every demo script and the demo command run, offline, and make what they say."""

from __future__ import annotations

import json
import runpy
import socket
import sys
from pathlib import Path

import pytest

from cli.main import run

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a demo tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.slow
def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert run(["demo", "-o", str(out), "--quiet"]) == 0
    text, notes = capsys.readouterr()
    assert notes == ""
    for part in (
        "$ fewmatch encode",
        "$ fewmatch episodes",
        "$ fewmatch classify",
        "20 images, 10 classes",
        "labels.png",
    ):
        assert part in text
    names = ["episodes-digits.json", "episodes-textures.json", "labels.csv", "labels.json", "labels.png"]
    assert sorted(path.name for path in (out / "results").iterdir()) == names
    textures = json.loads((out / "results" / "episodes-textures.json").read_text())
    best = max(result["accuracy"] for result in textures["results"])
    assert textures["schema"] == 1 and best > 0.95
    labels = json.loads((out / "results" / "labels.json").read_text())["results"]
    right = sum(f"-shows-{result['label']}.png" in result["path"] for result in labels)
    assert len(labels) == 20 and right >= 12

    from cli.demo import _clear

    (out / "my notes.txt").touch()
    _clear(out)  # what a second run begins with: its own is gone, the rest stays
    assert sorted(path.name for path in out.iterdir()) == [".fewmatch-demo", "my notes.txt", "results"]


@pytest.mark.slow
def test_the_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from cli.demo import _write_pictures

    textures, _, _ = _write_pictures(tmp_path)
    scripts = {path.name for path in (ROOT / "demos").glob("*.py")}
    assert scripts == {"few_shot.py"}  # every one is run here
    monkeypatch.setattr(sys, "argv", ["few_shot.py", str(textures)])
    runpy.run_path(str(ROOT / "demos" / "few_shot.py"), run_name="__main__")
    text = capsys.readouterr().out
    assert "75 images in 3 classes" in text and "3-way 5-shot, centre support+query" in text
