"""Paths as other files write them, found among the relative paths of a table."""

from __future__ import annotations

from collections.abc import Sequence

from fewmatch.names import same_name


class PathIndex:
    """Which row of a table a path means.

    A path that is one of the table's is that row. Otherwise it may leave out leading folders that the table has, if only one row ends
    with it, or have leading folders that the table leaves out (absolute paths of another machine); then the longest match counts.
    Paths are compared by `fewmatch.names.same_name`; where rows differ in nothing else, the one that is spelled like the path counts.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [plain_path(path) for path in paths]
        self._rows = {path: row for row, path in enumerate(self._paths)}
        self._keys = [same_name(path) for path in self._paths]
        self._by_name: dict[str, list[int]] = {}
        for row, path in enumerate(self._keys):
            self._by_name.setdefault(path.rsplit("/", 1)[-1], []).append(row)

    def candidates(self, path: str) -> list[int]:
        """All rows that the path may mean: none, one, or those between which it does not decide."""
        path = plain_path(path)
        if path in self._rows:
            return [self._rows[path]]
        key = same_name(path)
        alike = self._by_name.get(key.rsplit("/", 1)[-1], [])
        same = [row for row in alike if self._keys[row] == key]
        if same:
            return same
        longer = [row for row in alike if self._keys[row].endswith("/" + key)]
        if longer:
            return [row for row in longer if self._paths[row].endswith("/" + path)] or longer
        shorter = [row for row in alike if key.endswith("/" + self._keys[row])]
        longest = max((len(self._keys[row]) for row in shorter), default=0)
        shorter = [row for row in shorter if len(self._keys[row]) == longest]
        return [row for row in shorter if path.endswith("/" + self._paths[row])] or shorter


def plain_path(path: str) -> str:
    """A path with forward slashes and without `./` in front or spaces around."""
    path = path.strip().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path
