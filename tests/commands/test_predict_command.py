"""`boneage predict`: file formats, sources of sex and age, output formats, and errors."""

import csv
import datetime
import json

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from safetensors import safe_open

import boneage_jax
from boneage_jax.data import preprocess
from boneage_jax.models import Input
from boneage_jax.predict.results import years_months
from boneage_jax.released import weights
from tests import pictures
from tests.data import dicom_files
from tests.dicom_results import radiographs
from tests.predict import random_weights, test_region_readings
from tests.predict.random_weights import cached_load, grainy, hand


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        Image.fromarray(image).save(path)
    elif path.suffix == ".dcm" or not path.suffix:
        path.write_bytes(dicom_files.make(image))
    else:
        cv2.imwrite(str(path), image)
    return path


def dicom(path, **elements):
    path.write_bytes(dicom_files.make(hand(1), **elements))
    return path


@pytest.mark.parametrize(
    ("ending", "bits"),
    [*((ending, 8) for ending in ("png", "jpg", "jpeg", "webp", "tif", "dcm")), ("png", 16), ("tif", 16), ("dcm", 16)],
)
def test_every_file_format_gives_the_bone_age_of_the_predictor(ending, bits, read, tiny, tmp_path):
    image = hand(1) if bits == 8 else hand(1).astype(np.uint16) * 257
    (found,) = read(write(tmp_path / f"hand.{ending}", image), "--sex=F")
    assert found["months"] == pytest.approx(cached_load(tiny).predict(tmp_path / f"hand.{ending}", sex="F").months)
    if ending not in ("jpg", "jpeg", "webp"):
        assert found["months"] == pytest.approx(cached_load(tiny).predict(image, sex="F").months, abs=0.01)


def test_json_keys_are_stable_and_hold_the_prediction(read, tiny, tmp_path):
    (found,) = read(write(tmp_path / "hand.png", hand(1)), "--sex=m")
    expected = cached_load(tiny).predict(hand(1), sex="M")
    assert list(found) == [
        *("file", "error", "refused", "sex", "sex_from", "months", "years_months", "std", "low", "high", "difference"),
        *("sd_score", "conclusion", "by_sex", "age", "age_from", "sd_table", "heatmap", "regions"),
        *("dicom_report", "dicom_capture", "warnings", "notes", "provenance"),
    ]
    assert found["file"] == str(tmp_path / "hand.png")
    assert (found["sex"], found["sex_from"]) == ("M", "--sex")
    assert found["months"] == pytest.approx(expected.months, abs=1e-4)
    assert found["std"] == pytest.approx(expected.std, abs=1e-4)
    assert [found["low"], found["high"]] == pytest.approx(expected.interval, abs=1e-4)
    assert expected.months is not None
    years, months = divmod(round(expected.months), 12)
    assert found["years_months"] == f"{years} years {months} months"
    for key in ("error", "by_sex", "age", "difference", "sd_score", "conclusion", "sd_table", "heatmap", "regions"):
        assert found[key] is None


def test_the_chronological_age_gives_difference_and_sd_score(read, tmp_path):
    (found,) = read(write(tmp_path / "hand.png", hand(1)), "--sex=F", "--age=8")
    assert (found["age"], found["age_from"]) == (96, "--age")
    assert found["difference"] == pytest.approx(found["months"] - 96, abs=1e-3)
    assert found["sd_score"] == pytest.approx(found["difference"] / 10.23, abs=1e-3)  # girls of 96 months
    assert "Brush" in found["sd_table"]
    assert found["conclusion"] in ("delayed", "normal", "advanced", "cannot be decided")


def test_an_age_outside_the_table_gives_a_difference_but_no_sd_score(read, tmp_path):
    (found,) = read(write(tmp_path / "hand.png", hand(1)), "--sex=F", "--age=17")
    assert found["difference"] == pytest.approx(found["months"] - 204, abs=1e-3)
    assert (found["sd_score"], found["sd_table"]) == (None, None)
    assert "covers 3 to 192 months for female children" in found["notes"][0]


def test_an_unknown_sex_gives_both_readings_with_a_note(run, read, tiny, tmp_path):
    path = write(tmp_path / "hand.png", hand(1))
    (found,) = read(path, "--sex=unknown", "--age=8")
    assert found["months"] is None
    for sex in "FM":
        assert found["by_sex"][sex]["months"] == pytest.approx(
            cached_load(tiny).predict(path, sex=sex).months, abs=1e-3
        )
        assert found["by_sex"][sex]["sd_score"] is not None
    assert "The sex is unknown" in found["notes"][0]
    status, out, err = run(path, "--sex=unknown")
    assert status == 0
    assert "F?" in out
    assert "M?" in out
    assert "both readings are shown" in out
    assert "note: The sex is unknown" in err


