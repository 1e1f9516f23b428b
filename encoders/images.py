"""Image files to upright 8-bit RGB: decoded right, or refused with the reason; never a plausible wrong picture."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from encoders.errors import ImageError

#: Raised when decoding or resizing changes pixels: features made before and after must not be mixed.
DECODER_VERSION = 1

#: The limit at which Pillow speaks of a decompression bomb. An image above it is skipped before its pixels are allocated.
MAX_PIXELS = 178_956_970

#: Why an image was skipped; the manifest and every report use these words.
REASONS = (
    "empty",
    "io-error",
    "not-an-image",
    "truncated",
    "corrupt",
    "too-large",
    "unsupported-depth",
    "too-elongated",
)

#: Decoded by OpenCV, which is about twice as fast; the other formats go through Pillow, which notices truncation by itself.
_OPENCV_FORMATS = {"JPEG", "MPO", "PNG", "WEBP"}


@dataclass(frozen=True)
class ImageFile:
    """The decoded content of one file.

    rgb: (H, W, 3) uint8, upright (EXIF orientation applied), transparent parts on white.
    sha256: digest of the file's bytes.
    note: what a user should know though the image is fine (such as a second frame that was ignored), or None.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    sha256: str
    note: str | None = None


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Read and decode one file.

    Raises:
        ImageError: the file cannot be read or used; its `reason` is one of `REASONS`.
    """
    data = read_bytes(path)
    rgb, note = decode(data)
    return ImageFile(rgb, hashlib.sha256(data).hexdigest(), note)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file. Anything else (a pipe would never end) is an `io-error`."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ImageError("io-error", "not a regular file")
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError("io-error", error.strerror or type(error).__name__) from error
    except ValueError as error:  # a name with a NUL
        raise ImageError("io-error", str(error)) from error
    if not data:
        raise ImageError("empty", "the file has no content")
    return data


def decode(data: bytes) -> tuple[UInt8[np.ndarray, "H W 3"], str | None]:
    """Decode the bytes of an image file.

    8-bit and 16-bit grey or colour, palettes and CMYK become RGB (16 bits as value / 257, rounded); alpha is composited on white;
    EXIF orientation is applied; of several frames the first is taken. Float and 32-bit pixels have no agreed range and are refused.

    Returns:
        (H, W, 3) uint8 RGB, and a note or None.

    Raises:
        ImageError: with one of `REASONS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as header:
            return _decode(data, header)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        if data[:4] in (b"II*\0", b"MM\0*"):
            # The usual TIFF that Pillow does not know has 16 or 32 bits in several channels.
            return _decode_opencv(data), None
        raise ImageError("not-an-image", "in no format that can be read") from error


def _decode(data: bytes, header: Image.Image) -> tuple[UInt8[np.ndarray, "H W 3"], str | None]:
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"{width}×{height} px, more than {MAX_PIXELS:,} pixels")
    if header.mode in ("F", "I"):
        raise ImageError("unsupported-depth", "float or 32-bit pixels: save the image with 8 or 16 bits per channel")
    transparent = header.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in header.info
    try:
        note = "first of several frames" if getattr(header, "is_animated", False) else None
        if header.format in ("JPEG", "MPO") and not _jpeg_is_complete(data):
            header.load()  # tells a scan that stops early from a harmless missing end marker
        if header.format in _OPENCV_FORMATS and not transparent:
            return _decode_opencv(data), note
        return _decode_pillow(header, transparent), note
    except ImageError:
        raise
    # Pillow's plug-ins raise nearly anything on damaged data, so this is the one place that catches it all.
    except Exception as error:
        text = str(error).split("\n", maxsplit=1)[0] or type(error).__name__
        reason = "truncated" if "truncated" in text.lower() else "corrupt"
        raise ImageError(reason, text) from error


def _decode_opencv(data: bytes) -> UInt8[np.ndarray, "H W 3"]:
    try:
        # From bytes, never from a name: cv2.imread ends the interpreter on a name that is not UTF-8.
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise ImageError("corrupt", "OpenCV cannot decode it") from error
    if bgr is None:
        raise ImageError("corrupt", "OpenCV cannot decode it")
    return cv2.cvtColor(_to_8_bits(bgr), cv2.COLOR_BGR2RGB)


def _decode_pillow(image: Image.Image, transparent: bool) -> UInt8[np.ndarray, "H W 3"]:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = _to_8_bits(np.asarray(upright).astype(np.uint16))
        return np.repeat(grey[..., None], 3, axis=2)
    if transparent:
        rgba = upright.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, rgba)
    return np.asarray(upright.convert("RGB"))


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise ImageError("unsupported-depth", f"{pixels.dtype} pixels: save the image with 8 or 16 bits per channel")


_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether the end-of-image marker of the (first) picture is there.

    libjpeg, and so OpenCV, fills what is missing with grey and says nothing. The segments are walked because thumbnails inside
    EXIF carry end markers of their own, and because bytes may follow the end. Source: ITU-T T.81, annex B.
    """
    position = 2
    while position + 4 <= len(data) or data[position : position + 2] == b"\xff\xd9":
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            position += 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # entropy-coded data follow the scan header, up to the next marker
            found = _MARKER_IN_SCAN.search(data, position)
            if found is None:
                return False
            position = found.start()
    return False
