"""`boneage report`: pages for one radiograph and for several visits, with the values of `boneage predict`."""

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import boneage_jax
from boneage_jax.commands.main import main
from boneage_jax.predict import predictor as module
from boneage_jax.released import weights
from tests import pictures
from tests.data import dicom_files
from tests.predict import random_weights, test_region_readings
from tests.predict.random_weights import CALIBRATION, hand
from tests.report.pages import Page

cached_load = functools.cache(module.load)  # compiles once for all tests


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.write(path, random_weights.checked(calibration=CALIBRATION))
    return str(path)


@pytest.fixture
def run(tiny, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; returns its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(boneage_jax, "load", cached_load)

    def run(command, *arguments):
        status = main([command, f"--weights={tiny}", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def text(run, tmp_path):
    """Writes a page and returns its text; pdftotext extracts that of a PDF."""

    def text(*arguments, out="page.html", status=0):
        assert run("report", *arguments, f"--out={out}")[0] == status
        path = tmp_path / out
        if path.suffix == ".html":
            return Page(path.read_text(encoding="utf-8")).text
        read = subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout
        return " ".join(read.split())

    return text


def png(path, number=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), hand(number))
    return path


def dicom(path, number=1, **elements):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_files.make(hand(number), **elements))
    return path


def figures(found):
    """The values that a page must show for one JSON result."""
    signed = (f"{found['difference']:+.1f} months", f"{found['sd_score']:+.2f}")
    return [
        f"{found['months']:.1f} months",
        found["years_months"],
        f"{found['low']:.1f} to {found['high']:.1f} months",
        f"{found['std']:.1f} months",
        f"{found['age']:.1f} months",
        *(one.replace("-", "\N{MINUS SIGN}") for one in signed),
        found["conclusion"],
        found["provenance"]["version"],
        found["provenance"]["weights"],
        found["provenance"]["weights_sha256"],
    ]


@pytest.mark.parametrize("out", ["page.html", "page.pdf"])
@pytest.mark.parametrize("age", ["5", "9.5", "15"])
def test_the_page_shows_the_values_of_the_json(age, out, run, text, tmp_path):
    path = png(tmp_path / "hand.png")
    (found,) = json.loads(run("predict", path, "--sex=F", f"--age={age}", "--format=json")[1])
    page = text(path, "--sex=F", f"--age={age}", out=out)
    shown = page if out.endswith("html") else page.replace(" ", "")
    for figure in figures(found):
        assert (figure if out.endswith("html") else figure.replace(" ", "")) in shown, figure
    assert "Research use only" in page
    assert "hand.png" in page
    assert str(tmp_path) not in page


def test_sex_and_age_are_taken_from_the_dicom_header(text, tmp_path):
    page = text(dicom(tmp_path / "x.dcm", PatientSex="M", PatientBirthDate="20140531", StudyDate="20240531"))
    assert "male from the file's header" in page
    assert "120.0 months 10 years 0 months, from the file's header" in page


@pytest.mark.parametrize(
    ("years", "exact", "rounded"),
    [(6, "advanced", "advanced"), (9, "advanced", "cannot be decided"), (10, "normal", "normal")],
)
def test_a_whole_year_age_gives_the_exact_conclusion_or_none(years, exact, rounded, run, tmp_path):
    narrow = dataclasses.replace(CALIBRATION, quantile=0.05)
    weights.write(tmp_path / "narrow.safetensors", random_weights.weights(calibration=narrow))
    born = {"PatientBirthDate": "20140531", "StudyDate": f"{2014 + years}0531"}
    for name, age in (("exact", born), ("rounded", {"PatientAge": f"{years:03}Y"})):
        dicom(tmp_path / f"{name}.dcm", PatientSex="M", **age)
    arguments = ("exact.dcm", "rounded.dcm", "--weights=narrow.safetensors", "--format=json")
    first, second = json.loads(run("predict", *arguments)[1])
    assert first["age"] == pytest.approx(second["age"], abs=0.1)
    assert (first["low"], first["high"]) == (second["low"], second["high"])
    assert 127 < first["low"] < first["high"] < 137  # two SD above 108 months are 126, above 120 months 139.6
    assert (first["conclusion"], second["conclusion"]) == (exact, rounded)


def test_a_folder_of_visits_becomes_one_page_in_order_of_age(run, text, tmp_path):
    born = {"PatientSex": "F", "PatientBirthDate": "20140101", "PatientID": "secret-7"}
    for name, date, number in (("c", "20200101", 2), ("a", "20230101", 4), ("b", "20220101", 3)):
        dicom(tmp_path / f"visits/{name}.dcm", number, StudyDate=date, **born)
    (tmp_path / "visits/notes.txt").write_text("not an image")
    found = {one["file"][-5:]: one for one in json.loads(run("predict", "visits", "--format=json")[1])}
    page = text("visits")
    assert "Latest visit" in page
    assert "File a.dcm" in page
    rows = [f"{name} \N{EN DASH} {found[name]['age']:.1f} {found[name]['months']:.1f}" for name in ("c.dcm", "b.dcm")]
    assert page.index(rows[0]) < page.index(rows[1])
    assert "secret-7" not in page
    assert "not an image" not in page


def test_a_table_supplies_dates_and_ages_of_images(text, tmp_path):
    png(tmp_path / "visits/1.png", 3)
    png(tmp_path / "visits/2.png", 4)
    (tmp_path / "visits.csv").write_text(
        "id,date,birth_date,sex\n1,2022-03-01,2014-03-01,F\n2,2023-03-01,2014-03-01,F\n"
    )
    page = text("visits", "--labels=visits.csv")
    assert "1.png 2022-03-01 96.0" in page
    assert "File 2.png, examined 2023-03-01" in page
    assert "108.0 months 9 years 0 months, from the table" in page


def test_visits_without_ages_or_of_two_children_are_rejected(run, tmp_path):
    png(tmp_path / "visits/1.png")
    png(tmp_path / "visits/2.png")
    status, _, err = run("report", "visits", "--sex=F", "--out=page.html")
    assert (status, "age of the child in 1.png is unknown" in err) == (1, True)
    dicom(tmp_path / "two/a.dcm", PatientSex="F", PatientAge="010Y", PatientID="one")
    dicom(tmp_path / "two/b.dcm", PatientSex="F", PatientAge="011Y", PatientID="two")
    status, _, err = run("report", "two", "--out=page.html")
    assert (status, "different patient IDs" in err) == (1, True)
    assert not (tmp_path / "page.html").exists()


def test_an_unreadable_file_is_listed_on_the_page_of_the_others(text, tmp_path):
    dicom(tmp_path / "visits/a.dcm", PatientSex="F", PatientAge="010Y")
    (tmp_path / "visits/b.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    page = text("visits", status=2)
    assert re.search(r"Not read: .*b\.png", page)
    assert "File a.dcm" in page


def test_an_image_that_fails_the_checks_needs_accept_warnings_for_a_page(run, text, tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), hand(1)[:60])
    status, _, err = run("report", "small.png", "--sex=F", "--out=page.html")
    assert (status, "is refused" in err) == (2, True)
    assert not (tmp_path / "page.html").exists()
    assert "very few pixels" in text("small.png", "--sex=F", "--accept-warnings")


def test_an_unknown_or_missing_sex_is_rejected(run, tmp_path):
    png(tmp_path / "hand.png")
    for arguments, words in ((("--sex=unknown",), "needs --sex F or --sex M"), ((), "the sex is not given")):
        status, _, err = run("report", "hand.png", *arguments, "--out=page.html")
        assert (status, words in err) == (1, True)
    assert not (tmp_path / "page.html").exists()


def test_an_unsupported_output_suffix_is_rejected(run):
    with pytest.raises(SystemExit) as caught:
        run("report", "hand.png", "--sex=F", "--out=page.docx")
    assert caught.value.code == 1


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file/page.html", "the folder file for --out cannot be created"),
        ("/proc/none/page.pdf", "the folder /proc/none for --out cannot be created"),
        ("locked/page.html", "the folder locked for --out cannot be written into"),
    ],
)
def test_an_unwritable_page_is_refused_before_any_reading(out, words, run, tmp_path, monkeypatch):
    monkeypatch.setattr("boneage_jax.predict.worklist.gather", lambda *_: pytest.fail("files were sought"))
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked")  # root may write everywhere
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir()
    status, printed, err = run("report", "hand.png", "--sex=F", f"--out={out}")
    assert (status, printed, err.count("\n"), words in err) == (1, "", 1, True)


