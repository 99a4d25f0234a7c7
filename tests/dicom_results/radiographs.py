"""Phantom radiographs as CR, DX and Secondary Capture files that dciodvfy accepts, and results for them."""

import dataclasses
import datetime
import io
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from boneage_jax.data import phantom
from boneage_jax.predict.prediction import Provenance
from boneage_jax.predict.results import Reading, Result

SHA256 = "0123456789abcdef" * 4
MADE = datetime.datetime(2025, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
PROVENANCE = Provenance("detailed", SHA256, MADE, version="0.1.0", preprocessing=2)


def hand(number=0, size=256):
    return phantom.render(100.0 + 3 * (number % 40), number % 2, size=size, seed=number).image


def overlay():
    """Like `heatmap.Maps.overlay`: a radiograph beside a coloured copy, in BGR."""
    grey = np.repeat(hand()[..., None], 3, axis=-1)
    return np.concatenate([grey, grey // 2 + np.array([0, 0, 127], np.uint8)], axis=1)


def result(**changes):
    """The result of a girl aged 104.4 months with a bone age of 112.34 months."""
    made = Result(
        "hand.dcm",
        sex="F",
        sex_from="header",
        age=104.4,
        age_from="header",
        readings=(Reading("F", 112.34, 11.28, (95.12, 130.27), 7.94, 0.7762),),
        provenance=PROVENANCE,
    )
    return dataclasses.replace(made, **changes)


def dataset(kind, pixels=None, **elements):
    """A radiograph of kind "CR", "DX" or "SC"; `elements` override its own, and None removes one."""
    made = _common(hand() if pixels is None else pixels)
    {"CR": _computed, "DX": _digital, "SC": _captured}[kind](made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some values are invalid on purpose
        for keyword, value in elements.items():
            if value is None:
                del made[keyword]
            else:
                setattr(made, keyword, value)
    return made


def file(kind, pixels=None, **elements):
    """`dataset` as the bytes of a file."""
    return written(dataset(kind, pixels, **elements))


def written(made):
    """Encodes a data set as a DICOM file."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.file_meta.MediaStorageSOPInstanceUID = str(made.SOPInstanceUID) or generate_uid()
        content = io.BytesIO()
        pydicom.dcmwrite(content, made, enforce_file_format=True)
    return content.getvalue()


def _common(pixels):
    made = Dataset()
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = (generate_uid() for _ in range(3))
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Doe^Jane", "P4711", "20100310", "F"
    made.PatientAge = "008Y"
    made.StudyDate, made.StudyTime, made.StudyID, made.AccessionNumber = "20181122", "101500", "S1", "A99"
    made.ReferringPhysicianName, made.StudyDescription = "Roe^Richard", "Bone age"
    made.SeriesNumber, made.InstanceNumber = 1, 1
    made.Manufacturer = "Phantom"
    made.PatientOrientation = ["L", "F"]
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, 0
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    made["PixelData"].VR = "OW"
    return made


def _computed(made):
    made.SOPClassUID, made.Modality = ComputedRadiographyImageStorage, "CR"
    made.BodyPartExamined, made.ViewPosition, made.Laterality = "HAND", "PA", "L"


def _digital(made):
    made.SOPClassUID, made.Modality = DigitalXRayImageStorageForPresentation, "DX"
    made.PresentationIntentType = "FOR PRESENTATION"
    made.ImageType = ["ORIGINAL", "PRIMARY", ""]
    made.BodyPartExamined, made.ImageLaterality = "HAND", "L"
    made.PositionerType = ""
    made.AnatomicRegionSequence = [_code(codes.SCT.Hand)]
    made.ViewCodeSequence = [_code(codes.cid4010.PosteroAnterior)]
    made.ViewCodeSequence[0].ViewModifierCodeSequence = []
    made.AcquisitionContextSequence = []
    made.ImagerPixelSpacing, made.DetectorType = [0.2, 0.2], "DIRECT"
    made.PixelIntensityRelationship, made.PixelIntensityRelationshipSign = "LIN", 1
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "US"
    made.PresentationLUTShape, made.LossyImageCompression, made.BurnedInAnnotation = "IDENTITY", "00", "NO"
    made.WindowCenter, made.WindowWidth = 2 ** (made.BitsStored - 1), 2**made.BitsStored
    made.InstanceCreationDate = "20181122"
    made.AcquisitionDate, made.AcquisitionTime = "20181122", "101500"


def _captured(made):
    made.SOPClassUID, made.Modality, made.ConversionType = SecondaryCaptureImageStorage, "OT", "WSD"
    made.BodyPartExamined, made.Laterality = "HAND", "L"


def _code(code):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def bone_age(report):
    """The bone age in months in an encoded report."""

    def numbers(item):
        for below in item.get("ContentSequence", []):
            if below.ValueType == "NUM" and below.ConceptNameCodeSequence[0].CodeValue == "85151-9":
                yield float(below.MeasuredValueSequence[0].NumericValue)
            yield from numbers(below)

    (found,) = numbers(pydicom.dcmread(io.BytesIO(report)))
    return found
