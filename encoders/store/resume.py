"""Features of an earlier run of the same store that need not be computed again."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import Tensor

from fewmatch.encoders.identity import FileState
from fewmatch.encoders.store.store import SHARD_NAME, Row, Shard, read_header, worth_another_try
from fewmatch.errors import StoreDamagedError


class EarlierRows:
    """Features of unchanged images in shards of an earlier run that the present list of images cuts differently."""

    def __init__(self, folder: Path, key: str, current: set[str]) -> None:
        self._folder, self._key, self._current = folder, key, current
        self._open: tuple[Path, Shard | None] | None = None

    @cached_property
    def _index(self) -> dict[str, list[tuple[Row, Path, int]]]:
        """By name of the image: rows of usable images, and where their features are. Read when it is first needed."""
        index: dict[str, list[tuple[Row, Path, int]]] = {}
        for path in sorted(path for path in self._folder.iterdir() if SHARD_NAME.fullmatch(path.name)):
            try:
                rows = read_header(path, self._key)["rows"]
            except StoreDamagedError:
                continue
            if path.name in self._current and not worth_another_try(rows):
                continue
            for position, row in enumerate(rows):
                if row["status"] == "ok":
                    index.setdefault(row["path"], []).append((row, path, position))
        return index

    def contents(self, name: str) -> set[str]:
        """The SHA-256 of every content that the image of this name had."""
        return {row["sha256"] for row, _, _ in self._index.get(name, ())}

    def find(self, name: str, state: FileState, content: str | None = None) -> tuple[Row, Tensor, Tensor | None] | None:
        """The row, vector and patches of an image whose file is in this state or has this content; the row says this state."""
        for row, path, position in self._index.get(name, ()):
            if content != row["sha256"] and FileState.in_row(row) != state:
                continue
            if self._open is None or self._open[0] != path:
                try:
                    self._open = (path, Shard.read(path, self._key))
                except StoreDamagedError:
                    self._open = (path, None)
            shard = self._open[1]
            if shard is None or shard.rows[position] != row:  # another process renewed it just now
                continue
            index = sum(row["status"] == "ok" for row in shard.rows[:position])
            patches = None if shard.feature_map is None else shard.patches(index)
            return row | state._asdict(), shard.global_repr[index], patches
        return None
