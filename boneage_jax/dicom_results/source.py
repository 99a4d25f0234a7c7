"""The header of a radiograph as its results need it: what identifies the patient, the study and the image.

`data.dicom` reads for predictions and keeps nothing that names anyone. This module reads for the objects that go back
into the same study. Its values are written there and nowhere else: no error quotes them.
"""

import io
import warnings

import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import validate_value

from boneage_jax.data.header import is_dicom
from boneage_jax.errors import BoneAgeError

CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
"""SOP classes of radiographs: CR, DX (for presentation and for processing) and Secondary Capture."""


class SourceError(BoneAgeError):
    """The header of a file cannot be taken over into results; the sentence quotes none of its values."""


_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)  # type 2: may be empty, but not absent
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "StudyDescription")  # type 3
_IMAGE = ("SOPClassUID", "Laterality", "ImageLaterality", "BodyPartExamined")
_DATES = ("PatientBirthDate", "StudyDate")
_SEXES = ("", "F", "M", "O")


def read_source(data: bytes, name: str) -> Dataset:
    """Reads what the results of a radiograph take over from it.

    Args:
        data: the bytes of the file.
        name: the file, as errors should name it.

    Returns:
        The UIDs of image, series and study, the attributes of patient and study, side and body part, and the character
        set of the text. Attributes that DICOM requires are there, empty if the file lacks them; optional ones are left
        out where their value is not valid.

    Raises:
        SourceError: not a DICOM file, not a radiograph, a UID is missing, or an attribute that DICOM requires has a
            value that is not valid, so that it cannot be written again.
    """
    if not is_dicom(data):
        raise SourceError(
            f"{name} is not a DICOM file and belongs to no study, so there are no DICOM results for it; read it "
            "without --dicom-out"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes values that are not valid
        source = read_elements(data, (*_UIDS, *_REQUIRED, *_OPTIONAL, *_IMAGE), name)
        _check(source, name)
    return source


def read_elements(data: bytes, keywords: tuple[str, ...], name: str) -> Dataset:
    """Reads the elements of these keywords alone, and decodes their text.

    Raises:
        SourceError: the header is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom quotes values that are not valid
            source = pydicom.dcmread(
                io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *keywords]
            )
            source.decode()
            _ = list(source)  # converts every value
    except Exception as error:  # pydicom raises whatever a damaged element leads to, with the value in its message
        raise SourceError(f"{name} has a damaged header ({type(error).__name__}); export the file again") from None
    return source


def _check(source: Dataset, name: str) -> None:
    """Leaves out optional attributes that are not valid, and refuses the others."""
    kind = UID(str(source.get("SOPClassUID", "")))
    if kind not in CLASSES:
        raise SourceError(
            f"{name} has the SOP class {kind.name or '(none)'}; DICOM results are made for CR, DX and Secondary Capture"
        )
    for keyword in _UIDS:
        if not source.get(keyword) or not UID(str(source[keyword].value)).is_valid:
            raise SourceError(f"{name} has no valid {keyword}, so a result cannot refer to it; export the file again")
    for keyword in _OPTIONAL:
        if keyword in source and not _is_valid(source, keyword):
            del source[keyword]
    for keyword in _REQUIRED:
        _require(source, keyword, name)


def _require(source: Dataset, keyword: str, name: str) -> None:
    """Makes sure that the attribute is there and valid; dates of before DICOM lose their dots."""
    if source.get(keyword) is None:
        setattr(source, keyword, "")
    if keyword in _DATES:
        source[keyword].value = str(source[keyword].value).replace(".", "")
    if not _is_valid(source, keyword) or (keyword == "PatientSex" and source.PatientSex not in _SEXES):
        raise SourceError(
            f"{name} has a {keyword} that DICOM does not allow, so results with it would be invalid; correct the header"
        )


def _is_valid(source: Dataset, keyword: str) -> bool:
    element = source[keyword]
    try:
        validate_value(element.VR, str(element.value or ""), config.RAISE)
    except ValueError:
        return False
    return element.VM <= 1
