"""A hand radiograph with its labels, and the one way from the bytes of an image file to pixels."""

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np

from boneage_jax.data.files import File
from boneage_jax.data.header import FEMALE, MALE, PREFIX, PREFIX_AT, Header, is_dicom
from boneage_jax.data.pictures import SIGNATURE_BYTES, decode_picture, is_picture
from boneage_jax.errors import BoneAgeError

__all__ = ["ENDINGS", "FEMALE", "MALE", "Radiograph", "decode", "read", "select_images"]

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".j2k"),
    *(".dcm", ".dicom", ".ima"),
)
"""File suffixes that are taken for images unseen; of other files, and for the format, the first bytes count."""

_INDEX = "DICOMDIR"  # DICOM's own table of contents, which has no pixels


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """One hand radiograph: pixels `image [H, W]`, `sex` (FEMALE or MALE) and bone `age` in months."""

    id: str
    image: np.ndarray
    sex: int
    age: float


def read(source: str | pathlib.Path | bytes, name: str = "the image") -> tuple[np.ndarray, Header]:
    """Reads a radiograph and what its file says about it.

    Args:
      source: a path, or the bytes of a file, which say whether it is PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM.
      name: the file, as errors should name it, where bytes are given.

    Returns:
      Pixels `[H, W]` with bright bones (uint8 or uint16), and the header; of pictures, it has warnings and notes alone.

    Raises:
      BoneAgeError: as `decode`, or the file cannot be read.
    """
    if not isinstance(source, bytes):
        name, path = str(source), pathlib.Path(source)
        source = File(name, 0, 0, path).read()
    if not source:
        raise BoneAgeError(f"{name} is empty (0 bytes); replace it with an intact copy of the image.")
    if not is_dicom(source):
        return decode_picture(source, name)
    from boneage_jax.data import dicom  # pydicom takes half a second to import.

    return dicom.read_dicom(source, name)


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes a PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM file of 8 or 16 bit (colour and alpha are dropped).

    Args:
      data: the bytes of the file.
      name: the file, as errors should name it.

    Returns:
      Pixels `[H, W]`, uint8 or uint16 as stored; of DICOM and TIFF, as they are to be shown on black; turned upright as
      EXIF says.

    Raises:
      BoneAgeError: the file is empty, cut short, damaged, not an image, several, or larger than `files.MAX_PIXELS`.
    """
    return read(data, name)[0]


def select_images(files: Iterable[File]) -> tuple[list[File], list[File]]:
    """The files that are images by their suffix or by their first bytes, and the others."""
    images: list[File] = []
    others: list[File] = []
    for file in files:
        (images if _is_image(file) else others).append(file)
    return images, others


def _is_image(file: File) -> bool:
    path = pathlib.PurePosixPath(file.name)
    if path.suffix.lower() in ENDINGS:
        return True
    head = file.head(max(SIGNATURE_BYTES, PREFIX_AT + len(PREFIX)))
    return path.name != _INDEX and (is_dicom(head) or is_picture(head))
