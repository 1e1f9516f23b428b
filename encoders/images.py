"""Image files to upright 8-bit RGB: decoded right, or refused with the reason; never a plausible wrong picture."""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import re
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, PpmImagePlugin, TiffImagePlugin, UnidentifiedImageError

from fewmatch.encoders.value_range import DEEPEST, Levels, ValueRange
from fewmatch.errors import ImageError

#: Raised when decoding or resizing changes pixels: features made before and after must not be mixed.
DECODER_VERSION = 1

#: By how much a JPEG can be reduced while it is decoded, the most first.
REDUCTIONS = (8, 4, 2)

#: The limit at which Pillow speaks of a decompression bomb. An image above it is skipped before its pixels are allocated.
MAX_PIXELS = 178_956_970

#: A file larger than this is not read: more than such an image takes without compression.
MAX_BYTES = 2**31

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

#: What Pillow may take a file for. The list is closed because among its other plug-ins are formats that any bytes can pass
#: for, and one (EPS) that runs another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")

#: How such files begin: one that does and cannot be read is damaged, any other is not an image.
_BEGINNINGS = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WebP>RIFF.{4}WEBP)|(?P<GIF>GIF8[79]a)"
    rb"|(?P<BMP>BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0)|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<PNM>P[1-6f]\s)"
    rb"|(?P<AVIF>.{4}ftypavi[fs])|(?P<JPEG2000>\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n)",
    re.DOTALL,
)


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


def read_image(path: str | os.PathLike[str], value_range: ValueRange = "full") -> ImageFile:
    """Read and decode one file.

    Args:
        value_range: which values of an image of more than 8 bits become black and white; see `ValueRange`.

    Raises:
        ImageError: the file cannot be read or used; its `reason` is one of `REASONS`.
    """
    data = read_bytes(path)
    decoded = decode_reduced(data, lambda *_: 1, value_range)
    return ImageFile(decoded.rgb, hashlib.sha256(data).hexdigest(), decoded.note)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image file as displayed, with EXIF orientation applied as `read_image` does; its pixels are not decoded.

    Raises:
        ImageError: the file cannot be read or is no image.
    """
    if not os.path.isfile(path):
        raise ImageError("io-error", "not a regular file")
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            with _open(file) as header:
                size = header.size
                if isinstance(header, TiffImagePlugin.TiffImageFile):  # whose size Pillow may have turned already
                    size = header.tag_v2[_WIDTH], header.tag_v2[_HEIGHT]
                    orientation = header.tag_v2.get(_ORIENTATION, 1)
                elif header.format == "PNG":
                    orientation = _orientation(_png_exif(data))
                else:
                    orientation = _orientation(header.info.get("exif", b""))
            return size[::-1] if orientation in _ON_ITS_SIDE else size
    except ImageError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise ImageError("io-error", error.strerror or type(error).__name__) from error
        raise ImageError("not-an-image", "its header cannot be read") from error
    # Pillow's plug-ins raise nearly anything on damaged data.
    except Exception as error:
        raise ImageError("not-an-image", "its header cannot be read") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a regular file. Anything else (a pipe would never end) is an `io-error`."""
    try:
        information = Path(path).stat()
        if not stat.S_ISREG(information.st_mode):
            raise ImageError("io-error", "not a regular file")
        if information.st_size > MAX_BYTES:
            raise ImageError("too-large", f"a file of {information.st_size / 2**30:.1f} GiB")
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError("io-error", error.strerror or type(error).__name__) from error
    except ValueError as error:  # a name with a NUL
        raise ImageError("io-error", str(error)) from error
    if not data:
        raise ImageError("empty", "the file has no content")
    return data


def decode(data: bytes, value_range: ValueRange = "full") -> tuple[UInt8[np.ndarray, "H W 3"], str | None]:
    """Decode the bytes of an image file.

    8-bit and 16-bit grey or colour, palettes and CMYK become RGB (16 bits as value / 257, rounded, after `value_range`); alpha is
    composited on white; EXIF orientation is applied; of several frames the first is taken. Float and 32-bit pixels have no agreed range
    and are refused.

    Returns:
        (H, W, 3) uint8 RGB, and a note or None.

    Raises:
        ImageError: with one of `REASONS`.
    """
    decoded = decode_reduced(data, lambda *_: 1, value_range)
    return decoded.rgb, decoded.note


