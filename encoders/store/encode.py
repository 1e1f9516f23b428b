"""Images through an encoder into a feature store: resumable, splittable over processes, and computing nothing twice."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fewmatch.encoders.devices import batch_patches
from fewmatch.encoders.features import Encoder, Features
from fewmatch.encoders.frame import Frame, resample
from fewmatch.encoders.identity import FileState, key_digest, stride_of
from fewmatch.encoders.images import Decoded, decode_reduced, read_bytes
from fewmatch.encoders.listing import ListedImage
from fewmatch.encoders.store.lock import claim, locked, writing
from fewmatch.encoders.store.plan import EncodingPlan, cache_folder, plan_encoding
from fewmatch.encoders.store.resume import EarlierRows
from fewmatch.encoders.store.store import (
    SHARD_NAME,
    FeatureStore,
    Keep,
    Row,
    Shard,
    leftovers,
    read_header,
    worth_another_try,
    write_manifest,
)
from fewmatch.encoders.value_range import ValueRange
from fewmatch.errors import FewmatchError, ImageError, InputError, StoreDamagedError

#: Called with (images done, images in all, images skipped) after every batch.
Progress = Callable[[int, int, int], None]

#: As many images as these are decoded ahead of the encoder, or a batch of them if that is more; never more than the second number.
AHEAD = (64, 1024)

_T = TypeVar("_T")
_R = TypeVar("_R")


def encode_images(
    paths: Iterable[str | os.PathLike[str]] | Sequence[ListedImage],
    encoder: Encoder,
    *,
    out: str | os.PathLike[str] | None = None,
    keep: Keep = "global",
    size: int | None = None,
    resize: str = "keep",
    fast_decode: bool = False,
    crops: int = 1,
    mirror: bool = False,
    value_range: ValueRange = "full",
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    strict: bool = False,
    shard_images: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Encode images into a feature store, computing only what is not there yet.

    Features are computed again for files whose content changed, and for shards that are damaged. Contents are compared where size,
    time of change, time of the last change of the file's record (ctime) or inode differ. An image that cannot be used is recorded with
    its reason, and the run goes on.

    Args:
        paths: folders, image files and list files (see `list_images`), or their listing.
        encoder: anything with the `Encoder` contract.
        out: the store's folder; None keeps it in fewmatch's cache, where the same call finds it again.
        keep: `global` for one vector per image after the classification crop, `patches` for the whole feature map as well, after
            the resize for dense features.
        size: side of the crop, or with `patches` the side that `resize` speaks of, in pixels; None is the encoder's default.
        resize: with `patches`, one of `fewmatch.encoders.frame.RESIZE_RULES`: keep (all of the image in its shape, short side `size`), crop,
            pad or squash.
        fast_decode: decode JPEGs at 1/2, 1/4 or 1/8 of their size where that leaves two pixels or more for each one that the encoder
            gets. Features differ a little (docs/encoders.md), so they are kept apart; frames are those of the original images.
        crops: with `global`, how many crops of an image are averaged: 1, the centre; 5, and the corners; 10, and their mirror images.
        mirror: with `patches`, the encoder sees every picture with left and right exchanged. Maps and frames are brought back: their
            columns go from left to right of the original and their coordinates are its pixels. The vectors are of the mirrored picture.
        value_range: which values of images of more than 8 bits become black and white: `full`, all of 0 to 65,535; `auto`, the 0.1st
            and 99.9th percentile of each image; or the same two values for all images. Rows say which values were taken.
        shard: (i, n) does the i-th of n parts of the work, counted from 1; whoever finishes last completes the store.
        overwrite: drop what the folder holds of other images, or for another encoder or size; only files of a store are removed.
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
    plan = plan_encoding(
        paths,
        encoder,
        keep=keep,
        size=size,
        resize=resize,
        shard_images=shard_images,
        fast_decode=fast_decode,
        crops=crops,
        mirror=mirror,
        value_range=value_range,
    )
    folder = Path(out) if out is not None else cache_folder(plan)
    steps = _steps(plan, folder, shard, overwrite, strict, out is None, workers, progress)
    rows: list[Row] = []
    while True:
        try:
            rows += next(steps)[0]
        except StopIteration as end:
            finished = end.value
            break
    if finished:
        return FeatureStore.open(folder)
    if shard[1] == 1:
        raise FewmatchError(f"another process changed {folder} meanwhile: run this again when it has ended")
    return FeatureStore(folder, plan.key, rows, finished=False)


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
    yield from _steps(plan, folder, shard, overwrite, strict, wait, workers, progress)


def _steps(
    plan: EncodingPlan,
    folder: Path,
    shard: tuple[int, int],
    overwrite: bool,
    strict: bool,
    wait: bool,
    workers: int | None,
    progress: Progress | None,
) -> Generator[tuple[list[Row], Float[np.ndarray, "n d"]], None, bool]:
    """`encode_shards`; the generator's value says whether the store is finished now."""
    number, parts = shard
    if not 1 <= number <= parts:
        raise InputError(f"no part {number}/{parts}: expected i/n with i from 1 to n")
    with locked(folder, shard, wait):
        # The cache names its folders by key: whatever else such a folder holds is damage, and nobody could choose another one.
        claim(folder, plan, overwrite or folder == cache_folder(plan))
        return (yield from _run(plan, folder, number - 1, parts, strict, workers, progress))