def test_a_missing_sex_is_an_error(run, tmp_path):
    status, out, err = run(write(tmp_path / "hand.png", hand(1)))
    assert status == 1
    assert "hand.png" not in out
    assert "the sex is not given" in err
    assert "--sex" in err
    assert "--labels" in err


def test_the_label_table_supplies_the_sex_of_each_file(read, tmp_path):
    for name in ("1377", "1378", "1379"):
        write(tmp_path / f"images/{name}.png", hand(1))
    (tmp_path / "a.csv").write_text("id,male\n1377,True\n1378,False\n")
    (tmp_path / "b.csv").write_text("id,sex\n1377,M\n1378,F\n")
    for table in ("a.csv", "b.csv"):
        found = read("images", f"--labels={table}", status=2)
        assert [one["sex"] for one in found] == ["M", "F", None]
        assert [one["sex_from"] for one in found] == ["--labels", "--labels", None]
        assert "1379" in found[2]["error"]
    found = read("images", "--labels=a.csv", "--sex=unknown")
    assert [one["sex"] for one in found] == ["M", "F", "unknown"]
    found = read("images", "--labels=a.csv", "--sex=F", status=2)
    assert [one["sex"] for one in found] == [None, "F", "F"]
    assert "--sex says F, but the label table says M" in found[0]["error"]


def test_the_dicom_header_supplies_sex_and_age(read, tmp_path):
    path = dicom(tmp_path / "hand.dcm", PatientSex="M", PatientBirthDate="20100101", StudyDate="20180101")
    (found,) = read(path)
    assert (found["sex"], found["sex_from"], found["age_from"]) == ("M", "header", "header")
    assert found["age"] == pytest.approx(96, abs=0.1)
    assert found["sd_score"] is not None
    assert found["warnings"] == []


def test_an_age_in_whole_years_gets_a_note(read, tmp_path):
    (found,) = read(dicom(tmp_path / "hand.dcm", PatientSex="M", PatientAge="008Y"))
    assert found["age"] == 96
    assert "up to 12 months older" in found["notes"][0]


def test_a_contradiction_with_the_header_is_only_a_warning(run, read, tmp_path):
    path = dicom(tmp_path / "hand.dcm", PatientSex="M", PatientAge="008Y")
    (found,) = read(path, "--sex=F", "--age=12")
    assert (found["sex"], found["age"], found["refused"]) == ("F", 144, False)
    assert [text[:13] for text in found["warnings"]] == ["The given sex", "The given age"]
    status, out, err = run(path, "--sex=F")
    assert status == 0
    assert "hand.dcm" in out
    assert "hand.dcm: warning: The given sex is female" in err


def test_a_folder_is_searched_recursively_for_images_in_order(read, tmp_path):
    names = ["a/2.png", "a/10.jpg", "b/c/1.tif", "b/IM0001", "z.dcm"]
    for number, name in enumerate(names):
        write(tmp_path / "in" / name, hand(number))
    for name in ("notes.txt", ".hidden.png", "a/1-heatmap.png", "README"):
        (tmp_path / "in" / name).write_text("no image")
    found = read("in", "--sex=F")
    assert [one["file"] for one in found] == [f"in/{name}" for name in sorted(names)]
    assert len({one["months"] for one in found}) == len(names)


def test_a_bad_file_does_not_stop_the_rest(run, tmp_path):
    for name in ("1.png", "4.png"):
        write(tmp_path / "in" / name, hand(1))
    (tmp_path / "in/2.png").write_text("not an image")
    (tmp_path / "in/3.png").write_bytes(b"")
    (tmp_path / "in/5.dcm").write_bytes(dicom_files.make(hand(1))[:3000])
    (tmp_path / "in/6.png").write_bytes((tmp_path / "in/1.png").read_bytes()[:1000])
    status, out, err = run("in", "absent.png", "--sex=F", "--format=csv")
    assert status == 2
    rows = list(csv.DictReader(out.splitlines()))
    assert [bool(row["months"]) for row in rows] == [True, False, False, True, False, False, False]
    for row, words in zip(
        [rows[i] for i in (1, 2, 4, 5, 6)],
        ["in/2.png is not a", "in/3.png is empty", "in/5.dcm", "in/6.png is truncated", "absent.png cannot be read"],
        strict=True,
    ):
        assert words in row["error"]
        assert f"error: {row['error']}" in err
    assert "2 of 7 read, 5 not" in err


