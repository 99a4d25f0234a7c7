"""The chart: the reference band, the visits, and a reproducible file."""

from xml.etree import ElementTree

import numpy as np
import pytest

from boneage_jax.predict import reference
from boneage_jax.report import chart
from boneage_jax.report.chart import Point
from boneage_jax.sex import Sex

VISITS = [Point(120.0, 100.0, (90.0, 111.0)), Point(96.0, 84.0, (72.0, 96.0))]


def label(artist):
    return artist.get_label()


def named(points, sex=Sex.FEMALE):
    """The artists of the chart by legend label."""
    (axes,) = chart.figure(points, sex).axes
    return {label(one): one for one in (*axes.lines, *axes.collections)}


@pytest.mark.parametrize("sex", Sex)
def test_the_band_matches_the_reference_table_in_years(sex):
    (band,) = (one for name, one in named(VISITS, sex).items() if "2 SD" in name)
    corners = {tuple(np.round(corner, 6)) for corner in band.get_paths()[0].vertices}
    expected = reference.band(sex)
    for age, low, high in zip(*expected, strict=True):
        assert {(round(age / 12, 6), round(low / 12, 6)), (round(age / 12, 6), round(high / 12, 6))} <= corners
    assert max(age for age, _ in corners) == (17 if sex == Sex.MALE else 16)


def test_visits_are_joined_in_the_order_of_age_with_their_intervals():
    found = named(VISITS)
    line = found["visits, 90 % intervals"]
    np.testing.assert_allclose(line.get_xydata(), [[8.0, 7.0], [10.0, 100 / 12]])
    intervals = next(one for one in found.values() if hasattr(one, "get_segments"))
    np.testing.assert_allclose(intervals.get_segments(), [[[8.0, 6.0], [8.0, 8.0]], [[10.0, 7.5], [10.0, 9.25]]])


def test_one_visit_is_a_point_and_a_visit_without_age_is_a_line():
    np.testing.assert_allclose(named(VISITS[:1])["this child, 90 % interval"].get_xydata(), [[10, 100 / 12]])
    found = named([Point(None, 126.0, (120.0, 132.0))])
    np.testing.assert_allclose(found["bone age; age unknown"].get_ydata(), 10.5)


def limits(*points):
    (axes,) = chart.figure(points, Sex.MALE).axes
    return axes.get_xlim()


def test_the_axis_of_ages_ends_at_20_years_or_after_the_last_visit():
    assert limits(Point(120.0, 100.0, None), Point(None, 100.0, None)) == (0, 20)
    assert limits(Point(264.0, 220.0, None)) == (0, 24)


def test_a_reading_without_an_interval_is_drawn_without_one():
    assert "this child, 90 % interval" in named([Point(120.0, 100.0, None)])


def test_the_svg_is_a_bare_element_with_searchable_text():
    text = chart.svg(VISITS, Sex.MALE)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    words = " ".join("".join(one.itertext()) for one in root.iter() if one.tag.endswith("text"))
    assert "Chronological age (years)" in words
    assert "DOCTYPE" not in text
    assert "metadata" not in text


def test_the_same_visits_give_the_same_file():
    assert chart.svg(VISITS, Sex.MALE) == chart.svg(VISITS, Sex.MALE) != chart.svg(VISITS, Sex.FEMALE)
