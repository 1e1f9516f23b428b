"""Images through an encoder into a feature store: resumable, splittable over processes, and computing nothing twice."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, UInt8
from torch import Tensor

from encoders.errors import FewmatchError, ImageError, InputError, OutputExistsError, StoreDamagedError
from encoders.features import Encoder, Features
from encoders.frame import Frame, resample
from encoders.images import decode, read_bytes
from encoders.listing import ListedImage
from encoders.places import fewmatch_home
from encoders.plan import EncodingPlan, cache_folder, key_difference, plan_encoding
from encoders.store import (
    MANIFEST,
    META,
    FeatureStore,
    Keep,
    Row,
    Shard,
    key_digest,
    read_header,
    read_meta,
    write_manifest,
    write_meta,
)

#: Called with (images done, images in all, images skipped) after every batch.
Progress = Callable[[int, int, int], None]

#: One batch holds about this many patches. It depends on nothing else, so that equal work gives equal bytes.
BATCH_PATCHES = 8192

_T = TypeVar("_T")
_R = TypeVar("_R")


def encode_images(
    paths: Iterable[str | os.PathLike[str]] | Sequence[ListedImage],
    encoder: Encoder,
    *,
    out: str | os.PathLike[str] | None = None,
    keep: Keep = "global",
    size: int | None = None,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    strict: bool = False,
    shard_images: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Encode images into a feature store, computing only what is not there yet.

    Features are computed again for files whose size or time of change differs, and for shards that are damaged. An
    image that cannot be used is recorded with its reason, and the run goes on.

    Args:
        paths: folders, image files and list files (see `list_images`), or their listing.
        encoder: anything with the `Encoder` contract.
        out: the store's folder; None keeps it in fewmatch's cache, where the same call finds it again.
        keep: `global` for one vector per image after the classification crop, `patches` for the whole feature map as well, after
            the dense resize (see `encoders.frame`).
        size: side of the crop, or short side with `patches`, in pixels; None is the encoder's default.
        shard: (i, n) does the i-th of n parts of the work, counted from 1; whoever finishes last completes the store.
        overwrite: drop what the folder holds for another encoder or size; only files of a store are removed.
        strict: stop at the first image that cannot be used.
        shard_images: images in a shard; the default is right unless you test.
        workers: decoding threads; None is one per core.
        progress: called with (done, all, skipped) as the work goes on.

    Returns:
        The finished store. With n > 1 and other parts outstanding, the images of this part only.

    Raises:
        InputError: nothing to encode, or options that do not fit.
        OutputExistsError: `out` holds something else, or another process is writing it.
        ImageError: with `strict`, the first image that cannot be used.
    """
    plan = plan_encoding(paths, encoder, keep=keep, size=size, shard_images=shard_images)
    folder = Path(out) if out is not None else cache_folder(plan)
    done = list(
        encode_shards(
            plan,
            folder,
            shard=shard,
            overwrite=overwrite,
            strict=strict,
            wait=out is None,
            workers=workers,
            progress=progress,
        )
    )
    if (folder / MANIFEST).is_file():
        return FeatureStore.open(folder)
    return FeatureStore(folder, plan.key, [row for rows, _ in done for row in rows])


def encode_shards(
    plan: EncodingPlan,
    folder: Path,
    *,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    strict: bool = False,
    wait: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[list[Row], Float[np.ndarray, "n d"]]]:
    """`encode_images` shard by shard: yields each shard's manifest lines and the (n, D) vectors of its usable images.

    The shard is on disk when it is yielded. Use this for results that stream. `wait` waits for another process that writes
    the same folder, instead of raising.
    """
    number, parts = shard
    if not 1 <= number <= parts:
        raise InputError(f"no part {number}/{parts}: expected i/n with i from 1 to n")
    with _locked(folder, shard, wait):
        _claim(folder, plan.key, overwrite)
        yield from _run(plan, folder, number - 1, parts, strict, workers, progress)


@contextlib.contextmanager
def _locked(folder: Path, shard: tuple[int, int], wait: bool) -> Iterator[None]:
    """Keep two processes from doing the same work.

    Only that: on file systems where locks do nothing, temporary files of one's own and atomic renames still keep the store whole.
    The lock lies outside the store, so that equal work leaves equal folders.
    """
    name = hashlib.blake2b(os.fsencode(os.path.abspath(folder)), digest_size=10).hexdigest()
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


