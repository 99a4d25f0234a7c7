"""Which received objects are read: radiographs of hands, and none of the package's own results."""

import io

import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForProcessing

from boneage_jax.dicom_results import objects
from boneage_jax.errors import BoneAgeError
from boneage_jax.node.selection import reason_to_ignore
from tests.dicom_results import radiographs


def reason(kind, **elements):
    data = radiographs.file(kind, **elements)
    return reason_to_ignore(radiographs.dataset(kind, **elements).SOPClassUID, data)


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
@pytest.mark.parametrize("part", ["HAND", "WRIST", "Upper Extremity", "", None])
def test_radiographs_of_hands_are_read(kind, part):
    assert reason(kind, BodyPartExamined=part) == ""


def test_dx_images_for_processing_are_read():
    assert reason("DX", SOPClassUID=DigitalXRayImageStorageForProcessing) == ""


@pytest.mark.parametrize(
    ("kind", "elements", "why"),
    [
        ("CR", {"SOPClassUID": CTImageStorage}, "it is not a CR, DX or Secondary Capture image"),
        ("CR", {"BodyPartExamined": "CHEST"}, "its body part is not a hand"),
        ("SC", {"Modality": "CT"}, "its modality is not radiography"),
    ],
)
def test_other_objects_are_ignored(kind, elements, why):
    assert reason(kind, **elements) == why


@pytest.mark.parametrize(
    ("part", "region", "why"),
    [
        (None, codes.SCT.Foot, "its body part is not a hand"),
        ("", codes.SCT.Foot, "its body part is not a hand"),
        ("", codes.SCT.Hand, ""),
        ("HAND", codes.SCT.Foot, ""),
    ],
)
def test_the_anatomic_region_decides_if_the_body_part_is_empty(part, region, why):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        region.value,
        region.scheme_designator,
        region.meaning,
    )
    assert reason("DX", BodyPartExamined=part, AnatomicRegionSequence=[item]) == why


def test_an_anatomic_region_that_is_not_a_sequence_is_an_error():
    made = radiographs.dataset("DX", BodyPartExamined=None)
    made["AnatomicRegionSequence"] = DataElement("AnatomicRegionSequence", "LO", "Doe")
    with pytest.raises(BoneAgeError, match=r"^the object has a damaged header \(\w+\); export it again$"):
        reason_to_ignore(made.SOPClassUID, radiographs.written(made))


def test_results_of_this_package_are_ignored():
    made = objects.make(radiographs.file("CR"), "hand.dcm", radiographs.result(), radiographs.overlay)
    capture, report = (pydicom.dcmread(io.BytesIO(content)) for content in (made.capture, made.report))
    assert reason_to_ignore(capture.SOPClassUID, made.capture) == "it is a result of this package"
    assert reason_to_ignore(report.SOPClassUID, made.report) == "it is not a CR, DX or Secondary Capture image"


def test_a_damaged_header_is_an_error():
    data = radiographs.file("CR")
    damaged = data.replace(b"\x08\x00\x60\x00CS", b"\x08\x00\x60\x00FD")  # the VR of Modality becomes FD, a number
    assert damaged != data
    with pytest.raises(BoneAgeError, match=r"the object has a damaged header \(BytesLengthException\); export"):
        reason_to_ignore(radiographs.dataset("CR").SOPClassUID, damaged)
