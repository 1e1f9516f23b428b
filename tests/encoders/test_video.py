"""Frames of videos: the right ones, in order, as RGB, none kept; and damaged files named."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewmatch.encoders.video import VIDEO_EXTENSIONS, is_video, read_frames, video_facts
from fewmatch.errors import InputError

WIDTH, HEIGHT, FRAMES, RATE = 64, 48, 23, 12.5


def write_video(path: Path, frames: int = FRAMES) -> Path:
    """Motion JPEG; frame i is a grey of 10·i with a red left and a blue right edge."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(frames):
        rgb = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
        rgb[:, :16], rgb[:, -16:] = (255, 0, 0), (0, 0, 255)
        writer.write(rgb[:, :, ::-1])
    writer.release()
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "mouse run.avi")


def naive(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        read, bgr = capture.read()
        if not read:
            return frames
        frames.append(bgr[:, :, ::-1].copy())


def test_every_frame_comes_in_order_as_rgb(video: Path) -> None:
    frames = list(read_frames(video))
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.name for frame in frames[:2]] == ["mouse run_frame00000", "mouse run_frame00001"]
    for frame, expected in zip(frames, naive(video), strict=True):
        assert frame.rgb.dtype == np.uint8 and np.array_equal(frame.rgb, expected)
        assert np.abs(frame.rgb[:, 24:40].astype(int) - 10 * frame.index).max() <= 3
        assert (frame.rgb[:, :8, 0] > 200).all() and (frame.rgb[:, :8, 2] < 60).all()  # red is the first channel
        assert (frame.rgb[:, -8:, 2] > 200).all() and (frame.rgb[:, -8:, 0] < 60).all()


@pytest.mark.parametrize(
    ("every", "start", "stop"),
    [
        (1, 0, 5),
        (1, 7, None),
        (3, 0, None),
        (4, 5, 18),
        (FRAMES, 0, None),
        (1, FRAMES - 1, None),
        (2, 3, 4),
        (5, 0, 1000),
    ],
)
def test_every_start_and_stop_choose_as_range_does(video: Path, every: int, start: int, stop: int | None) -> None:
    expected = naive(video)
    frames = list(read_frames(video, every=every, start=start, stop=stop))
    assert [frame.index for frame in frames] == list(range(FRAMES))[start:stop:every]
    for frame in frames:
        assert np.array_equal(frame.rgb, expected[frame.index])


@pytest.mark.parametrize(
    ("every", "start", "stop"), [(0, 0, None), (-1, 0, None), (1, -1, None), (1, 3, 3), (1, 4, 2), (1, 0, 0)]
)
def test_numbers_that_do_not_fit_are_refused_at_once(video: Path, every: int, start: int, stop: int | None) -> None:
    with pytest.raises(InputError, match=r"no frames .* expected start ≥ 0"):
        read_frames(video, every=every, start=start, stop=stop)


def test_the_header_is_told(video: Path) -> None:
    facts = video_facts(video)
    assert (facts.frames, facts.rate, facts.width, facts.height) == (FRAMES, RATE, WIDTH, HEIGHT)


def test_a_start_behind_the_end_is_named(video: Path) -> None:
    with pytest.raises(InputError, match=f"has {FRAMES} frames that can be read, so none from {FRAMES} on"):
        list(read_frames(video, start=FRAMES))


def test_nothing_is_noted_of_a_whole_video(video: Path) -> None:
    notes: list[str] = []
    list(read_frames(video, note=notes.append))
    list(read_frames(video, stop=4, note=notes.append))
    assert notes == []


def test_a_video_cut_off_gives_what_is_there_and_says_so(tmp_path: Path, video: Path) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[:-4000])
    notes: list[str] = []
    frames = list(read_frames(cut, note=notes.append))
    assert 0 < len(frames) < FRAMES
    for frame, expected in zip(frames, naive(video), strict=False):
        assert np.array_equal(frame.rgb, expected)
    assert notes == [
        f"{cut} ends after {len(frames)} frames, where its header says {FRAMES}: it may be cut off or damaged"
    ]
    list(read_frames(cut, stop=len(frames), note=notes.append))
    assert len(notes) == 1  # as many as were asked for


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, b"RIFF\0\0\0\0AVI LIST", b"\0" * 5000])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.avi").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.avi cannot be read as a video"):
        read_frames(tmp_path / "broken.avi")
    with pytest.raises(InputError, match=r"broken\.avi cannot be read as a video"):
        video_facts(tmp_path / "broken.avi")


def test_a_video_without_a_frame_is_named(tmp_path: Path) -> None:
    empty = write_video(tmp_path / "empty.avi", frames=0)
    with pytest.raises(InputError, match=r"empty\.avi"):
        list(read_frames(empty))


def test_a_header_without_its_frames_is_named(tmp_path: Path, video: Path) -> None:
    content = video.read_bytes()
    (tmp_path / "head.avi").write_bytes(content[: content.index(b"movi") + 4])
    with pytest.raises(InputError, match=r"head\.avi: no frame can be read|head\.avi cannot be read"):
        list(read_frames(tmp_path / "head.avi"))


def test_other_files_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello")  # FFmpeg would make a film of it
    with pytest.raises(InputError, match=r"text\.txt is no video by its name: expected one of \.avi"):
        read_frames(tmp_path / "text.txt")
    with pytest.raises(InputError, match="no video file"):
        read_frames(tmp_path / "missing.avi")
    (tmp_path / "folder.avi").mkdir()
    with pytest.raises(InputError, match="no video file"):
        read_frames(tmp_path / "folder.avi")
    assert is_video("a/B.MP4") and not is_video("a.png") and not is_video("mp4")
    assert {".mp4", ".avi", ".mov", ".mkv", ".webm"} <= VIDEO_EXTENSIONS


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist on Linux alone")
def test_names_of_any_script_are_read_and_those_that_are_no_text_refused(tmp_path: Path, video: Path) -> None:
    (tmp_path / "мышь 🐁.avi").write_bytes(video.read_bytes())
    assert next(read_frames(tmp_path / "мышь 🐁.avi")).name == "мышь 🐁_frame00000"
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi")
    Path(bad).write_bytes(video.read_bytes())
    with pytest.raises(InputError, match="not UTF-8, which OpenCV cannot open: rename"):
        read_frames(bad)


def test_a_name_with_a_pattern_is_one_file(tmp_path: Path, video: Path) -> None:
    for name in ("take_%02d.avi", "take_01.avi"):
        (tmp_path / name).write_bytes(video.read_bytes())
        assert len(list(read_frames(tmp_path / name))) == FRAMES


def test_no_frame_is_kept(video: Path) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    for frame in read_frames(video):
        alive.append(weakref.ref(frame.rgb))
        assert sum(reference() is not None for reference in alive) <= 2  # this one, and the last one until now


def test_opencv_says_nothing_beside_us(tmp_path: Path, video: Path) -> None:
    """Its libraries write to stderr themselves, so in a process of its own; and its level of logging is as before."""
    cut, broken = tmp_path / "cut.avi", tmp_path / "broken.avi"
    cut.write_bytes(video.read_bytes()[:-4000])
    broken.write_bytes(b"\0" * 500)
    script = (
        "import sys, cv2\n"
        "from fewmatch.encoders.video import read_frames\n"
        "before = cv2.utils.logging.getLogLevel()\n"
        "print(len(list(read_frames(sys.argv[1]))) > 0)\n"
        "try: read_frames(sys.argv[2])\n"
        "except ValueError: print(cv2.utils.logging.getLogLevel() == before)\n"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(cut), str(broken)], capture_output=True, text=True, check=True, cwd=root
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")
