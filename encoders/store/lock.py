"""Whose folder it is: a store is locked while it is written, and what is not ours is refused and left as it is."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fewmatch.encoders.identity import FileState, key_difference, key_digest
from fewmatch.encoders.paths import fewmatch_home
from fewmatch.encoders.store.plan import EncodingPlan
from fewmatch.encoders.store.store import (
    CHECKSUM,
    MANIFEST,
    META,
    SHARD_NAME,
    FeatureStore,
    is_store_file,
    read_meta,
    shard_key,
    write_meta,
)
from fewmatch.errors import FewmatchError, InputError, OutputExistsError, StoreDamagedError


@contextlib.contextmanager
def locked(folder: Path, shard: tuple[int, int], wait: bool) -> Iterator[None]:
    """Keep two processes from doing the same work.

    Only that: on file systems where locks do nothing, temporary files of one's own and atomic renames still keep the store whole.
    The lock lies outside the store, so that equal work leaves equal folders.
    """
    name = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=10).hexdigest()
    locks = fewmatch_home() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}-{shard[0]}-of-{shard[1]}.lock", timeout=-1 if wait else 0)
        lock.acquire()
    except Timeout as error:
        raise OutputExistsError(
            f"another process is writing {folder}: wait for it, or choose another folder"
        ) from error
    except OSError as error:
        raise FewmatchError(
            f"no lock can be made in {locks} ({error.strerror}): set FEWMATCH_HOME to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def claim(folder: Path, plan: EncodingPlan, overwrite: bool) -> None:
    """Make the folder a store for this plan, or refuse and touch nothing."""
    key = plan.key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(os.listdir(folder))
    except OSError as error:
        raise OutputExistsError(f"{folder} cannot be used as a folder: {error.strerror}") from error
    ours = [name for name in present if is_store_file(name)]
    foreign = [name for name in present if not is_store_file(name)]
    shards = [name for name in ours if SHARD_NAME.fullmatch(name)]
    try:
        meta = read_meta(folder)
    except StoreDamagedError:
        # Many things keep a meta.json: it is a store's where its shards lie around it.
        if not shards and (foreign or not overwrite):
            raise _not_a_store(folder, META) from None
        if not overwrite:
            raise
        meta = {"key": None}
    if meta is None:
        # Without shards a manifest.jsonl may be anybody's; with them, the folder lost its meta.json.
        lists = [name for name in (MANIFEST, CHECKSUM) if name in ours and not shards]
        if foreign or lists:
            raise _not_a_store(folder, (foreign or lists)[0])
        if all(shard_key(folder / name) in (None, key_digest(key)) for name in shards):
            with writing(folder):
                write_meta(folder, key)
            return
        meta = {"key": None}
    if meta["key"] == key:
        stranger = _stranger(folder, plan) if not overwrite else None
        if stranger:
            raise OutputExistsError(
                f"{folder} holds features of other images (such as {stranger}): choose another folder, or --overwrite"
            )
        return
    if not overwrite:
        difference = key_difference(meta["key"], key)
        raise OutputExistsError(
            f"{folder} holds features made differently ({difference}): choose another folder, or --overwrite"
            if difference
            else f"{folder} was made by an older fewmatch, whose stores can be read but not added to: choose another folder, or --overwrite"
        )
    with writing(folder):
        # The manifest first and the key last: at no moment does one describe shards of the other key.
        for name in sorted(ours, key=lambda name: name != MANIFEST):
            if name != META:
                (folder / name).unlink(missing_ok=True)
        write_meta(folder, key)


def _stranger(folder: Path, plan: EncodingPlan) -> str | None:
    """An image of the finished store in a folder, if the store and the plan have no folder of images and no image in common.

    Images may come and go between two runs, but a store of other images altogether is somebody's work.
    """
    try:
        rows = FeatureStore.open(folder).rows
    except (InputError, StoreDamagedError):
        return None  # unfinished or damaged: there is nothing to lose
    roots = {row["root"] for row in rows}
    known = {(row["path"], row["size"], row["mtime_ns"]) for row in rows}
    if any(image.root in roots or (image.name, *FileState.of(image.path)[:2]) in known for image in plan.images):
        return None
    return str(rows[0]["path"])


def _not_a_store(folder: Path, name: str) -> OutputExistsError:
    return OutputExistsError(f"{folder} is not empty and no feature store ({name} is in it): choose another folder")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say what a full or read-only disk means for a store."""
    try:
        yield
    except OSError as error:
        raise FewmatchError(
            f"{folder} cannot be written ({error.strerror}): what is done is kept, run this again when that is mended"
        ) from error
