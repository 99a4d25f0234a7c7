"""A hand radiograph with its labels, and the one way from the bytes of an image file to grey pixels."""

import contextlib
import dataclasses
import io
import os
import pathlib
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from boneage_jax.data.files import File, refuse_huge
from boneage_jax.data.header import Header, is_dicom
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

__all__ = ["ENDINGS", "Radiograph", "decode", "pixel_size", "read", "square_pixels"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm", ".dicom")
"""Of the names under which images are looked for; what they hold is told by their first bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_SQUARE = 0.01  # deviation of the aspect ratio from 1 that rounding explains
_MOST_OBLONG = 4
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """One hand radiograph: grey pixels `image [H, W]`, `sex` and bone `age` in months."""

    id: str
    image: np.ndarray
    sex: Sex
    age: float


def read(source: str | os.PathLike | bytes | File, name: str = "the image") -> tuple[np.ndarray, Header | None]:
    """Reads a radiograph in its true proportions, and what its file says about it.

    Args:
      source: a file, its path or its bytes: PNG, JPEG, WebP, TIFF or DICOM, recognised by the bytes, not the name.
      name: the file, as errors should name it, where bytes are given.

    Returns:
      Greyscale pixels `[H, W]` with bright bones (uint8 or uint16), and the header, which only DICOM has. The pixels
      are square: a copy that was squashed (`File.original_size`) and DICOM pixels that are not square are resampled.

    Raises:
      BoneAgeError: as `decode`, or the file cannot be read.
    """
    if isinstance(source, bytes):
        return _read_bytes(source, name)
    if not isinstance(source, File):
        source = File(str(source), 0, 0, pathlib.Path(source))
    image, header = _read_bytes(source.read(), source.name)
    if source.original_size is not None:
        width, height = source.original_size
        image = square_pixels(image, (height / image.shape[0]) / (width / image.shape[1]), source.name)
    return image, header


def square_pixels(image: np.ndarray, aspect: float, name: str) -> np.ndarray:
    """Resamples an image so that its pixels are square, which never makes either side smaller.

    Args:
      image: `[H, W]`, uint8 or uint16.
      aspect: height of a pixel divided by its width.
      name: the file, as errors should name it.

    Returns:
      The image itself if its pixels are square to within 1 %; otherwise uint16, 8-bit intensities times 257, with
      more rows or more columns.

    Raises:
      BoneAgeError: the aspect ratio lies outside 1/4 to 4, or the result is larger than `MAX_PIXELS`.
    """
    if abs(aspect - 1) <= _SQUARE:
        return image
    if not 1 / _MOST_OBLONG <= aspect <= _MOST_OBLONG:
        raise BoneAgeError(
            f"{name}: its pixels are {aspect:.3g} times as high as wide, expected 1/{_MOST_OBLONG} to {_MOST_OBLONG}; "
            "correct the pixel spacing or the original size."
        )
    height, width = image.shape
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    refuse_huge(*size, name)
    if image.dtype == np.uint8:
        image = image.astype(np.uint16) * 257
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _read_bytes(source: bytes, name: str) -> tuple[np.ndarray, Header | None]:
    if not source:
        raise BoneAgeError(f"{name} is empty (0 bytes); replace it with an intact copy of the image.")
    if not is_dicom(source):
        return _decode_picture(source, name), None
    from boneage_jax.data import dicom  # pydicom takes half a second to import.

    image, header = dicom.read_dicom(source, name)
    if header.spacing is not None:
        rows, columns = header.spacing
        image = square_pixels(image, rows / columns, name)
    return image, header


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes a PNG, JPEG, WebP, TIFF or DICOM file, 8 or 16 bit, grey or colour (an alpha channel is dropped).

    Args:
      data: the bytes of the file.
      name: the file, as errors should name it.

    Returns:
      Grey pixels `[H, W]`, uint8 or uint16 as stored; of DICOM and TIFF, as they are to be shown on black.

    Raises:
      BoneAgeError: the file is empty, cut short, damaged, not an image, several, or larger than `files.MAX_PIXELS`.
    """
    return read(data, name)[0]


def pixel_size(file: File) -> tuple[int, int] | None:
    """Width and height of a PNG, JPEG, WebP or TIFF image by its header; None for anything else."""
    try:
        with _quiet(), Image.open(io.BytesIO(file.read()), formats=_FORMATS) as header:
            return header.size
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None


def _decode_picture(data: bytes, name: str) -> np.ndarray:
    if _check_before_decoding(data, name) == "TIFF":
        return _decode_tiff(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise BoneAgeError(f"{name} is damaged: its pixels cannot be decoded; replace it with an intact copy.")
    return _grey(image)


def _check_before_decoding(data: bytes, name: str) -> str:
    """Refuses what OpenCV would swallow silently: huge images, and files that end too early; returns the format."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            refuse_huge(*header.size, name)
            kind = str(header.format)
            if kind == "PNG":
                header.verify()  # Checksums of every chunk, up to and including the trailer.
    except Image.DecompressionBombError as error:
        raise BoneAgeError(f"{name} is refused as a decompression bomb: {error}") from None
    except UnidentifiedImageError:
        raise BoneAgeError(f"{name} is not a PNG, JPEG, WebP, TIFF or DICOM image; convert it or replace it.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BoneAgeError(f"{name} is truncated or damaged ({error}); replace it with an intact copy.") from None
    # The last scan, not the first: photographs may carry a complete thumbnail in their header.
    if kind == "JPEG" and data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) < 0:
        raise BoneAgeError(f"{name} is truncated: the JPEG has no end marker; replace it with an intact copy.")
    if kind == "WEBP" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise BoneAgeError(f"{name} is truncated: the WebP is shorter than it says; replace it with an intact copy.")
    return kind


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Pillow's warnings of odd tags and large sizes to itself: damaged pixels are errors, sizes are checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    """One page of 8 or 16 bits by Pillow, which knows more compressions than OpenCV's TIFF reader."""
    try:
        with _quiet(), Image.open(io.BytesIO(data), formats=("TIFF",)) as page:
            if (pages := getattr(page, "n_frames", 1)) != 1:
                raise BoneAgeError(
                    f"{name} holds {pages} pages; expected one radiograph: save the page as its own file."
                )
            mode, photometric = page.mode, page.getexif().get(_PHOTOMETRIC)
            if mode in ("RGB", "RGBA", "RGBX", "YCbCr"):
                return cv2.cvtColor(np.asarray(page.convert("RGB")), cv2.COLOR_RGB2GRAY)
            if mode not in ("L", "LA") and not mode.startswith("I;16"):
                raise BoneAgeError(f"{name} has pixels of the kind {mode!r}; expected grey or colour of 8 or 16 bits.")
            image = np.asarray(page)
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError) as error:
        raise BoneAgeError(f"{name} is truncated or damaged ({error}); replace it with an intact copy.") from None
    image = image[..., 0] if mode == "LA" else image
    image = image.astype(np.uint8 if image.dtype.itemsize == 1 else np.uint16)
    # Pillow inverts 8 bits by itself.
    return np.iinfo(np.uint16).max - image if image.dtype == np.uint16 and photometric == _WHITE_IS_ZERO else image


def _grey(image: np.ndarray) -> np.ndarray:
    """Drops colour and alpha: `[H, W]`, `[H, W, 3]` or `[H, W, 4]` in OpenCV's channel order to `[H, W]`."""
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)
