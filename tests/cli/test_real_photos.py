"""Accuracies on real images agree with an independent implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import run

#: 5 ways, 15 queries, in percent, from the model card; its interval is ±0.4.
MEASURED = {"photo": {("none", 1): 65.1, ("none", 5): 81.0, ("support", 1): 64.0, ("support", 5): 80.9}}
MEASURED["sketch"] = {("none", 1): 46.3, ("none", 5): 57.6, ("support", 1): 46.5, ("support", 5): 57.6}


@pytest.mark.slow
@pytest.mark.parametrize("domain", MEASURED)
def test_pacs_within_one_point(shared_data: Path, domain: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["episodes", str(shared_data / "pacs" / domain), "-e", "mini", "--device", "cpu"]
    assert run([*command, "--episodes", "2000", "--center", "none,support", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    got = {(r["center"], r["shots"]): 100 * r["accuracy"] for r in results}
    assert got == pytest.approx(MEASURED[domain], abs=1.0)
