"""Runs that are killed, stopped, crowded or out of room: what is done is kept, and the next run ends where an undisturbed one does."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from patch_local import PatchLocalEncoder, encode_with_home

from fewmatch.encoders import FeatureStore, encode_images
from fewmatch.encoders.store.encode import encode_shards
from fewmatch.encoders.store.plan import plan_encoding
from fewmatch.encoders.store.store import META
from fewmatch.errors import FewmatchError, InputError, OutputExistsError

Contents = Callable[[Path], dict[str, bytes]]
Picture = Callable[..., Path]

IMAGES, SHARDS = 12, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> Path:
    """Twelve pictures, so four shards of three."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(IMAGES):
        picture(folder / "ab"[i % 2] / f"{i:02d}.png", i)
    return folder


def encode(folder: Path, out: Path, encoder: PatchLocalEncoder | None = None, **options: Any) -> FeatureStore:
    return encode_images([folder], encoder or PatchLocalEncoder(), out=out, shard_images=3, workers=2, **options)


@pytest.fixture(scope="module", params=["global", "patches"])
def undisturbed(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, contents: Contents, request: pytest.FixtureRequest
) -> tuple[Any, dict[str, bytes]]:
    """What is kept, and the files of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("undisturbed")
    encode(folder, out, keep=request.param)
    return request.param, contents(out)


def temporary(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name.endswith(".tmp")]


class Disturbed(PatchLocalEncoder):
    """Calls `disturb` before the batch with this number, counted from 1."""

    def __init__(self, batch: int, disturb: Callable[[], object]) -> None:
        super().__init__()
        self.batches, self.batch, self.disturb = 0, batch, disturb

    def __call__(self, images: Any) -> Any:
        self.batches += 1
        if self.batches == self.batch:
            self.disturb()
        return super().__call__(images)


# Stopped from outside, in this process.


@pytest.fixture
def terminating() -> Iterator[None]:
    """SIGTERM as the command line takes it: an ordinary exit."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.usefixtures("terminating")
@pytest.mark.parametrize(
    ("number", "stop", "batch"),
    [(*signalled, batch) for signalled, batch in zip(SIGNALS * 2, (1, 2, 3, SHARDS), strict=True)],
)
def test_a_signal_while_encoding_keeps_whole_shards_and_nothing_else(
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    contents: Contents,
    number: int,
    stop: type[BaseException],
    batch: int,
) -> None:
    keep, wanted = undisturbed
    with pytest.raises(stop):
        encode(folder, tmp_path / "out", Disturbed(batch, lambda: signal.raise_signal(number)), keep=keep)
    left = contents(tmp_path / "out")
    assert len(left) == batch and left.items() <= wanted.items()  # meta.json, and the shards before
    with pytest.raises(InputError, match="is unfinished"):
        FeatureStore.open(tmp_path / "out")
    encoder = PatchLocalEncoder()
    encode(folder, tmp_path / "out", encoder, keep=keep)
    assert encoder.images_seen == IMAGES - 3 * (batch - 1) and contents(tmp_path / "out") == wanted


