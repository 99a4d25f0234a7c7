"""The Structured Report and Secondary Capture of a result: values, identity, privacy, and files."""

import dataclasses
import io
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom import sr
from PIL import Image
from pydicom.sr.codedict import codes

from boneage_jax.dicom_results import capture, objects, wording
from boneage_jax.dicom_results.identity import identity
from boneage_jax.dicom_results.report import ABOVE, BELOW, BONE_AGE, METHOD, STANDARD_DEVIATION
from boneage_jax.dicom_results.source import SourceError, read_source
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict import reference
from boneage_jax.predict.prediction import NOTICE
from boneage_jax.predict.results import Reading
from boneage_jax.terminal import printable
from tests.dicom_results import radiographs

PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "ReferringPhysicianName"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
)


def make(data=None, **changes):
    """The report and the capture of a result, as data sets."""
    made = objects.make(data or radiographs.file("CR"), "hand.dcm", radiographs.result(**changes), radiographs.overlay)
    return tuple(pydicom.dcmread(io.BytesIO(content)) for content in (made.report, made.capture))


def group(report):
    content = sr.Comprehensive3DSR.from_dataset(report).content
    assert isinstance(content, sr.MeasurementReport)
    return content.get_image_measurement_groups()[0]


def properties(measurement):
    """Value and unit of the numeric items below a measurement, by code."""
    items = [item for item in measurement[0].ContentSequence if item.ValueType == "NUM"]
    values = [item.MeasuredValueSequence[0] for item in items]
    return {
        item.ConceptNameCodeSequence[0].CodeValue: (
            float(value.NumericValue),
            value.MeasurementUnitsCodeSequence[0].CodeValue,
        )
        for item, value in zip(items, values, strict=True)
    }


def test_the_report_has_the_bone_age_and_its_uncertainty_in_months():
    report, _ = make()
    (measured,) = group(report).get_measurements(name=BONE_AGE)
    assert (measured.value, measured.unit.value, measured.unit.scheme_designator) == (112.34, "mo", "UCUM")
    assert properties(measured) == {
        STANDARD_DEVIATION.value: (11.28, "mo"),
        ABOVE.value: (17.93, "mo"),
        BELOW.value: (17.22, "mo"),
        codes.DCM.ZScoreOfMeasurement.value: (0.78, "1"),
    }
    texts = [item.TextValue for item in measured[0].ContentSequence if item.ValueType == "TEXT"]
    assert reference.TABLE in texts


def test_the_report_has_age_method_site_algorithm_and_source():
    data = radiographs.file("CR")
    report, _ = make(data)
    found = group(report)
    (age,) = found.get_measurements(name=codes.DCM.SubjectAge)
    assert (age.value, age.unit.value) == (104.4, "mo")
    (method,) = found.get_qualitative_evaluations(name=METHOD)
    assert (method.value.value, method.value.scheme_designator) == ("network", "99BONEAGE")
    (site,) = found.finding_sites
    assert (site.value, site.laterality) == (codes.SCT.Hand, codes.SCT.Left)
    (image,) = found.source_images
    assert image.referenced_sop_instance_uid == pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID
    told = {item.TextValue for item in found[0].ContentSequence if item.ValueType == "TEXT"}
    assert {"boneage_jax", "0.1.0", "weights detailed", f"weights SHA-256 {radiographs.SHA256}"} <= told
    assert set(wording.sentences(radiographs.result())) <= told
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )


def test_unknown_values_are_left_out_of_the_report():
    reading = Reading("M", 50.0, None, None, None, None)
    report, _ = make(radiographs.file("CR", Laterality=""), sex="M", age=None, readings=(reading,))
    found = group(report)
    (measured,) = found.get_measurements()
    assert "ContentSequence" not in measured[0]
    assert found.finding_sites[0].laterality is None