def test_a_decoder_failure_logs_no_traceback(run, tmp_path, caplog):
    whole = dicom_files.make_rle(hand(1))
    (tmp_path / "damaged.dcm").write_bytes(whole[:-600] + bytes(600))
    status, _, err = run("damaged.dcm", "--sex=F")
    assert (status, err.count("error:"), caplog.records) == (1, 1, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty", "--sex=F"], "empty contains no image"),
        (["absent", "--sex=F"], "absent cannot be read"),
        (["hand.png", "--labels=absent.csv"], "label table absent.csv does not exist"),
        (["hand.png", "--labels=other.csv"], "other.csv is not a label table"),
        (["hand.png", "--labels=wrong.csv"], "wrong.csv, row 2: the sex 'x' is unknown"),
    ],
)
def test_status_is_1_if_nothing_was_read(arguments, words, run, tmp_path):
    write(tmp_path / "hand.png", hand(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "wrong.csv").write_text("id,sex\nhand,x\n")
    status, _, err = run(*arguments)
    assert status == 1
    assert words in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sex=F"], "FILE|FOLDER"),
        (["hand.png", "--sex=girl"], "'girl' is not F, M or unknown"),
        (["hand.png", "--sex=F", "--age=96"], "not an age in years from 0 to 25"),
        (["hand.png", "--sex=F", "--age=nan"], "not an age in years"),
        (["hand.png", "--sex=F", "--format=xml"], "invalid choice"),
    ],
)
def test_invalid_usage_exits_with_status_1(arguments, words, run, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 1
    assert words in capsys.readouterr().err


def test_missing_weights_are_an_error(run, tmp_path):
    status, out, err = run(write(tmp_path / "hand.png", hand(1)), "--sex=F", "--weights=absent")
    assert (status, out) == (1, "")
    assert "there are no weights 'absent'" in err


def test_weights_with_unsupported_inputs_are_rejected(run, tmp_path):
    path = tmp_path / "race.safetensors"
    weights.write(path, random_weights.weights(inputs=(Input("race", "category", categories=("a", "b")),)))
    status, _, err = run(write(tmp_path / "hand.png", hand(1)), "--sex=F", f"--weights={path}")
    assert status == 1
    assert "also read race" in err


def test_weights_with_chronological_age_input_use_the_age_flag(read, tmp_path):
    path = tmp_path / "age.safetensors"
    weights.write(path, random_weights.weights(inputs=random_weights.AGE))
    image = write(tmp_path / "hand.png", hand(1))
    (found,) = read(image, "--sex=F", "--age=8", f"--weights={path}")
    expected = cached_load(str(path)).predict(image, sex="F", inputs={"chronological_age": 96}).months
    assert found["months"] == pytest.approx(expected, abs=1e-3)
    (found,) = read(image, "--sex=F", f"--weights={path}", status=1)
    assert "chronological_age" in found["error"]
    image = dicom(tmp_path / "hand.dcm", PatientSex="F", PatientAge="096M")
    (found,) = read(image, f"--weights={path}")
    assert (found["months"], found["age_from"]) == (pytest.approx(expected, abs=1e-3), "header")
    (found,) = read(image, "--age=12", f"--weights={path}")
    older = cached_load(str(path)).predict(hand(1), sex="F", inputs={"chronological_age": 144}).months
    assert found["months"] == pytest.approx(older, abs=1e-3)


@pytest.fixture
def checked(tmp_path):
    """Weights with image checks that classify bright images as inverted."""
    path = tmp_path / "checked.safetensors"
    weights.write(path, random_weights.checked())
    return f"--weights={path}"


def test_an_image_that_fails_the_checks_is_refused_and_others_are_read(run, read, checked, tmp_path):
    write(tmp_path / "in/1.png", hand(1))
    write(tmp_path / "in/2.png", grainy(0.4))
    write(tmp_path / "in/3.png", hand(1)[:60])
    found = read("in", "--sex=F", checked, status=2)
    assert [one["refused"] for one in found] == [False, True, True]
    assert [one["months"] is None for one in found] == [False, True, True]
    assert "blank" in found[1]["warnings"][0]
    assert "few pixels" in found[2]["warnings"][0]
    status, out, err = run("in", "--sex=F", checked)
    assert status == 2
    assert "in/1.png" in out
    assert "in/2.png" not in out
    assert "error: in/2.png is refused: The image is blank" in err
    assert "contrast. --accept-warnings reads it anyway\n" in err


def test_status_is_2_for_a_refused_image_and_1_for_an_unreadable_one(run, checked, tmp_path):
    blank, text = write(tmp_path / "1.png", grainy(0.4)), tmp_path / "2.png"
    text.write_text("not an image")
    assert [run(*paths, "--sex=F", checked)[0] for paths in ([blank], [blank, text], [text])] == [2, 2, 1]


def test_accepted_warnings_are_kept_beside_the_reading(run, read, checked, tmp_path):
    path = write(tmp_path / "1.png", hand(1)[:60])
    (found,) = read(path, "--sex=F", checked, "--accept-warnings")
    assert found["months"] > 0
    assert found["refused"] is False
    assert "few pixels" in found["warnings"][0]
    assert "1.png: warning: The image has very few pixels" in run(path, "--sex=F", checked, "--accept-warnings")[2]


def test_an_inverted_image_is_corrected_with_a_note(run, read, checked, tmp_path):
    paths = write(tmp_path / "1.png", hand(1)), write(tmp_path / "2.png", 255 - hand(1))
    plain, inverted = read(*paths, "--sex=F", checked)
    assert plain["warnings"] == plain["notes"] == inverted["warnings"] == []
    assert "was inverted" in inverted["notes"][0]
    assert inverted["months"] == pytest.approx(plain["months"], abs=1e-3)
    read(*paths, "--sex=F", checked, f"--heatmap={tmp_path / 'maps'}")
    first, second = (pictures.read(tmp_path / f"maps/{number}-heatmap.png") for number in (1, 2))
    np.testing.assert_array_equal(first, second)  # drawn on the corrected image


def test_every_result_carries_its_provenance(run, read, checked, tmp_path):
    write(tmp_path / "in/1.png", hand(1))
    write(tmp_path / "in/2.png", grainy(0.4))
    path = checked.removeprefix("--weights=")
    with safe_open(path, framework="numpy") as file:
        sha256 = json.loads(file.metadata()["boneage_jax"])["sha256"]
    expected = {
        "version": boneage_jax.__version__,
        "weights": "tiny",
        "weights_sha256": sha256,
        "preprocessing": preprocess.VERSION,
        "notice": "Research use only. Not a medical device.",
    }
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    for one in read("in", "--sex=F", checked, status=2):
        time = datetime.datetime.fromisoformat(one["provenance"].pop("time"))
        assert one["provenance"] == expected
        assert before <= time <= datetime.datetime.now(datetime.UTC)
    for row in csv.DictReader(run("in", "--sex=F", checked, "--format=csv")[1].splitlines()):
        assert {name: row[name] for name in expected} == {name: str(value) for name, value in expected.items()}
        assert row["time"].endswith("Z")
    table = run("in", "--sex=F", checked)[1]
    for word in (boneage_jax.__version__, "tiny", sha256, expected["notice"]):
        assert word in table


def test_the_table_shows_one_line_per_reading(run, tmp_path):
    paths = [write(tmp_path / name, hand(number)) for number, name in enumerate(("1.png", "second.png"))]
    (tmp_path / "ages.csv").write_text("id,age\n1,8.5\nsecond,8.5\n")
    status, out, err = run(*paths, "--sex=F", "--labels=ages.csv")
    assert (status, err) == (0, "")
    title, first, second, empty, legend, *provenance = out.splitlines()
    assert title.split()[:4] == ["file", "sex", "bone", "age,"]
    assert title.endswith("difference  SD score")
    assert first.startswith(f"{paths[0]} ")
    assert second.startswith(f"{paths[1]} ")
    assert " 102.0 " in first
    assert first.index("F  ") == second.index("F  ")
    assert empty == ""
    assert legend.startswith("SD score: (bone age - age) / standard deviation")
    assert len(provenance) == 3


def test_csv_has_one_header_and_a_row_per_reading(run, tmp_path):
    path = write(tmp_path / "a, b.png", hand(1))
    _, out, _ = run(path, path, "--sex=unknown", "--format=csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["file"], row["sex"], row["sex_from"]) for row in rows] == [
        (str(path), sex, "unknown") for sex in "FMFM"
    ]
    assert all(float(row["low"]) < float(row["months"]) < float(row["high"]) for row in rows)


def test_heat_map_names_are_unique_across_subfolders(read, tmp_path):
    names = ["a/1.png", "a/1.dcm", "2.png"]
    for name in names:
        write(tmp_path / "in" / name, hand(1))
    found = read("in", "--sex=unknown", "--heatmap=maps/of")
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "maps").rglob("*.png")}
    assert {one["heatmap"] for one in found} == written
    assert written == {f"maps/of/{name}-heatmap.png" for name in ("2", "in_a_1.png", "in_a_1.dcm")}
    picture = pictures.read(tmp_path / "maps/of/2-heatmap.png")
    assert picture.shape == (80, 160, 3)
    assert (picture[:, :80] != picture[:, 80:]).any()


