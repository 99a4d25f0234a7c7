"""Metadata in the header about the child and the view, and contradictions to the values given by the user."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from boneage_jax.data.header import Header, contradictions
from boneage_jax.data.radiograph import read
from boneage_jax.sex import Sex
from tests.data import dicom_files as files

SMOOTH = np.add.outer(np.arange(41), np.arange(30)).astype(np.uint8)


def test_header_has_the_relevant_fields_and_no_patient_identity():
    elements = {"PatientSex": "F", "PatientAge": "012Y", "Laterality": "L", "BodyPartExamined": "HAND"}
    data = files.make(SMOOTH, **elements, ViewPosition="PA", PixelSpacing=[0.15, 0.2])
    _, header = read(data)
    assert header == Header(Sex.FEMALE, 144.0, 12.0, 0.0, "L", "HAND", "PA", (0.15, 0.2), stored_shape=(41, 30))
    assert "Doe" not in repr(header)
    assert "4711" not in repr(header)
    assert contradictions(header, Sex.FEMALE, 150.0) == []


@pytest.mark.parametrize(
    ("text", "months", "step"),
    [("144M", 144, 1), ("052W", 11.96, 0.23), ("300D", 9.86, 0.033), ("12", None, 0), ("", None, 0)],
)
def test_ages_are_read_in_every_unit(text, months, step):
    _, header = read(files.make(SMOOTH, PatientAge=text))
    assert header.age == pytest.approx(months, abs=0.01)
    assert header.age_step == pytest.approx(step, abs=0.01)


def test_dates_override_the_stated_age_and_a_contradiction_is_reported():
    dates = {"PatientBirthDate": "20100115", "StudyDate": "20200715"}
    _, header = read(files.make(SMOOTH, PatientAge="010Y", **dates))
    assert header.age == pytest.approx(126, abs=0.1)
    assert (header.age_step, header.warnings, header.age_notes) == (0, (), ())
    _, header = read(files.make(SMOOTH, PatientAge="004Y", **dates))
    assert header.age == pytest.approx(126, abs=0.1)
    assert contradictions(header) == [
        "The birth and study dates in the file's header are 126 months apart, but the stated age is 004Y; the dates "
        "are used."
    ]


@pytest.mark.parametrize("born", ["20990101", "19000230", "", "x"])
def test_impossible_dates_are_ignored(born):
    _, header = read(files.make(SMOOTH, PatientAge="010Y", PatientBirthDate=born, StudyDate="20200715"))
    assert header.age == 120


@pytest.mark.parametrize("sex", ["O", "", None])
def test_an_unknown_sex_is_none_and_contradicts_nothing(sex):
    _, header = read(files.make(SMOOTH, **({} if sex is None else {"PatientSex": sex})))
    assert header.sex is None
    assert contradictions(header, Sex.MALE, 100.0) == []


def test_contradictions_are_reported_as_sentences():
    header = Header(sex=Sex.FEMALE, age=144.0, age_step=12.0, laterality="R", body_part="CHEST")
    assert contradictions(header, Sex.MALE, 100.0) == [
        "The given sex is male, but the file's header says female.",
        "The given age is 100 months, but the file's header says 144 to 156 months.",
        "The file's header says the right side; a left hand is expected.",
        "The file's header says that this is the body part CHEST, not a hand.",
    ]
    assert contradictions(header) == contradictions(header, Sex.MALE, 100.0)[2:]


def aged(**elements):
    return read(files.make(SMOOTH, **elements))[1]


@pytest.mark.parametrize("born", ["19000101", "18581117", "19500310"])
def test_the_stated_age_overrides_a_birth_date_that_implies_an_adult(born):
    header = aged(PatientAge="011Y", PatientBirthDate=born, StudyDate="20170505")
    assert (header.age, header.age_step) == (132, 12)
    (warning,) = contradictions(header, None, 140.0)
    assert warning.endswith("but the stated age is 011Y; the stated age is used.")


@pytest.mark.parametrize(
    ("born", "taken"), [("19000101", "20170505"), ("18581117", "20170505"), ("20170505", "20170505")]
)
def test_dates_that_do_not_imply_a_childs_age_give_no_age(born, taken):
    header = aged(PatientBirthDate=born, StudyDate=taken)
    assert header.age is None
    assert "which is no child's age; no age is taken from them" in header.warnings[0]


@pytest.mark.parametrize("day", ["0101", "0701", "0615"])
def test_a_birth_date_accurate_only_to_the_year_yields_to_the_stated_age(day):
    header = aged(PatientAge="010Y", PatientBirthDate=f"2006{day}", StudyDate="20161125")
    assert (header.age, header.age_step, header.warnings) == (120, 12, ())
    assert "Only the year of the birth date in the file's header seems true" in header.age_notes[0]
    header = aged(PatientBirthDate=f"2006{day}", StudyDate="20161125")
    assert header.age == pytest.approx(12 * 10.9, abs=6)
    assert "the age may be up to a year off" in header.age_notes[0]
    assert contradictions(header, None, header.age - 11) == []
    assert len(contradictions(header, None, header.age - 14)) == 1


def test_a_stated_age_inconsistent_with_the_birth_year_is_warned_about():
    header = aged(PatientAge="004Y", PatientBirthDate="20060101", StudyDate="20161125")
    assert header.age == pytest.approx(130.8, abs=0.1)
    assert "but the stated age is 004Y; the dates are used" in header.warnings[0]


@pytest.mark.parametrize(
    "elements", [{"PatientAge": "045Y"}, {"PatientBirthDate": "19720310", "StudyDate": "20170505"}]
)
def test_an_adult_age_is_warned_about(elements):
    assert contradictions(aged(**elements)) == [
        "The file's header gives the age of an adult, 45 years; a child's is expected."
    ]
    assert contradictions(aged(PatientAge="019Y")) == []


def test_an_impossible_stated_age_is_not_used():
    header = aged(PatientAge="999Y")
    assert (header.age, header.warnings) == (
        None,
        ("The age 999Y in the file's header is impossible; it is not used.",),
    )


@pytest.mark.parametrize(
    "part",
    [
        *(
            "HAND",
            "HANDS",
            "LHAND",
            "LEFT HAND",
            "HAND_LEFT",
            "Hand li.",
            "L HAND",
            "HAND/WRIST",
            "HAND PA",
            "WRIST",
            "FINGER",
        ),
        *(
            "UPPER EXTREMITY",
            "UPPERLIMB",
            "FOREARM",
            "BONEAGE",
            "Handgelenk",
            "Main gauche",
            "MANO",
            "CARPUS",
            "",
            "UNKNOWN",
        ),
    ],
)
def test_vendor_terms_for_a_hand_give_no_warning(part):
    assert contradictions(Header(body_part=part)) == []


@pytest.mark.parametrize(
    "part", ["CHEST", "FOOT", "LOWER EXTREMITY", "LEG", "METATARSUS", "KNEE", "SHOULDER", "MANDIBLE"]
)
def test_other_body_parts_are_warned_about(part):
    assert contradictions(Header(body_part=part)) == [
        f"The file's header says that this is the body part {part}, not a hand."
    ]


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        ({"laterality": "R"}, "the right side"),
        ({"laterality": "RIGHT"}, "the right side"),
        ({"laterality": "Rechts"}, "the right side"),
        ({"body_part": "RHAND"}, "the right side"),
        ({"body_part": "HAND_RIGHT"}, "the right side"),
        ({"laterality": "B"}, "both sides"),
        ({"body_part": "BOTH HANDS"}, "both sides"),
        ({"body_part": "HAND L+R"}, "both sides"),
        *(({"laterality": word}, None) for word in ("L", "LEFT", "Left", "U", "")),
        ({"laterality": "L", "body_part": "RHAND"}, None),  # Laterality takes precedence over the body part.
    ],
)
def test_right_or_both_sides_are_warned_about_in_every_spelling(elements, side):
    expected = [f"The file's header says {side}; a left hand is expected."] if side else []
    assert contradictions(Header(**elements)) == expected


@pytest.mark.parametrize("view", ["LL", "RL", "LATERAL", "Lat.", "LLO", "RLD", "OBLIQUE", "medio-lateral", "seitlich"])
def test_lateral_and_oblique_views_are_warned_about(view):
    (warning,) = contradictions(Header(view=view))
    assert f"a lateral or oblique view ({view}); a view from the front is expected" in warning


@pytest.mark.parametrize("view", ["AP", "PA", "DP", "PALMAR", "postero-anterior", "BILATERAL PA", ""])
def test_frontal_views_give_no_warning(view):
    assert contradictions(Header(view=view)) == []


def test_code_sequences_replace_missing_body_part_and_view_position():
    region, view = Dataset(), Dataset()
    region.CodeMeaning, view.CodeMeaning = "Foot", "lateral"
    _, header = read(files.make(SMOOTH, AnatomicRegionSequence=[region], ViewCodeSequence=[view]))
    assert (header.body_part, header.view) == ("Foot", "lateral")