def test_the_sentences_state_the_whole_result():
    result = radiographs.result(warnings=("The file's header says the right side.",), notes=("It was inverted.",))
    assert wording.sentences(result) == [
        "Bone age 112.3 months (9 years 4 months).",
        "90 % interval 95.1 to 130.3 months, standard deviation 11.3 months.",
        "Sex female, chronological age 104.4 months.",
        "Bone age minus chronological age +7.9 months.",
        f"SD score +0.78 ({reference.TABLE}).",
        "Warning: The file's header says the right side.",
        "Note: It was inverted.",
        "boneage_jax 0.1.0, weights detailed (SHA-256 0123456789ab...), 2025-03-04 05:06 UTC.",
        NOTICE,
    ]


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
def test_both_objects_share_patient_and_study_but_have_their_own_series(kind):
    data = radiographs.file(kind)
    source = pydicom.dcmread(io.BytesIO(data))
    made = make(data)
    for one in made:
        for keyword in PATIENT_AND_STUDY:
            assert one[keyword].value == source[keyword].value, keyword
    series = {one.SeriesInstanceUID for one in (source, *made)}
    instances = {one.SOPInstanceUID for one in (source, *made)}
    assert len(series) == len(instances) == 3
    assert made[1].SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    (study,) = made[0].CurrentRequestedProcedureEvidenceSequence
    (reference_,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert (study.StudyInstanceUID, reference_.ReferencedSOPInstanceUID) == (
        source.StudyInstanceUID,
        source.SOPInstanceUID,
    )


def test_equal_readings_have_equal_uids_and_different_ones_differ():
    data = radiographs.file("CR")

    def uids(data=data, **changes):
        made = make(data, **changes)
        return tuple((one.SeriesInstanceUID, one.SOPInstanceUID) for one in made)

    made = radiographs.PROVENANCE
    boy = Reading("M", 112.34, None, None, None, None)
    found = [
        uids(),
        uids(radiographs.file("CR")),
        uids(sex="M", readings=(boy,)),
        uids(age=90.0),
        uids(provenance=dataclasses.replace(made, sha256="f" * 64)),
        uids(provenance=dataclasses.replace(made, version="9.9")),
    ]
    assert uids() == found[0]
    assert uids(provenance=dataclasses.replace(made, time=made.time.replace(year=2030))) == found[0]
    assert len({uid for pair in found for both in pair for uid in both}) == 4 * len(found)


def test_the_uids_depend_on_the_further_inputs_that_the_network_read():
    data = radiographs.file("CR")

    def uids(**inputs):
        return [(one.SeriesInstanceUID, one.SOPInstanceUID) for one in make(data, inputs=inputs)]

    points = np.zeros((8, 8, 1), np.uint8)
    others = np.ones((8, 8, 1), np.uint8)
    found = [
        uids(),
        uids(chronological_age=np.float32(60)),
        uids(chronological_age=np.float32(60.5)),
        uids(height=np.float32(60)),
        uids(chronological_age=np.float32(60), keypoints=points),
        uids(chronological_age=np.float32(60), keypoints=others),
    ]
    assert len({uid for pair in found for both in pair for uid in both}) == 4 * len(found)
    assert uids(keypoints=others.copy(), chronological_age=np.float32(60)) == found[-1]


def test_the_uids_depend_on_whether_the_regions_were_found():
    data = radiographs.file("CR")
    sought: list[dict[str, Any] | None] = [None, {"found": []}]
    assert len({one.SOPInstanceUID for regions in sought for one in make(data, regions=regions)}) == 4


def test_the_uids_of_a_reading_without_further_inputs_stay_the_same_across_versions():
    source = read_source(radiographs.file("CR", SOPInstanceUID="1.2.3"), "hand.dcm")
    assert identity(source, radiographs.result(), "report") == (
        "2.25.46193398355530041503398406974241145977",
        "2.25.154221852849745483645274142151053462873",
        "2.25.273237909033041023625520839096828984865",
    )


def test_other_header_elements_do_not_reach_the_results():
    secrets = {"InstitutionName": "Canary1", "PatientAddress": "Canary2", "PatientComments": "Canary3"}
    data = radiographs.file("CR", **secrets)
    assert data.count(b"Canary") == 3
    made = objects.make(data, "hand.dcm", radiographs.result(), radiographs.overlay)
    assert b"Canary" not in made.report + made.capture


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 144", "Нижний"),
        ("ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (None, "DOE JANE"),
    ],
)
def test_patient_names_keep_their_characters_and_are_never_printed(characters, name, capfd):
    elements = {} if characters is None else {"SpecificCharacterSet": characters}
    for one in make(radiographs.file("CR", PatientName=name, **elements)):
        assert one.PatientName == name
        assert one.get("SpecificCharacterSet") == characters
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["größe", "кость", "手" * 40, "cut\udce9"])
@pytest.mark.parametrize(
    ("characters", "patient"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jürgen"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ],
)
def test_all_text_lies_in_the_declared_character_set_whatever_the_name_of_the_weights(characters, patient, name):
    elements = {} if characters is None else {"SpecificCharacterSet": characters}
    data = radiographs.file("CR", PatientName=patient, **elements)
    report, captured = make(data, provenance=dataclasses.replace(radiographs.PROVENANCE, weights=name))
    texts = [item.TextValue for item in group(report)[0].ContentSequence if item.ValueType == "TEXT"]
    assert f"weights {printable(name)}" in texts
    for one in (report, captured):
        assert one.PatientName == patient
        assert one.get("SpecificCharacterSet") == ("ISO_IR 192" if printable(name) == name else characters)


def test_a_name_in_an_undeclared_character_set_is_copied_unchanged_but_not_converted():
    data = radiographs.file("CR", PatientName="Mueller").replace(b"Mueller ", b"M\xfcller  ")
    for one in make(data):
        assert one["PatientName"].value.original_string == b"M\xfcller"
        assert "SpecificCharacterSet" not in one
    with pytest.raises(SourceError, match="text outside ASCII without a Specific Character Set") as error:
        make(data, provenance=dataclasses.replace(radiographs.PROVENANCE, weights="größe"))
    assert "ller" not in str(error.value)


def test_the_capture_shows_the_images_with_the_result_below():
    _, made = make()
    overlay = radiographs.overlay()
    pixels = made.pixel_array
    height, width = overlay.shape[:2]
    assert pixels.shape[1] == 1024
    left = (1024 - width) // 2
    np.testing.assert_array_equal(pixels[:height, left : left + width], overlay[..., ::-1])
    assert (pixels[height:].max(axis=(1, 2)) > 200).sum() > 100  # rows with text
    yellow = (pixels[height:] == (255, 220, 0)).all(axis=-1)
    assert yellow.sum() > 1000  # the research-use notice
    assert (made.Laterality, made.BodyPartExamined) == ("L", "HAND")


def test_the_capture_text_states_the_result(monkeypatch):
    written = []

    def draw(lines, width):
        written.extend(lines)
        return Image.new("RGB", (width, 8))

    monkeypatch.setattr(capture, "_text", draw)
    result = radiographs.result(warnings=("A warning.",))
    capture.draw(radiographs.overlay(), result)
    texts = [text for text, _, _ in written]
    assert texts[:2] == [wording.bone_age(result), NOTICE.upper()]
    assert set(wording.details(result)) <= set(texts)
    assert wording.origin(result) in texts


def test_long_lines_are_wrapped_within_the_image():
    result = radiographs.result(warnings=("A sentence that goes on and on. " * 20,))
    wide = capture.draw(radiographs.overlay(), result)
    assert wide.shape[1] == 1024
    assert wide[256:, -10:].max() == 0
    assert len(wide) > len(capture.draw(radiographs.overlay(), radiographs.result())) + 60


def test_a_result_for_both_sexes_is_refused():
    both = tuple(Reading(sex, 100.0, None, None, None, None) for sex in "FM")
    with pytest.raises(BoneAgeError, match=r"hand\.dcm was read for both sexes, and a DICOM result has one bone age"):
        make(sex="unknown", readings=both)


def test_both_files_are_written_into_a_new_folder(tmp_path):
    made = objects.Objects(b"sr", b"sc")
    made.write(tmp_path / "new/a.dcm", tmp_path / "new/b.dcm")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"a.dcm": b"sr", "b.dcm": b"sc"}


