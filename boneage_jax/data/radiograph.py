"""A hand radiograph with its labels, and the one way from the bytes of an image file to grey pixels."""

import contextlib
import dataclasses
import io
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

__all__ = ["ENDINGS", "Radiograph", "decode", "read"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm", ".dicom")
"""Of the names under which images are looked for; what they hold is told by their first bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """One hand radiograph: grey pixels `image [H, W]`, `sex` and bone `age` in months."""

    id: str
    image: np.ndarray
    sex: Sex
    age: float


def read(source: str | pathlib.Path | bytes, name: str = "the image") -> tuple[np.ndarray, Header | None]:
    """Reads a radiograph and what its file says about it.

    Args:
      source: a path, or the bytes of a file: PNG, JPEG, WebP, TIFF or DICOM, told by the bytes, not the name.
      name: the file, as errors should name it, where bytes are given.

    Returns:
      Grey pixels `[H, W]` with bright bones (uint8 or uint16), and the header, which only DICOM has.

    Raises:
      BoneAgeError: as `decode`, or the file cannot be read.
    """
    if not isinstance(source, bytes):
        name, path = str(source), pathlib.Path(source)
        source = File(name, 0, 0, path).read()
    if not source:
        raise BoneAgeError(f"{name} is empty (0 bytes); replace it with an intact copy of the image.")
    if not is_dicom(source):
        return _decode_picture(source, name), None
    from boneage_jax.data import dicom  # pydicom takes half a second to import.

    return dicom.read_dicom(source, name)


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
