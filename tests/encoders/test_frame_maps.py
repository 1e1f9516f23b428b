"""Frames of videos through an encoder: the numbers of a store, in order, with few frames in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import encode_images, load
from fewmatch.encoders import frame_maps as module
from fewmatch.encoders.features import Encoder
from fewmatch.encoders.frame_maps import EncodedFrame, encode_frames, plan_frames
from fewmatch.encoders.listing import ListedImage
from fewmatch.encoders.store.plan import plan_encoding
from fewmatch.encoders.video import VideoFrame, read_frames
from fewmatch.errors import FewmatchError, ImageError, InputError

RNG = np.random.default_rng(7)


def made_up(count: int, width: int = 41, height: int = 30, seed: int = 0) -> list[VideoFrame]:
    rng = np.random.default_rng(seed)
    return [
        VideoFrame(3 * i, f"v_frame{3 * i:05d}", rng.integers(0, 256, (height, width, 3), np.uint8))
        for i in range(count)
    ]


def same_as_store(
    found: list[EncodedFrame], folder: Path, encoder: Encoder, tolerance: float, **options: object
) -> None:
    """What `encode_images` gives for picture files of the same pixels."""
    folder.mkdir()
    for number, encoded in enumerate(found):
        Image.fromarray(encoded.source.rgb).save(folder / f"{number:05d}.png")
    store = encode_images([folder], encoder, out=folder / "store", keep="patches", **options)  # type: ignore[arg-type]
    assert len(store.images) == len(found)
    for i, encoded in enumerate(found):
        assert encoded.frame == store.frame(i)
        assert encoded.feature_map.dtype == encoded.global_repr.dtype == np.float32
        expected = store.feature_map(i)
        assert encoded.feature_map.shape == expected.shape
        assert np.abs(encoded.feature_map - expected).max() <= tolerance * np.abs(expected).max()
        vectors = store.global_repr()[i]
        assert np.abs(encoded.global_repr - vectors).max() <= tolerance * np.abs(vectors).max()


@pytest.mark.parametrize("resize", ["keep", "crop", "pad", "squash"])
@pytest.mark.parametrize("size", [None, 24])
def test_the_numbers_are_those_of_a_store(tmp_path: Path, resize: str, size: int | None) -> None:
    encoder = PatchLocalEncoder(seed=1)
    frames = made_up(5, 53, 30)
    found = list(encode_frames(frames, plan_frames("v.avi", encoder, size=size, resize=resize)))
    assert [encoded.source for encoded in found] == frames
    same_as_store(found, tmp_path / "pictures", encoder, 0.0, size=size, resize=resize)


def test_a_video_file_gives_the_numbers_of_its_frames_as_pictures(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(9):
        writer.write(cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (64, 48)))
    writer.release()
    encoder = load("mini", device="cpu", dtype="float32")
    found = list(encode_frames(read_frames(path, every=2), plan_frames(path, encoder, size=64)))
    assert [encoded.source.index for encoded in found] == [0, 2, 4, 6, 8]
    same_as_store(found, tmp_path / "pictures", encoder, 1e-3, size=64)  # as float16, with other batches


def test_frames_of_several_sizes_stay_in_order(tmp_path: Path) -> None:
    encoder = PatchLocalEncoder(seed=2)
    shapes = [(40, 30), (40, 30), (30, 50), (40, 30), (61, 20), (61, 20)]
    frames = [made_up(1, w, h, seed=i)[0] for i, (w, h) in enumerate(shapes)]
    found = list(encode_frames(frames, plan_frames("v.avi", encoder)))
    assert [(e.source.rgb.shape[1], e.source.rgb.shape[0]) for e in found] == shapes
    assert [(e.frame.width, e.frame.height) for e in found] == shapes
    same_as_store(found, tmp_path / "pictures", encoder, 0.0)


def test_no_frames_give_nothing_and_one_gives_one() -> None:
    plan = plan_frames("v.avi", PatchLocalEncoder())
    assert list(encode_frames([], plan)) == []
    assert len(list(encode_frames(made_up(1), plan))) == 1


def test_batches_are_those_of_a_store_and_few_frames_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the video is: what is read ahead and not yet given out is bounded by the batch."""
    encoder = PatchLocalEncoder()
    sizes: list[int] = []
    forward = module.forward_batch

    def counted(plan: object, pixels: np.ndarray) -> object:
        sizes.append(len(pixels))
        return forward(plan, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "forward_batch", counted)
    monkeypatch.setattr(module, "batch_patches", lambda encoder: 70)
    read, given, most = 0, 0, 0

    def source() -> Iterator[VideoFrame]:
        nonlocal read, most
        for frame in made_up(40, 40, 40):
            read += 1
            most = max(most, read - given)
            yield frame

    for _ in encode_frames(source(), plan_frames("v.avi", encoder)):
        given += 1
    assert given == read == 40
    assert sizes == [5] * 8  # 16 patches each, and 70 of them make a batch full
    assert most <= 5 + 5 + 2


