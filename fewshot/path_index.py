"""Paths as other files write them, found among the relative paths of a table."""

from __future__ import annotations

from collections.abc import Sequence


class PathIndex:
    """Which row of a table a path means.

    A path that is one of the table's is that row. Otherwise it may leave out leading folders that the table has, if only one row ends
    with it, or have leading folders that the table leaves out (absolute paths of another machine); then the longest match counts.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [plain_path(path) for path in paths]
        self._rows = {path: row for row, path in enumerate(self._paths)}
        self._by_name: dict[str, list[int]] = {}
        for row, path in enumerate(self._paths):
            self._by_name.setdefault(path.rsplit("/", 1)[-1], []).append(row)

    def candidates(self, path: str) -> list[int]:
        """All rows that the path may mean: none, one, or those between which it does not decide."""
        path = plain_path(path)
        if path in self._rows:
            return [self._rows[path]]
        same_name = self._by_name.get(path.rsplit("/", 1)[-1], [])
        longer = [row for row in same_name if self._paths[row].endswith("/" + path)]
        if longer:
            return longer
        shorter = [row for row in same_name if path.endswith("/" + self._paths[row])]
        return [max(shorter, key=lambda row: len(self._paths[row]))] if shorter else []


def plain_path(path: str) -> str:
    """A path with forward slashes and without `./` in front or spaces around."""
    path = path.strip().replace("\\", "/")
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return path