def test_an_uncreatable_heat_map_folder_is_an_error(run, tmp_path):
    (tmp_path / "maps").write_text("a file")
    status, out, err = run(write(tmp_path / "hand.png", hand(1)), "--sex=F", "--heatmap=maps")
    assert (status, out) == (1, "")
    assert "the folder maps for --heatmap cannot be created" in err


def test_regions_are_listed_and_an_overlay_is_written(read, tmp_path):
    path = write(tmp_path / "in/1.png", hand(1))
    write(tmp_path / "in/1-regions.png", hand(1))  # an overlay from an earlier run is not read
    (found,) = read("in", "--sex=F", "--regions=overlays")
    assert found["file"] == "in/1.png"
    keys = ["found", "missing", "surplus", "months", "interval", "weights", "picture"]
    assert list(found["regions"]) == keys
    assert found["regions"]["picture"] == "overlays/1-regions.png"
    counts = len(found["regions"]["found"]) + sum(found["regions"]["missing"].values())
    assert counts == 17
    assert pictures.read(tmp_path / "overlays/1-regions.png").shape == pictures.read(path).shape


def test_an_unwritable_overlay_is_a_warning_and_status_2(run, tmp_path):
    path = write(tmp_path / "1.png", hand(1))
    (tmp_path / "overlays/1-regions.png").mkdir(parents=True)
    status, out, err = run(path, "--sex=F", "--regions=overlays", "--format=json")
    (found,) = json.loads(out)
    assert status == 2
    assert found["months"] is not None
    assert found["regions"]["picture"] is None
    assert "There is no picture of the regions" in err


