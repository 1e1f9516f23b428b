"""What the tests of matching share: the modules of the test encoder and of made-up benchmarks can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # for patch_local
sys.path.insert(0, str(Path(__file__).parent))  # for benchmark_folders
