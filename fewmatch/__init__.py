"""fewmatch: few-shot classification and keypoint matching with frozen vision encoders.

The public names of all rooms in one place, loaded when they are first used: `import fewmatch; fewmatch.load("mini")`.
"""

import importlib
import os
from typing import Any

__version__ = "0.1.0"

if not os.path.isdir(os.path.join(os.path.dirname(__file__), "encoders")):
    # A wheel has the rooms inside this folder. In a checkout, and so in an editable install, they lie beside it.
    __path__.append(os.path.dirname(os.path.dirname(__file__)))

#: Whose `__all__` is offered here.
_ROOMS = ("errors", "labels", "encoders", "fewshot", "matching", "figures")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return ["__version__", *sorted(public for room in _ROOMS for public in _room(room).__all__)]
    if name in _ROOMS:
        return _room(name)
    if not name.startswith("_"):
        for room in _ROOMS:
            if name in _room(room).__all__:
                return getattr(_room(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__getattr__("__all__"))


def _room(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