def test_a_folder_is_not_accepted_as_the_page(run, tmp_path, capsys):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(SystemExit) as caught:
        run("report", "hand.png", "--sex=F", "--out=page.html")
    assert caught.value.code == 1
    assert "'page.html' is not a page; expected the name of a file" in capsys.readouterr().err


def test_a_missing_extra_is_named_in_one_line(run, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "weasyprint" else found(name))
    png(tmp_path / "hand.png")
    status, _, err = run("report", "hand.png", "--sex=F", "--out=page.pdf")
    assert (status, err.count("\n")) == (1, 1)
    assert 'weasyprint, which the extra "report" installs: pip install' in err
    assert run("report", "hand.png", "--sex=F", "--out=page.html")[0] == 0


def test_a_missing_library_for_pdf_is_noticed_before_any_reading(run, tmp_path, monkeypatch):
    monkeypatch.setattr("boneage_jax.predict.worklist.gather", lambda *_: pytest.fail("files were sought"))
    (tmp_path / "weasyprint.py").write_text("raise OSError('cannot load library libpango-1.0-0')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    status, printed, err = run("report", "hand.png", "--sex=F", "--out=page.pdf")
    assert (status, printed, err.count("\n")) == (1, "", 1)
    assert "install Pango (Debian: libpangoft2-1.0-0), or write HTML" in err


@pytest.mark.slow  # starts a browser
def test_a_browser_renders_the_page(text, tmp_path):
    text(png(tmp_path / "hand.png"), "--sex=F", "--age=9.5")
    shot = tmp_path / "shot.png"
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1300"]
    page = (tmp_path / "page.html").as_uri()
    subprocess.run([*browser, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=120)
    picture = pictures.read(shot)
    assert picture.shape[:2] == (1300, 900)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 500  # The heat map has many colours.


def test_weights_without_heat_maps_give_a_page_with_a_note(text, tmp_path):
    weights.write(tmp_path / "joints.safetensors", test_region_readings.predictor().weights)
    cv2.imwrite(str(tmp_path / "hand.png"), test_region_readings.hand())
    page = text("hand.png", "--sex=M", f"--weights={tmp_path / 'joints.safetensors'}")
    assert "There is no heat map: these weights read crops around the joints." in page
    assert "Heat map: bright regions" not in page
    assert "The heat map shows" not in page
    assert "Adult height is not predicted." in page
