"""Image files: decoded right, or refused with one of the known reasons; never a plausible wrong picture, never a crash."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from fewmatch.encoders.images import (
    MAX_BYTES,
    MAX_PIXELS,
    REASONS,
    ImageFile,
    decode,
    decode_reduced,
    read_bytes,
    read_image,
)
from fewmatch.encoders.value_range import ValueRange, read_value_range
from fewmatch.errors import ImageError, InputError

ROOT = Path(__file__).parent.parent.parent

# ----------------------------------------------------------------------------------------------------------------------
# Pictures and files


def noise(height: int = 16, width: int = 24, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def blocks(rows: int = 2, columns: int = 3, side: int = 16) -> np.ndarray:
    """Squares of one colour each, which JPEG keeps to a level or two."""
    return noise(rows, columns, seed=3).repeat(side, axis=0).repeat(side, axis=1)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    pixels: np.ndarray, colour_type: int, depth: int, *, before: bytes = b"", after: bytes = b"", level: int = 6
) -> bytes:
    """A PNG of any depth and colour type; `before` and `after` are chunks around the pixels."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, -1)
    if depth < 8:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        flat = np.packbits(bits.reshape(height, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in flat.astype(">u2" if depth == 16 else np.uint8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows, level))
    return b"\x89PNG\r\n\x1a\n" + header + before + body + after + chunk(b"IEND", b"")


def tiff(pixels: np.ndarray, *, planar: bool = False, photometric: int | None = None, **tags: int) -> bytes:
    """An uncompressed little-endian TIFF of any depth, of one strip (or one a plane), with its directory in front."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    planes = [pixels[..., i] for i in range(channels)] if planar else [pixels]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    bits = pixels.dtype.itemsize * 8
    entries = {
        256: [width],
        257: [height],
        258: [bits] * channels,
        259: [1],
        262: [photometric if photometric is not None else (2 if channels > 2 else 1)],
        273: [0] * len(strips),
        277: [channels],
        278: [height],
        279: [len(strip) for strip in strips],
        284: [2 if planar else 1],
        339: [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels,
    } | {int(name[1:]): [value] for name, value in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    pixels_at = start + 4 * sum(len(values) for values in entries.values())
    entries[273] = [pixels_at + sum(map(len, strips[:i])) for i in range(len(strips))]
    directory, far = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        directory += struct.pack("<HHI", tag, 4, len(values))
        if len(values) == 1:
            directory += struct.pack("<I", values[0])
        else:
            directory += struct.pack("<I", start + len(far))
            far += struct.pack(f"<{len(values)}I", *values)
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + far).ljust(pixels_at, b"\0") + b"".join(strips)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    eight = pixels if pixels.dtype == np.uint8 else np.rint(pixels / 257).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2) if eight.ndim == 2 else eight


def flattened(pixels: np.ndarray) -> np.ndarray:
    """Colour (or grey) and alpha on white, in float64: the last channel is the alpha."""
    top = np.iinfo(pixels.dtype).max
    colour, alpha = pixels[..., :-1] / top, pixels[..., -1:] / top
    flat = np.rint((colour * alpha + 1 - alpha) * 255).astype(np.uint8)
    return flat if flat.shape[2] == 3 else np.repeat(flat, 3, axis=2)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason in REASONS
    assert str(caught.value).count("\n") == 0
    return caught.value.reason


def pixels_of(data: bytes) -> np.ndarray:
    rgb, note = decode(data)
    assert note is None
    assert rgb.dtype == np.uint8
    return rgb


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def read_refusal(path: str | Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason in REASONS
    return caught.value.reason


needs_jpeg2000 = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow reads no JPEG 2000")
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")

LOSSLESS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: saved(noise(), "PNG"),
    "WebP": lambda: saved(noise(), "WEBP", lossless=True),
    "TIFF": lambda: saved(noise(), "TIFF"),
    "TIFF LZW": lambda: saved(noise(), "TIFF", compression="tiff_lzw"),
    "TIFF deflate": lambda: saved(noise(), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF in planes": lambda: tiff(noise(), planar=True),
    "BMP": lambda: saved(noise(), "BMP"),
    "PPM": lambda: saved(noise(), "PPM"),
}
LOSSY: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(noise(), "JPEG"),
    "progressive JPEG": lambda: saved(noise(), "JPEG", progressive=True),
    "JPEG with restarts": lambda: saved(noise(), "JPEG", restart_marker_blocks=1),
    "grey JPEG": lambda: saved(noise(channels=1), "JPEG"),
    "lossy WebP": lambda: saved(noise(), "WEBP"),
    "GIF": lambda: saved(noise(), "GIF"),
}
OTHERS: dict[str, Callable[[], bytes]] = {
    "RGBA PNG": lambda: saved(noise(channels=4), "PNG"),
    "16-bit PNG": lambda: png(noise(dtype=np.uint16), 2, 16),
    "RGBA WebP": lambda: saved(noise(channels=4), "WEBP", lossless=True),
    "16-bit TIFF": lambda: tiff(noise(dtype=np.uint16)),
    "16-bit grey TIFF": lambda: tiff(noise(channels=1, dtype=np.uint16)),
    "16-bit PGM": lambda: b"P5 24 16 65535\n" + noise(channels=1, dtype=np.uint16).astype(">u2").tobytes(),
    "plain PPM": lambda: b"P3 24 16 9\n" + " ".join(map(str, noise().ravel() // 26)).encode(),
}
RARE = [
    pytest.param(lambda: saved(noise(), "JPEG2000"), id="JPEG 2000", marks=needs_jpeg2000),
    pytest.param(lambda: saved(noise(), "AVIF"), id="AVIF", marks=needs_avif),
]
ALL = [pytest.param(make, id=name) for name, make in (LOSSLESS | LOSSY | OTHERS).items()]

# ----------------------------------------------------------------------------------------------------------------------
# Whole files


@pytest.mark.parametrize("make", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_formats_give_the_pixels(make: Callable[[], bytes]) -> None:
    assert np.array_equal(pixels_of(make()), noise())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}])
def test_jpeg_gives_the_pixels_within_its_loss(options: dict[str, Any]) -> None:
    rgb = pixels_of(saved(blocks(), "JPEG", quality=95, **options))
    assert rgb.shape == blocks().shape
    for square in (np.s_[4:12, 4:12], np.s_[4:12, 36:44], np.s_[20:28, 4:12]):  # JPEG halves the colour's resolution
        assert difference(rgb[square], blocks()[square]) <= 3


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: saved(blocks(), "WEBP", quality=100), id="WebP"),
        pytest.param(lambda: saved(blocks(), "AVIF", quality=100, subsampling="4:4:4"), id="AVIF", marks=needs_avif),
        pytest.param(lambda: saved(blocks(), "JPEG2000"), id="JPEG 2000", marks=needs_jpeg2000),
    ],
)
def test_other_lossy_formats_give_the_pixels_within_their_loss(make: Callable[[], bytes]) -> None:
    inside = np.s_[4:12, 4:12]  # away from the edges, where WebP halves the colour's resolution
    assert difference(pixels_of(make())[inside], blocks()[inside]) <= 6


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_one_pixel_is_an_image(kind: str) -> None:
    assert pixels_of(saved(np.full((1, 1, 3), 200, np.uint8), kind)).shape == (1, 1, 3)


@pytest.mark.parametrize("make", ALL + RARE)
def test_decoded_pixels_can_be_drawn_on(make: Callable[[], bytes]) -> None:
    rgb, _ = decode(make())
    assert rgb.flags.writeable and rgb.flags.c_contiguous


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really.jpg"
    path.write_bytes(saved(noise(), "PNG"))
    assert np.array_equal(read_image(path).rgb, noise())


def test_read_image_tells_digest_and_note(tmp_path: Path) -> None:
    data = saved(noise(), "PNG")
    (tmp_path / "x.png").write_bytes(data)
    image = read_image(os.fspath(tmp_path / "x.png"))
    assert isinstance(image, ImageFile)
    assert (image.sha256, image.note) == (hashlib.sha256(data).hexdigest(), None)


# ----------------------------------------------------------------------------------------------------------------------
# Cut and damaged files


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch()
    assert read_refusal(tmp_path / "x.jpg") == "empty"


@pytest.mark.parametrize("make", ALL + RARE)
def test_a_file_cut_anywhere_gives_the_whole_picture_or_none(make: Callable[[], bytes]) -> None:
    data = make()
    whole, _ = decode(data)
    # Everywhere in headers and at the end; of the pixels between, which are all alike, at every seventh byte.
    for length in [n for n in range(len(data)) if n < 160 or n > len(data) - 60 or n % 7 == 0]:
        try:
            rgb, _ = decode(data[:length])
        except ImageError as error:
            assert error.reason in (("truncated", "corrupt") if length > 40 else REASONS), length
        else:
            assert length > len(data) - 30 and np.array_equal(rgb, whole), length


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("lost", ["half", 10, 3, 2, 1])
def test_a_jpeg_without_its_end_marker_is_truncated(progressive: bool, lost: int | str) -> None:
    data = saved(noise(60, 80), "JPEG", progressive=progressive)
    assert refusal(data[: -(len(data) // 2 if lost == "half" else int(lost))]) == "truncated"


def test_a_jpeg_filled_up_with_zeros_is_truncated() -> None:
    data = saved(noise(60, 80), "JPEG")
    assert refusal(data[: len(data) // 2].ljust(3 * len(data), b"\0")) == "truncated"


def test_a_progressive_jpeg_cut_between_scans_is_truncated() -> None:
    data = saved(noise(60, 80), "JPEG", progressive=True)
    third_scan = data.split(b"\xff\xda")[:3]
    assert refusal(b"\xff\xda".join(third_scan)) == "truncated"


def jpeg_with_thumbnail() -> tuple[bytes, int]:
    """A JPEG whose EXIF holds a whole JPEG, end marker included, and the length of that EXIF."""
    data, thumbnail = saved(noise(60, 80), "JPEG"), saved(noise(20, 30), "JPEG")
    extra = segment(0xE1, exif(1).tobytes() + thumbnail)
    assert b"\xff\xd9" in extra
    return data[:2] + extra + data[2:], len(extra)


def test_a_thumbnail_in_exif_does_no_harm() -> None:
    assert np.array_equal(pixels_of(jpeg_with_thumbnail()[0]), pixels_of(saved(noise(60, 80), "JPEG")))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_the_thumbnails_end_marker_does_not_hide_a_cut(share: float) -> None:
    data, extra = jpeg_with_thumbnail()
    assert refusal(data[: 2 + extra + int(share * (len(data) - extra - 2))]) == "truncated"


def test_a_cut_within_the_thumbnail_is_a_truncated_jpeg() -> None:
    data, extra = jpeg_with_thumbnail()
    assert refusal(data[: extra // 2]) == "truncated"


@pytest.mark.parametrize("rest", [b"\0", bytes(1000), b"trailing text", b"\xff" * 7, noise().tobytes()])
def test_bytes_after_the_end_of_a_jpeg_do_no_harm(rest: bytes) -> None:
    data = saved(noise(60, 80), "JPEG")
    assert np.array_equal(pixels_of(data + rest), pixels_of(data))


def test_fill_bytes_before_a_jpeg_marker_do_no_harm() -> None:
    data = saved(noise(60, 80), "JPEG")
    filled = data[:2] + b"\xff\xff\xff" + data[2:-2] + b"\xff\xff" + data[-2:]
    assert np.array_equal(pixels_of(filled), pixels_of(data))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("place", np.linspace(0.3, 0.95, 8).round(2))
def test_a_flipped_bit_in_a_jpeg_does_not_crash(progressive: bool, place: float) -> None:
    data = bytearray(saved(noise(60, 80), "JPEG", progressive=progressive))
    data[int(len(data) * place)] ^= 0x10
    try:
        rgb, _ = decode(bytes(data))
    except ImageError as error:
        assert error.reason in REASONS
    else:
        assert rgb.shape == (60, 80, 3)


PNG_KINDS = {"grey": (0, 1), "RGB": (2, 3), "LA": (4, 2), "RGBA": (6, 4)}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", PNG_KINDS)
def test_a_png_with_a_bad_checksum_is_corrupt(kind: str, depth: int) -> None:
    colour_type, channels = PNG_KINDS[kind]
    pixels = noise(channels=channels, dtype=np.uint8 if depth == 8 else np.uint16)
    data = bytearray(png(pixels, colour_type, depth))
    decode(bytes(data))
    data[data.index(b"IEND") - 5] ^= 1
    assert refusal(bytes(data)) == "corrupt"


@pytest.mark.parametrize("kind", PNG_KINDS)
def test_a_png_with_a_changed_pixel_is_corrupt(kind: str) -> None:
    """Stored without compression, so that only the checksums can tell."""
    colour_type, channels = PNG_KINDS[kind]
    data = bytearray(png(noise(channels=channels), colour_type, 8, level=0))
    data[data.index(b"IDAT") + 100] ^= 4
    assert refusal(bytes(data)) == "corrupt"


def test_a_png_with_a_damaged_header_is_corrupt_and_not_unknown() -> None:
    data = bytearray(saved(noise(), "PNG"))
    data[data.index(b"IHDR") + 5] ^= 4
    assert refusal(bytes(data)) == "corrupt"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_half_a_file_is_truncated_or_corrupt(kind: str) -> None:
    data = saved(noise(60, 80), kind)
    assert refusal(data[: len(data) // 2]) in ("truncated", "corrupt")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_download_that_broke_off_is_called_truncated(kind: str) -> None:
    data = saved(noise(60, 80), kind)
    assert refusal(data[: len(data) // 2]) == "truncated"


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("make", [noise, lambda: noise(channels=1), lambda: noise(channels=1, dtype=np.uint16)])
def test_a_tiff_that_promises_more_rows_than_it_has_is_refused(
    make: Callable[[], np.ndarray], compression: str | None
) -> None:
    data = bytearray(saved(make(), "TIFF", compression=compression))
    height = next(
        at for at in range(len(data)) if data[at : at + 2] == b"\x01\x01" and data[at + 8 : at + 10] == b"\x10\0"
    )
    data[height + 8] = 200
    assert refusal(bytes(data)) in ("truncated", "corrupt")


@pytest.mark.parametrize("kind", ["BMP", "PPM", "PNG"])
def test_a_header_that_promises_more_rows_than_there_are_is_refused(kind: str) -> None:
    if kind == "PNG":
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 200, 8, 2, 0, 0, 0))
        data = png(noise(), 2, 8)[:8] + header + png(noise(), 2, 8)[33:]
    else:
        data = saved(noise(), kind)
        old, new = (b"24 16", b"24 200") if kind == "PPM" else (struct.pack("<II", 24, 16), struct.pack("<II", 24, 200))
        data = data.replace(old, new)
    assert refusal(data) in ("truncated", "corrupt")


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"></svg>',
        b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        b'{"error": "rate limit"}',
        b"P2P networks and other plain text",
        b"BM is how this text begins, which is no bitmap",
        b"GIF is how this text begins",
        b"\x00" * 4096,
        b"\xff" * 4096,
        b"\xff\xd8",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    ],
    ids=lambda content: content[:12].decode("latin-1"),
)
def test_what_is_no_image_is_called_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    assert read_refusal(tmp_path / "x.jpg") == "not-an-image"


def test_postscript_is_never_run() -> None:
    """Pillow would hand it to Ghostscript."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert refusal(eps) == "not-an-image"


def test_random_bytes_are_not_taken_for_a_format_without_a_signature() -> None:
    """A TGA has none, so that Pillow alone takes many a file for one."""
    tga = saved(noise(), "TGA")
    assert refusal(tga) == "not-an-image"


# ----------------------------------------------------------------------------------------------------------------------
# Too large

PEAK = """
import sys
from fewmatch.errors import ImageError
from fewmatch.encoders.images import read_image
import cv2, numpy, PIL.Image
PIL.Image.init()

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

before = peak()
for path in sys.argv[1:]:
    try:
        read_image(path)
        print("decoded")
    except ImageError as error:
        print(error.reason)
print(peak() - before)
"""


def one_bit_png(side: int) -> bytes:
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_bombs_are_refused_before_their_pixels_are_allocated(tmp_path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    jpeg = bytearray(saved(noise(), "JPEG"))
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = struct.pack(">HH", 65_000, 65_000)
    floats = bytearray(tiff(noise().astype(np.float32)))
    for tag in (256, 257):
        at = floats.index(struct.pack("<HHI", tag, 4, 1)) + 8
        floats[at : at + 4] = struct.pack("<I", 30_000)
    files = {
        "header.png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""),
        "bits.png": one_bit_png(20_000),
        "size.jpg": bytes(jpeg),
        "size.ppm": b"P6 50000 50000 255\n" + bytes(1000),
        "size.gif": b"GIF89a\xff\xff\xff\xff" + saved(noise(), "GIF")[10:],
        "floats.tif": bytes(floats),
        "chunk.png": png(noise(), 2, 8).replace(b"\0\0\x04\x9bIDAT", b"\x7f\0\x04\x9bIDAT"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "sparse.tif").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    result = subprocess.run(
        [sys.executable, "-c", PEAK, *(os.fspath(tmp_path / name) for name in [*files, "sparse.tif"])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *reasons, grown = result.stdout.split()
    assert reasons == ["too-large"] * 5 + ["unsupported-depth", "truncated", "too-large"]
    assert float(grown) < 60, "MiB"


def test_the_limit_is_on_pixels_and_not_on_sides() -> None:
    assert pixels_of(saved(np.zeros((1, 60_000), np.uint8), "PNG")).shape == (1, 60_000, 3)
    too_wide = chunk(b"IHDR", struct.pack(">IIBBBBB", MAX_PIXELS // 1000 + 1, 1000, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + too_wide + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert refusal(data) == "too-large"


def test_want_of_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cv2, "imdecode", fail)
    assert refusal(saved(noise(), "PNG")) == "too-large"


# ----------------------------------------------------------------------------------------------------------------------
# Depths


def ramp(channels: int) -> np.ndarray:
    """Every 16-bit value about a rounding border, and the ends."""
    values = np.concatenate([np.arange(256) * 257 + d for d in (-128, 0, 127, 128)]).clip(0, 65535).astype(np.uint16)
    shape = (16, 64, channels) if channels > 1 else (16, 64)
    return np.random.default_rng(1).permutation(np.tile(values, channels)).reshape(shape)


DEEP = {
    "grey PNG": (1, lambda pixels: saved(Image.fromarray(pixels), "PNG")),
    "RGB PNG": (3, lambda pixels: png(pixels, 2, 16)),
    "grey TIFF": (1, lambda pixels: saved(Image.fromarray(pixels), "TIFF")),
    "grey TIFF, packed": (1, lambda pixels: saved(Image.fromarray(pixels), "TIFF", compression="tiff_lzw")),
    "grey TIFF of OpenCV": (1, lambda pixels: cv2.imencode(".tiff", pixels)[1].tobytes()),
    "RGB TIFF of OpenCV": (3, lambda pixels: cv2.imencode(".tiff", pixels[..., ::-1])[1].tobytes()),
    "RGB TIFF": (3, tiff),
    "grey TIFF where 0 is white": (1, lambda pixels: tiff(65535 - pixels, photometric=0)),
    "PGM": (1, lambda pixels: b"P5 64 16 65535\n" + pixels.astype(">u2").tobytes()),
    "PPM": (3, lambda pixels: b"P6 64 16 65535\n" + pixels.astype(">u2").tobytes()),
}


@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_become_8_as_value_over_257_rounded(kind: str) -> None:
    channels, make = DEEP[kind]
    assert np.array_equal(pixels_of(make(ramp(channels))), to_8_bits(ramp(channels)))


@needs_jpeg2000
def test_16_bit_grey_jpeg_2000_is_not_saturated() -> None:
    data = saved(Image.fromarray(ramp(1)), "JPEG2000")
    assert np.array_equal(pixels_of(data), to_8_bits(ramp(1)))


def test_a_pgm_is_stretched_from_its_own_maximum() -> None:
    values = np.array([[0, 341, 682, 1023]], ">u2")
    assert pixels_of(b"P5 4 1 1023\n" + values.tobytes())[0, :, 0].tolist() == [0, 85, 170, 255]


UNSUPPORTED = {
    "float32 TIFF": lambda: saved(Image.fromarray(noise(channels=1).astype(np.float32)), "TIFF"),
    "float32 RGB TIFF": lambda: tiff(noise().astype(np.float32)),
    "float64 TIFF": lambda: tiff(noise(channels=1).astype(np.float64)),
    "float16 TIFF": lambda: tiff(noise(channels=1).astype(np.float16)),
    "float32 TIFF of OpenCV": lambda: cv2.imencode(".tiff", noise().astype(np.float32))[1].tobytes(),
    "int32 TIFF": lambda: saved(Image.fromarray(noise(channels=1).astype(np.int32)), "TIFF"),
    "int32 RGB TIFF": lambda: tiff(noise().astype(np.int32)),
    "uint32 TIFF": lambda: tiff(noise(channels=1).astype(np.uint32)),
    "int16 TIFF": lambda: tiff(noise(channels=1).astype(np.int16)),
    "int8 TIFF": lambda: tiff(noise(channels=1).astype(np.int8)),
    "PFM": lambda: b"Pf 24 16 -1.0\n" + noise(channels=1).astype("<f4").tobytes(),
    "16-bit RGB TIFF in planes": lambda: tiff(noise(dtype=np.uint16), planar=True),
    "16-bit LA TIFF": lambda: tiff(noise(channels=2, dtype=np.uint16), t338=2),
    "16-bit CMYK TIFF": lambda: tiff(noise(channels=4, dtype=np.uint16), photometric=5),
    "TIFF of 5 channels": lambda: tiff(noise(channels=5)),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_pixels_without_an_agreed_range_are_refused(kind: str) -> None:
    assert refusal(UNSUPPORTED[kind]()) == "unsupported-depth"


def test_the_refusal_of_a_depth_says_what_was_found_and_what_to_do() -> None:
    with pytest.raises(ImageError, match="3 × float 32 bits: save it as 8- or 16-bit grey or RGB"):
        decode(tiff(noise().astype(np.float32)))


# ----------------------------------------------------------------------------------------------------------------------
# Transparency


def palette(colours: np.ndarray, indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette(colours.astype(np.uint8).tobytes())
    return image


TRANSPARENT = {
    "8-bit RGBA PNG": (4, np.uint8, lambda pixels: saved(pixels, "PNG")),
    "8-bit LA PNG": (2, np.uint8, lambda pixels: saved(Image.fromarray(pixels, "LA"), "PNG")),
    "16-bit RGBA PNG": (4, np.uint16, lambda pixels: png(pixels, 6, 16)),
    "16-bit RGBA PNG of OpenCV": (
        4,
        np.uint16,
        lambda pixels: cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))[1].tobytes(),
    ),
    "16-bit LA PNG": (2, np.uint16, lambda pixels: png(pixels, 4, 16)),
    "RGBA WebP": (4, np.uint8, lambda pixels: saved(pixels, "WEBP", lossless=True, exact=True)),
    "RGBA TIFF": (4, np.uint8, lambda pixels: saved(pixels, "TIFF")),
    "LA TIFF": (2, np.uint8, lambda pixels: saved(Image.fromarray(pixels, "LA"), "TIFF")),
    "16-bit RGBA TIFF": (4, np.uint16, lambda pixels: tiff(pixels, t338=2)),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_alpha_is_composited_on_white(kind: str) -> None:
    channels, dtype, make = TRANSPARENT[kind]
    pixels = noise(300, 8, channels, dtype)
    pixels[0, :, -1], pixels[1, :, -1] = 0, np.iinfo(dtype).max
    rgb = pixels_of(make(pixels))
    assert np.array_equal(rgb, flattened(pixels))
    assert (rgb[0] == 255).all()
    assert np.array_equal(rgb, pixels_of(saved(flattened(pixels), "PNG")))


def test_a_transparent_picture_equals_what_pillow_flattens() -> None:
    pixels = noise(64, 64, 4)
    image = Image.fromarray(pixels)
    white = Image.new("RGBA", image.size, "white")
    assert (
        difference(pixels_of(saved(pixels, "PNG")), np.asarray(Image.alpha_composite(white, image).convert("RGB"))) == 0
    )


def test_premultiplied_alpha_of_a_tiff_is_not_multiplied_again() -> None:
    pixels = noise(channels=4, dtype=np.uint16)
    multiplied = pixels.copy()
    multiplied[..., :3] = np.rint(pixels[..., :3] * (pixels[..., 3:] / 65535))
    assert difference(pixels_of(tiff(multiplied, t338=1)), flattened(pixels)) <= 1


def test_a_fourth_channel_that_is_no_alpha_is_left_out() -> None:
    pixels = noise(channels=4, dtype=np.uint16)
    assert np.array_equal(pixels_of(tiff(pixels, t338=0)), to_8_bits(pixels[..., :3]))


@pytest.mark.parametrize("one", [True, False], ids=["one colour", "alpha of each colour"])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_palette_with_transparency_is_composited_on_white(kind: str, one: bool) -> None:
    colours, indices = noise(1, 4)[0], noise(channels=1) % 4
    alpha = np.array([255, 255, 0, 255] if one or kind == "GIF" else [255, 100, 0, 7], np.uint8)
    image = palette(colours, indices)
    if kind == "WEBP":
        image.info["transparency"] = alpha.tobytes()
        data = saved(image.convert("RGBA"), kind, lossless=True, exact=True)
    else:
        data = saved(image, kind, transparency=2 if one or kind == "GIF" else alpha.tobytes())
    wanted = flattened(np.concatenate([colours, alpha[:, None]], axis=1)[indices])
    assert np.array_equal(pixels_of(data), wanted)


@pytest.mark.parametrize(("colour_type", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_the_one_transparent_colour_of_a_png_becomes_white(colour_type: int, depth: int) -> None:
    top = 2**depth - 1
    pixels = noise(16, 24, 3 if colour_type else 1, np.uint16) & top
    key = pixels[3, 4]
    rgb = np.rint(pixels * (255 / top)).astype(np.uint8)
    rgb = np.repeat(rgb[..., None], 3, axis=2) if colour_type == 0 else rgb
    rgb[(pixels.reshape(16, 24, -1) == key).all(axis=2)] = 255
    transparency = chunk(b"tRNS", np.atleast_1d(key).astype(">u2").tobytes())
    assert np.array_equal(pixels_of(png(pixels, colour_type, depth, before=transparency)), rgb)


# ----------------------------------------------------------------------------------------------------------------------
# Colour


def ycck(rgb: np.ndarray) -> bytes:
    """A JPEG as Photoshop writes it: inverted inks as luma and chroma, and black."""
    inks = Image.fromarray(255 - rgb)
    bands = [Image.eval(band, lambda value: 255 - value) for band in inks.convert("YCbCr").split()]
    black = Image.new("L", inks.size, 0)
    data = bytearray(saved(Image.merge("CMYK", [*bands, black]), "JPEG", quality=95, subsampling=0))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda rgb: saved(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=95), id="CMYK"),
        pytest.param(ycck, id="YCCK"),
        pytest.param(lambda rgb: saved(Image.fromarray(rgb).convert("CMYK"), "TIFF"), id="CMYK TIFF"),
    ],
)
def test_inks_become_the_same_colours(make: Callable[[np.ndarray], bytes]) -> None:
    for colour in ([230, 40, 30], [20, 200, 60], [30, 60, 220], [250, 250, 250], [5, 5, 5], [128, 100, 90]):
        rgb = np.full((16, 16, 3), colour, np.uint8)
        assert np.abs(pixels_of(make(rgb)).mean((0, 1)) - colour).max() <= 4


def test_black_ink_darkens() -> None:
    half = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (0, 0, 0, 128)])
    assert np.abs(pixels_of(saved(half, "JPEG", quality=95)).astype(int) - 127).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = blocks()[..., 0]
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    rgb = pixels_of(saved(grey, kind, **options))
    assert (rgb == rgb[..., :1]).all()
    assert difference(rgb[..., 0], grey) <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_one_bit_becomes_black_and_white(kind: str) -> None:
    bits = noise(channels=1) > 127
    assert np.array_equal(pixels_of(saved(Image.fromarray(bits), kind)), to_8_bits(bits.astype(np.uint8) * 255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_become_their_colours(kind: str) -> None:
    colours, indices = noise(1, 7)[0], noise(channels=1) % 7
    assert np.array_equal(pixels_of(saved(palette(colours, indices), kind)), colours[indices])


def test_an_8_bit_tiff_in_planes_is_read_as_such() -> None:
    assert np.array_equal(pixels_of(tiff(noise(), planar=True)), noise())


# ----------------------------------------------------------------------------------------------------------------------
# Orientation

STORED_AS = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}


def opaque(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(254)  # so that the alpha is kept, yet shows in no more than a level
    return image


def deep(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.uint16) * 257


def bare(orientation: int) -> bytes:
    return exif(orientation).tobytes().removeprefix(b"Exif\0\0")


def jpeg_with_xmp_first(image: Image.Image, orientation: int) -> bytes:
    data = saved(image, "JPEG", quality=100, subsampling=0)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
    return data[:2] + xmp + segment(0xE1, exif(orientation).tobytes()) + data[2:]


TURNED: dict[str, tuple[int, Callable[[Image.Image, int], bytes]]] = {
    "JPEG": (2, lambda image, o: saved(image, "JPEG", quality=100, subsampling=0, exif=exif(o))),
    "JPEG with XMP first": (2, jpeg_with_xmp_first),
    "grey JPEG": (2, lambda image, o: saved(image.convert("L"), "JPEG", quality=100, exif=exif(o))),
    "PNG": (0, lambda image, o: saved(image, "PNG", exif=exif(o))),
    "PNG, EXIF last": (0, lambda image, o: png(np.asarray(image), 2, 8, after=chunk(b"eXIf", bare(o)))),
    "RGBA PNG": (1, lambda image, o: saved(opaque(image), "PNG", exif=exif(o))),
    "16-bit PNG": (0, lambda image, o: png(deep(image), 2, 16, before=chunk(b"eXIf", bare(o)))),
    "palette PNG": (0, lambda image, o: saved(image.quantize(), "PNG", exif=exif(o))),
    "WebP": (0, lambda image, o: saved(image, "WEBP", lossless=True, exif=exif(o))),
    "RGBA WebP": (1, lambda image, o: saved(opaque(image), "WEBP", lossless=True, exif=exif(o))),
    "TIFF": (0, lambda image, o: saved(image, "TIFF", exif=exif(o))),
    "packed TIFF": (0, lambda image, o: saved(image, "TIFF", exif=exif(o), compression="tiff_lzw")),
    "16-bit TIFF": (0, lambda image, o: tiff(deep(image), t274=o)),
    "16-bit grey TIFF": (0, lambda image, o: tiff(deep(image.convert("L")), t274=o)),
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", TURNED)
def test_every_orientation_gives_the_same_upright_picture(kind: str, orientation: int) -> None:
    tolerance, make = TURNED[kind]
    upright = Image.fromarray(blocks())
    wanted = np.asarray(upright.convert("L").convert("RGB") if "grey" in kind else upright)
    assert difference(pixels_of(make(STORED_AS[orientation](upright), orientation)), wanted) <= tolerance


@needs_avif
@pytest.mark.parametrize("orientation", STORED_AS)
def test_avif_is_upright_too(orientation: int) -> None:
    upright = Image.fromarray(blocks())
    data = saved(STORED_AS[orientation](upright), "AVIF", quality=100, subsampling="4:4:4", exif=exif(orientation))
    assert difference(pixels_of(data), blocks()) <= 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("content", [b"", b"II", b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_unreadable_exif_leaves_the_picture_as_it_is(kind: str, content: bytes) -> None:
    if kind == "PNG":
        data = png(noise(), 2, 8, before=chunk(b"eXIf", content))
    elif kind == "JPEG":
        plain = saved(noise(), "JPEG")
        data = plain[:2] + segment(0xE1, b"Exif\0\0" + content) + plain[2:]
    else:
        data = saved(noise(), "WEBP", lossless=True, exif=b"Exif\0\0" + content)
    rgb = pixels_of(data)
    assert np.array_equal(rgb, pixels_of(plain)) if kind == "JPEG" else np.array_equal(rgb, noise())


# ----------------------------------------------------------------------------------------------------------------------
# Value ranges of images of more than 8 bits


def twelve_bits(channels: int = 3) -> np.ndarray:
    """A smooth picture of 12-bit values in 16 bits, from black to white."""
    y, x = np.mgrid[0:64, 0:96]
    picture = np.stack([x * 4095 / 95, y * 4095 / 63, (x + y) * 4095 / 158][:channels], axis=-1)
    return np.rint(picture).astype(np.uint16)[..., 0 if channels == 1 else slice(None)]


TWELVE_BIT_FILES: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": lambda pixels: png(pixels, 2, 16),
    "TIFF": tiff,
    "PPM": lambda pixels: b"P6 96 64 65535\n" + pixels.astype(">u2").tobytes(),
}


def apart(rgb: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(rgb - wanted).max())


def stretched_in_float64(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((pixels.astype(np.float64) - low) / (high - low) * 255, 0, 255)


@pytest.mark.parametrize("kind", TWELVE_BIT_FILES)
def test_12_bits_in_16_are_noted_and_stretched_on_request(kind: str) -> None:
    pixels = twelve_bits()
    data = TWELVE_BIT_FILES[kind](pixels)
    rgb, note = decode(data)
    assert np.array_equal(rgb, (pixels.astype(np.int64) + 128) // 257)
    assert note == (
        "less than a tenth of its 16-bit range is used, so it is nearly of one colour: use --range 0,4095 or --range auto"
    )
    rgb, note = decode(data, (0, 4095))
    assert note is None and apart(rgb, stretched_in_float64(pixels, 0, 4095)) <= 0.51
    rgb, note = decode(data, "auto")
    low, high = np.quantile(pixels, (0.001, 0.999), method="inverted_cdf")
    assert note is None and apart(rgb, stretched_in_float64(pixels, low, high)) <= 0.51
    decoded = decode_reduced(data, lambda *_: 1, "auto")
    assert decoded.values == (low, high) and decode_reduced(data, lambda *_: 1).values is None


def test_grey_and_transparent_pixels_are_stretched_too() -> None:
    grey, colour = twelve_bits(1), twelve_bits()
    for data in (tiff(grey), png(grey, 0, 16), b"P5 96 64 65535\n" + grey.astype(">u2").tobytes()):
        rgb, _ = decode(data, (0, 4095))
        assert apart(rgb, stretched_in_float64(grey, 0, 4095)[..., None].repeat(3, axis=2)) <= 0.51
    alpha = np.linspace(0, 65535, 96).astype(np.uint16)[None, :, None].repeat(64, axis=0)
    share = alpha / 65535
    wanted = stretched_in_float64(colour, 0, 4095) * share + 255 * (1 - share)
    assert apart(decode(png(np.concatenate([colour, alpha], axis=2), 6, 16), (0, 4095))[0], wanted) <= 0.52
    premultiplied = np.rint(colour * share).astype(np.uint16)
    data = tiff(np.concatenate([premultiplied, alpha], axis=2), t338=1)
    seen = alpha[0, :, 0] > 16_000  # with less, the 12 bits do not hold the colour any more
    assert apart(decode(data, (0, 4095))[0][:, seen], wanted[:, seen]) <= 1.1


def test_a_stated_largest_value_of_a_ppm_is_its_white() -> None:
    pixels = twelve_bits()
    rgb, note = decode(b"P6 96 64 4095\n" + pixels.astype(">u2").tobytes())
    assert note is None and apart(rgb, stretched_in_float64(pixels, 0, 4095)) <= 0.51
    with pytest.raises(ImageError, match="truncated: the PPM ends"):
        decode(b"P6 96 64 4095\n" + pixels.astype(">u2").tobytes()[:-1])


@pytest.mark.parametrize(
    ("pixels", "noted"),
    [
        (np.full((8, 8), 4095, np.uint16), "use --range 0,4095 or --range auto"),  # nothing but one value
        (np.full((8, 8), 0, np.uint16), "use --range auto"),
        (np.full((8, 8), 65535, np.uint16), "use --range auto"),
        (np.linspace(0, 6553, 6400).reshape(80, 80).astype(np.uint16), "use --range 0,8191 or --range auto"),
        (np.linspace(0, 6700, 6400).reshape(80, 80).astype(np.uint16), None),
        (np.linspace(60_000, 65_535, 6400).reshape(80, 80).astype(np.uint16), "use --range auto"),
        (np.where(np.arange(6400) == 7, 65535, 9).reshape(80, 80).astype(np.uint16), "use --range auto"),  # a hot pixel
    ],
)
def test_a_note_is_given_below_a_tenth_of_the_range(pixels: np.ndarray, noted: str | None) -> None:
    note = decode(png(pixels, 0, 16))[1]
    assert note is None if noted is None else note is not None and note.endswith(": " + noted)
    decode(png(pixels, 0, 16), "auto")  # one value alone is stretched without a warning


def test_a_range_that_cuts_values_off_is_noted() -> None:
    pixels = np.linspace(0, 65_535, 6400).reshape(80, 80).astype(np.uint16)
    rgb, note = decode(png(pixels, 0, 16), (0, 4095))
    assert note == "94% of its values lie outside --range 0,4095: they become black or white"
    assert apart(rgb[..., 0], stretched_in_float64(pixels, 0, 4095)) <= 0.51
    assert decode(png(pixels, 0, 16), (100, 65_400))[1] is None


@pytest.mark.parametrize("value_range", ["auto", (0, 100)])
def test_images_of_8_bits_stay_as_they_are(value_range: ValueRange) -> None:
    pixels = noise(dtype=np.uint8)
    for data in (png(pixels, 2, 8), tiff(pixels), saved(Image.fromarray(pixels), "JPEG")):
        assert np.array_equal(decode(data, value_range)[0], decode(data)[0])
        assert decode_reduced(data, lambda *_: 1, value_range).values is None


@pytest.mark.parametrize("text", ["", "all", "5", "5,4", "4,4", "0,65536", "-1,5", "0,1,2", "a,b", "0.5,1"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected full, auto or LOW,HIGH such as 0,4095"):
        read_value_range(text)


def test_a_range_is_read_as_it_is_written() -> None:
    assert [read_value_range(text) for text in ("full", "auto", "0,4095", "7, 9")] == [
        "full",
        "auto",
        (0, 4095),
        (7, 9),
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Several frames


FRAMES = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("MPO", {"quality": 95}),
        pytest.param("AVIF", {"quality": 100}, marks=needs_avif),
    ],
)
def test_the_first_of_several_frames_is_taken_and_noted(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    data = saved(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:], **options)
    (tmp_path / "x").write_bytes(data)
    image = read_image(tmp_path / "x")
    assert image.note == "only the first of several frames or pages is used"
    assert difference(image.rgb, np.asarray(FRAMES[0])) <= 2


def test_an_animation_with_alpha_is_composited_too() -> None:
    frames = [Image.new("RGBA", (20, 10), (255, 0, 0, alpha)) for alpha in (128, 255)]
    rgb, note = decode(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert note is not None
    assert difference(rgb, flattened(np.asarray(frames[0]))) <= 1


# ----------------------------------------------------------------------------------------------------------------------
# Names and kinds of files

NAMES = {
    "spaces": "a b  c .png",
    "newline": "a\nb.png",
    "255 bytes": "x" * 251 + ".png",
    "leading dash": "-rf.png",
    "emoji": "🦊.png",
    "composed": "\u00e9.png",
    "decomposed": "e\u0301.png",
    "percent": "%s%n{0}.png",
    "no extension": "picture",
    "star": "*?[.png",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_any_name_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes(saved(noise(), "PNG"))
    assert np.array_equal(read_image(tmp_path / name).rgb, noise())
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(read_image(name).rgb, noise())


def test_a_name_that_is_not_utf_8_does_not_end_the_interpreter(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9-\xff.png"
    try:
        with open(name, "wb") as file:
            file.write(saved(noise(), "PNG"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    program = "import os, sys; from fewmatch.encoders.images import read_image; print(read_image(os.fsdecode(sys.argv[1])).rgb.shape)"
    command = [os.fsencode(sys.executable), b"-c", program.encode(), name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "(16, 24, 3)"), result.stderr


def make_folder(path: Path) -> None:
    path.mkdir()


def make_broken_link(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_nothing(path: Path) -> None:
    assert not path.exists()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_file_above(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"a file where the folder should be")


@pytest.mark.parametrize("make", [make_folder, make_broken_link, make_loop, make_nothing, make_pipe, make_file_above])
def test_what_is_no_file_is_an_io_error_and_not_a_hang(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / "x.jpg")
    reasons: list[str] = []
    reader = threading.Thread(target=lambda: reasons.append(read_refusal(folder / "x.jpg")), daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert reasons == ["io-error"]


@pytest.mark.parametrize("name", ["nul\0.jpg", "x" * 300 + ".jpg", "\ud800.jpg", ""])
def test_impossible_names_are_io_errors(tmp_path: Path, name: str) -> None:
    assert read_refusal(os.path.join(tmp_path, name)) == "io-error"


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(saved(noise(), "PNG"))
    (tmp_path / "link.jpg").symlink_to("real")
    assert np.array_equal(read_image(tmp_path / "link.jpg").rgb, noise())


def test_a_file_that_may_not_be_read_is_an_io_error(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(saved(noise(), "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert read_refusal(path) == "io-error"


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file"), OSError()]
)
def test_a_file_that_fails_after_it_was_found_is_an_io_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(_: Path) -> bytes:
        raise error

    (tmp_path / "x.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ImageError, match=r"^io-error: [A-Z]"):
        read_bytes(tmp_path / "x.png")


# ----------------------------------------------------------------------------------------------------------------------
# Anything at all


def check_anything(data: bytes, warn: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(warn)  # type: ignore[arg-type]
        try:
            rgb, note = decode(data)
        except ImageError as error:
            assert error.reason in REASONS
            return
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.size
    assert note is None or isinstance(note, str)


HEADS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"P5\n",
    b"P6 ",
    b"P7\n",
]
HEADS += [b"RIFF\x40\0\0\0WEBPVP8 ", b"\0\0\0\x20ftypavif", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"%!PS"]
FUZZ = settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("warn", ["ignore", "error"])
@FUZZ
@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=300))
def test_any_bytes_are_an_image_or_an_image_error(warn: str, head: bytes, rest: bytes) -> None:
    check_anything(head + rest, warn)


@functools.cache
def made(make: Callable[[], bytes]) -> bytes:
    """Written once, not for every example."""
    return make()


@pytest.mark.parametrize("warn", ["ignore", "error"])
@pytest.mark.parametrize("make", [*ALL, *RARE])
@settings(FUZZ, max_examples=20)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from("xid"), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_a_changed_file_is_an_image_or_an_image_error(
    warn: str, make: Callable[[], bytes], changes: list[tuple[float, str, bytes]]
) -> None:
    data = made(make)
    for place, kind, content in changes:
        at = int(place * len(data))
        skip = {"x": len(content), "i": 0, "d": len(content)}[kind]
        data = data[:at] + (b"" if kind == "d" else content) + data[at + skip :]
    check_anything(data, warn)
