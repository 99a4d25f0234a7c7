"""Decodes common image formats: PNG, JPEG, WebP, TIFF, BMP and JPEG 2000."""

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from boneage_jax.data import jpeg, python_warnings
from boneage_jax.data.files import refuse_huge
from boneage_jax.data.header import Header
from boneage_jax.errors import BoneAgeError

_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",  # JP2
    b"\xff\x4f\xff\x51",  # JPEG 2000 code stream
)
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes
SIGNATURE_BYTES = 18
"""Number of bytes that `is_picture` needs."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, struct.error, zlib.error)
"""Exceptions that Pillow raises for damaged files."""
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

_ORIENTATION = 274
_TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.T,
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].T,
    8: lambda image: np.rot90(image),
}
"""Transforms from the stored to the upright image, by EXIF orientation (CIPA DC-008, 4.6.5)."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _SAMPLES = 256, 257, 258, 259, 262, 273, 277
_STRIP_ROWS, _STRIP_BYTES, _PLANAR, _TILE_WIDTH = 278, 279, 284, 322
_WHITE_IS_ZERO, _SUBSAMPLED = 0, 6  # photometric interpretations; 6 (YCbCr) may subsample the chroma


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes is in one of the supported formats."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return head.startswith(_SIGNATURES)


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the header; None if the data is not an image."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            return header.size
    except (*_DAMAGED, Image.DecompressionBombError):
        return None


def decode_picture(data: bytes, name: str) -> tuple[np.ndarray, Header]:
    """Decodes a single-page image of 8 or 16 bits, greyscale or colour (alpha is dropped).

    Args:
      data: the bytes of the file.
      name: the name of the file in error messages.

    Returns:
      The luminance `[H, W]`, uint8 or uint16 as stored, turned upright by its EXIF orientation, and a header with
      only warnings and notes.

    Raises:
      BoneAgeError: not an image, several images, truncated, damaged, or larger than `files.MAX_PIXELS`.
    """
    kind, orientation = _check_before_decoding(data, name)
    found: tuple[str, ...] = ()
    if kind in ("JPEG", "MPO"):
        image, found = jpeg.decode(data, name)
    elif kind in ("PNG", "WEBP"):
        image = _decode_by_opencv(data, name)
    else:
        image = _decode_by_pillow(data, name)
    notes: tuple[str, ...] = ()
    if orientation in _TURNS:
        notes = (f"The picture was turned upright as its file says (EXIF orientation {orientation}).",)
        if kind != "TIFF":  # Pillow already turns these upright
            image = np.ascontiguousarray(_TURNS[orientation](image))
    return image, Header(warnings=found, notes=notes)


def _check_before_decoding(data: bytes, name: str) -> tuple[str, int]:
    """Refuses faults that decoders ignore (huge images, too few or too many bytes); returns format and orientation."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            refuse_huge(*header.size, name)
            kind = str(header.format)
            if kind != "MPO" and (pages := getattr(header, "n_frames", 1)) != 1:
                raise BoneAgeError(
                    f"{name} holds {pages} pages; expected one radiograph: save the page as a separate file"
                )
            # Pillow would decode the whole PNG to look for EXIF after the pixels.
            orientation = 1 if kind == "PNG" and b"eXIf" not in data else header.getexif().get(_ORIENTATION, 1)
            if kind == "TIFF":
                _check_tiff(header, name)
            elif kind == "PNG":
                _check_png(data, name)
            elif kind == "BMP":
                _check_bmp(data, name)
    except Image.DecompressionBombError as error:
        raise BoneAgeError(f"{name} is refused as a decompression bomb: {str(error).rstrip('.')}") from None
    except UnidentifiedImageError:
        raise BoneAgeError(
            f"{name} is not a PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM image; convert it or replace it"
        ) from None
    except _DAMAGED as error:
        raise _damaged(name, error) from None
    # Search from the last scan: photographs may have a complete thumbnail in their header.
    if kind in ("JPEG", "MPO") and data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) < 0:
        raise BoneAgeError(f"{name} is truncated: the JPEG has no end marker; replace it with an intact copy")
    if kind == "WEBP" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise BoneAgeError(
            f"{name} is truncated: the WebP is shorter than its header states; replace it with an intact copy"
        )
    return kind, orientation


def _check_png(data: bytes, name: str) -> None:
    """Refuses wrong chunk checksums, and a number of pixels that differs from the header's."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        picture.verify()  # Checksums of every chunk, up to and including the trailer.
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    # An interlaced image has seven passes: first column and row, and steps (PNG specification, 8.2).
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    needed = 0
    for left, top, right, down in passes if interlaced else ((0, 0, 1, 1),):
        columns, rows = math.ceil(max(width - left, 0) / right), math.ceil(max(height - top, 0) / down)
        needed += rows * (1 + math.ceil(columns * per_pixel / 8)) if columns else 0
    if (found := _unpacked(data, needed + 1)) != needed:
        raise BoneAgeError(
            f"{name} declares {width} x {height} pixels, but contains {'more' if found > needed else 'fewer'}; "
            "replace it with an intact copy"
        )


