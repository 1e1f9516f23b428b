"""Fast decoding: how far the pixels are from those of the whole picture, which pictures it leaves alone, and that nothing is mixed."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.encoders import encode_images
from fewmatch.encoders.frame import Frame, crop_frame, resample, resized_frame
from fewmatch.encoders.images import REDUCTIONS, Decoded, decode, decode_reduced
from fewmatch.encoders.store.plan import FAST_PIXELS, cache_folder, plan_encoding
from fewmatch.errors import ImageError, OutputExistsError

#: Grey levels: the mean of an image's differences, and nearly the largest, where two pixels or more are left for one.
MEAN, MOST = 1.0, 8


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Detail at every scale, the coarser the stronger, as photos have; shifted hues, so that chroma is not all grey."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.float32)
    for level in range(1, 5):
        cells = rng.standard_normal((max(2, height >> 2 * level), max(2, width >> 2 * level), 3), np.float32)
        picture += 9 * level * cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    return picture.clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, *, mode: str = "RGB", quality: int = 90, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", quality=quality, subsampling=2, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def both(data: bytes, frame: Frame, factor: int) -> tuple[np.ndarray, np.ndarray, Decoded]:
    """The encoder's pixels from the whole picture and from the reduced one."""
    whole, _ = decode(data)
    reduced = decode_reduced(data, lambda *_: factor)
    assert (reduced.width, reduced.height) == (frame.width, frame.height) == (whole.shape[1], whole.shape[0])
    few = resample(reduced.rgb, frame, reduction=reduced.reduction, overhang=reduced.overhang)
    return resample(whole, frame), few, reduced


def close(a: np.ndarray, b: np.ndarray) -> bool:
    unlike = np.abs(a.astype(int) - b)
    return bool(unlike.mean() <= MEAN and np.quantile(unlike, 0.999) <= MOST)


@pytest.mark.parametrize("factor", REDUCTIONS)
@pytest.mark.parametrize("rest", [0, 1, 5])
@pytest.mark.parametrize("kind", ["plain", "progressive", "grey", "quality 75"])
def test_pixels_are_within_the_tolerance(factor: int, rest: int, kind: str) -> None:
    side = 32
    width, height = int(FAST_PIXELS * factor * side * 1.3) + rest, FAST_PIXELS * factor * side + rest
    options: dict[str, Any] = {
        "plain": {},
        "progressive": {"progressive": True},
        "grey": {"mode": "L"},
        "quality 75": {"quality": 75},
    }[kind]
    data = jpeg(photo(width, height, seed=factor + rest), **options)
    frame = crop_frame(width, height, resize=side, crop=side - 4, patch=4)
    whole, few, reduced = both(data, frame, factor)
    assert reduced.rgb.shape == (math.ceil(height / factor), math.ceil(width / factor), 3)
    assert close(whole, few)
    assert kind != "grey" or (few[..., 0] == few[..., 2]).all()


