"""A hand radiograph with its labels, and the one way from the bytes of an image file to grey pixels."""

import dataclasses
import io

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from boneage_jax.errors import BoneAgeError

FEMALE = 0
MALE = 1

MAX_PIXELS = 64_000_000
"""Larger images are refused before decoding: the largest hand radiographs have about 10 million pixels."""

_FORMATS = ("PNG", "JPEG", "WEBP")
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """One hand radiograph: grey pixels `image [H, W]`, `sex` (FEMALE or MALE) and bone `age` in months."""

    id: str
    image: np.ndarray
    sex: int
    age: float


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes a PNG, JPEG or WebP file, 8 or 16 bit, grey or colour (an alpha channel is dropped).

    Args:
      data: the bytes of the file.
      name: the file, as errors should name it.

    Returns:
      Grey pixels `[H, W]`, uint8 or uint16 as stored.

    Raises:
      BoneAgeError: the file is empty, cut short, damaged, not an image, or larger than `MAX_PIXELS`.
    """
    if not data:
        raise BoneAgeError(f"{name} is empty (0 bytes); replace it with an intact copy of the image.")
    _check_before_decoding(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise BoneAgeError(f"{name} is damaged: its pixels cannot be decoded; replace it with an intact copy.")
    return _grey(image)


def _check_before_decoding(data: bytes, name: str) -> None:
    """Refuses what OpenCV would swallow silently: huge images, and files that end too early."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
            width, height = header.size
            kind = header.format
            if width * height <= MAX_PIXELS and kind == "PNG":
                header.verify()  # Checksums of every chunk, up to and including the trailer.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BoneAgeError(f"{name} is refused as a decompression bomb: {error}") from None
    except UnidentifiedImageError:
        raise BoneAgeError(f"{name} is not a PNG, JPEG or WebP image; convert it or replace it.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BoneAgeError(f"{name} is truncated or damaged ({error}); replace it with an intact copy.") from None
    if width * height > MAX_PIXELS:
        raise BoneAgeError(
            f"{name} is refused as a decompression bomb: it has {width} x {height} pixels, "
            f"more than {MAX_PIXELS // 1_000_000} million; hand radiographs have about 4 million."
        )
    # The last scan, not the first: photographs may carry a complete thumbnail in their header.
    if kind == "JPEG" and data.find(_JPEG_END, data.rfind(_JPEG_SCAN)) < 0:
        raise BoneAgeError(f"{name} is truncated: the JPEG has no end marker; replace it with an intact copy.")
    if kind == "WEBP" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise BoneAgeError(f"{name} is truncated: the WebP is shorter than it says; replace it with an intact copy.")


def _grey(image: np.ndarray) -> np.ndarray:
    """Drops colour and alpha: `[H, W]`, `[H, W, 3]` or `[H, W, 4]` in OpenCV's channel order to `[H, W]`."""
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)