def _run(
    plan: EncodingPlan,
    folder: Path,
    part: int,
    parts: int,
    strict: bool,
    workers: int | None,
    progress: Progress | None,
) -> Generator[tuple[list[Row], Float[np.ndarray, "n d"]], None, bool]:
    key = key_digest(plan.key)
    shards = plan.shards()
    mine = [shard for number, shard in enumerate(shards) if number % parts == part]
    with writing(folder):
        for leftover in leftovers(folder, part, parts):
            leftover.unlink(missing_ok=True)
    earlier = EarlierRows(folder, key, {name for name, _, _ in shards})
    total, done, skipped = sum(len(images) for _, images, _ in mine), 0, 0
    report = progress or (lambda *_: None)
    report(0, total, 0)
    with _decoders(workers) as pool:
        for name, images, states in mine:
            shard = kept = _kept(folder / name, key, images, states)
            if shard is None or worth_another_try(shard.rows):

                def advance(n: int, bad: int, done: int = done, skipped: int = skipped) -> None:
                    report(done + n, total, skipped + bad)

                shard = _encode_shard(plan, images, states, earlier, pool, strict, advance)
                if kept is None or kept.rows != shard.rows:
                    with writing(folder):
                        shard.write(folder / name, key)
            elif strict:
                _refuse_skipped(shard.rows, images)
            done += len(images)
            skipped += sum(row["status"] != "ok" for row in shard.rows)
            report(done, total, skipped)
            yield _manifest_rows(shard.rows, images, name), shard.global_repr.numpy()
    return _finish(folder, key, shards)


def _finish(folder: Path, key: str, shards: Sequence[tuple[str, list[ListedImage], list[FileState]]]) -> bool:
    """Write the manifest once every shard is there, then drop the shards it no longer needs. Returns whether it came to that."""
    rows: list[Row] = []
    for name, images, states in shards:
        try:
            kept = read_header(folder / name, key)["rows"]
        except StoreDamagedError:
            return False  # missing or damaged: the part of the work that it belongs to makes it anew
        if not _describe(kept, images, states):
            return False
        rows += _manifest_rows(kept, images, name)
    current = {name for name, _, _ in shards}
    with writing(folder):
        write_manifest(folder, rows)
        for path in folder.iterdir():
            if SHARD_NAME.fullmatch(path.name) and path.name not in current:
                path.unlink(missing_ok=True)
    return True


def _refuse_skipped(rows: Sequence[Row], images: Sequence[ListedImage]) -> None:
    """Raise for the first image that could not be used."""
    for row, image in zip(rows, images, strict=True):
        if row["status"] != "ok":
            reason, _, detail = row["reason"].partition(": ")
            raise ImageError(reason, f"{detail} ({image.path})")


def _manifest_rows(rows: Sequence[Row], images: Sequence[ListedImage], shard: str) -> list[Row]:
    """A shard's rows with what is not the features' business: where the image lies, its label, and its place in the store."""
    out, index = [], 0
    for row, image in zip(rows, images, strict=True):
        usable = row["status"] == "ok"
        out.append(row | {"root": image.root, "label": image.label, "shard": shard, "row": index if usable else None})
        index += usable
    return out


