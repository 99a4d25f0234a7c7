"""A DICOM file: its radiograph, and the few words of its header that matter to a reading."""

import io
import re
import warnings
import zlib
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from boneage_jax.data import dicom_pixels
from boneage_jax.data.files import MAX_FILE_BYTES
from boneage_jax.data.header import PREFIX, PREFIX_AT, Header
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

_DAYS_PER_MONTH = 365.2425 / 12
_HEADER_WORDS = [
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "StudyDate",
    "Laterality",
    "ImageLaterality",
    "BodyPartExamined",
    "ViewPosition",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
]
_SPACING = ("ImagerPixelSpacing", "PixelSpacing", "PixelAspectRatio")  # rows, columns; the first one present counts


def read_dicom(data: bytes, name: str) -> tuple[np.ndarray, Header]:
    """Reads a radiograph of one frame, 8 to 16 bits, in every transfer syntax but video and HTJ2K.

    Args:
      data: the bytes of the file, with or without preamble.
      name: the file, as errors should name it.

    Returns:
      Grey pixels `[H, W]` with bright bones, uint8 for up to 8 bits and else uint16, and what the header says. Without
      rescale, tables and window these are the stored values. Padding takes the darkest level that occurs beside it.

    Raises:
      BoneAgeError: no image or several, not grey or colour of 8 to 16 bits, larger than `files.MAX_PIXELS`, cut
        short, or with values that the standard does not allow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom remarks on every departure from the standard.
            dataset = _parse(data, name)
            return dicom_pixels.shown_image(dataset, name), _header(dataset)
    except BoneAgeError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged element leads to.
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise BoneAgeError(
            f"{name} is a DICOM file that cannot be read ({type(error).__name__}: {reason}); export it again."
        ) from error


def _parse(data: bytes, name: str) -> Dataset:
    """The elements in use alone, which leaves names and ids unread."""
    _refuse_inflated(data, name)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=[*dicom_pixels.WORDS, *_HEADER_WORDS])
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = plain
    return dataset


def _refuse_inflated(data: bytes, name: str) -> None:
    """Refuses a deflated data set that unpacks to more than any radiograph has."""
    if data[PREFIX_AT : PREFIX_AT + 8] != PREFIX + b"\x02\x00\x00\x00" or len(data) < 144:
        return
    start = 144 + int.from_bytes(data[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in data[:start]:
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(unpacker.decompress(data[start:], MAX_FILE_BYTES)) == MAX_FILE_BYTES:
        raise BoneAgeError(f"{name} is refused as a decompression bomb: more than {MAX_FILE_BYTES:,} bytes unpacked.")


def _header(dataset: Dataset) -> Header:
    age, step, stated = _age(dataset)
    spacing = next((dataset[word].value for word in _SPACING if dataset.get(word)), None)
    return Header(
        sex={sex.letter: sex for sex in Sex}.get(str(dataset.get("PatientSex") or "").strip().upper()),
        age=age,
        age_step=step,
        stated_age=stated,
        laterality=str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip().upper(),
        body_part=str(dataset.get("BodyPartExamined") or "").strip(),
        view=str(dataset.get("ViewPosition") or "").strip(),
        spacing=_spacing(spacing),
    )


def _spacing(values: Sequence[Any] | None) -> tuple[float, float] | None:
    """Two positive numbers, or None: pixels are square unless the header says otherwise."""
    if values is None or len(values) != 2:
        return None
    rows, columns = float(values[0]), float(values[1])
    return (rows, columns) if rows > 0 and columns > 0 else None


def _age(dataset: Dataset) -> tuple[float | None, float, str]:
    """Age in months, what it is rounded down to, and the stated age in words if the dates contradict it."""
    stated, step = None, 0.0
    text = str(dataset.get("PatientAge") or "").strip().upper()
    if match := re.fullmatch(r"(\d{1,3})([DWMY])", text):
        step = {"D": 1 / _DAYS_PER_MONTH, "W": 7 / _DAYS_PER_MONTH, "M": 1.0, "Y": 12.0}[match[2]]
        stated = int(match[1]) * step
    born, taken = (_date(dataset.get(word)) for word in ("PatientBirthDate", "StudyDate"))
    if born is None or taken is None or taken < born:
        return stated, step if stated is not None else 0.0, ""
    age = (taken - born).days / _DAYS_PER_MONTH
    agrees = stated is None or stated - 1 <= age <= stated + step + 1
    return age, 0.0, "" if agrees else text


def _date(text: object) -> date | None:
    """A date of eight digits; older files write dots between them."""
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", str(text or "").strip())
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None