@dataclass(frozen=True)
class Decoded:
    """A decoded picture, which may be smaller than its original.

    rgb: (h, w, 3) uint8, upright; ⌈height / reduction⌉ × ⌈width / reduction⌉ pixels, each for a square of the original's.
    width, height: of the original as displayed.
    reduction: original pixels on a side of one pixel of `rgb`; 1 is the original itself.
    overhang: how many original pixels `rgb` begins left of and above the original: the reduced pixels are counted from the corner where
        the file begins, which in a picture that EXIF turns is another one.
    note: as in `ImageFile`.
    values: which values became black and white, where the image has more than 8 bits and was stretched; else None.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    width: int
    height: int
    reduction: int = 1
    overhang: tuple[int, int] = (0, 0)
    note: str | None = None
    values: tuple[int, int] | None = None


def decode_reduced(data: bytes, reduction: Callable[[int, int], int], value_range: ValueRange = "full") -> Decoded:
    """As `decode`, but a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, by libjpeg's smaller inverse transforms: faster, and not
    the same pixels as those of the whole picture made smaller (docs/encoders.md).

    Args:
        data: the bytes of an image file.
        reduction: given the width and height of the picture as displayed, one of `REDUCTIONS` or 1. It is asked for JPEG files alone, and
            not for those in inks (CMYK); all others are decoded whole.
        value_range: which values of an image of more than 8 bits become black and white; see `ValueRange`.

    Raises:
        ImageError: with one of `REASONS`.
    """
    try:
        with _open(data) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise ImageError("too-large", f"{width}×{height} px, more than {MAX_PIXELS:,} pixels")
            note = (
                "only the first of several frames or pages is used" if getattr(header, "is_animated", False) else None
            )
            if header.format in ("JPEG", "MPO"):
                return _decode_jpeg(data, header, reduction, note)
            levels = Levels(value_range)
            rgb = _pixels(data, header, note is not None, levels)
            notes = "; ".join(text for text in (note, levels.note) if text) or None
            return Decoded(rgb, rgb.shape[1], rgb.shape[0], note=notes, values=levels.values)
    except ImageError:
        raise
    # Pillow's plug-ins raise nearly anything on damaged data, so this is the one place that catches it all.
    except Exception as error:
        raise _failure(data, error) from error


def _open(data: bytes | BinaryIO) -> Image.Image:
    Image.init()
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
    except UnidentifiedImageError as error:
        if isinstance(data, bytes) and _kind(data) == "TIFF":
            raise _unknown_tiff(data) from error
        raise


def _pixels(data: bytes, header: Image.Image, animated: bool, levels: Levels) -> UInt8[np.ndarray, "H W 3"]:
    """By OpenCV where it is as exact as Pillow and faster, or keeps 16 bits; by Pillow otherwise."""
    transparent = header.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in header.info
    exif = header.info.get("exif", b"")
    if header.format == "PNG":
        orientation = _orientation(_png_exif(data))
        return _upright(_decode_png(data, header, levels), orientation)
    if isinstance(header, TiffImagePlugin.TiffImageFile):
        return _decode_tiff(data, header, transparent, levels)
    if isinstance(header, PpmImagePlugin.PpmImageFile) and header.mode == "RGB" and _ppm_depth(header) > 255:
        return levels.to_8_bits(_decode_deep_ppm(data, header))
    if header.format == "JPEG2000" and not _jpeg2000_is_complete(data):
        raise ImageError("truncated", "the JPEG 2000 has no end-of-codestream marker")
    if header.format == "WEBP" and not transparent and not animated:
        return _upright(_opencv_rgb(data), _orientation(exif))
    return _upright(_decode_pillow(header, transparent, levels), _orientation(exif))


def _decode_jpeg(data: bytes, header: Image.Image, reduction: Callable[[int, int], int], note: str | None) -> Decoded:
    if not _jpeg_is_complete(data):
        raise ImageError("truncated", "the JPEG has no end-of-image marker")
    orientation = _orientation(header.info.get("exif", b""))
    size = header.size[::-1] if orientation in _ON_ITS_SIDE else header.size
    # Inks become colours by products, so that averaging them before or after is not the same; and such files are rare.
    factor = 1 if header.mode == "CMYK" else reduction(*size)
    rgb = _upright(_opencv_rgb(data, _REDUCED[factor]), orientation)
    if (rgb.shape[1], rgb.shape[0]) != tuple(-(-length // factor) for length in size):
        raise ImageError("corrupt", f"{rgb.shape[1]}×{rgb.shape[0]} pixels at 1/{factor} of {size[0]}×{size[1]}")
    left, top = (-length % factor for length in size)
    turned = (left if orientation in (2, 3, 6, 7) else 0, top if orientation in (3, 4, 7, 8) else 0)
    return Decoded(rgb, *size, factor, turned, note)


_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ON_ITS_SIDE = (5, 6, 7, 8)


def _opencv(data: bytes, flags: int) -> np.ndarray:
    try:
        # From bytes, never from a name: cv2.imread ends the interpreter on a name that is not UTF-8.
        pixels: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    return pixels


def _opencv_rgb(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    # Orientation is left to `_upright`, so that one reading of EXIF holds for every format and version of OpenCV.
    bgr = _opencv(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _decode_png(data: bytes, header: Image.Image, levels: Levels) -> np.ndarray:
    depth, colour_type = data[24], data[25]
    pixels = _opencv(data, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return levels.on_white(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
    rgb = cv2.cvtColor(levels.to_8_bits(pixels), cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)
    key = header.info.get("transparency")
    if key is not None and colour_type in (0, 2):  # one grey value or colour stands for transparent
        value = np.atleast_1d(np.asarray(key, np.int64))[::-1] * (255 // (2**depth - 1) if depth < 8 else 1)
        rgb[(pixels.reshape(*pixels.shape[:2], -1) == value).all(axis=2)] = 255
    return rgb


def _decode_tiff(data: bytes, header: TiffImagePlugin.TiffImageFile, transparent: bool, levels: Levels) -> np.ndarray:
    tags = header.tag_v2
    bits, channels = set(tags.get(_BITS, (1,))), tags.get(_CHANNELS, 1)
    if set(tags.get(_SAMPLE_FORMAT, (1,))) - {1, 4} or bits - {1, 2, 4, 8, 16} or header.mode in ("I", "F", "LAB"):
        raise _unsupported_tiff(tags)
    strips = [tile[1] for tile in header.tile if tile[1] is not None]  # left, top, right, bottom
    if max(strip[2] for strip in strips) < tags[_WIDTH] or max(strip[3] for strip in strips) < tags[_HEIGHT]:
        raise ImageError("corrupt", "the strips of the TIFF do not cover the picture")  # Pillow leaves the rest black
    if bits != {16} or (channels == 1 and header.mode.startswith("I;16")):
        rgb = _decode_pillow(header, transparent, levels)
        # Pillow inverts where 0 means white, but not with 16 bits.
        inverted = bits == {16} and tags.get(_PHOTOMETRIC) == 0
        # Where Pillow has turned a TIFF upright while decoding, it has removed the tag as well.
        return _upright(255 - rgb if inverted else rgb, tags.get(_ORIENTATION, 1))
    if tags.get(_PHOTOMETRIC) != 2 or tags.get(_PLANAR, 1) != 1 or channels not in (3, 4):
        raise _unsupported_tiff(tags)  # Pillow and OpenCV would read it without complaint, and wrongly
    pixels = _opencv(data, cv2.IMREAD_UNCHANGED)  # turned upright by OpenCV, whatever its flags
    if transparent:
        return levels.on_white(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), premultiplied=tags.get(_EXTRA) == (1,))
    return cv2.cvtColor(levels.to_8_bits(pixels[..., :3]), cv2.COLOR_BGR2RGB)


_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _CHANNELS = 256, 257, 258, 262, 274, 277
_PLANAR, _EXTRA, _SAMPLE_FORMAT = 284, 338, 339


def _unknown_tiff(data: bytes) -> ImageError:
    """Why Pillow does not know a TIFF: the layout of its pixels, unless its directory cannot be read either."""
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 0x2B in data[2:4] else 8])
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if not {_WIDTH, _HEIGHT, _PHOTOMETRIC} <= set(tags):
        return ImageError("corrupt", "a TIFF whose directory cannot be read")
    return _unsupported_tiff(tags)


def _unsupported_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> ImageError:
    channels = tags.get(_CHANNELS, 1)
    kind = {2: "signed ", 3: "float "}.get(max(tags.get(_SAMPLE_FORMAT, (1,))), "")
    planes = " in planes" if channels > 1 and tags.get(_PLANAR, 1) == 2 else ""
    return ImageError(
        "unsupported-depth",
        f"TIFF pixels of {channels} × {kind}{max(tags.get(_BITS, (1,)))} bits{planes}: save it as 8- or 16-bit grey or RGB",
    )


def _ppm_depth(header: PpmImagePlugin.PpmImageFile) -> int:
    """The largest value of a binary PPM that is not simply 8 bits; 0 for other files."""
    tile = header.tile[0]
    return int(tile.args[1]) if tile.codec_name == "ppm" and isinstance(tile.args, tuple) else 0


def _decode_deep_ppm(data: bytes, header: PpmImagePlugin.PpmImageFile) -> np.ndarray:
    """A binary colour PPM of more than 8 bits, of which Pillow would keep 8; its largest value, which the file states, becomes 65,535."""
    offset, largest = header.tile[0].offset, _ppm_depth(header)
    width, height = header.size
    if len(data) < offset + 6 * width * height:
        raise ImageError("truncated", "the PPM ends before its last pixel")
    values = np.frombuffer(data, ">u2", 3 * width * height, offset).reshape(height, width, 3).astype(np.uint32)
    scaled: np.ndarray = np.minimum((values * DEEPEST + largest // 2) // largest, DEEPEST).astype(np.uint16)
    return scaled


def _decode_pillow(image: Image.Image, transparent: bool, levels: Levels) -> np.ndarray:
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ImageError("unsupported-depth", "float or 32-bit pixels: save the image with 8 or 16 bits per channel")
    image.load()
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow stretches a PGM of more than 8 bits to 16
        return cv2.cvtColor(levels.to_8_bits(np.asarray(image).astype(np.uint16)), cv2.COLOR_GRAY2RGB)
    if image.mode == "La":
        image = image.convert("LA")
    if transparent:
        return levels.on_white(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _orientation(exif: bytes) -> int:
    """What EXIF says about the way up; 1, upright, where it says nothing or cannot be read."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        return int(tags.get(_ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):
        return 1


