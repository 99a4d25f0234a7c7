import numpy as np
import pytest

from boneage_jax.predict import reference
from boneage_jax.sex import Sex


@pytest.mark.parametrize(
    ("age", "sex", "months"),
    [
        (3.0, Sex.MALE, 0.69),
        (3.0, Sex.FEMALE, 0.72),
        (54.0, Sex.FEMALE, 10.73),
        (120.0, Sex.MALE, 9.79),
        (192.0, Sex.FEMALE, 7.31),
        (204.0, Sex.MALE, 13.05),
        (126.0, Sex.MALE, (9.79 + 10.09) / 2),
        (186.0, Sex.FEMALE, (9.23 + 7.31) / 2),
        (63.0, Sex.FEMALE, 11.65 + (10.23 - 11.65) / 4),
    ],
)
def test_the_deviation_is_interpolated_linearly_between_table_values(age, sex, months):
    assert reference.deviation(age, sex) == pytest.approx(months)


@pytest.mark.parametrize(
    ("age", "sex"), [(2.9, Sex.MALE), (2.9, Sex.FEMALE), (192.1, Sex.FEMALE), (204.1, Sex.MALE), (-1.0, Sex.MALE)]
)
def test_outside_the_table_there_is_a_reason_and_no_sd_score(age, sex):
    score, reason = reference.sd_score(100.0, age, sex)
    assert score is None
    assert f"the chronological age is {age:.1f} months" in reason
    assert "Brush Foundation" in reason
    assert ("3 to 204 months for male" if sex == Sex.MALE else "3 to 192 months for female") in reason


def test_the_sd_score_is_the_difference_in_standard_deviations():
    for months, sex, expected in ((120.0 + 9.79, Sex.MALE, 1), (120.0 - 2 * 11.73, Sex.FEMALE, -2)):
        score, reason = reference.sd_score(months, 120.0, sex)
        assert score == pytest.approx(expected)
        assert reason == ""


@pytest.mark.parametrize(
    ("interval", "conclusion"),
    [
        # A boy of 120 months: the standard deviation is 9.79, the borders lie at 100.42 and 139.58 months.
        ((80.0, 100.4), "delayed"),
        ((80.0, 100.5), "cannot be decided"),
        ((100.5, 139.5), "normal"),
        ((100.5, 139.6), "cannot be decided"),
        ((139.5, 160.0), "cannot be decided"),
        ((139.6, 160.0), "advanced"),
        ((90.0, 150.0), "cannot be decided"),
    ],
)
def test_a_conclusion_needs_the_whole_interval_on_one_side_of_each_border(interval, conclusion):
    found, reason = reference.conclude(interval, (120.0, 120.0), Sex.MALE)
    assert found == conclusion
    assert bool(reason) == (conclusion == "cannot be decided")


@pytest.mark.parametrize(
    ("interval", "reason"),
    [
        ((90.0, 110.0), "from delayed to normal"),
        ((130.0, 150.0), "from normal to advanced"),
        ((90.0, 150.0), "from delayed to advanced"),
        (None, "no interval"),
    ],
)
def test_an_undecided_conclusion_has_a_reason(interval, reason):
    assert reason in reference.conclude(interval, (120.0, 120.0), Sex.MALE)[1]


@pytest.mark.parametrize(
    ("interval", "exact", "in_years"),
    [
        # Girls: 2 x 11.73 months at 120, 2 x 11.94 at 132; the borders lie at 96.54, 143.46, 108.12 and 155.88.
        ((80.0, 96.0), "delayed", "delayed"),
        ((97.0, 107.0), "normal", "cannot be decided"),
        ((109.0, 143.0), "normal", "normal"),
        ((144.0, 155.0), "advanced", "cannot be decided"),
        ((156.0, 170.0), "advanced", "advanced"),
    ],
)
def test_a_whole_year_age_is_conclusive_only_if_the_entire_year_agrees(interval, exact, in_years):
    assert reference.conclude(interval, (120.0, 120.0), Sex.FEMALE)[0] == exact
    assert reference.conclude(interval, (120.0, 132.0), Sex.FEMALE)[0] == in_years


def test_outside_the_table_there_is_no_conclusion():
    for ages in ((193.0, 193.0), (186.0, 198.0), (2.0, 2.0)):
        conclusion, reason = reference.conclude((100.0, 101.0), ages, Sex.FEMALE)
        assert (conclusion, "outside the reference table" in reason) == ("cannot be decided", True)


@pytest.mark.parametrize("sex", [Sex.FEMALE, Sex.MALE])
def test_the_band_spans_two_deviations_each_way_over_the_whole_table(sex):
    band = reference.band(sex)
    assert (band.ages[0], band.ages[-1]) == (3, 204 if sex == Sex.MALE else 192)
    expected = 2 * np.array([reference.deviation(age, sex) for age in band.ages], float)  # None becomes NaN
    np.testing.assert_allclose(band.highest - band.ages, expected)
    np.testing.assert_allclose(band.ages - band.lowest, expected)
    # Because both limits rise, an age in whole years is compared only at both ends of its year.
    assert (np.diff(band.lowest) > 0).all()
    assert (np.diff(band.highest) > 0).all()