def on_call(monkeypatch: pytest.MonkeyPatch, name: str, number: int, act: Callable[[], object], *, after: bool) -> None:
    """Do something before or after one call of a function of `os`; later calls are as usual."""
    original, calls = getattr(os, name), []

    def wrapped(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number and not after:
            act()
        result = original(*arguments)
        if len(calls) == number and after:
            act()
        return result

    monkeypatch.setattr(os, name, wrapped)


WRITES = 1 + SHARDS + 2  # meta.json, the shards, the manifest and its checksum


@pytest.mark.usefixtures("terminating")
@pytest.mark.parametrize(
    ("write", "function", "after", "number", "stop"),
    [  # each file before and after each step; the signals in turn, so that each meets every step and every file
        (write, *step, *SIGNALS[(i + j) % 2])
        for i, write in enumerate([1, 2, 4, WRITES])
        for j, step in enumerate([("fsync", False), ("fsync", True), ("replace", False), ("replace", True)])
    ],
)
def test_a_signal_while_writing_leaves_no_temporary_file(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Any,
    contents: Contents,
    number: int,
    stop: type[BaseException],
    write: int,
    function: str,
    after: bool,
) -> None:
    keep, wanted = undisturbed
    with monkeypatch.context() as patch:
        on_call(patch, function, write, lambda: signal.raise_signal(number), after=after)
        with pytest.raises(stop):
            encode(folder, tmp_path / "out", keep=keep)
    left = contents(tmp_path / "out")
    assert left.items() <= wanted.items() and len(left) == write - (0 if (function, after) == ("replace", True) else 1)
    encode(folder, tmp_path / "out", keep=keep)
    assert contents(tmp_path / "out") == wanted


class Crash(BaseException):
    """The machine stops here: nothing is tidied up."""


def crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    raise Crash


@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_around_any_rename_is_made_good(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Any,
    contents: Contents,
    write: int,
    after: bool,
) -> None:
    keep, wanted = undisturbed
    with monkeypatch.context() as patch:
        on_call(patch, "replace", write, lambda: crash(patch), after=after)
        with pytest.raises(Crash):
            encode(folder, tmp_path / "out", keep=keep)
    assert len(temporary(tmp_path / "out")) == (0 if after else 1)
    encode(folder, tmp_path / "out", keep=keep).verify()
    assert contents(tmp_path / "out") == wanted


@pytest.mark.parametrize("write", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_a_store_is_overwritten_never_mixes_two_keys(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Any,
    contents: Contents,
    write: int,
    after: bool,
) -> None:
    keep, wanted = undisturbed
    out = tmp_path / "out"
    encode(folder, out, keep=keep, size=32)
    with monkeypatch.context() as patch:
        on_call(patch, "replace", write, lambda: crash(patch), after=after)
        with pytest.raises(Crash):
            encode(folder, out, keep=keep, overwrite=True)
    with pytest.raises(InputError, match="is unfinished"):
        FeatureStore.open(out)
    if write == 1 and not after:  # the folder still belongs to the other key
        with pytest.raises(OutputExistsError, match="made differently"):
            encode(folder, out, keep=keep)
    encode(folder, out, keep=keep, overwrite=True)
    assert contents(out) == wanted


def test_a_crash_while_stale_shards_are_dropped_is_made_good(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    shutil.copytree(folder, tmp_path / "in")
    encode(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a" / "00.png").unlink()
    with monkeypatch.context() as patch:
        on_call(
            patch, "replace", SHARDS + 2, lambda: crash(patch), after=True
        )  # four new shards, the manifest and its checksum
        with pytest.raises(Crash):
            encode(tmp_path / "in", tmp_path / "out")
    assert (
        len(list(tmp_path.glob("out/shard-*"))) == 2 * SHARDS and len(FeatureStore.open(tmp_path / "out")) == IMAGES - 1
    )
    FeatureStore.open(tmp_path / "out").verify()
    encoder = PatchLocalEncoder()
    encode(tmp_path / "in", tmp_path / "out", encoder)
    encode(tmp_path / "in", tmp_path / "new")
    assert encoder.images_seen == 0 and contents(tmp_path / "out") == contents(tmp_path / "new")


# Out of room.


@pytest.mark.parametrize(
    ("write", "code"), [(1, errno.ENOSPC), (2, errno.EDQUOT), (4, errno.EIO), (WRITES, errno.ENOSPC)]
)
def test_a_full_disk_is_a_clear_error_and_keeps_what_was_done(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Any,
    contents: Contents,
    write: int,
    code: int,
) -> None:
    def full() -> None:
        raise OSError(code, os.strerror(code))

    keep, wanted = undisturbed
    with monkeypatch.context() as patch:
        on_call(patch, "fsync", write, full, after=False)
        with pytest.raises(
            FewmatchError, match=rf"out cannot be written \({os.strerror(code)}\): what is done is kept"
        ):
            encode(folder, tmp_path / "out", keep=keep)
    left = contents(tmp_path / "out")
    assert len(left) == write - 1 and left.items() <= wanted.items()
    encoder = PatchLocalEncoder()
    encode(folder, tmp_path / "out", encoder, keep=keep)
    assert encoder.images_seen == IMAGES - 3 * min(SHARDS, max(0, write - 2)) and contents(tmp_path / "out") == wanted


def test_a_disk_that_is_full_from_the_first_byte_on(folder: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    encode(folder, tmp_path / "out")
    before = sorted(path.name for path in tmp_path.glob("out/*"))
    (tmp_path / "out" / META).unlink()
    # A temporary file that is a full device: writing fails when the buffer is flushed, closing fails again.
    real = Path.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda self, mode="r", **_: real(Path("/dev/full") if mode == "xb" else self, mode.replace("x", "w")),
        )
        with pytest.raises(FewmatchError, match="No space left on device"):
            encode(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.glob("out/*")) == [name for name in before if name != META]


# Held locks.


def test_a_folder_that_another_run_writes_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(out)
    running = encode_shards(plan_encoding([folder], PatchLocalEncoder(), shard_images=3), out)
    next(running)
    for name in (out, tmp_path / "link", tmp_path / "here" / ".." / "out"):
        with pytest.raises(
            OutputExistsError, match=r"another process is writing .*: wait for it, or choose another folder"
        ):
            encode(folder, name)
    encode(folder, tmp_path / "other")
    running.close()  # gives the lock back
    assert len(encode(folder, out)) == IMAGES


def test_a_lock_is_given_back_after_an_error(folder: Path, tmp_path: Path) -> None:
    for problem in (KeyboardInterrupt, RuntimeError):

        def fail(problem: type[BaseException] = problem) -> None:
            raise problem

        with pytest.raises(problem):
            encode(folder, tmp_path / "out", Disturbed(2, fail))
    assert len(encode(folder, tmp_path / "out")) == IMAGES


def test_a_home_without_room_for_locks_is_a_clear_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "file"))
    with pytest.raises(
        FewmatchError, match=r"no lock can be made in .*: set FEWMATCH_HOME to a folder that can be written"
    ):
        encode(folder, tmp_path / "out")


def test_no_lock_file_lies_in_the_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    running = encode_shards(
        plan_encoding([folder], PatchLocalEncoder(), shard_images=3), tmp_path / "out", shard=(1, 2)
    )
    next(running)
    assert [path.suffix for path in tmp_path.glob("out/*")].count(".lock") == 0
    (lock,) = tmp_path.glob("home/locks/*")
    with pytest.raises(TimeoutError):
        FileLock(lock, timeout=0).acquire()
    assert len(encode(folder, tmp_path / "out", shard=(2, 2))) == IMAGES // 2  # another part of the same work
    list(running)
    assert len(FeatureStore.open(tmp_path / "out")) == IMAGES


@pytest.mark.parametrize("write", [1, 3, WRITES])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_second_run_in_the_middle_of_a_write_does_not_disturb_the_first(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: Any,
    contents: Contents,
    write: int,
    function: str,
) -> None:
    keep, wanted = undisturbed

    def another() -> None:
        with pytest.MonkeyPatch.context() as patch:  # with locks of its own, as on another machine that shares the disk
            patch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
            encode(folder, tmp_path / "out", keep=keep)

    on_call(monkeypatch, function, write, another, after=False)
    assert len(encode(folder, tmp_path / "out", keep=keep)) == IMAGES
    assert contents(tmp_path / "out") == wanted


# Processes of their own.


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that start in milliseconds: they are forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fewmatch.encoders.store.encode", "PIL.PngImagePlugin"])
    return context


#: Seconds that each shard of a process sleeps, so that there is time to disturb it even on a busy machine.
DELAY = 0.03


def start(processes: ForkServerContext, home: Path, folder: Path, out: Path, **options: Any) -> BaseProcess:
    process = processes.Process(
        target=encode_with_home,
        args=(str(home), [folder], PatchLocalEncoder(delay=DELAY)),
        kwargs={"out": out, "shard_images": 3, "workers": 2, **options},
    )
    process.start()
    return process


def waited_for(out: Path, shards: int) -> None:
    """Return when the store has so many shards, or at least its meta.json."""
    deadline = time.monotonic() + 60
    while not ((out / META).exists() and len(list(out.glob("shard-*"))) >= shards) and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_a_store_is_that_of_an_undisturbed_run(
    processes: ForkServerContext,
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    contents: Contents,
) -> None:
    keep, wanted = undisturbed
    moments = random.Random(20)
    left = []
    for run in range(10):
        out = tmp_path / str(run)
        process = start(processes, tmp_path / "home", folder, out, keep=keep)
        if run >= 2:  # the first two are killed early, perhaps before they have written anything
            waited_for(out, run % SHARDS)
        time.sleep(moments.uniform(0, 1.5 * DELAY))
        process.kill()
        process.join(60)
        left.append(len(list(out.glob("shard-*"))))
        encode(folder, out, keep=keep).verify()
        assert contents(out) == wanted
    assert len({count for count in left if count < SHARDS}) >= 3  # the moments lay in different parts of the work


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_process_that_is_told_to_stop_leaves_a_store_that_can_be_finished(
    processes: ForkServerContext,
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    contents: Contents,
    number: int,
    code: int,
) -> None:
    keep, wanted = undisturbed
    process = start(processes, tmp_path / "home", folder, tmp_path / "out", keep=keep)
    waited_for(tmp_path / "out", 2)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    if number == signal.SIGINT:
        assert temporary(tmp_path / "out") == []
    encode(folder, tmp_path / "out", keep=keep)
    assert contents(tmp_path / "out") == wanted


@pytest.mark.slow
@pytest.mark.parametrize("lag", [0.0, 0.05])
def test_two_processes_whose_locks_do_nothing_make_the_same_store(
    processes: ForkServerContext,
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    contents: Contents,
    lag: float,
) -> None:
    keep, wanted = undisturbed
    # Each with locks of its own, as on two machines that share a disk.
    first = start(processes, tmp_path / "home1", folder, tmp_path / "out", keep=keep)
    time.sleep(lag)
    second = start(processes, tmp_path / "home2", folder, tmp_path / "out", keep=keep)
    first.join(60)
    second.join(60)
    assert (first.exitcode, second.exitcode) == (0, 0)
    assert contents(tmp_path / "out") == wanted


@pytest.mark.slow
def test_of_two_processes_with_locks_one_waits_for_nothing_and_one_is_refused(
    processes: ForkServerContext,
    folder: Path,
    tmp_path: Path,
    undisturbed: Any,
    contents: Contents,
    capfd: pytest.CaptureFixture[str],
) -> None:
    keep, wanted = undisturbed
    first = start(processes, tmp_path / "home", folder, tmp_path / "out", keep=keep)
    second = start(processes, tmp_path / "home", folder, tmp_path / "out", keep=keep)
    first.join(60)
    second.join(60)
    assert sorted([first.exitcode, second.exitcode]) == [0, 1]
    assert contents(tmp_path / "out") == wanted


@pytest.mark.slow
def test_parts_in_processes_at_the_same_time_make_the_undivided_store(
    processes: ForkServerContext, folder: Path, tmp_path: Path, undisturbed: Any, contents: Contents
) -> None:
    keep, wanted = undisturbed
    parts = [start(processes, tmp_path / "home", folder, tmp_path / "out", keep=keep, shard=(i, 3)) for i in (1, 2, 3)]
    for part in parts:
        part.join(60)
    assert [part.exitcode for part in parts] == [0, 0, 0]
    assert contents(tmp_path / "out") == wanted


def test_the_cache_waits_for_another_process(
    processes: ForkServerContext, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path))
    process = start(processes, tmp_path, folder, None)  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("features/*/shard-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    encoder = PatchLocalEncoder()
    store = encode_images([folder], encoder, shard_images=3)
    process.join(60)
    assert process.exitcode == 0 and len(store) == IMAGES and encoder.images_seen == 0
