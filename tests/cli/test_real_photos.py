"""Accuracies on real images agree with an independent implementation, and so does the plane of an episode of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fewmatch.cli.main import run

#: 5 ways, 15 queries, in percent, of the first 20 images of each class, by an implementation of its own of everything from the file to the
#: decision; on all 50 it gives the numbers of the model card. From 20,000 episodes; the interval of 2,000 is ±0.4.
MEASURED = {"photo": {("none", 1): 65.1, ("none", 5): 81.3, ("support", 1): 63.9, ("support", 5): 81.2}}
MEASURED["sketch"] = {("none", 1): 40.1, ("none", 5): 50.9, ("support", 1): 40.1, ("support", 5): 50.6}


@pytest.mark.slow
@pytest.mark.parametrize("domain", MEASURED)
def test_pacs_within_one_point(
    shared_data: Path, domain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, encoder = tmp_path / domain, ("-e", "mini", "--device", "cpu")
    for original in (shared_data / "pacs" / domain).iterdir():
        (folder / original.name).mkdir(parents=True)
        for image in sorted(original.iterdir())[:20]:
            shutil.copy(image, folder / original.name)

    def asked(*words: object) -> Any:
        assert run([str(word) for word in (*words, *encoder, "--json")]) == 0
        return json.loads(capsys.readouterr().out)

    results = asked("episodes", folder, "--episodes", 2000, "--center", "none,support")["results"]
    got = {(r["center"], r["shots"]): 100 * r["accuracy"] for r in results}
    assert got == pytest.approx(MEASURED[domain], abs=1.0)
    if domain == "photo":  # what is encoded already is drawn as well
        out = tmp_path / "plane.png"
        plane = asked("plane", folder, "--classes", "dog,horse,person", "--queries", 15, "-o", out)
        assert plane["exact"] and 0.6 < plane["accuracy"] < 1
        with Image.open(out) as picture:
            assert picture.width == 1200
