"""`boneage predict` on many files: a bad file does not stop the others, and the output stays valid."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import boneage_jax
from boneage_jax.commands import reading
from boneage_jax.data import radiograph
from boneage_jax.predict import heatmap, worklist
from tests.data import dicom_files, rsna_forms
from tests.predict.random_weights import cached_load, hand


def png(seed=1):
    return cv2.imencode(".png", hand(seed))[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    """Three images, and files of other kinds."""
    entries = {
        "in/1.png": png(1),
        "in/2.IMA": dicom_files.make(hand(2)),
        "in/3": cv2.imencode(".bmp", hand(3))[1].tobytes(),
    }
    rsna_forms.write(tmp_path, {**entries, "in/notes.txt": b"text", "in/1-heatmap.png": png(1), "in/.DS_Store": b""})
    return tmp_path / "in"


def test_images_are_detected_by_content_and_other_files_are_listed(run, folder):
    status, out, err = run("in", "--sex=F", "--format=json")
    assert (status, [one["file"] for one in json.loads(out)]) == (0, ["in/1.png", "in/2.IMA", "in/3"])
    assert err == "in: note: 2 files are not images and were left out: 1-heatmap.png, notes.txt\n"


def test_many_skipped_files_are_counted(run, folder):
    for number in range(20):
        (folder / f"{number:02}.txt").write_text("text")
    _, _, err = run("in", "--sex=F")
    assert "in: note: 22 files are not images and were left out: 00.txt, " in err
    assert "08.txt, 09.txt, and 12 more\n" in err


def test_archives_are_read_and_a_damaged_one_is_reported(run, read, tmp_path):
    rsna_forms.write(tmp_path, {"in/a.png": png(1), "in/rest.zip": rsna_forms.archive({"c.png": png(3)})[:200]})
    rsna_forms.write(tmp_path, {"two.zip": rsna_forms.archive({"b.png": png(2), "c/d.png": png(3)})})
    found = read("in", "two.zip", "--sex=F", status=2)
    assert [(one["file"], bool(one["months"])) for one in found] == [
        *(("in/a.png", True), ("in/rest.zip", False), ("two.zip/b.png", True), ("two.zip/c/d.png", True))
    ]
    assert "in/rest.zip is not an intact zip archive" in found[1]["error"]


@pytest.mark.parametrize("names", [("A/hand.png", "B/hand.png"), ("hand.png", "hand.dcm")])
def test_a_row_matching_two_files_is_an_error(names, read, tmp_path):
    for name in names:
        content = png() if name.endswith("png") else dicom_files.make(hand(1))
        rsna_forms.write(tmp_path, {f"in/{name}": content})
    (tmp_path / "labels.csv").write_text("id,male\nhand,True\n")
    for paths in (["in"], [f"in/{name}" for name in names]):
        for one in read(*paths, "--labels=labels.csv", status=1):
            assert f"the id hand of labels.csv matches in/{sorted(names)[0]} and in/{sorted(names)[1]}" in one["error"]
            assert one["sex"] is None
    (tmp_path / "labels.csv").write_text(f"id,male\n{names[0]},True\n{names[1]},False\n")
    found = read("in", "--labels=labels.csv")
    assert {one["file"]: one["sex"] for one in found} == {f"in/{names[0]}": "M", f"in/{names[1]}": "F"}


def test_a_file_given_twice_is_not_ambiguous(read, tmp_path):
    rsna_forms.write(tmp_path, {"hand.png": png(), "labels.csv": b"id,male\nhand,True\n"})
    assert [one["sex"] for one in read("hand.png", "./hand.png", "--labels=labels.csv")] == ["M", "M"]


def test_a_bad_row_affects_only_its_own_file(read, tmp_path):
    rsna_forms.write(tmp_path, {f"in/{number}.png": png(number) for number in range(1, 6)})
    (tmp_path / "labels.csv").write_text("id;sex;gender\n1;F;\n2;O;O\n3;x;\n4;M;F\n5;;\n")
    found = read("in", "--labels=labels.csv", status=2)
    assert [one["sex"] for one in found] == ["F", "unknown", None, None, None]
    assert found[1]["by_sex"]["M"]["months"] is not None
    for place, words in ((2, "row 4: the sex 'x' is unknown"), (3, "row 5: the columns"), (4, "the sex is not given")):
        assert words in found[place]["error"]


def test_ages_come_from_the_table_and_the_age_flag_needs_a_single_file(run, read, tmp_path):
    rsna_forms.write(tmp_path, {"in/1.png": png(1), "in/2.png": png(2)})
    (tmp_path / "labels.csv").write_text("id,sex,age\n1,F,8.5\n2,M,\n")
    found = read("in", "--labels=labels.csv")
    assert [(one["age"], one["age_from"]) for one in found] == [(102, "--labels"), (None, None)]
    assert found[0]["difference"] == pytest.approx(found[0]["months"] - 102, abs=1e-3)
    status, out, err = run("in", "--sex=F", "--age=9")
    assert (status, out) == (1, "")
    assert "--age is the age of one child, but there are 2 files; give the ages in a table with --labels" in err
    (one,) = read("in/1.png", "--labels=labels.csv", "--age=8.5")
    assert one["age_from"] == "--labels"
    (one,) = read("in/1.png", "--labels=labels.csv", "--age=9", status=1)
    assert "--age says 108 months, but the label table says 102" in one["error"]


def test_the_stated_age_is_used_if_the_birth_date_is_a_placeholder(read, tmp_path):
    elements = {"PatientSex": "M", "PatientAge": "010Y", "PatientBirthDate": "20060101", "StudyDate": "20161125"}
    (tmp_path / "hand.dcm").write_bytes(dicom_files.make(hand(1), **elements))
    (found,) = read("hand.dcm")
    assert (found["age"], found["age_from"]) == (120, "header")
    assert "Only the year of the birth date" in found["notes"][0]
    (found,) = read("hand.dcm", "--age=10.5")
    assert not any("birth date" in note for note in found["notes"])


def test_an_exif_rotated_image_is_read_upright_with_a_note(read, tiny, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(hand(1)).save(tmp_path / "upright.png")
    Image.fromarray(np.ascontiguousarray(np.rot90(hand(1)))).save(tmp_path / "turned.png", exif=exif)
    upright, turned = read("upright.png", "turned.png", "--sex=F")
    assert turned["months"] == upright["months"]
    assert (upright["notes"], turned["warnings"]) == ([], [])
    (note,) = turned["notes"]
    assert "turned upright as its file says (EXIF orientation 6)" in note
    assert cached_load(tiny).predict("turned.png", sex="F").notes == (note,)


ODD = {
    "a\nb.png": r"in/a\nb.png",
    "c\x1b[2Jd.png": r"in/c\x1b[2Jd.png",
    "e\u202egnp.png": r"in/e\u202egnp.png",
    "f\udcffg.png": r"in/f\udcffg.png",
    "h\r,x.png": r"in/h\r,x.png",
    'i"j.png': 'in/i"j.png',
    "k\u00fcl.png": "in/k\u00fcl.png",
}


def test_control_characters_in_file_names_are_escaped(run, tmp_path):
    for name in ODD:
        rsna_forms.write(tmp_path, {os.fsencode(f"in/{name}").decode("utf-8", "surrogateescape"): b"no image"})
    for form in ("csv", "table", "json"):
        _, out, err = run("in", "--sex=F", f"--format={form}")
        for text in (out, err):
            assert not set(text) & set("\x1b\r\u202e\udcff")
        assert len(err.splitlines()) == len(ODD) + 1
        for shown in ODD.values():
            assert f"error: {shown} is not a PNG" in err
        if form == "csv":
            rows = list(csv.DictReader(io.StringIO(out, newline="")))
            assert sorted(row["file"] for row in rows) == sorted(ODD.values())
        if form == "json":
            assert out.isascii()
            assert sorted(one["file"] for one in json.loads(out)) == sorted(f"in/{name}" for name in ODD)


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_non_ascii_names_are_escaped_on_an_ascii_terminal(form, tiny, tmp_path):
    rsna_forms.write(tmp_path, {"\u00fc\udcff.png": png()})
    command = [sys.executable, "-m", "boneage_jax", "predict", "\u00fc\udcff.png", "--sex=F", f"--weights={tiny}"]
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(boneage_jax.__file__).parents[1]),
    }
    done = subprocess.run(
        [*command, f"--format={form}"], cwd=tmp_path, env=environment, capture_output=True, check=True, text=True
    )
    shown = r"\xfc\udcff.png" if form != "json" else r"\u00fc\udcff.png"
    assert shown in done.stdout


@pytest.fixture
def interrupt(monkeypatch):
    """Sends a signal while the result of the second file is reported, or before the third is computed."""

    def interrupt(number, where):
        results, report = reading.read, reading.print_messages
        reported = []

        def reporting(result):
            report(result)
            reported.append(result)
            if where == "while" and len(reported) == 2:
                os.kill(os.getpid(), number)

        def making(*arguments, **options):
            for place, result in enumerate(results(*arguments, **options)):
                if where == "between" and place == 2:
                    os.kill(os.getpid(), number)
                yield result

        monkeypatch.setattr(reading, "print_messages", reporting)
        monkeypatch.setattr(reading, "read", making)

    return interrupt


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("where", ["while", "between"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_valid_output(number, where, form, run, interrupt, tmp_path):
    rsna_forms.write(tmp_path, {f"in/{i}.png": png(i) for i in range(4)})
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    interrupt(number, where)
    status, out, err = run("in", "--sex=F", f"--format={form}")
    assert status == 128 + number
    assert err == "stopped: 2 of 4 files were processed\n"
    found = json.loads(out) if form == "json" else list(csv.DictReader(out.splitlines()))
    assert [one["file"] for one in found] == ["in/0.png", "in/1.png"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_unwritable_heat_map_is_a_warning_and_status_2(run, tmp_path):
    rsna_forms.write(tmp_path, {"in/1.png": png(1), "in/2.png": png(2)})
    (tmp_path / "maps/1-heatmap.png").mkdir(parents=True)
    status, out, err = run("in", "--sex=F", "--heatmap=maps", "--format=json")
    first, second = json.loads(out)
    assert status == 2
    assert first["months"] is not None
    assert (first["heatmap"], second["heatmap"]) == (None, "maps/2-heatmap.png")
    assert "There is no heat map: cannot write maps/1-heatmap.png" in first["warnings"][0]
    assert "in/1.png: warning: There is no heat map" in err


def test_heat_maps_use_the_image_that_was_read_even_if_the_file_is_gone(run, tmp_path, monkeypatch):
    rsna_forms.write(tmp_path, {"in/1.png": png(1), "in/2.png": png(2)})
    seen = []
    real = heatmap.Maps.overlay

    def overlay(maps, item):
        seen.append(item.image)
        for name in ("1", "2"):  # Both files are deleted before any heat map is drawn.
            (tmp_path / f"in/{name}.png").unlink(missing_ok=True)
        return real(maps, item)

    monkeypatch.setattr(heatmap.Maps, "overlay", overlay)
    status, out, _ = run("in", "--sex=F", "--heatmap=maps", "--format=json")
    assert status == 0
    assert [one["heatmap"] for one in json.loads(out)] == ["maps/1-heatmap.png", "maps/2-heatmap.png"]
    for image, expected in zip(seen, (hand(1), hand(2)), strict=True):
        np.testing.assert_array_equal(radiograph.read(image)[0], expected)


def test_a_sparse_file_is_one_error_among_results(read, tmp_path):
    rsna_forms.write(tmp_path, {"in/1.png": png(1)})
    with open(tmp_path / "in/2.png", "wb") as file:
        file.truncate(2**40)
    first, second = read("in", "--sex=F", status=2)
    assert first["months"] is not None
    assert "in/2.png has more than 536,870,912 bytes" in second["error"]


def test_a_name_that_is_too_long_is_one_error_among_results(read, tmp_path):
    rsna_forms.write(tmp_path, {"1.png": png(1)})
    first, second = read("x" * 300, "1.png", "--sex=F", status=2)
    assert "cannot be read: File name too long" in first["error"]
    assert second["months"] is not None


def test_a_label_table_with_too_long_a_name_is_an_error(run, tmp_path):
    status, _, err = run("1.png", f"--labels={'x' * 300}")
    assert status == 1
    assert err.startswith("error: the label table xxx")


def test_files_named_by_a_uid_keep_its_last_number(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rsna_forms.write(tmp_path, {"CR.1.2.3": png(1), "CR.1.2.4": png(2), "CR.1.2.5.png": png(3)})
    requests = worklist.gather([Path(f"CR.1.2.{end}") for end in ("3", "4", "5.png")], None, None, None).requests
    names = [path.name for path in worklist.output_paths(Path("out"), requests, worklist.HEATMAP_ENDING)]
    assert names == ["CR.1.2.3-heatmap.png", "CR.1.2.4-heatmap.png", "CR.1.2.5-heatmap.png"]
    (found,) = read("CR.1.2.3", status=1)
    assert "or as CR.1.2.3 in the table of --labels" in found["error"]


def test_birth_dates_without_an_examination_date_are_noted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rsna_forms.write(tmp_path, {f"{number}.png": png() for number in range(4)})

    def notes(*rows):
        table = Path("labels.csv")
        table.write_text("\n".join(["id,sex,age,date,birth_date", *rows]))
        return list(worklist.gather([Path(f"{number}.png") for number in range(4)], None, None, table).notes)

    complete = ["0,F,,2024-05-31,2014-05-31", "1,F,9,,2014-05-31"]
    assert notes(*complete, "2,F,,2024-05-31,", "3,F,,,") == []
    assert notes(*complete, "2,F,,,2014-05-31", "3,F,,,") == [
        "1 row of labels.csv has a birth date but no date; no age is taken from it"
    ]
    assert notes(*complete, "2,F,,,2014-05-31", "3,F,,,2015-05-31") == [
        "2 rows of labels.csv have a birth date but no date; no age is taken from them"
    ]


def test_rows_without_a_file_and_files_without_a_row_are_named(run, read, tmp_path):
    rsna_forms.write(tmp_path, {"in/anna.png": png(1), "in/ben.png": png(2)})
    (tmp_path / "labels.csv").write_text("id,sex\nanna,F\nbenn,M\n")
    status, _, err = run("in", "--sex=F", "--labels=labels.csv")
    assert status == 0
    assert err == (
        "warning: 1 id of labels.csv matches no file: benn\n"
        "note: 1 file is not listed in labels.csv, so the sex comes from --sex: in/ben.png\n"
    )
    (tmp_path / "labels.csv").write_text("id,sex\n" + "".join(f"{number},M\n" for number in range(12)))
    (tmp_path / "in/ben.png").write_bytes(dicom_files.make(hand(2), PatientSex="M"))
    _, _, err = run("in", "--labels=labels.csv")
    assert "warning: 12 ids of labels.csv match no file: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...\n" in err
    expected = "2 files are not listed in labels.csv, so the sex comes from the DICOM header, if there is one"
    assert f"note: {expected}: in/anna.png, " in err
    (tmp_path / "labels.csv").write_text("id,age\nanna,9\n")
    assert "not listed" not in run("in", "--sex=F", "--labels=labels.csv")[2]


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["a/b", "a_b"], ["a_b_hand.png", "a_b_hand.png-2"]),
        (["a/b/hand.png", "./a/b/hand.png", "a_b"], ["a_b_hand.png", "a_b_hand.png-2", "a_b_hand.png-3"]),
        (["a/b", "a_b", "c"], ["a_b_hand.png-2", "a_b_hand.png-3", "a_b_hand.png"]),
        (["a/b/hand.png", "d/HAND.png"], ["a_b_hand.png", "d_HAND.png"]),
    ],
)
def test_every_file_has_its_own_output(paths, shown, tmp_path, monkeypatch):
    names = ["a/b/hand.png", "a_b/hand.png", "c/a_b_hand.png.png", "d/HAND.png"]
    rsna_forms.write(tmp_path, {name: png() for name in names})
    monkeypatch.chdir(tmp_path)
    requests = worklist.gather(map(Path, paths), "F", None, None).requests
    for ending in worklist.OUTPUT_ENDINGS:
        assert worklist.output_paths(Path("out"), requests, ending) == [Path(f"out/{name}{ending}") for name in shown]


@pytest.mark.parametrize("flag", ["--heatmap", "--regions", "--dicom-out"])
def test_the_working_folder_without_images_is_one_error_with_any_output(flag, run):
    status, _, err = run(".", "--sex=F", flag, "out")
    assert status == 1
    assert err == f"error: . contains no image; expected files ending in {', '.join(radiograph.ENDINGS)}\n"
