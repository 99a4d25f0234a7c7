"""Builds DICOM files for tests; gdcm writes the compressed forms that pydicom cannot."""

import io
import warnings

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

GDCM_SYNTAXES = {
    "jpeg_baseline": gdcm.TransferSyntax.JPEGBaselineProcess1,
    "jpeg_extended_12_bit": gdcm.TransferSyntax.JPEGExtendedProcess2_4,
    "jpeg_lossless": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "jpeg_lossless_first_order": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg_ls": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg_2000_lossless": gdcm.TransferSyntax.JPEG2000Lossless,
    "jpeg_2000": gdcm.TransferSyntax.JPEG2000,
}


def dataset(pixels, *, bits=None, **elements):
    """A radiograph `[H, W]` or `[H, W, 3]` with the given elements; None removes an element."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    made.PatientName, made.PatientID = "Doe^Jane", "secret-4711"
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for key, value in elements.items():
        if value is None:
            del made[key]
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Some values are invalid on purpose.
                setattr(made, key, value)
    return made


def write(made, syntax=ExplicitVRLittleEndian):
    """The bytes of the file in this transfer syntax; the pixel data must already be encoded in it."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(file, made, enforce_file_format=True, **_encoding(syntax))
    return file.getvalue()


def make(pixels, syntax=ExplicitVRLittleEndian, **options):
    return write(dataset(pixels, **options), syntax)


def make_rle(pixels, **options):
    made = dataset(pixels, **options)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return write(made, RLELossless)


def make_with_code(code, syntax, pixels, **options):
    """A file with the compressed pixels `code`; its header describes the shape and type of `pixels`."""
    made = dataset(pixels, **options)
    made.PixelData = encapsulate([code])
    made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return write(made, syntax)


def make_by_gdcm(pixels, kind, folder, **options):
    """A file compressed by gdcm, which works only with files on disk."""
    plain, compressed = folder / "plain.dcm", folder / "compressed.dcm"
    plain.write_bytes(make(pixels, **options))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM_SYNTAXES[kind]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(compressed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return compressed.read_bytes()


def _encoding(syntax):
    return {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