def _claim(folder: Path, key: dict[str, Any], overwrite: bool) -> None:
    """Make the folder a store of this key, or refuse."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [entry.name for entry in os.scandir(folder)]
    except OSError as error:
        raise OutputExistsError(f"{folder} cannot be used as a folder: {error.strerror}") from error
    try:
        meta = read_meta(folder)
    except StoreDamagedError:
        if not overwrite:
            raise
        meta = {"key": None}
    foreign = [
        name
        for name in present
        if name not in (META, MANIFEST) and not name.startswith(("shard-", ".shard-", f".{META}.", f".{MANIFEST}."))
    ]
    if meta is None and foreign:
        raise OutputExistsError(
            f"{folder} is not empty and no feature store ({foreign[0]} is in it): choose another folder"
        )
    if meta is not None and meta["key"] != key:
        if not overwrite:
            raise OutputExistsError(
                f"{folder} holds features made differently ({key_difference(meta['key'], key)}): choose another folder, or --overwrite"
            )
        for name in present:
            if name not in foreign:
                (folder / name).unlink()
        meta = None
    if meta is None:
        write_meta(folder, key)


def _run(
    plan: EncodingPlan,
    folder: Path,
    part: int,
    parts: int,
    strict: bool,
    workers: int | None,
    progress: Progress | None,
) -> Iterator[tuple[list[Row], Float[np.ndarray, "n d"]]]:
    key = key_digest(plan.key)
    shards = plan.shards()
    mine = [shard for number, shard in enumerate(shards) if number % parts == part]
    for number in range(part, len(shards), parts):  # what a killed run of this part left
        for leftover in folder.glob(f".shard-{number:05d}-*.tmp"):
            leftover.unlink(missing_ok=True)
    earlier = _EarlierRows(folder, key, {name for name, _, _ in shards})
    total, done, skipped = sum(len(images) for _, images, _ in mine), 0, 0
    report = progress or (lambda *_: None)
    report(0, total, 0)
    with _decoders(workers) as pool:
        for name, images, facts in mine:
            shard = _kept(folder / name, key)
            if shard is None:

                def advance(n: int, bad: int, done: int = done, skipped: int = skipped) -> None:
                    report(done + n, total, skipped + bad)

                shard = _encode_shard(plan, images, facts, earlier, pool, strict, advance)
                shard.write(folder / name, key)
            done += len(images)
            skipped += sum(row["status"] != "ok" for row in shard.rows)
            report(done, total, skipped)
            yield _manifest_rows(shard.rows, images, name), shard.global_repr.numpy()
    _finish(folder, key, shards)


def _finish(folder: Path, key: str, shards: Sequence[tuple[str, list[ListedImage], Any]]) -> None:
    """Write the manifest once every shard is there, then drop the shards it no longer needs."""
    if not all((folder / name).is_file() for name, _, _ in shards):
        return
    rows: list[Row] = []
    for name, images, _ in shards:
        rows += _manifest_rows(read_header(folder / name, key)["rows"], images, name)
    write_manifest(folder, rows)
    current = {name for name, _, _ in shards}
    for path in folder.glob("shard-*.safetensors"):
        if path.name not in current:
            path.unlink(missing_ok=True)


def _manifest_rows(rows: Sequence[Row], images: Sequence[ListedImage], shard: str) -> list[Row]:
    """A shard's rows with what is not the features' business: where the image lies, its label, and its place in the store."""
    out, index = [], 0
    for row, image in zip(rows, images, strict=True):
        usable = row["status"] == "ok"
        out.append(row | {"root": image.root, "label": image.label, "shard": shard, "row": index if usable else None})
        index += usable
    return out


def _kept(path: Path, key: str) -> Shard | None:
    """The shard as an earlier run left it; None where it is missing, damaged, or worth another try at files that could not be read."""
    if not path.is_file():
        return None
    try:
        shard = Shard.read(path, key)
    except StoreDamagedError:
        return None
    return None if any(str(row["reason"]).startswith("io-error") for row in shard.rows) else shard


class _EarlierRows:
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
        if shard is None:
            return None
        index = sum(row["status"] == "ok" for row in shard.rows[:position])
        patches = None if shard.feature_map is None else shard.patches(index)
        return shard.rows[position], shard.global_repr[index], patches

    def _read_index(self) -> dict[tuple[str, int, int], tuple[Path, int]]:
        index = {}
        for path in sorted(self._folder.glob("shard-*.safetensors")):
            try:
                rows = read_header(path, self._key)["rows"]
            except StoreDamagedError:
                continue
            for position, row in enumerate(rows):
                if row["status"] == "ok" and (
                    path.name not in self._current or any(str(r["reason"]).startswith("io-error") for r in rows)
                ):
                    index[row["path"], row["size"], row["mtime_ns"]] = (path, position)
        return index


@contextlib.contextmanager
def _decoders(workers: int | None) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(pool: ThreadPoolExecutor, work: Callable[[_T], _R], items: Iterable[_T], window: int) -> Iterator[_R]:
    """`pool.map` that holds at most `window` results: decoding stays just ahead of the encoder, in order."""
    waiting: deque[Future[_R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _encode_shard(
    plan: EncodingPlan,
    images: Sequence[ListedImage],
    facts: Sequence[tuple[int, int]],
    earlier: _EarlierRows,
    pool: ThreadPoolExecutor,
    strict: bool,
    advance: Callable[[int, int], None],
) -> Shard:
    """Decode and encode the images of one shard; batches never cross shards, so the result does not depend on where a run began."""
    rows: list[Row | None] = [None] * len(images)
    vectors: dict[int, Tensor] = {}
    patches: dict[int, Tensor] = {}
    todo = []
    for i, (image, fact) in enumerate(zip(images, facts, strict=True)):
        known = earlier.find(image.name, fact)
        if known is None:
            todo.append(i)
            continue
        rows[i], vectors[i] = known[0], known[1]
        if known[2] is not None:
            patches[i] = known[2]

    buckets: dict[tuple[int, int], list[tuple[int, UInt8[np.ndarray, "h w 3"]]]] = {}

    def flush(bucket: list[tuple[int, UInt8[np.ndarray, "h w 3"]]]) -> None:
        features = _forward(plan, np.stack([pixels for _, pixels in bucket]))
        for (i, _), vector, tokens in zip(bucket, features.global_repr, features.feature_map, strict=True):
            vectors[i] = vector.to("cpu", torch.float32)
            if plan.keep == "patches":
                patches[i] = tokens.flatten(0, 1).to("cpu", torch.float16)
        bucket.clear()

    def prepare(i: int) -> tuple[int, Row, UInt8[np.ndarray, "h w 3"] | None]:
        row, pixels = _prepare(plan, images[i], facts[i])
        return i, row, pixels

    bad = 0
    for finished, (i, row, pixels) in enumerate(_ahead(pool, prepare, todo, window=64), start=1):
        rows[i] = row
        if pixels is None:
            if strict:
                reason, _, detail = row["reason"].partition(": ")
                raise ImageError(reason, f"{detail} ({images[i].path})")
            bad += 1
        else:
            frame = Frame.from_json(row["frame"])
            bucket = buckets.setdefault(frame.grid, [])
            bucket.append((i, pixels))
            if len(bucket) * frame.grid[0] * frame.grid[1] >= BATCH_PATCHES:
                flush(bucket)
        advance(len(images) - len(todo) + finished - sum(map(len, buckets.values())), bad)
    for grid in sorted(buckets):
        if buckets[grid]:
            flush(buckets[grid])
    order = sorted(vectors)
    stacked = torch.stack([vectors[i] for i in order]) if order else torch.zeros(0, plan.encoder.embed_dim)
    maps = None
    if plan.keep == "patches":
        maps = (
            torch.cat([patches[i] for i in order])
            if order
            else torch.zeros(0, plan.encoder.embed_dim, dtype=torch.float16)
        )
    return Shard([row for row in rows if row is not None], stacked, maps)


def _prepare(
    plan: EncodingPlan, image: ListedImage, fact: tuple[int, int]
) -> tuple[Row, UInt8[np.ndarray, "h w 3"] | None]:
    """Read, decode and resize one image; never raises for what is wrong with the image."""
    row: Row = {"path": image.name, "size": fact[0], "mtime_ns": fact[1], "sha256": None, "note": None, "frame": None}
    try:
        data = read_bytes(image.path)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        rgb, row["note"] = decode(data)
        frame = plan.frame(rgb.shape[1], rgb.shape[0])
        pixels = resample(rgb, frame)
    except ImageError as error:
        return row | {"status": "skipped", "reason": str(error)}, None
    return row | {"status": "ok", "reason": None, "frame": frame.to_json()}, pixels


def _forward(plan: EncodingPlan, pixels: UInt8[np.ndarray, "b h w 3"]) -> Features:
    device = getattr(plan.encoder, "device", torch.device("cpu"))
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255)
    mean = torch.tensor(plan.preprocessing.mean, device=device).view(3, 1, 1)
    std = torch.tensor(plan.preprocessing.std, device=device).view(3, 1, 1)
    features: Features = plan.encoder((images - mean) / std)
    if not bool(torch.isfinite(features.global_repr).all()):
        raise FewmatchError(f"{plan.encoder.name} gave features that are not finite: try --dtype float32")
    return features