def _upright(rgb: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in _ON_ITS_SIDE:
        rgb = cv2.transpose(rgb)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return rgb if flip is None else cv2.flip(rgb, flip)


def _png_exif(data: bytes | mmap.mmap) -> bytes:
    """The EXIF of a PNG, wherever it stands; made sure on the way that no chunk is longer than the file.

    OpenCV takes a chunk's length for true, and so allocates up to 4 GB for a file with one damaged byte.
    """
    exif, position, name = b"", 8, b""
    while name != b"IEND":
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if position + length + 12 > len(data):
            raise ImageError("truncated", f"the PNG ends within its chunk {name.decode('latin-1')!r}")
        if name == b"eXIf":
            exif = data[position + 8 : position + 8 + length]
        position += length + 12
    return exif


def _kind(data: bytes) -> str | None:
    begins = _BEGINNINGS.match(data)
    return begins.lastgroup if begins else None


def _failure(data: bytes, error: Exception) -> ImageError:
    """The reason why data cannot be decoded, from how they begin and end and from what the decoder said."""
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too-large", f"more than {MAX_PIXELS:,} pixels")
    if isinstance(error, MemoryError):
        return ImageError("too-large", "not enough memory to decode it")
    kind = _kind(data)
    if kind is None:
        return ImageError("not-an-image", "in no format that can be read")
    text = str(error).split("\n", maxsplit=1)[0] or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        text = f"begins like a {kind} file, but cannot be read"
    cut = (
        (kind == "JPEG" and not _jpeg_is_complete(data))
        or (kind == "PNG" and b"IEND" not in data)
        or (kind == "WebP" and int.from_bytes(data[4:8], "little") + 8 > len(data))
        or re.search("truncated|EOF|only got|not enough", text) is not None
    )
    return ImageError("truncated" if cut else "corrupt", text)


_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def _jpeg_is_complete(data: bytes) -> bool:
    """Whether the end-of-image marker of the (first) picture is there.

    libjpeg fills what is missing with grey and says nothing, and without the marker nobody can tell whether all is there. The
    segments are walked because thumbnails inside EXIF carry end markers of their own, and because bytes may follow the end.
    Source: ITU-T T.81, annex B.
    """
    position = 2
    while True:
        start = data.find(b"\xff", position)
        if start < 0 or start + 1 >= len(data):
            return False
        marker = data[start + 1]
        if marker == 0xD9:
            return True
        if marker == 0xFF:  # fill byte
            position = start + 1
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            position = start + 2
        else:
            position = start + 2 + max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        if marker == 0xDA:  # entropy-coded data follow the scan header, up to the next marker
            found = _MARKER_IN_SCAN.search(data, position)
            if found is None:
                return False
            position = found.start()


def _jpeg2000_is_complete(data: bytes) -> bool:
    """Whether the end-of-codestream marker is there; coded pixels cannot hold its bytes. Source: ITU-T T.800, annex A."""
    pixels_at = data.find(b"\xff\x93")
    return pixels_at >= 0 and data.find(b"\xff\xd9", pixels_at) >= 0