def _unpacked(png: bytes, limit: int) -> int:
    """Counts the bytes of pixel data in a PNG, up to `limit`."""
    unpacker, count, at = zlib.decompressobj(), 0, 8
    while at + 8 <= len(png) and count < limit:
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            count += len(unpacker.decompress(memoryview(png)[at + 8 : at + 8 + length], limit - count))
        at += length + 12
    return count


def _check_bmp(data: bytes, name: str) -> None:
    """Refuses an uncompressed BMP with more rows than its header states."""
    start, header = struct.unpack("<II", data[10:18])
    if header < 40:
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
        packed = False
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
        packed = compression not in (0, 3)  # 3: bit masks instead of a palette
    row = (width * bits + 31) // 32 * 4
    if not packed and len(data) - start >= row * (abs(height) + 1):
        raise BoneAgeError(
            f"{name} declares {width} x {abs(height)} pixels, but contains more; replace it with an intact copy"
        )


def _check_tiff(page: Image.Image, name: str) -> None:
    """Refuses a TIFF if the number of strips, or the length of uncompressed ones, does not match its height."""
    tags = page.tag_v2  # type: ignore[attr-defined]
    width, height = tags[_WIDTH], tags[_HEIGHT]  # as stored, before any turn
    if _TILE_WIDTH in tags or _OFFSETS not in tags:
        return
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANAR, 1) == 2 else 1
    rows = min(tags.get(_STRIP_ROWS) or height, height)
    wrong = len(tags[_OFFSETS]) != math.ceil(height / rows) * planes
    if tags.get(_COMPRESSION, 1) == 1 and tags.get(_PHOTOMETRIC) != _SUBSAMPLED and all(tags.get(_STRIP_BYTES, [0])):
        needed = height * math.ceil(width * sum(tags.get(_BITS, (1,))) / 8)
        wrong |= not needed <= sum(tags[_STRIP_BYTES]) < needed + needed // height
    if wrong:
        raise BoneAgeError(
            f"{name} declares {width} x {height} pixels, but contains a different number; "
            "replace it with an intact copy"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Pillow's warnings about odd tags and large sizes: damaged pixels are errors, and sizes are checked."""
    with python_warnings.suppressed():
        yield


def _decode_by_opencv(data: bytes, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise BoneAgeError(f"{name} is damaged: its pixels cannot be decoded; replace it with an intact copy")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)


def _decode_by_pillow(data: bytes, name: str) -> np.ndarray:
    """TIFF, BMP and JPEG 2000: Pillow supports more TIFF compressions than OpenCV, and reports damage."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # WeasyPrint switches it on for the whole process
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as page:
            mode, photometric = page.mode, page.getexif().get(_PHOTOMETRIC)
            if mode in ("P", "RGB", "RGBA", "RGBX", "YCbCr"):
                return cv2.cvtColor(np.asarray(page.convert("RGB")), cv2.COLOR_RGB2GRAY)
            if mode not in ("L", "LA") and not mode.startswith("I;16"):
                raise BoneAgeError(f"{name} has pixels of type {mode!r}; expected 8 or 16 bits, or colour")
            image = np.asarray(page)
    except _DAMAGED as error:
        raise _damaged(name, error) from None
    image = image[..., 0] if mode == "LA" else image
    image = image.astype(np.uint8 if image.dtype.itemsize == 1 else np.uint16)
    # Pillow already inverts 8-bit images.
    return np.iinfo(np.uint16).max - image if image.dtype == np.uint16 and photometric == _WHITE_IS_ZERO else image


def _damaged(name: str, error: Exception) -> BoneAgeError:
    return BoneAgeError(f"{name} is truncated or damaged ({error}); replace it with an intact copy")
