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
def test_the_deviation_is_that_of_the_table_and_linear_in_between(age, sex, months):
    assert reference.deviation(age, sex) == pytest.approx(months)


@pytest.mark.parametrize(
    ("age", "sex"), [(2.9, Sex.MALE), (2.9, Sex.FEMALE), (192.1, Sex.FEMALE), (204.1, Sex.MALE), (-1.0, Sex.MALE)]
)
def test_outside_the_table_there_is_no_score_but_a_reason(age, sex):
    score, reason = reference.sd_score(100.0, age, sex)
    assert score is None
    assert f"the chronological age is {age:.1f} months" in reason
    assert "Brush Foundation" in reason
    assert ("3 to 204 months for male" if sex == Sex.MALE else "3 to 192 months for female") in reason


def test_the_score_is_the_difference_in_deviations():
    assert reference.sd_score(120.0 + 9.79, 120.0, Sex.MALE) == (pytest.approx(1), "")
    assert reference.sd_score(120.0 - 2 * 11.73, 120.0, Sex.FEMALE) == (pytest.approx(-2), "")
