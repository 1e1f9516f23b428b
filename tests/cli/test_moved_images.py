"""Stores whose images have moved: what needs no image is done, what cannot be drawn is said, and the exit code is 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmatch.cli.main import run

MINI = ("-e", "mini", "--device", "cpu", "--dtype", "float32", "--size", "64")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of vectors and of maps of images that are gone, and labels with their own images."""
    root = tmp_path_factory.mktemp("moved")
    rng = np.random.default_rng(0)
    for folder, names in (("set/red", "ab"), ("set/blue", "cd"), ("new", "efg"), ("marked", "h")):
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{name}.png")
    (root / "marked" / "labels.csv").write_text("image,part,x,y\nh.png,nose,20,20\nh.png,tail,40,30\n")
    for folder, store, keep in (
        ("set", "set-store", "global"),
        ("new", "new-store", "global"),
        ("new", "maps", "patches"),
    ):
        words = ["encode", root / folder, "-o", root / store, "--keep", keep, *MINI, "--quiet"]
        assert run([str(word) for word in words]) == 0
    shutil.rmtree(root / "new")
    shutil.rmtree(root / "set")
    return root


#: Each command, with a file that needs no image, and the options that need images.
COMMANDS = {
    "classify": ("--support {made}/set-store --query {made}/new-store --out {out}/out.csv", {"--figure": "a.png"}),
    "match": ("{made}/maps -o {out}/out.csv", {"-o": "a.png", "--warp": "b.svg"}),
    "pca": ("{made}/maps --save-basis {out}/out.npz", {"-o": "a.png"}),
    "keypoints": (
        "{made}/marked/labels.csv {made}/maps --threshold 0 -o {out}/out.csv",
        {"--sheet": "a.png", "--review": "b.html", "--overlays": "c"},
    ),
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_everything_but_the_pictures_is_done(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words, figures = COMMANDS[name]
    targets = {option: str(tmp_path / file) for option, file in figures.items()}
    drawn = [word for pair in targets.items() for word in pair]
    code = run([name, *words.format(made=made, out=tmp_path).split(), *drawn, "--json"])
    out, err = capsys.readouterr()
    assert code == 1, err
    (kept,) = tmp_path.iterdir()  # what needs no image, and nothing else
    assert [line for line in err.splitlines() if line.startswith("wrote ")] == [f"wrote {kept}"]
    for target in targets.values():
        assert f"fewmatch: error: {target} is not written: the images are no longer where they were encoded" in err
    assert err.count("not drawn: ") == 1
    document = json.loads(out)
    assert sorted(row["path"] for row in document["not_written"]) == sorted(targets.values())
    assert len(document["not_drawn"]) >= 2 and all("io-error" in row["reason"] for row in document["not_drawn"])


def test_quiet_does_not_hide_what_is_not_written(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "gone.png"
    words = ("classify", "--support", made / "set-store", "--query", made / "new-store", "--figure", figure, "--quiet")
    assert run([str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    assert err == f"fewmatch: error: {figure} is not written: the images are no longer where they were encoded\n"
    assert out.count(".png") == 3 and not figure.exists()
