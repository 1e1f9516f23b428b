"""Strict types of all code: `python tests/check_types.py` (`make types`) runs mypy on a tree in which the rooms lie inside fewmatch/.

A type checker does not know that `fewmatch/__init__.py` looks for the rooms beside its folder, and would pass without reading them. So
this makes the package as a wheel has it, out of symbolic links, in `build/types`, where editors can look for it too (CONTRIBUTING.md).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def make_tree(root: Path, tree: Path) -> list[str]:
    """The package as links to the files of a checkout; what mypy is to check in it: the package, and the demos where there are any."""
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "fewmatch").mkdir(parents=True)
    for path in (root / "fewmatch").iterdir():
        if path.name != "__pycache__":
            (tree / "fewmatch" / path.name).symlink_to(path)
    for room, inside in wheel["sources"].items():
        (tree / inside).symlink_to(root / room, target_is_directory=True)
    if not (root / "demos").is_dir():
        return ["fewmatch"]
    (tree / "demos").symlink_to(root / "demos", target_is_directory=True)
    return ["fewmatch", "demos"]


def check(root: Path) -> int:
    """Run mypy on all of it and name files as they lie in the checkout; its exit code."""
    tree = root / "build" / "types"
    parts = make_tree(root, tree)
    options = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, *parts]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        short = line.removeprefix("fewmatch/")
        print(short if (root / short.partition(":")[0]).is_file() else line)
    return done.returncode


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
