"""The page: correct values, valid HTML without external references, and hostile file names."""

import base64
import dataclasses
import datetime
import re
import subprocess

import cv2
import html5lib
import pytest
from weasyprint.urls import FatalURLFetchingError

from boneage_jax.released.weights import Header
from boneage_jax.report import page
from boneage_jax.terminal import printable
from tests import pictures
from tests.report.pages import Page, report, visit

HOSTILE = [
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "</title></style><b>&amp;&lt;.png",
    "{{ 7 * 7 }}{% include 'x' %}.png",
    "a\u202egnp.exe\n\x1b[31m.png",
    "\udcff\udcfe.png",
    "name " * 50 + ".png",
]


def shown(*visits, **fields):
    return Page(page.html(report(*visits, **fields)))


def test_the_page_is_valid_html_for_a_strict_parser():
    full = report(visit(date=datetime.date(2026, 1, 2)), visit(age=120.0), errors=["x is refused."], accuracy="Good.")
    for one in (report(), full, report(visit(age=None)), report(visit(interval=None))):
        html5lib.HTMLParser(strict=True).parse(page.html(one))


def test_the_page_has_no_external_references_and_no_scripts():
    found = shown()
    inside = [address for address in found.addresses if address.startswith(("data:image/jpeg;base64,", "#"))]
    assert len(inside) >= 2
    assert found.addresses == inside
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(found.elements)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.html(report())
    # XML namespaces are URLs that are never requested.
    rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.html(report()))
    assert "http" not in re.sub(r"http-equiv", "", rest)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_names_appear_only_as_text(name):
    plain, found = shown(), shown(visit(name, warnings=(f"{name} is odd.",)), errors=(f"{name} is damaged.",))
    assert " ".join(printable(name).split()) in found.text
    extra = set(found.elements) - set(plain.elements)
    assert extra <= {"ul", "li"}
    assert found.elements.count("img") == 2
    assert found.addresses == plain.addresses
    page.html(report(visit(name))).encode()


def test_the_result_is_shown_with_its_comparison():
    text = shown(visit(months=112.34, age=114.0, interval=(100.04, 124.46))).text
    for words in (
        "9 years 4 months",
        "bone age, 112.3 months",
        "90 % interval 100.0 to 124.5 months 8 years 4 months to 10 years 4 months",
        "Expected error 7.2 months",
        "Sex female as given",
        "Chronological age 114.0 months 9 years 6 months, as given",
        "Difference \N{MINUS SIGN}1.7 months",
        "SD score \N{MINUS SIGN}0.15",  # SD 11.235 months at 9.5 years
        "Bone age is normal",
        "Research use only. Not a medical device.",
        "boneage_jax 9.8.7, weights tiny, preprocessing version 3, 2026-03-04T05:06:07Z",
        "ab" * 32,
        "Brush Foundation",
        "Adult height is not predicted",
    ):
        assert words in text.replace("\N{NO-BREAK SPACE}", " "), words


@pytest.mark.parametrize(
    ("months", "interval", "conclusion"),
    [
        (80.0, (76.0, 84.0), "Bone age is delayed"),
        (140.0, (137.0, 143.0), "Bone age is advanced"),
        (100.0, (85.0, 115.0), "cannot be decided The interval of the bone age reaches from delayed to normal."),
        (110.0, None, "cannot be decided The weights give no interval."),
    ],
)
def test_the_conclusion_is_shown_with_its_reason(months, interval, conclusion):
    assert conclusion in shown(visit(months=months, interval=interval)).text


def test_without_an_age_nothing_is_compared():
    text = shown(visit(age=None)).text
    assert "Chronological age unknown" in text
    assert "not compared: the chronological age is unknown" in text
    assert "Difference \N{EN DASH}" in text


def test_several_visits_are_listed_in_order_and_the_last_is_shown():
    first, last = datetime.date(2024, 2, 29), datetime.date(2026, 3, 1)
    text = shown(visit("a.png", 90.5, 96.0, (80.0, 99.0), date=first), visit("b.png", date=last)).text
    assert "Latest visit" in text
    assert "File b.png, examined 2026-03-01" in text
    row_a = "a.png 2024-02-29 96.0 90.5 80.0 to 99.0 \N{MINUS SIGN}5.5 \N{MINUS SIGN}0.54 normal"
    row_b = "b.png 2026-03-01 114.0 112.3 100.0 to 124.5"
    assert text.index(row_a) < text.index(row_b)


def test_errors_warnings_and_notes_are_listed():
    text = shown(visit(warnings=("It is odd.",), notes=("It was turned.",)), errors=("c.png is damaged.",)).text
    positions = [text.index(words) for words in ("Not read: c.png is damaged.", "It is odd.", "It was turned.")]
    assert positions == sorted(positions)
    assert "Warnings and notes" not in shown().text


def test_the_images_are_the_radiograph_and_the_heat_map():
    left, right = (
        pictures.decode(base64.b64decode(address.partition(",")[2]), cv2.IMREAD_UNCHANGED)
        for address in shown().addresses
        if address.startswith("data:")
    )
    assert (left.shape, left.max()) == ((30, 20), 0)
    assert (right.shape, right.min()) == ((30, 20, 3), 255)


def test_the_accuracy_comes_from_the_header_of_the_weights():
    measured = {"mae": {"value": 6.54}, "count": 1261, "coverage": {"value": 0.902}}
    header = Header(
        "x", {}, {}, "centre", data={"title": "RSNA", "measured_split": "validation"}, figures={"overall": measured}
    )
    assert page.accuracy(header) == (
        "Mean absolute error of the weights: 6.5 months on 1,261 radiographs (RSNA, validation split); 90 % of the "
        "reference ages lay in their interval."
    )
    own = dataclasses.replace(header, data=header.data | {"calibrated_on": "East Hospital"})
    assert "on 1,261 radiographs (East Hospital); 90 %" in page.accuracy(own)
    assert page.accuracy(Header("x", {}, {}, "centre")) == ""


def test_the_pdf_refuses_external_resources(tmp_path):
    (tmp_path / "secret.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><text y='9'>secret</text></svg>")
    for address in ((tmp_path / "secret.svg").as_uri(), "http://127.0.0.1:9/picture.png"):
        with pytest.raises(FatalURLFetchingError):
            page.pdf(f"<p>Hello<img src='{address}' alt='refused'>")


@pytest.mark.parametrize("count", [1, 6])
def test_the_pdf_is_one_a4_page(count, tmp_path):
    months = [70.0 + 8 * number for number in range(count)]
    visits = [visit(f"visit-{one}.dcm", one, one + 2, (one - 12, one + 12)) for one in months[:-1]]
    noted = visit(
        "a name of forty characters, no more.dcm", warnings=("It fills a line. " * 4,), notes=("A note.",) * 2
    )
    path = tmp_path / "page.pdf"
    path.write_bytes(page.pdf(page.html(report(*visits, noted, accuracy="It fills a line. " * 12))))
    described = subprocess.run(["pdfinfo", path], check=True, capture_output=True, text=True).stdout
    assert re.search(r"Pages:\s+1\n", described)
    assert "A4" in described
