"""Frames of a video file, one after the other, as upright 8-bit RGB."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from fewmatch.errors import InputError

#: Which files are videos. FFmpeg would take nearly anything for one: a text becomes a film of its letters, a playlist a request.
VIDEO_EXTENSIONS = frozenset([".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"])


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame.

    index: its place in the video, counted from 0. name: `<stem of the file>_frame<index>`, the index with five digits or more.
    rgb: (H, W, 3) uint8, turned as the file says that it is to be shown.
    """

    index: int
    name: str
    rgb: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class VideoFacts:
    """What the header of a video says; not all headers are right.

    frames: how many there are; None where it does not say. rate: frames a second; None where it does not say.
    width, height: in pixels, as shown.
    """

    frames: int | None
    rate: float | None
    width: int
    height: int


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path is taken for a video, by its name."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def video_facts(path: str | os.PathLike[str]) -> VideoFacts:
    """What the header of a video says.

    Raises:
        InputError: the file is not there, or is no video that can be read.
    """
    capture = _open(Path(path))
    try:
        return _facts(capture)
    finally:
        capture.release()


def read_frames(
    path: str | os.PathLike[str],
    *,
    every: int = 1,
    start: int = 0,
    stop: int | None = None,
    note: Callable[[str], None] | None = None,
) -> Iterator[VideoFrame]:
    """The frames of a video with the indices `range(start, stop, every)`, read in order and none of them kept.

    Frames before and between are decoded too and passed over: looking for a frame by its number is not exact in most formats.

    Args:
        path: a file with one of `VIDEO_EXTENSIONS`.
        every: each how-many-th frame. start: the first. stop: the one before which to end; None is the end of the video.
        note: called with a sentence where the video ends before its header says, as one does that was cut off.

    Raises:
        InputError: the numbers do not fit, the file is not there or is no video that can be read (at once); or no frame can be read,
            or none from `start` on (when the first is asked for).
    """
    if every < 1 or start < 0 or (stop is not None and stop <= start):
        until = "the end" if stop is None else stop
        raise InputError(f"no frames {start} to {until} by {every}: expected start ≥ 0, stop > start and every ≥ 1")
    return _frames(Path(path), _open(Path(path)), every, start, stop, note)


def _frames(
    path: Path,
    capture: cv2.VideoCapture,
    every: int,
    start: int,
    stop: int | None,
    note: Callable[[str], None] | None,
) -> Iterator[VideoFrame]:
    announced = _facts(capture).frames
    index = 0
    try:
        while stop is None or index < stop:
            if not capture.grab():
                break
            if index >= start and (index - start) % every == 0:
                read, bgr = capture.retrieve()
                if not read:
                    break
                if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8:
                    raise InputError(f"{path}: expected frames of 8-bit colour, got {bgr.dtype} {bgr.shape}")
                yield VideoFrame(index, f"{path.stem}_frame{index:05d}", cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise InputError(f"{path}: no frame can be read: the file is damaged, or in a coding that OpenCV does not know")
    if index <= start:
        raise InputError(f"{path} has {index} frames that can be read, so none from {start} on: give a smaller start")
    if note is not None and announced is not None and index < min(announced, stop or announced):
        note(f"{path} ends after {index} frames, where its header says {announced}: it may be cut off or damaged")


def _open(path: Path) -> cv2.VideoCapture:
    if not is_video(path):
        raise InputError(f"{path} is no video by its name: expected one of {', '.join(sorted(VIDEO_EXTENSIONS))}")
    if not os.path.isfile(path):
        raise InputError(f"no video file {path}")
    try:
        name = os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the name of {path!r} is not UTF-8, which OpenCV cannot open: rename the file") from error
    # FFmpeg comes with OpenCV's wheels. Others might take a name such as img_001.avi for a series of pictures.
    ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends()
    # What it says on stderr would stand beside our own line. It looks at this variable once, when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _silent():
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG if ffmpeg else cv2.CAP_ANY)
    if not capture.isOpened():
        capture.release()
        raise InputError(
            f"{path} cannot be read as a video: the file is empty, damaged, or in a format that OpenCV does not know"
        )
    return capture


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without OpenCV's own warnings, of which one says that a backend could not open a file."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _facts(capture: cv2.VideoCapture) -> VideoFacts:
    frames, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return VideoFacts(
        frames=int(frames) if frames > 0 else None,
        rate=float(rate) if rate > 0 else None,
        width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
