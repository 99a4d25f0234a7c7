"""Pixel data of DICOM files: selects the decoder and makes the checks that decoders omit."""

import re
import struct

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from boneage_jax.data import jpeg
from boneage_jax.errors import BoneAgeError

_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_JPEG2000 = (JPEG2000, JPEG2000Lossless)
_DECODERS = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEGLossless: "gdcm",  # The only decoder under a free licence, but damaged code crashes the process.
    JPEGLosslessSV1: "gdcm",
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(_JPEG2000, "pillow"),
}
SYNTAXES = (*_PLAIN, *_DECODERS)
"""The transfer syntaxes that can be decoded (of `JPEGExtended12Bit` only the rare form with 8 bits)."""
_END = b"\xff\xd9"  # The last marker of JPEG, JPEG-LS and JPEG 2000 alike.
_SIZ = b"\xff\x4f\xff\x51"
_JP2, _CODE_STREAM = b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"jp2c"
_STARTS = (b"\xff\xd8\xff", _SIZ, _JP2)
_HUFFMAN_TABLE, _SCAN, _LOSSLESS, _JPEG_LS = 0xC4, 0xDA, 0xC3, 0xF7
_FRAMES = (0xC0, 0xC1, 0xC2, _LOSSLESS, _JPEG_LS)


