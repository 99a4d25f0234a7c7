"""dciodvfy (dicom3tools) and dsrdump (dcmtk) find no errors in the results."""

import dataclasses
import re

import pytest

from boneage_jax.dicom_results import objects
from boneage_jax.predict.results import Reading
from tests.dicom_results import programs, radiographs

PLAIN = radiographs.result(age=None, age_from=None, readings=(Reading("F", 99.0, None, None, None, None),))
WARNED = dataclasses.replace(radiographs.result(), warnings=("The file's header says the right side.",))


def errors(path):
    """The errors that dciodvfy reports."""
    _, printed = programs.run("dciodvfy", "-new", path)
    assert printed.strip()  # it names the kind of object
    return [line for line in printed.splitlines() if line.startswith("Error")]


def write(folder, data, result):
    made = objects.make(data, "hand.dcm", result, radiographs.overlay)
    made.write(folder / "sr.dcm", folder / "sc.dcm")
    return folder / "sr.dcm", folder / "sc.dcm"


@pytest.mark.parametrize("kind", ["CR", "DX", "SC"])
@pytest.mark.parametrize("result", [radiographs.result(), PLAIN, WARNED], ids=["full", "plain", "warned"])
def test_results_of_valid_sources_are_valid(kind, result, tmp_path):
    programs.need("dciodvfy", "dsrdump")
    (tmp_path / "source.dcm").write_bytes(radiographs.file(kind))
    assert errors(tmp_path / "source.dcm") == []
    report, capture = write(tmp_path, radiographs.file(kind), result)
    assert errors(report) == []
    assert errors(capture) == []
    status, printed = programs.run("dsrdump", "--print-all-codes", "--print-long-values", report)
    assert status == 0
    assert not re.search("^[EW]: ", printed, re.MULTILINE)
    assert f'NUM:(85151-9,LN,"XR Bone age")="{round(result.readings[0].months, 2)}" (mo,UCUM,"month")' in printed


@pytest.mark.parametrize("name", ["größe" * 20, "кость", "cut\udce9"], ids=["long", "Cyrillic", "surrogate"])
@pytest.mark.parametrize("characters", [None, "ISO_IR 100", ["", "ISO 2022 IR 87"]])
def test_results_are_valid_whatever_the_name_of_the_weights(name, characters, tmp_path):
    programs.need("dciodvfy", "dsrdump")
    elements = {} if characters is None else {"SpecificCharacterSet": characters}
    result = radiographs.result(
        provenance=dataclasses.replace(radiographs.PROVENANCE, weights=name),
        warnings=("The file's header names a lateral or oblique view (LAT\x07).",),
    )
    report, capture = write(tmp_path, radiographs.file("CR", **elements), result)
    assert errors(report) == []
    assert errors(capture) == []
    assert programs.run("dsrdump", "--print-long-values", report)[0] == 0


@pytest.mark.parametrize("missing", ["PatientBirthDate", "AccessionNumber", "ReferringPhysicianName", "StudyTime"])
def test_results_of_sources_with_missing_elements_are_valid(missing, tmp_path):
    programs.need("dciodvfy", "dsrdump")
    report, capture = write(tmp_path, radiographs.file("SC", **{missing: None}), radiographs.result())
    assert errors(report) == []
    assert errors(capture) == []
    assert programs.run("dsrdump", report)[0] == 0


def test_the_validator_reports_a_missing_element(tmp_path):
    programs.need("dciodvfy")
    (tmp_path / "a.dcm").write_bytes(radiographs.file("CR", Modality=None))
    assert any("Modality" in line for line in errors(tmp_path / "a.dcm"))


@pytest.mark.parametrize("burned_in", ["YES", "NO", ""])
def test_captures_of_sources_with_burned_in_annotation_are_valid(burned_in, tmp_path):
    programs.need("dciodvfy")
    _, capture = write(tmp_path, radiographs.file("CR", BurnedInAnnotation=burned_in), radiographs.result())
    assert errors(capture) == []
