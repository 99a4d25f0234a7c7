"""Reads the header attributes that identify patient, study and image, for the DICOM results of a radiograph.

`data.dicom` reads headers for predictions and keeps nothing that identifies a person. This module reads headers for the
objects that go back into the same study. Its values are written only there; no error quotes them.
"""

import io

import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DA, TM, validate_value

from boneage_jax.data import python_warnings
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
    """The header of a file cannot be copied into results; the message quotes none of its values."""


_UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)  # type 2: may be empty, but must be present
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "StudyDescription", "BodyPartExamined")  # type 3
_IMAGE = ("SOPClassUID", "Laterality", "ImageLaterality", "BurnedInAnnotation")
_DATES = ("PatientBirthDate", "StudyDate")
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"  # pydicom's substitute for bytes outside the character set
_SEXES = ("", "F", "M", "O")


def read_source(data: bytes, name: str) -> Dataset:
    """Reads the attributes that the results of a radiograph copy from it.

    Args:
        data: the bytes of the file.
        name: name of the file in errors.

    Returns:
        The UIDs of image, series and study, the attributes of patient and study, laterality, body part and Burned In
        Annotation, and the character set of the text. Attributes that DICOM requires are always present, empty if the
        file lacks them; optional ones with an invalid value are left out.

    Raises:
        SourceError: not a DICOM file, not a radiograph, a UID is missing or invalid, or an attribute that DICOM
            requires has an invalid value, so it cannot be written again.
    """
    if not is_dicom(data):
        raise SourceError(
            f"{name} is not a DICOM file and belongs to no study, so there are no DICOM results for it; read it "
            "without --dicom-out"
        )
    with python_warnings.suppressed():  # pydicom quotes values that are not valid
        source = read_elements(data, (*_UIDS, *_REQUIRED, *_OPTIONAL, *_IMAGE), name)
        _check(source, name)
    return source


def read_elements(data: bytes, keywords: tuple[str, ...], name: str) -> Dataset:
    """Reads only the elements with these keywords, and decodes their text.

    Raises:
        SourceError: the header is damaged.
    """
    try:
        with python_warnings.suppressed():  # pydicom quotes values that are not valid
            source = pydicom.dcmread(
                io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *keywords]
            )
            source.decode()
            _ = list(source)  # converts every value
    except Exception as error:  # a damaged element can raise any exception, with its value in the message
        raise SourceError(f"{name} has a damaged header ({type(error).__name__}); export the file again") from None
    return source


def _check(source: Dataset, name: str) -> None:
    """Removes invalid optional attributes; raises SourceError for other invalid attributes."""
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
    """Makes sure that the attribute is present and valid; removes the dots from dates in the pre-DICOM format."""
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
    text = str(element.value or "")
    if dictionary_VR(keyword) != element.VR or element.VM > 1 or _UNDECODABLE in text:
        return False
    try:
        validate_value(element.VR, text, config.RAISE)
        if parse := {"DA": DA, "TM": TM}.get(element.VR):
            parse(text)  # refuses dates and times that do not exist
    except ValueError:
        return False
    return True
