"""What the tests of commands share: the module of made-up benchmarks can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "matching"))  # for benchmark_folders
