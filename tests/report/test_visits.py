"""The order of visits, and radiographs of different children."""

import pytest

from boneage_jax.data.files import File
from boneage_jax.errors import BoneAgeError
from boneage_jax.report.visits import in_order, refuse_several_children
from boneage_jax.sex import Sex
from tests.data import dicom_files
from tests.predict.random_weights import hand
from tests.report.pages import visit


def dicom(name, **elements):
    data = dicom_files.make(hand(1), **elements)
    return File(name, len(data), 0, data)


def test_visits_are_ordered_by_age():
    visits = {7: visit("c", age=130.0), 2: visit("a", age=90.0), 5: visit("b", age=100.5)}
    assert in_order(visits) == [2, 5, 7]
    assert in_order({3: visit(age=None)}) == [3]
    assert visits[7].sex is Sex.FEMALE


def test_several_visits_need_ages_and_one_sex():
    with pytest.raises(BoneAgeError, match=r"the child in b\.png is unknown.*birth_date"):
        in_order({0: visit("a.png"), 1: visit("b.png", age=None)})
    with pytest.raises(BoneAgeError, match="both sexes"):
        in_order({0: visit("a.png"), 1: visit("b.png", sex="M")})


@pytest.mark.parametrize(
    ("element", "values", "words"),
    [
        ("PatientID", ("secret-1", "secret-2"), "different patient IDs"),
        ("PatientBirthDate", ("20100101", "20100102"), "different dates of birth"),
        ("PatientSex", ("F", "M"), "different sexes"),
    ],
)
def test_two_children_are_refused_without_naming_them(element, values, words):
    first, second = (dicom(f"{i}.dcm", **{element: value}) for i, value in enumerate(values))
    with pytest.raises(BoneAgeError, match=rf"headers of 0\.dcm and 1\.dcm name {words}") as caught:
        refuse_several_children([first, second])
    assert not any(value in str(caught.value).replace(".dcm", "").split() for value in values)
    assert "secret" not in str(caught.value)


def test_one_child_and_headers_without_identity_are_accepted():
    refuse_several_children([dicom("a", PatientSex="F"), dicom("b", PatientID=None), dicom("c", PatientSex="")])
    refuse_several_children([File("d.png", 3, 0, b"png"), hand(1), dicom("a")])


def test_birth_dates_in_the_old_form_are_the_same_date():
    refuse_several_children([dicom("a", PatientBirthDate="2010.03.10"), dicom("b", PatientBirthDate="20100310")])


def test_a_damaged_patient_id_is_refused_without_quoting_it():
    damaged = dicom("b.dcm", PatientID="secret-42").read().replace(b"\x10\x00\x20\x00LO", b"\x10\x00\x20\x00FD")
    with pytest.raises(BoneAgeError, match=r"^b\.dcm has a damaged header \(\w+\); export the file again$") as error:
        refuse_several_children([dicom("a.dcm", PatientID="secret-42"), File("b.dcm", len(damaged), 0, damaged)])
    assert error.value.__suppress_context__  # a traceback would quote the value