@pytest.fixture
def joints(tmp_path):
    """Weights that read crops around the joints and have no heat maps."""
    weights.write(tmp_path / "joints.safetensors", test_region_readings.predictor().weights)
    return f"--weights={tmp_path / 'joints.safetensors'}"


def test_a_heat_map_of_weights_without_one_is_an_error_before_reading(run, joints, tmp_path):
    path = write(tmp_path / "hand.png", test_region_readings.hand())
    status, out, err = run(path, "--sex=M", joints, "--heatmap=maps")
    assert (status, out) == (1, "")
    assert err.startswith(
        "error: the weights 'tiny_joints' read crops around the joints, for which there is no heat map"
    )
    assert not (tmp_path / "maps").exists()


def test_weights_without_heat_maps_write_dicom_objects_and_regions(read, joints, tmp_path):
    path = tmp_path / "hand.dcm"
    path.write_bytes(radiographs.file("CR", test_region_readings.hand()))
    (found,) = read(path, joints, "--dicom-out=results", "--regions=overlays")
    assert found["regions"]["weights"] == "tiny_joints"
    capture = pydicom.dcmread(tmp_path / found["dicom_capture"])
    assert capture.SeriesDescription == "Bone age, research use only"
    assert (tmp_path / found["dicom_report"]).exists()


def test_dicom_objects_do_not_name_a_picture_that_cannot_be_written(read, joints, tmp_path):
    path = tmp_path / "hand.dcm"
    path.write_bytes(radiographs.file("CR", test_region_readings.hand()))
    (tmp_path / "secret/hand-heatmap.png").mkdir(parents=True)
    (tmp_path / "secret/hand-regions.png").mkdir()
    for flags in (["--heatmap=secret"], ["--regions=secret", joints]):
        (found,) = read(path, *flags, f"--dicom-out={flags[0][2:8]}", status=2)
        assert sum("cannot write secret/hand-" in text for text in found["warnings"]) == 1
        for name in (found["dicom_report"], found["dicom_capture"]):
            assert b"secret" not in (tmp_path / name).read_bytes()


def test_months_below_zero_have_a_sign_in_words():
    assert [years_months(months) for months in (-0.6, -0.4, 0.0, 11.6, -13.2)] == [
        *("-0 years 1 month", "0 years 0 months", "0 years 0 months", "1 year 0 months", "-1 year 1 month")
    ]
