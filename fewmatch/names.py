"""When two names are the same: Unicode can spell é as one character or as e and an accent, and people see one name.

Classes, keypoints and files are compared by `same_name` and shown as the user wrote them. macOS and some archives write names in the
decomposed form (NFD), keyboards and most other systems in the composed one (NFC).
Source: Unicode Standard Annex 15.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int


def same_name(name: str) -> str:
    """The form in which names are compared: two names are the same if this is equal for both.

    >>> same_name("cafe\\u0301") == same_name("caf\\u00e9")
    True
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def distinct_names(names: Sequence[str]) -> tuple[list[str], Int[np.ndarray, "N"]]:
    """The different names, sorted, and the index of each of the N names into them.

    A name with several spellings is shown in the one that comes first. The order is that of `same_name`, so that it does not depend on the
    spelling.
    """
    spelled, first, index = np.unique(np.asarray(names, dtype=object), return_index=True, return_inverse=True)
    shown: dict[str, str] = {}
    for place in np.argsort(first, kind="stable"):
        shown.setdefault(same_name(str(spelled[place])), str(spelled[place]))
    keys = sorted(shown)
    number = {key: i for i, key in enumerate(keys)}
    own = np.array([number[same_name(str(name))] for name in spelled], np.int64)
    return [shown[key] for key in keys], own[index]


def distinct_labels(labels: Sequence[object] | np.ndarray) -> tuple[list[Any], Int[np.ndarray, "N"]]:
    """As `distinct_names`, for labels that may also be numbers or anything else that can be sorted."""
    array = np.asarray(labels)
    distinct, index = np.unique(array, return_inverse=True)
    if array.dtype.kind == "U" or (array.dtype.kind == "O" and all(isinstance(label, str) for label in distinct)):
        return distinct_names([str(label) for label in array])
    return distinct.tolist(), index


def spelling_notes(names: Iterable[str], what: str) -> list[str]:
    """A line for each name that is spelled in several ways; `what` says what such spellings are together, such as "one class"."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        groups.setdefault(same_name(name), {})[name] = None
    return [
        f"{' and '.join(map(ascii, spellings))} are {what}, {next(iter(spellings))}: the names differ only in Unicode normal form"
        for spellings in groups.values()
        if len(spellings) > 1
    ]


class DiskNames:
    """Finds files by their names as people mean them. Each folder is listed at most once, and only if a name is not there as it is spelled."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str | os.PathLike[str]) -> Path | None:
        """The file or folder of that name: spelled exactly so, or else the only one that has the same name; None if there is none."""
        path = Path(path)
        if os.path.lexists(path):
            return path
        if os.fspath(path).isascii() or path.parent == path:
            return None
        folder = self.find(path.parent)
        spellings = [] if folder is None else self._listed(os.fspath(folder)).get(same_name(path.name), [])
        return folder / spellings[0] if folder is not None and len(spellings) == 1 else None

    def _listed(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._folders:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):
                    names.setdefault(same_name(name), []).append(name)
            except OSError:  # no folder, or one that cannot be listed: nothing is found in it
                names = {}
            self._folders[folder] = names
        return self._folders[folder]