def _kept(path: Path, key: str, images: Sequence[ListedImage], states: Sequence[FileState]) -> Shard | None:
    """The shard as an earlier run left it; None where it is missing, damaged, or another one under this name."""
    try:
        shard = Shard.read(path, key)
    except StoreDamagedError:
        return None
    return shard if _describe(shard.rows, images, states) else None


def _describe(rows: Sequence[Row], images: Sequence[ListedImage], states: Sequence[FileState]) -> bool:
    """Whether a shard's rows are of these images in this state."""
    wanted = [(image.name, state) for image, state in zip(images, states, strict=True)]
    return [(row["path"], FileState.in_row(row)) for row in rows] == wanted


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
    states: Sequence[FileState],
    earlier: EarlierRows,
    pool: ThreadPoolExecutor,
    strict: bool,
    advance: Callable[[int, int], None],
) -> Shard:
    """Decode and encode the images of one shard; batches never cross shards, so the result does not depend on where a run began."""
    rows: list[Row | None] = [None] * len(images)
    vectors: dict[int, Tensor] = {}
    patches: dict[int, Tensor] = {}

    def reuse(i: int, content: str | None = None) -> bool:
        known = earlier.find(images[i].name, states[i], content)
        if known is None:
            return False
        rows[i], vectors[i] = known[0], known[1]
        if known[2] is not None:
            patches[i] = known[2]
        return True

    todo = [i for i in range(len(images)) if not reuse(i)]

    buckets: dict[tuple[int, int], list[tuple[int, UInt8[np.ndarray, "c h w 3"]]]] = {}

    def flush(bucket: list[tuple[int, UInt8[np.ndarray, "c h w 3"]]]) -> None:
        batch_vectors, batch_patches = forward_batch(plan, np.concatenate([pixels for _, pixels in bucket]))
        batch_vectors = batch_vectors.view(len(bucket), plan.crops, -1).mean(dim=1)
        for position, (i, _) in enumerate(bucket):
            vectors[i] = batch_vectors[position]
            if batch_patches is not None:
                patches[i] = batch_patches[position]
        bucket.clear()

    def prepare(i: int) -> tuple[int, Row, UInt8[np.ndarray, "c h w 3"] | None]:
        row, pixels = _prepare(plan, images[i], states[i], earlier.contents(images[i].name))
        return i, row, pixels

    most = batch_patches(plan.encoder)
    window = min(AHEAD[1], max(AHEAD[0], most // (plan.preprocessing.crop // plan.encoder.patch_size) ** 2))
    bad = 0
    for finished, (i, row, pixels) in enumerate(_ahead(pool, prepare, todo, window), start=1):
        if row["status"] == "known":
            if reuse(i, row["sha256"]):
                advance(len(images) - len(todo) + finished - sum(map(len, buckets.values())), bad)
                continue
            row, pixels = _prepare(plan, images[i], states[i])  # another process removed it meanwhile
        rows[i] = row
        if pixels is None:
            if strict:
                _refuse_skipped([row], [images[i]])
            bad += 1
        else:
            frame = Frame.from_json(row["frame"])
            bucket = buckets.setdefault(frame.grid, [])
            bucket.append((i, pixels))
            if len(bucket) * plan.crops * frame.grid[0] * frame.grid[1] >= most:
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
    plan: EncodingPlan, image: ListedImage, state: FileState, known: Collection[str] = ()
) -> tuple[Row, UInt8[np.ndarray, "c h w 3"] | None]:
    """Read, decode and resize one image, (crops, h, w, 3); never raises for what is wrong with the image.

    Where the SHA-256 of its content is among `known`, it is only read: its status is `known` then.
    """
    row: Row = {"path": image.name, **state._asdict(), "sha256": None, "note": None, "frame": None}
    try:
        data = read_bytes(image.path)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        if row["sha256"] in known:
            return row | {"status": "known", "reason": None}, None
        decoded = decode_reduced(data, plan.reduction, plan.value_range)
        row["note"] = decoded.note
        if decoded.values is not None:
            row["values"] = list(decoded.values)
        if plan.mirror:
            decoded = _mirrored(decoded)
        frame = plan.frame(decoded.width, decoded.height)
        crops = [
            resample(
                decoded.rgb,
                place,
                plan.fill,
                reduction=decoded.reduction,
                overhang=decoded.overhang,
                interpolation=plan.preprocessing.interpolation,
            )
            for place in (frame, *plan.other_frames(decoded.width, decoded.height))
        ]
        if plan.crops == 10:
            crops += [crop[:, ::-1] for crop in crops]
    except ImageError as error:
        return row | {"status": "skipped", "reason": str(error)}, None
    if plan.mirror:
        frame = frame.mirrored()
    return row | {"status": "ok", "reason": None, "frame": frame.to_json()}, np.stack(crops)


def _mirrored(decoded: Decoded) -> Decoded:
    """The picture with left and right exchanged: what its reduced pixels reach beyond it on the right, they then do on the left."""
    beyond = decoded.rgb.shape[1] * decoded.reduction - decoded.width
    left, top = decoded.overhang
    return dataclasses.replace(decoded, rgb=np.ascontiguousarray(decoded.rgb[:, ::-1]), overhang=(beyond - left, top))


def forward_batch(
    plan: EncodingPlan, pixels: UInt8[np.ndarray, "b h w 3"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p d"] | None]:
    """`_encode` a batch, in halves where the memory does not hold it whole; no image is lost for that.

    Raises:
        FewmatchError: a single image does not fit.
    """
    try:
        return _encode(plan, pixels)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        if len(pixels) == 1:
            raise FewmatchError(
                f"not enough memory to encode one image at {pixels.shape[2]}×{pixels.shape[1]} px: use a smaller --size"
            ) from error
    # Outside of the handler, whose traceback would hold on to the memory that is missing.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(pixels) // 2
    (vectors, patches), (more_vectors, more_patches) = (
        forward_batch(plan, pixels[:middle]),
        forward_batch(plan, pixels[middle:]),
    )
    joined = torch.cat([patches, more_patches]) if patches is not None and more_patches is not None else None
    return torch.cat([vectors, more_vectors]), joined


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On an accelerator a class of its own, on a CPU only words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


@torch.no_grad()
def _encode(
    plan: EncodingPlan, pixels: UInt8[np.ndarray, "b h w 3"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b p d"] | None]:
    """The vectors of a batch as float32 and, where they are kept, its patches as float16: copies, in main memory."""
    device = getattr(plan.encoder, "device", torch.device("cpu"))
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div(255)
    mean = torch.tensor(plan.preprocessing.mean, device=device).view(3, 1, 1)
    std = torch.tensor(plan.preprocessing.std, device=device).view(3, 1, 1)
    features: Features = plan.encoder((images - mean) / std)
    vectors = _checked(plan, "vectors", features.global_repr, len(pixels), plan.encoder.embed_dim)
    vectors = vectors.to("cpu", torch.float32, copy=True)
    if plan.keep == "global":
        return vectors, None
    patch, stride = plan.encoder.patch_size, stride_of(plan.encoder)
    grid = ((pixels.shape[1] - patch) // stride + 1, (pixels.shape[2] - patch) // stride + 1)
    patches = _checked(plan, "a feature map", features.feature_map, len(pixels), *grid, plan.encoder.embed_dim)
    patches = patches.flip(2) if plan.mirror else patches
    patches = patches.flatten(1, 2).to("cpu", torch.float16, copy=True)
    if not bool(torch.isfinite(patches).all()):
        raise FewmatchError(
            f"{plan.encoder.name} gave patches beyond float16, in which they are kept: try --keep global"
        )
    return vectors, patches


def _checked(plan: EncodingPlan, what: str, features: Tensor, *shape: int) -> Tensor:
    if tuple(features.shape) != shape:
        raise FewmatchError(f"{plan.encoder.name} gave {what} of shape {tuple(features.shape)}, expected {shape}")
    if not bool(torch.isfinite(features).all()):
        raise FewmatchError(f"{plan.encoder.name} gave features that are not finite: try --dtype float32")
    return features
