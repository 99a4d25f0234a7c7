"""How far a bone age lies from the chronological age, in the standard deviations of a named reference table."""

import enum
from typing import NamedTuple

import numpy as np

from boneage_jax.sex import Sex

TABLE = "Brush Foundation (Greulich and Pyle), as given second-hand in later tables"
"""The only table so far; Greulich and Pyle's atlas of 1959 lists the deviations of Cleveland's Brush Foundation study.

The values below come from a secondary source and have not been compared with the atlas itself.
"""

_AGES = (3, 6, 9, 12, 18, 24, 30, 36, 42, 48, 54, 60, 72, 84, 96, 108, 120, 132, 144, 156, 168, 180, 192, 204)
_DEVIATIONS = {
    Sex.MALE: (
        *(0.69, 1.13, 1.43, 1.97, 3.52, 3.92, 4.52, 5.08, 5.40, 6.66, 8.36, 8.79),
        *(9.17, 8.91, 9.10, 9.00, 9.79, 10.09, 10.38, 10.44, 10.72, 11.32, 12.86, 13.05),
    ),
    Sex.FEMALE: (
        *(0.72, 1.16, 1.36, 1.77, 3.49, 4.64, 5.37, 5.97, 7.48, 8.98, 10.73, 11.65),
        *(10.23, 9.64, 10.23, 10.74, 11.73, 11.94, 10.24, 10.67, 11.30, 9.23, 7.31),
    ),
}

BORDER = 2.0
"""Standard deviations of the chronological age beyond which a bone age counts as delayed or advanced."""


class Conclusion(enum.StrEnum):
    """A bone age compared with the chronological age."""

    DELAYED = "delayed"
    NORMAL = "normal"
    ADVANCED = "advanced"
    UNDECIDED = "cannot be decided"


class Band(NamedTuple):
    """Bone ages within `BORDER` standard deviations, in months: `lowest` and `highest` [N] at the `ages` [N]."""

    ages: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


def deviation(age: float, sex: Sex) -> float | None:
    """Standard deviation of bone age, in months, at a chronological age in months; None outside the table.

    Values between the ages of the table are interpolated linearly; there is no extrapolation.
    """
    values = _DEVIATIONS[sex]
    ages = _AGES[: len(values)]
    if not ages[0] <= age <= ages[-1]:
        return None
    return float(np.interp(age, ages, values))


def sd_score(bone_age: float, age: float, sex: Sex) -> tuple[float | None, str]:
    """(Bone age minus chronological age) / standard deviation of healthy children of that age and sex.

    Args:
      bone_age: months.
      age: chronological age in months.
      sex: sex of the child.

    Returns:
      The score and "", or None and the reason in a sentence.
    """
    if (spread := deviation(age, sex)) is None:
        last = _AGES[len(_DEVIATIONS[sex]) - 1]
        return None, (
            f"No SD score: the table {TABLE} covers {_AGES[0]} to {last} months for {sex.word} children, "
            f"and the chronological age is {age:.1f} months."
        )
    return (bone_age - age) / spread, ""


def band(sex: Sex) -> Band:
    """The range between delayed and advanced over the whole table; linear between the ages of the table."""
    deviations = np.array(_DEVIATIONS[sex])
    ages = np.array(_AGES[: len(deviations)], np.float64)
    return Band(ages, ages - BORDER * deviations, ages + BORDER * deviations)


def conclude(interval: tuple[float, float] | None, ages: tuple[float, float], sex: Sex) -> tuple[Conclusion, str]:
    """Compares the whole interval of a bone age with the range of `BORDER` standard deviations around the age.

    Args:
      interval: lowest and highest bone age, in months; None if the weights give no interval.
      ages: lowest and highest chronological age, in months; both are the same unless the age was rounded.
      sex: sex of the child.

    Returns:
      The conclusion and ""; or UNDECIDED and the reason in a sentence.
    """
    if interval is None:
        return Conclusion.UNDECIDED, "The weights give no interval."
    youngest, oldest = ages
    first, last = deviation(youngest, sex), deviation(oldest, sex)
    if first is None or last is None:
        return Conclusion.UNDECIDED, "The chronological age lies outside the reference table."
    low, high = interval
    compatible = {
        Conclusion.DELAYED: low < oldest - BORDER * last,
        Conclusion.NORMAL: low <= oldest + BORDER * last and high >= youngest - BORDER * first,
        Conclusion.ADVANCED: high > youngest + BORDER * first,
    }
    found = [conclusion for conclusion, fits in compatible.items() if fits]
    if len(found) == 1:
        return found[0], ""
    return Conclusion.UNDECIDED, f"The interval of the bone age reaches from {found[0]} to {found[-1]}."
