"""Features of an earlier run of the same store that need not be computed again."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from encoders.errors import StoreDamagedError
from encoders.store import SHARD_NAME, Row, Shard, read_header, worth_another_try


class EarlierRows:
    """Features of unchanged images in shards of an earlier run that the present list of images cuts differently."""

    def __init__(self, folder: Path, key: str, current: set[str]) -> None:
        self._folder, self._key, self._current = folder, key, current
        self._index: dict[tuple[str, int, int], tuple[Path, int]] | None = None
        self._open: tuple[Path, Shard | None] | None = None

    def find(self, name: str, fact: tuple[int, int]) -> tuple[Row, Tensor, Tensor | None] | None:
        """The row, vector and patches of an image in this state, or None."""
        if self._index is None:
            self._index = self._read_index()
        place = self._index.get((name, *fact))
        if place is None:
            return None
        path, position = place
        if self._open is None or self._open[0] != path:
            try:
                self._open = (path, Shard.read(path, self._key))
            except StoreDamagedError:
                self._open = (path, None)
        shard = self._open[1]
        if shard is None or shard.rows[position]["status"] != "ok":  # another process renewed it just now
            return None
        index = sum(row["status"] == "ok" for row in shard.rows[:position])
        patches = None if shard.feature_map is None else shard.patches(index)
        return shard.rows[position], shard.global_repr[index], patches

    def _read_index(self) -> dict[tuple[str, int, int], tuple[Path, int]]:
        index = {}
        for path in sorted(path for path in self._folder.iterdir() if SHARD_NAME.fullmatch(path.name)):
            try:
                rows = read_header(path, self._key)["rows"]
            except StoreDamagedError:
                continue
            if path.name in self._current and not worth_another_try(rows):
                continue
            for position, row in enumerate(rows):
                if row["status"] == "ok":
                    index[row["path"], row["size"], row["mtime_ns"]] = (path, position)
        return index