def decoder(dataset: Dataset, name: str) -> tuple[str, tuple[str, ...]]:
    """The pydicom plugin for this file's transfer syntax ("" if uncompressed), and warnings about the code.

    If the pixel data holds a JP2 file instead of a JPEG 2000 code stream, it is replaced by the stream inside it.

    Raises:
      BoneAgeError: an unsupported transfer syntax, several images, or pixels that are truncated, of a size that differs
        from the header, or damaged in a way that can be detected before decoding.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in _PLAIN:
        _check_length(dataset, name)
        return "", ()
    if syntax not in _DECODERS:
        raise BoneAgeError(
            f"{name} is compressed as {syntax.name!r}; expected none, deflate, RLE, JPEG, JPEG-LS or JPEG 2000: "
            "export it in one of these"
        )
    code = _only_frame(dataset, syntax, name)
    if syntax == RLELossless:
        _check_rle(code, dataset, name)
        return _DECODERS[syntax], ()
    _check(code, syntax, dataset, name)
    lossy = _DECODERS[syntax] == "pillow" and syntax not in _JPEG2000
    return _DECODERS[syntax], jpeg.inspect(code, name) if lossy else ()


def _check_length(dataset: Dataset, name: str) -> None:
    """Refuses pixel data that does not fit Rows x Columns: the image would be cut off or sheared.

    Trailing zeros are allowed: some writers pad beyond the even length that the standard requires. The standard's own
    padding byte may be in either half of the last word.
    """
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else dataset.SamplesPerPixel
    needed = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated // 8
    data = dataset.PixelData
    if len(data) < needed or data[needed + needed % 2 :].strip(b"\0"):
        raise BoneAgeError(
            f"{name} has {len(data):,} bytes of pixels, but {dataset.Columns} x {dataset.Rows} pixels need {needed:,}: "
            "the file is cut short, or its header is wrong; export it again"
        )


def _only_frame(dataset: Dataset, syntax: UID, name: str) -> bytes:
    """The compressed image, which may span several fragments.

    Raises:
      BoneAgeError: several fragments begin an image, or a JP2 file holds none.
    """
    fragments = list(generate_fragments(dataset.PixelData))[1:]  # The first is the offset table.
    starts = len(fragments) if syntax == RLELossless else sum(one.startswith(_STARTS) for one in fragments)
    if starts > 1:
        raise BoneAgeError(
            f"{name} contains {starts} compressed images, but its header declares one; export each as a separate file"
        )
    code = next(generate_frames(dataset.PixelData, number_of_frames=1), b"")
    if syntax in _JPEG2000 and code.startswith(_JP2):
        code = _code_stream(code, name)
        dataset.PixelData = encapsulate([code])
    return code


def _code_stream(file: bytes, name: str) -> bytes:
    """Finds the code stream among the boxes of a JP2 file (ISO 15444-1, annex I)."""
    at = 0
    while at + 8 <= len(file):
        length, kind, header = int.from_bytes(file[at : at + 4], "big"), file[at + 4 : at + 8], 8
        if length == 1:
            length, header = int.from_bytes(file[at + 8 : at + 16], "big"), 16
        end = at + length if length else len(file)
        if kind == _CODE_STREAM:
            return file[at + header : end]
        if end < at + header:
            break
        at = end
    raise BoneAgeError(f"{name} is damaged: the JP2 file in it has no image; replace it with an intact copy")


def _check_rle(code: bytes, dataset: Dataset, name: str) -> None:
    """Refuses segments that unpack to more pixels than the header states; pydicom refuses those with fewer."""
    offsets = struct.unpack("<16L", code[:64].ljust(64, b"\0"))
    ends = [*offsets[2 : offsets[0] + 1], len(code)]
    rows, columns = dataset.Rows, dataset.Columns
    for start, end in zip(offsets[1 : offsets[0] + 1], ends, strict=False):
        # An excess of less than a row or a column is padding.
        if _unpacked(code[start:end]) >= rows * columns + min(rows, columns):
            raise BoneAgeError(
                f"{name} declares {columns} x {rows} pixels, but its compressed image has more; export it again"
            )


def _unpacked(segment: bytes) -> int:
    """Number of bytes that an RLE segment unpacks to (PS3.5 G.3.2)."""
    at, count = 0, 0
    while at < len(segment):
        control = segment[at]
        if control < 128:  # A literal run of `control` + 1 bytes follows.
            count += min(control + 1, len(segment) - at - 1)
            at += control + 2
        elif control == 128:
            at += 1
        else:  # The next byte is repeated.
            count += 257 - control
            at += 2
    return count


def _check(code: bytes, syntax: UID, dataset: Dataset, name: str) -> None:
    if _END not in code[-16:]:
        raise BoneAgeError(
            f"{name} is truncated: its compressed pixels have no end marker; replace it with an intact copy"
        )
    if syntax in _JPEG2000:
        if code[:4] != _SIZ:
            raise BoneAgeError(f"{name} is damaged: its pixels are not JPEG 2000 data; replace it with an intact copy")
        right, bottom, left, top = struct.unpack(">4I", code[8:24])
        bits, rows, columns = 0, bottom - top, right - left
    else:
        frame, bits, rows, columns = _jpeg_frame(code, name)
        if (frame == _LOSSLESS) != (_DECODERS[syntax] == "gdcm") or (frame == _JPEG_LS) != (
            syntax in JPEGLSTransferSyntaxes
        ):
            raise BoneAgeError(f"{name} is not compressed as its header states ({syntax.name}); export it again")
    if bits > dataset.BitsAllocated:
        raise BoneAgeError(
            f"{name} has pixels of {bits} bits, but its header declares {dataset.BitsAllocated}; export it again"
        )
    if syntax == JPEGExtended12Bit and bits > 8:
        raise BoneAgeError(
            f"{name} is compressed as lossy JPEG of {bits} bits, which is not supported; export it without compression"
        )
    if (rows, columns) != (dataset.Rows, dataset.Columns):
        raise BoneAgeError(
            f"{name} declares {dataset.Columns} x {dataset.Rows} pixels, but its compressed image has "
            f"{columns} x {rows}; export it again"
        )


def _jpeg_frame(code: bytes, name: str) -> tuple[int, int, int, int]:
    """Reads the segments up to the scan: (frame marker, bits, rows, columns)."""
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
        f"{name} is damaged: its compressed pixels are not intact JPEG data; replace it with an intact copy"
    )


def _whole_tables(body: bytes) -> bool:
    """Whether the Huffman tables (an id, 16 counts, and the values they count) fill their segment exactly."""
    at = 0
    while at + 17 <= len(body):
        at += 17 + sum(body[at + 1 : at + 17])
    return at == len(body)


def _clean(scan: bytes) -> bool:
    """Whether all markers in the scan are byte stuffing, restarts or the end of the image."""
    return re.search(rb"\xff[^\x00\xd0-\xd7\xd9\xff]", scan) is None