@pytest.mark.parametrize("existing", ["a.dcm", "b.dcm"])
def test_an_existing_file_is_kept_and_neither_file_is_written(tmp_path, existing):
    (tmp_path / existing).write_bytes(b"mine")
    with pytest.raises(BoneAgeError, match=rf"{existing} already exists and is not overwritten"):
        objects.Objects(b"sr", b"sc").write(tmp_path / "a.dcm", tmp_path / "b.dcm")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {existing: b"mine"}


def test_the_report_is_removed_if_the_capture_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(BoneAgeError, match=r"cannot write .*b\.dcm"):
        objects.Objects(b"sr", b"sc").write(tmp_path / "a.dcm", tmp_path / "file/b.dcm")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("source", "expected"), [("YES", "YES"), ("NO", "NO"), (None, None), ("", None), ("no", None)])
def test_burned_in_annotation_is_that_of_the_radiograph(source, expected):
    elements = {} if source is None else {"BurnedInAnnotation": source}
    report, made = make(radiographs.file("CR", **elements))
    assert made.get("BurnedInAnnotation") == expected
    assert "BurnedInAnnotation" not in report


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("WRIST", "WRIST"),
        ("", "HAND"),
        ("Upper Extremity", "HAND"),
        ("LEFT HAND AND WRIST", "HAND"),
        (["HAND", "WRIST"], "HAND"),
    ],
)
def test_the_body_part_is_copied_only_if_it_is_one_valid_code_string(part, expected):
    _, made = make(radiographs.file("CR", BodyPartExamined=part))
    assert made.BodyPartExamined == expected


def test_an_unexpected_error_of_highdicom_is_reported_by_its_type_alone(monkeypatch):
    def fail(*_):
        raise KeyError("Doe^Jane")

    monkeypatch.setattr(objects, "make_report", fail)
    with pytest.raises(SourceError, match=r"a header that cannot be copied into results \(KeyError\)") as error:
        make()
    assert "Doe" not in str(error.value)
