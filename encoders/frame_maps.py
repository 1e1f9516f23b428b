"""Frames of a video through an encoder, a batch at a time and without a store: memory stays the same however long the video is."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from fewmatch.encoders.devices import batch_patches
from fewmatch.encoders.features import Encoder
from fewmatch.encoders.frame import Frame, resample
from fewmatch.encoders.listing import ListedImage
from fewmatch.encoders.store.encode import forward_batch
from fewmatch.encoders.store.plan import EncodingPlan, plan_encoding
from fewmatch.encoders.video import VideoFrame
from fewmatch.errors import InputError

#: At most as many bytes of decoded frames are held: half of them in the batch that is collected, half ahead of it.
HELD_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame with its features.

    source: the frame itself, with its index, name and pixels. frame: its geometry, between its pixels and its patches.
    global_repr: (D,) float32. feature_map: (h, w, D) float32, rounded to float16 as a store keeps it.
    """

    source: VideoFrame
    frame: Frame
    global_repr: Float[np.ndarray, "d"]
    feature_map: Float[np.ndarray, "h w d"]


def plan_frames(
    path: str | os.PathLike[str], encoder: Encoder, *, size: int | None = None, resize: str = "keep"
) -> EncodingPlan:
    """How the frames of a video are encoded: as `encode_images` does it with `keep="patches"`. Its `key` says what with.

    Raises:
        InputError: `size` does not fit the encoder's patches, or the resize rule is unknown.
    """
    video = ListedImage(Path(path), Path(path).name)
    return plan_encoding([video], encoder, keep="patches", size=size, resize=resize)


def encode_frames(
    frames: Iterable[VideoFrame], plan: EncodingPlan, *, workers: int | None = None
) -> Generator[EncodedFrame, None, None]:
    """Each frame with its features, in order: those that `encode_images` gives for a picture file of the same pixels (to the rounding
    that goes with the number of images in a batch).

    Frames are read and resized ahead of the encoder, in threads of their own. Close the iterator to end before they do.

    Args:
        frames: such as `read_frames` gives. plan: by `plan_frames`.
        workers: resizing threads; None is one per core.

    Raises:
        InputError: the plan keeps no patches; and what the frames themselves raise.
        ImageError: a frame's shape would make too many patches.
        FewmatchError: the encoder's output is not as it should be, or there is not enough memory for one frame.
    """
    batch: list[_Prepared] = []
    limit = 1
    source = iter(frames)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        ahead = _ahead(source, plan, reader, pool)
        try:
            for prepared in ahead:
                if batch and batch[0].frame.grid != prepared.frame.grid:
                    yield from _encoded(batch, plan)
                    batch = []
                if not batch:
                    limit = _per_batch(prepared, plan)
                batch.append(prepared)
                if len(batch) >= limit:
                    yield from _encoded(batch, plan)
                    batch = []
            if batch:
                yield from _encoded(batch, plan)
        finally:
            ahead.close()


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A frame on its way to the encoder, with the pixels that it gets."""

    source: VideoFrame
    frame: Frame
    pixels: UInt8[np.ndarray, "h w 3"]


def _per_batch(first: _Prepared, plan: EncodingPlan) -> int:
    """How many frames like this one make a batch: as many as in a store, unless the frames are so large that fewer must be held."""
    patches = first.frame.grid[0] * first.frame.grid[1]
    held = HELD_BYTES // 2 // first.source.rgb.nbytes
    return max(1, min(math.ceil(batch_patches(plan.encoder) / patches), held))


def _prepare(plan: EncodingPlan, source: VideoFrame) -> _Prepared:
    frame = plan.frame(source.rgb.shape[1], source.rgb.shape[0])
    pixels = resample(source.rgb, frame, plan.fill, interpolation=plan.preprocessing.interpolation)
    return _Prepared(source, frame, pixels)


def _ahead(
    source: Iterator[VideoFrame], plan: EncodingPlan, reader: ThreadPoolExecutor, pool: ThreadPoolExecutor
) -> Generator[_Prepared, None, None]:
    """The prepared frames in order. One thread reads them, as a video cannot be read by two, and others resize them meanwhile."""

    def step() -> Future[_Prepared] | None:
        read = next(source, None)
        return None if read is None else pool.submit(_prepare, plan, read)

    window = 1
    waiting: deque[Future[Future[_Prepared] | None]] = deque()
    try:
        while True:
            while len(waiting) < window:
                waiting.append(reader.submit(step))
            resized = waiting.popleft().result()
            if resized is None:
                return
            prepared = resized.result()
            window = _per_batch(prepared, plan)
            yield prepared
    finally:
        for future in waiting:
            future.cancel()
        # The last step may still be reading: a generator cannot be closed from here while it runs there.
        reader.submit(getattr(source, "close", lambda: None)).result()


def _encoded(batch: list[_Prepared], plan: EncodingPlan) -> Iterator[EncodedFrame]:
    vectors, patches = forward_batch(plan, np.stack([prepared.pixels for prepared in batch]))
    if patches is None:
        raise InputError("expected a plan that keeps patches, as plan_frames makes it")
    for i, prepared in enumerate(batch):
        h, w = prepared.frame.grid
        feature_map = patches[i].float().numpy().reshape(h, w, -1)
        yield EncodedFrame(prepared.source, prepared.frame, vectors[i].numpy(), feature_map)
