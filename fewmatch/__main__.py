"""`python -m fewmatch` and the `fewmatch` script."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOMS = ("encoders", "fewshot", "matching", "figures", "cli")


def shadowed_rooms() -> list[str]:
    """Our packages have plain names: say where Python finds somebody else's package instead of ours, or beside it."""
    here = Path(__file__).resolve().parent.parent
    cure = "install fewmatch in an environment of its own"
    problems = []
    for room in ROOMS:
        spec = importlib.util.find_spec(room)
        origin = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if origin != here / room:
            problems.append(f"Python finds {origin or 'no package'} for {room}, not fewmatch's {here / room}: {cure}")
            continue
        others = {Path(entry or os.curdir).resolve() for entry in sys.path} - {here}
        problems += [
            f"another package called {room} is in {folder}, beside fewmatch's in {here}: {cure}"
            for folder in sorted(others)
            if (folder / room / "__init__.py").is_file()
        ]
    return problems


def main() -> None:
    """Run the command line, unless its packages are not ours."""
    wrong = [problem for problem in shadowed_rooms() if problem.startswith("Python finds")]
    if wrong:
        sys.exit(f"fewmatch: error: {wrong[0]}")
    from cli.main import main as run

    run()


if __name__ == "__main__":
    main()
