"""Reports with given values, and a parser for the text and links of a page."""

import datetime
import re
from html.parser import HTMLParser

import numpy as np

from boneage_jax.predict import reference
from boneage_jax.predict.prediction import Provenance
from boneage_jax.predict.results import Reading, Result
from boneage_jax.report.page import Report
from boneage_jax.report.visits import Visit
from boneage_jax.sex import Sex

TIME = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
PROVENANCE = Provenance("tiny", "ab" * 32, TIME, version="9.8.7", preprocessing=3)


def visit(name="hand.png", months=112.3, age=114.0, interval=(100.0, 124.5), sex="F", date=None, **fields):
    """A visit like one from `boneage predict`."""
    reading = Reading(sex, months, 7.25, interval)
    if age is not None:
        code = Sex.parse(sex)
        conclusion, reason = reference.conclude(interval, (age, age), code)
        score, _ = reference.sd_score(months, age, code)
        reading = Reading(sex, months, 7.25, interval, months - age, score, conclusion, reason)
    age_from = None if age is None else "--age"
    result = Result(name, sex, "--sex", age, age_from, readings=(reading,), provenance=PROVENANCE, **fields)
    return Visit(name, result, date)


def report(*visits, **fields):
    """A report whose image is half black and half white."""
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:, 20:] = 255
    return Report(visits or (visit(),), picture, **fields)


class Page(HTMLParser):
    """The text of a page, its elements, and every address that it refers to."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.addresses, self.words = [], [], []
        self.feed(html)
        self.addresses += re.findall(r"url\(\s*['\"]?([^'\")]*)", html) + re.findall(r"@import\s+(\S+)", html)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        linking = ("src", "href", "xlink:href", "srcset", "action", "poster", "data", "background", "formaction")
        self.addresses += [value for name, value in attrs if name in linking]

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())
