"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

#: How often `write_atomically` begins anew when its temporary file is taken away.
ATTEMPTS = 5


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and vanishes when it does not.

    It is a temporary file of our own in the same folder, flushed to the disk and renamed: no reader and no second writer ever
    sees half a file, and a full disk leaves what was there before. Its name is `.` + the final name + something + `.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, *parts: bytes | memoryview) -> Path:
    """Write bytes to a file whole or not at all; returns the path.

    Another process that tidies up after a killed one may remove the temporary file of a living one, where locks do nothing;
    then it is written again.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with replacing(path) as file:
                for part in parts:
                    file.write(part)
            break
        except FileNotFoundError:
            if attempt == ATTEMPTS:
                raise
    return path
