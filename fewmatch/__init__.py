"""fewmatch: few-shot classification and keypoint matching with frozen vision encoders.

The public names of all rooms in one place, loaded when they are first used: `import fewmatch; fewmatch.load("mini")`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_ROOMS = ("encoders", "fewshot", "matching", "figures")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return ["__version__", *sorted(public for room in _ROOMS for public in importlib.import_module(room).__all__)]
    if not name.startswith("_"):
        for room in _ROOMS:
            module = importlib.import_module(room)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))