def test_large_frames_make_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = PatchLocalEncoder()
    sizes: list[int] = []
    forward = module.forward_batch

    def counted(plan: object, pixels: np.ndarray) -> object:
        sizes.append(len(pixels))
        return forward(plan, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "forward_batch", counted)
    monkeypatch.setattr(module, "HELD_BYTES", 2 * 3 * made_up(1)[0].rgb.nbytes + 1)
    assert len(list(encode_frames(made_up(7), plan_frames("v.avi", encoder)))) == 7
    assert sizes == [3, 3, 1]
    monkeypatch.setattr(module, "HELD_BYTES", 0)
    sizes.clear()
    assert len(list(encode_frames(made_up(2), plan_frames("v.avi", encoder)))) == 2
    assert sizes == [1, 1]


def test_ending_early_closes_the_source_and_leaves_no_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[VideoFrame]:
        try:
            while True:
                yield made_up(1)[0]
        finally:
            closed.set()

    before, frames = threading.active_count(), source()  # named here, or it would be closed as soon as nobody holds it
    encoded = encode_frames(frames, plan_frames("v.avi", PatchLocalEncoder()), workers=2)
    next(encoded)
    encoded.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert threading.active_count() == before


def test_what_the_frames_raise_arrives_after_those_before_it() -> None:
    def source() -> Iterator[VideoFrame]:
        yield from made_up(2)
        raise InputError("no further")

    encoder = PatchLocalEncoder()
    with pytest.raises(InputError, match="no further"):
        list(encode_frames(source(), plan_frames("v.avi", encoder)))


def test_faults_are_named() -> None:
    encoder = PatchLocalEncoder()
    with pytest.raises(InputError, match="no resize rule called stretch"):
        plan_frames("v.avi", encoder, resize="stretch")
    with pytest.raises(InputError, match="size 18 is not a multiple"):
        plan_frames("v.avi", encoder, size=18)
    with pytest.raises(ImageError, match="too-elongated"):
        list(encode_frames(made_up(1, 40_000, 1), plan_frames("v.avi", encoder)))
    with pytest.raises(InputError, match="expected a plan that keeps patches"):
        list(encode_frames(made_up(1), plan_encoding([ListedImage(Path("v.avi"), "v.avi")], encoder)))
    lying = PatchLocalEncoder()
    lying.embed_dim = 5
    with pytest.raises(FewmatchError, match="expected"):
        list(encode_frames(made_up(1), plan_frames("v.avi", lying)))


def test_the_key_says_what_with() -> None:
    key = plan_frames("v.avi", PatchLocalEncoder(), size=24, resize="pad").key
    assert key["keep"] == "patches" and key["encoder"]["name"] == "patch-local"
    assert key["preprocessing"]["dense"] == 24 and key["preprocessing"]["rule"] == "pad"
