"""Compressed pixels of DICOM files: which decoder reads them, and the checks that decoders leave out."""

import re
import struct

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from boneage_jax.errors import BoneAgeError

_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_DECODERS = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",  # Alone in reading it under a free licence, but it ends the process over damaged code.
    JPEGLosslessSV1: "gdcm",
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pillow"),
}
_END = b"\xff\xd9"  # The last marker of JPEG, JPEG-LS and JPEG 2000 alike.
_SIZ = b"\xff\x4f\xff\x51"
_HUFFMAN_TABLE, _SCAN, _LOSSLESS, _JPEG_LS = 0xC4, 0xDA, 0xC3, 0xF7
_FRAMES = (0xC0, 0xC1, 0xC2, _LOSSLESS, _JPEG_LS)


def decoder(dataset: Dataset, name: str) -> str:
    """The pydicom plugin for this file's transfer syntax, "" where nothing is compressed.

    Raises:
      BoneAgeError: a transfer syntax that is not read, or code that is cut short, damaged where that can be told before
        decoding, or of another size than the header says.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        return ""
    if syntax not in _DECODERS:
        raise BoneAgeError(
            f"{name} is compressed as {syntax.name!r}; expected none, deflate, RLE, JPEG, JPEG-LS or JPEG 2000: "
            "export it in one of these."
        )
    code = next(generate_frames(dataset.PixelData, number_of_frames=1), b"")
    if syntax != RLELossless:  # Whose decoder counts the pixels of every segment.
        _check(code, syntax, dataset, name)
    return _DECODERS[syntax]


def _check(code: bytes, syntax: UID, dataset: Dataset, name: str) -> None:
    if _END not in code[-16:]:
        raise BoneAgeError(f"{name} is truncated: its compressed pixels have no end; replace it with an intact copy.")
    if syntax in JPEG2000TransferSyntaxes:
        if code[:4] != _SIZ:
            raise BoneAgeError(f"{name} is damaged: its pixels are not JPEG 2000 code; replace it with an intact copy.")
        right, bottom, left, top = struct.unpack(">4I", code[8:24])
        bits, rows, columns = 0, bottom - top, right - left
    else:
        frame, bits, rows, columns = _jpeg_frame(code, name)
        if (frame == _LOSSLESS) != (_DECODERS[syntax] == "gdcm") or (frame == _JPEG_LS) != (
            syntax in JPEGLSTransferSyntaxes
        ):
            raise BoneAgeError(f"{name} is compressed otherwise than its header says ({syntax.name}); export it again.")
    if bits > dataset.BitsAllocated:
        raise BoneAgeError(
            f"{name} has pixels of {bits} bits, but its header gives them {dataset.BitsAllocated}; export it again."
        )
    if syntax == JPEGExtended12Bit and bits > 8:
        raise BoneAgeError(
            f"{name} is compressed as lossy JPEG of {bits} bits, which is not read; export it without compression."
        )
    if (rows, columns) != (dataset.Rows, dataset.Columns):
        raise BoneAgeError(
            f"{name} says that it has {dataset.Columns} x {dataset.Rows} pixels, but its compressed image has "
            f"{columns} x {rows}; export it again."
        )


def _jpeg_frame(code: bytes, name: str) -> tuple[int, int, int, int]:
    """Walks the segments up to the scan: (kind of frame, bits, rows, columns)."""
    found, at = None, 2
    while at + 4 <= len(code) and code[at] == 0xFF:
        marker, length = code[at + 1], int.from_bytes(code[at + 2 : at + 4], "big")
        body = code[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in _FRAMES and len(body) >= 6:
            found = (marker, *struct.unpack(">BHH", body[:5]))
        elif marker == _HUFFMAN_TABLE and not _whole_tables(body):
            break
        elif marker == _SCAN and found is not None:
            if found[0] != _LOSSLESS or _clean(code[at:]):
                return found
            break
    raise BoneAgeError(
        f"{name} is damaged: its compressed pixels are not intact JPEG code; replace it with an intact copy."
    )


def _whole_tables(body: bytes) -> bool:
    """Whether Huffman tables (an id, 16 counts, as many values) fill their segment exactly."""
    at = 0
    while at + 17 <= len(body):
        at += 17 + sum(body[at + 1 : at + 17])
    return at == len(body)


def _clean(scan: bytes) -> bool:
    """Whether all markers in the scan are stuffing, restarts or the end."""
    return re.search(rb"\xff[^\x00\xd0-\xd7\xd9\xff]", scan) is None