@pytest.mark.parametrize("factor", REDUCTIONS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rule", ["keep", "pad", "squash"])
def test_every_orientation_keeps_its_place(factor: int, orientation: int, rule: Any) -> None:
    """The sides are no multiples of the reduction: in a turned picture the first of its reduced pixels begins outside of it."""
    stored = photo(FAST_PIXELS * factor * 40 + 1, FAST_PIXELS * factor * 32 + 1, seed=orientation)
    data = jpeg(stored, exif=exif(orientation))
    height, width = decode(data)[0].shape[:2]
    assert (width > height) == (orientation < 5)
    frame = resized_frame(width, height, size=32, patch=4, rule=rule)
    whole, few, reduced = both(data, frame, factor)
    assert close(whole, few)
    over = tuple(-length % factor for length in (width, height))
    assert reduced.overhang == (
        over[0] if orientation in (2, 3, 6, 7) else 0,
        over[1] if orientation in (3, 4, 7, 8) else 0,
    )
    if any(
        reduced.overhang
    ):  # and without it the picture would be out of place, which the tolerance may or may not show
        moved = resample(reduced.rgb, frame, reduction=factor)
        assert np.abs(whole.astype(int) - moved).mean() > np.abs(whole.astype(int) - few).mean()


def test_a_reduced_image_of_another_size_is_refused() -> None:
    frame = crop_frame(100, 80, resize=16, crop=16, patch=4)
    with pytest.raises(ValueError, match="expected an image of 25×20 px as in its frame, got 26×20"):
        resample(np.zeros((20, 26, 3), np.uint8), frame, reduction=4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(jpeg(photo(640, 480), mode="CMYK"), id="inks"),
        *(
            pytest.param((lambda f: (Image.fromarray(photo(640, 480)).save(f, kind), f.getvalue())[1])(io.BytesIO()), id=kind)
            for kind in ("PNG", "WEBP", "TIFF", "BMP")
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_reduced_is_decoded_whole(data: bytes) -> None:
    def never(width: int, height: int) -> int:
        raise AssertionError("asked")

    got = decode_reduced(data, never)
    assert (got.reduction, got.overhang, got.width, got.height) == (1, (0, 0), 640, 480)
    assert np.array_equal(got.rgb, decode(data)[0])


@pytest.mark.parametrize("lost", ["half", 2])
def test_a_cut_jpeg_is_refused_all_the_same(lost: Any) -> None:
    data = jpeg(photo(256, 256))
    with pytest.raises(ImageError) as error:
        decode_reduced(data[: len(data) // 2 if lost == "half" else -lost], lambda *_: 4)
    assert error.value.reason == "truncated"


def test_a_tiny_jpeg_can_be_reduced_to_one_pixel() -> None:
    for width, height in ((1, 1), (3, 7), (9, 2)):
        got = decode_reduced(jpeg(photo(width, height)), lambda *_: 8)
        assert got.rgb.shape == (math.ceil(height / 8), math.ceil(width / 8), 3)


def test_the_reduction_is_the_most_that_leaves_enough(tmp_path: Path) -> None:
    encoder = PatchLocalEncoder(size=16)  # short side to 20, crop of 16
    Image.fromarray(photo(30, 30)).save(tmp_path / "a.png")

    def reduction(width: int, height: int, **options: Any) -> int:
        return plan_encoding([tmp_path], encoder, fast_decode=True, **options).reduction(width, height)

    for factor in REDUCTIONS:
        enough = 20 * FAST_PIXELS * factor
        assert reduction(enough, enough) == reduction(5 * enough, enough) == factor
        # Larger than a JPEG can be reduced by changes nothing; one pixel less is too little.
        assert reduction(enough - 1, enough - 1) == reduction(enough, enough - 1) == max(1, factor // 2)
    assert reduction(10_000, 10_000) == 8 and reduction(15, 20) == reduction(1, 1) == 1
    # Squashed, the short side of 64 keeps 4 pixels for one, and the long one more; only the first counts.
    assert reduction(1600, 64, keep="patches", resize="squash") == 2
    assert reduction(1600, 64, keep="patches", resize="pad") == 8
    assert plan_encoding([tmp_path], encoder).reduction(10_000, 10_000) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two large JPEG files, one of them lying on its side, a small one and a PNG."""
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.jpg").write_bytes(jpeg(photo(403, 301, seed=1)))
    (root / "b.jpg").write_bytes(jpeg(photo(403, 301, seed=2), exif=exif(6)))
    (root / "c.jpg").write_bytes(jpeg(photo(31, 41, seed=3)))
    Image.fromarray(photo(400, 300, seed=4)).save(root / "d.png")
    return root


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_features_and_frames_of_a_store(folder: Path, tmp_path: Path, keep: Any) -> None:
    encoder = PatchLocalEncoder()
    exact = encode_images([folder], encoder, out=tmp_path / "exact", keep=keep)
    fast = encode_images([folder], encoder, out=tmp_path / "fast", keep=keep, fast_decode=True)
    assert [row["frame"] for row in fast.images] == [row["frame"] for row in exact.images]
    assert (fast.frame(0).width, fast.frame(0).height, fast.frame(1).width) == (403, 301, 301)
    same = (fast.global_repr() == exact.global_repr()).all(axis=1).tolist()
    assert same == [False, False, True, True]
    assert np.allclose(fast.global_repr(), exact.global_repr(), atol=0.05)
    assert encode_images([folder], encoder, out=tmp_path / "fast", keep=keep, fast_decode=True).path == fast.path


def test_the_two_are_never_mixed(folder: Path, tmp_path: Path) -> None:
    encoder = PatchLocalEncoder()
    exact, fast = (plan_encoding([folder], encoder, fast_decode=fast) for fast in (False, True))
    assert exact.key["decoder"] != fast.key["decoder"] and cache_folder(exact) != cache_folder(fast)
    assert {k: v for k, v in exact.key.items() if k != "decoder"} == {
        k: v for k, v in fast.key.items() if k != "decoder"
    }
    assert not {name for name, _, _ in exact.shards()} & {name for name, _, _ in fast.shards()}
    for first, second in ((False, True), (True, False)):
        out = tmp_path / f"{first}"
        encode_images([folder], encoder, out=out, fast_decode=first)
        with pytest.raises(OutputExistsError, match=r"decoder was 1(, fast)?, now 1(, fast)?"):
            encode_images([folder], encoder, out=out, fast_decode=second)
