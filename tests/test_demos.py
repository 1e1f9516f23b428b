"""Every demo script runs, offline, and makes what it says; the demo command is tested with the wheel."""

from __future__ import annotations

import re
import runpy
import shutil
import socket
import sys
from pathlib import Path

import pytest

from fewmatch.cli.inputs.demo_pictures import Pictures, write_pictures

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a demo tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def run_script(name: str, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "demos" / name), run_name="__main__")


def test_every_script_is_run_here() -> None:
    assert {path.name for path in (ROOT / "demos").glob("*.py")} == {
        "few_shot.py",
        "photo_to_drawing.py",
        "feature_maps.py",
    }


@pytest.mark.parametrize("name", [path.name for path in sorted((ROOT / "demos").glob("*.py"))])
def test_a_script_is_a_page_and_says_how_to_run_it(name: str) -> None:
    assert len((ROOT / "demos" / name).read_text().splitlines()) <= 70
    with pytest.raises(SystemExit) as stop:
        run_script(name)
    assert f"python demos/{name}" in str(stop.value)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def test_few_shot_script(pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for texture in pictures.textures.iterdir():  # no more than five examples and ten queries of each
        (tmp_path / texture.name).mkdir()
        for image in sorted(texture.iterdir())[:15]:
            shutil.copy(image, tmp_path / texture.name)
    run_script("few_shot.py", tmp_path)
    text = capsys.readouterr().out
    assert "45 images in 3 classes" in text and "3-way 5-shot, centre support+query" in text


def test_photo_to_drawing_script(pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script("photo_to_drawing.py", tmp_path / "figure.png")
    text = capsys.readouterr().out
    assert (tmp_path / "figure.png").is_file() and "mutual nearest patches" in text
    share = re.search(r"(\d+) % of \d+ matches are within one patch", text)
    assert share is not None and int(share[1]) >= 85

    run_script("photo_to_drawing.py", *pictures.portraits, tmp_path / "portraits.svg")
    assert (tmp_path / "portraits.svg").is_file()
    assert "of the truth" not in capsys.readouterr().out


def test_feature_maps_script(pictures: Pictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_script("feature_maps.py", *pictures.photos[:2], tmp_path / "maps.png")
    assert (tmp_path / "maps.png").is_file() and "2 images" in capsys.readouterr().out
