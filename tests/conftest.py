"""What all tests share: folders of their own instead of the user's caches, and where large test data may lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from browser import Browser, started

ROOT = Path(__file__).parent.parent

# Fewer examples than hypothesis would take: where more are needed, the test says so. No deadline: machines are busy at times.
hypothesis.settings.register_profile("fewmatch", max_examples=40, deadline=None)
hypothesis.settings.load_profile("fewmatch")

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores: threads of their own would only wait for each other. Processes that tests start inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, so that no worker has one left when the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's weights or features, and none leaves anything behind."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("FEWMATCH_HOME", str(home / "fewmatch"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # No test reaches a network; those of downloads have a server of their own.
    monkeypatch.setenv("FEWMATCH_OFFLINE", "1")
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The small golden files that are always there."""
    return ROOT / "tests" / "golden"


def _elsewhere(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable) or ROOT.parent / "shared" / name)
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}: set {variable} to its folder")
    return folder


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """All golden files, where they are at hand."""
    return _elsewhere("golden", "FEWMATCH_TEST_GOLDEN")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images that are not ours to commit, where they are at hand."""
    return _elsewhere("data", "FEWMATCH_TEST_DATA")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; without one the test is skipped, or fails where FEWMATCH_REQUIRE_BROWSER is 1."""
    yield from started(tmp_path_factory.mktemp("chromium"))
