"""What the tests of encoding share: made-up pictures, the test encoder, and a folder's content for comparison."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))  # for patch_local

Size = tuple[int, int]


def write_picture(path: Path, seed: int, size: Size = (40, 30), mtime: int | None = None) -> Path:
    """A picture of noise, width × height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return path


@pytest.fixture(scope="session")
def picture() -> Callable[..., Path]:
    return write_picture


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures in two class folders: a/0.png … a/4.png and b/5.png … b/7.png."""
    for i in range(8):
        write_picture(tmp_path / "pictures" / ("a" if i < 5 else "b") / f"{i}.png", seed=i)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The name and bytes of every file of a folder."""
    return lambda folder: {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def states() -> Callable[[Path], dict[str, tuple[bytes, int, int]]]:
    """The bytes, time of change and inode of every file of a folder."""
    return lambda folder: {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.iterdir())
    }
