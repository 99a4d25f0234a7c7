"""The single path from the bytes of an image file to the pixels of a radiograph."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable

import cv2
import numpy as np

from boneage_jax.data.files import File, refuse_huge
from boneage_jax.data.header import PREFIX, PREFIX_AT, Header, is_dicom
from boneage_jax.data.pictures import SIGNATURE_BYTES, decode_picture, is_picture, picture_size
from boneage_jax.data.resample import SQUARE
from boneage_jax.errors import BoneAgeError

__all__ = ["ENDINGS", "decode", "pixel_size", "read", "select_images", "square_pixels", "without_ending"]

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".j2k"),
    *(".dcm", ".dicom", ".ima"),
)
"""Suffixes of image files; other files, and the format of any file, are recognised by the first bytes."""

_MOST_OBLONG = 4
_INDEX = "DICOMDIR"  # DICOM's own table of contents, which has no pixels


def read(source: str | os.PathLike[str] | bytes | File, name: str = "the image") -> tuple[np.ndarray, Header]:
    """Reads a radiograph in its true proportions, and the metadata in its file.

    Args:
      source: a file, its path or its bytes: PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM, recognised by the bytes,
        not the name.
      name: the name of the file in error messages, if bytes are given.

    Returns:
      Greyscale pixels `[H, W]` with bright bones (uint8 or uint16), and the header; for formats other than DICOM, it
      has only warnings and notes. The pixels are square: squashed copies (`File.original_size`) and DICOM images with
      non-square pixels are resampled.

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
    """Resamples an image to square pixels; neither side becomes smaller.

    Args:
      image: `[H, W]`, uint8 or uint16.
      aspect: height of a pixel divided by its width.
      name: the name of the file in error messages.

    Returns:
      The image itself if its pixels are square to within 1 %; otherwise uint16, 8-bit intensities times 257, with
      more rows or more columns.

    Raises:
      BoneAgeError: the aspect ratio lies outside 1/4 to 4, or the result is larger than `MAX_PIXELS`.
    """
    if abs(aspect - 1) <= SQUARE:
        return image
    if not 1 / _MOST_OBLONG <= aspect <= _MOST_OBLONG:
        raise BoneAgeError(
            f"{name}: its pixels are {aspect:.3g} times as high as wide, expected 1/{_MOST_OBLONG} to {_MOST_OBLONG}; "
            "correct the pixel spacing or the original size"
        )
    height, width = image.shape
    size = (width, round(height * aspect)) if aspect > 1 else (round(width / aspect), height)
    refuse_huge(*size, name)
    if image.dtype == np.uint8:
        image = image.astype(np.uint16) * 257
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _read_bytes(source: bytes, name: str) -> tuple[np.ndarray, Header]:
    if not source:
        raise BoneAgeError(f"{name} is empty (0 bytes); replace it with an intact copy of the image")
    if not is_dicom(source):
        return decode_picture(source, name)
    from boneage_jax.data import dicom  # pydicom takes half a second to import.

    image, header = dicom.read_dicom(source, name)
    if header.spacing is not None:
        (rows, columns), (height, width) = header.spacing, image.shape
        image = square_pixels(image, rows / columns, name)
        if image.shape != (height, width):
            header = dataclasses.replace(header, stored_shape=(height, width))
    return image, header


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes a PNG, JPEG, WebP, TIFF, BMP, JPEG 2000 or DICOM file of 8 or 16 bits (colour and alpha are dropped).

    Args:
      data: the bytes of the file.
      name: the name of the file in error messages.

    Returns:
      Pixels `[H, W]`, uint8 or uint16 as stored, turned upright by the EXIF orientation. DICOM and TIFF pixels
      are as displayed: low values are dark.

    Raises:
      BoneAgeError: the file is empty, truncated, damaged, not an image, holds several images, or is larger than
        `files.MAX_PIXELS`.
    """
    return read(data, name)[0]


def pixel_size(file: File) -> tuple[int, int] | None:
    """Width and height of an image from its header; None for DICOM and for files that are not images."""
    return picture_size(file.read())


def without_ending(name: str) -> str:
    """A name or path without the suffix of an image; any other suffix stays, such as the last number of a UID."""
    suffix = pathlib.PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in ENDINGS else name


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
    return path.name.upper() != _INDEX and (is_dicom(head) or is_picture(head))
