"""Reads the radiograph in a DICOM file and the few header fields that matter for bone age."""

import dataclasses
import io
import zlib

import numpy as np
import pydicom
from pydicom import filereader
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from boneage_jax.data import dicom_header, dicom_pixels, python_warnings
from boneage_jax.data.archives import MAX_FILE_BYTES
from boneage_jax.data.header import Header
from boneage_jax.errors import BoneAgeError


def read_dicom(data: bytes, name: str) -> tuple[np.ndarray, Header]:
    """Reads a single-frame radiograph of 8 to 16 bits in any transfer syntax except video and HTJ2K.

    Args:
      data: the bytes of the file, with or without preamble.
      name: the name of the file in error messages.

    Returns:
      Pixels `[H, W]` with bright bones (uint8 for up to 8 bits, otherwise uint16) and the header. Without rescale,
      tables and window the pixels are the stored values. Padding is set to the darkest level of the other pixels.

    Raises:
      BoneAgeError: no image or several, not of 8 to 16 bits or in colour, larger than `files.MAX_PIXELS`,
        truncated, or with values that the standard does not allow.
    """
    try:
        with python_warnings.suppressed():  # pydicom warns about every deviation from the standard.
            dataset = _parse(data, name)
            image, found = dicom_pixels.shown_image(dataset, name)
            header = dicom_header.read_header(dataset)
            return image, dataclasses.replace(header, warnings=(*found, *header.warnings))
    except BoneAgeError:
        raise
    except Exception as error:  # A damaged element may raise any exception in pydicom.
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise BoneAgeError(f"{name} is a DICOM file that cannot be read: {reason}; export it again") from error


def _parse(data: bytes, name: str) -> Dataset:
    """Reads only the elements in use; patient names and ids are not read."""
    _refuse_inflated(data, name)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=dicom_pixels.TAGS + dicom_header.TAGS)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = plain
    return dataset


def _refuse_inflated(data: bytes, name: str) -> None:
    """Refuses a deflated data set that inflates to more bytes than any radiograph needs.

    The data set begins where `pydicom.dcmread` finds it, with or without preamble and group length.
    """
    file = io.BytesIO(data)
    filereader.read_preamble(file, force=True)
    meta = filereader._read_file_meta_info(file)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    filereader._read_command_set_elements(file)
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    if len(unpacker.decompress(file.read(), MAX_FILE_BYTES)) == MAX_FILE_BYTES:
        raise BoneAgeError(f"{name} is refused as a decompression bomb: more than {MAX_FILE_BYTES:,} bytes unpacked")
