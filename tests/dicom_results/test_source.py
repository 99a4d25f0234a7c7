"""Header elements copied into results, and headers that are refused without quoting their values."""

import pytest
from pydicom.dataelem import DataElement
from pydicom.uid import CTImageStorage

from boneage_jax.dicom_results.source import SourceError, read_source
from tests.data import dicom_files
from tests.dicom_results import radiographs


def source(kind="CR", **elements):
    return read_source(radiographs.file(kind, **elements), "hand.dcm")


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_patient_and_study_elements_are_copied(kind):
    made = radiographs.dataset(kind)
    found = read_source(radiographs.written(made), "hand.dcm")
    for keyword in (
        *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "BodyPartExamined"),
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "AccessionNumber"),
        *("StudyDate", "StudyTime", "StudyID", "StudyDescription", "ReferringPhysicianName"),
    ):
        assert found[keyword].value == made[keyword].value, keyword


def test_other_elements_are_not_copied():
    found = source(InstitutionName="Hospital", PatientAddress="Road 1", PatientComments="x", StationName="x")
    assert not {"InstitutionName", "PatientAddress", "PatientComments", "StationName"} & set(found.dir())


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber"])
def test_missing_type_2_elements_are_added_empty(keyword):
    assert source(**{keyword: None})[keyword].value in ("", None)


def test_acr_nema_dates_lose_their_dots():
    assert source(PatientBirthDate="2010.03.10").PatientBirthDate == "20100310"


def test_invalid_optional_values_are_left_out():
    found = source(PatientAge="8 years", StudyDescription="d" * 65)
    assert "PatientAge" not in found
    assert "StudyDescription" not in found


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientBirthDate", "10 March 2010"),
        ("PatientBirthDate", "20100231"),
        ("PatientBirthDate", "00000101"),
        ("StudyDate", "20181345"),
        ("StudyDate", "20230229"),
        ("StudyTime", "quarter past ten"),
        ("StudyTime", "250000"),
        ("PatientSex", "X"),
        ("PatientID", "I" * 65),
        ("StudyID", "S" * 17),
    ],
)
def test_invalid_required_values_are_refused_without_quoting_them(keyword, value):
    with pytest.raises(SourceError, match=f"hand.dcm has a {keyword} that DICOM does not allow") as error:
        source(**{keyword: value})
    assert value not in str(error.value)


def test_a_required_value_with_another_value_representation_is_refused():
    made = radiographs.dataset("CR")
    made["PatientBirthDate"] = DataElement("PatientBirthDate", "LO", "10 March 2010")
    with pytest.raises(SourceError, match=r"hand.dcm has a PatientBirthDate that DICOM does not allow") as error:
        read_source(radiographs.written(made), "hand.dcm")
    assert "March" not in str(error.value)


def undecodable(keyword):
    """A file in UTF-8 in which this element is written in Latin-1."""
    data = radiographs.file("CR", SpecificCharacterSet="ISO_IR 192", **{keyword: "Müller^A"})
    return data.replace("Müller".encode(), "Müller_".encode("latin-1"))


def test_a_required_value_outside_the_character_set_is_refused():
    with pytest.raises(SourceError, match=r"hand.dcm has a PatientName that DICOM does not allow"):
        read_source(undecodable("PatientName"), "hand.dcm")


def test_an_optional_value_outside_the_character_set_is_left_out():
    assert "StudyDescription" not in read_source(undecodable("StudyDescription"), "hand.dcm")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", "1.02.3", "no uid"])
def test_a_radiograph_without_valid_uids_is_refused(keyword, value):
    with pytest.raises(SourceError, match=f"hand.dcm has no valid {keyword}, so a result cannot refer to it"):
        source(**{keyword: value})


def test_a_header_without_a_study_is_refused():
    with pytest.raises(SourceError, match=r"hand\.dcm has no valid StudyInstanceUID"):
        read_source(dicom_files.make(radiographs.hand()), "hand.dcm")


def test_other_sop_classes_are_refused():
    with pytest.raises(
        SourceError, match=r"hand\.dcm has the SOP class CT Image Storage; DICOM results are made for CR"
    ):
        source(SOPClassUID=CTImageStorage)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(200), b""])
def test_files_that_are_not_dicom_are_refused(data):
    with pytest.raises(SourceError, match=r"hand\.png is not a DICOM file and belongs to no study"):
        read_source(data, "hand.png")
