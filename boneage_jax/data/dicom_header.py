"""The few DICOM header fields that matter for bone age: sex, age, side, body part, view and spacing."""

import re
from datetime import date
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from boneage_jax.data.dates import DAYS_PER_MONTH, months_between
from boneage_jax.data.header import ADULT_FROM, Header
from boneage_jax.sex import Sex

TAGS = [
    Tag(word)
    for word in (
        "PatientSex",
        "PatientAge",
        "PatientBirthDate",
        "StudyDate",
        "Laterality",
        "ImageLaterality",
        "FrameLaterality",
        "BodyPartExamined",
        "AnatomicRegionSequence",
        "ViewPosition",
        "ViewCodeSequence",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "PixelAspectRatio",
    )
]
"""The elements that `read_header` uses; patient names and ids are not among them."""

_SPACING = ("ImagerPixelSpacing", "PixelSpacing", "PixelAspectRatio")  # (rows, columns); the first usable one counts
_OLDEST_MONTHS = 110 * 12.0
_YEAR_ALONE = ((1, 1), (6, 15), (7, 1))
"""(month, day) that programs substitute for a removed birthday: the first and the middle of the year.

Full dates that replace a removed one, such as 17 November 1858 and 1 January 1900, give impossible ages.
"""


class _Age(NamedTuple):
    """An age in months with the precision fields of `Header`, and warnings and notes about it."""

    months: float | None
    step: float = 0.0
    slack: float = 0.0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_header(dataset: Dataset) -> Header:
    """Reads the elements `TAGS` into a `Header`."""
    age = _age(dataset)
    return Header(
        sex={sex.letter: sex for sex in Sex}.get(_text(dataset, "PatientSex").upper()),
        age=age.months,
        age_step=age.step,
        age_slack=age.slack,
        laterality=_text(dataset, "ImageLaterality", "FrameLaterality", "Laterality"),
        body_part=_text(dataset, "BodyPartExamined") or _meaning(dataset, "AnatomicRegionSequence"),
        view=_text(dataset, "ViewPosition") or _meaning(dataset, "ViewCodeSequence"),
        spacing=next(filter(None, (_spacing(dataset.get(word)) for word in _SPACING)), None),
        warnings=age.warnings,
        age_notes=age.notes,
    )


def _text(dataset: Dataset, *words: str) -> str:
    """The text of the first of these elements that is not empty, or ""."""
    texts = (str(dataset.get(word) or "").strip() for word in words)
    return next((text for text in texts if text), "")


def _meaning(dataset: Dataset, word: str) -> str:
    """The code meaning of the first item of a sequence, or ""."""
    items = dataset.get(word)
    return _text(items[0], "CodeMeaning") if items else ""


def _spacing(values: object) -> tuple[float, float] | None:
    """Two positive numbers, or None for any other value of the element."""
    if not isinstance(values, MultiValue) or len(values) != 2:
        return None
    rows, columns = float(values[0]), float(values[1])
    return (rows, columns) if rows > 0 and columns > 0 else None


def _age(dataset: Dataset) -> _Age:
    """The age from the birth and study dates, or the stated age if the dates are removed or impossible."""
    stated = _stated_age(_text(dataset, "PatientAge").upper())
    born, taken = (_date(dataset.get(word)) for word in ("PatientBirthDate", "StudyDate"))
    if born is None or taken is None or taken < born:
        return stated
    words, months = _text(dataset, "PatientAge"), months_between(born, taken)
    apart = f"The birth and study dates in the file's header are {months:.0f} months apart"
    if stated.months is None:
        if taken == born or months > _OLDEST_MONTHS:
            return _Age(None, warnings=(f"{apart}, which is no child's age; no age is taken from them.",))
        if (born.month, born.day) not in _YEAR_ALONE:
            return _Age(months)
        note = f"{apart}, but only the year of the birth date seems true: the age may be up to a year off."
        return _Age(months, slack=12.0, notes=(note,))
    slack = 12.0 if (born.month, born.day) in _YEAR_ALONE else 1.0
    if stated.months - slack <= months <= stated.months + stated.step + slack:
        if slack == 1:
            return _Age(months)
        note = f"Only the year of the birth date in the file's header seems true: the stated age {words} is used."
        return stated._replace(notes=(note,))
    if taken == born or months > _OLDEST_MONTHS or months >= ADULT_FROM > stated.months:
        return stated._replace(warnings=(f"{apart}, but the stated age is {words}; the stated age is used.",))
    return _Age(months, warnings=(f"{apart}, but the stated age is {words}; the dates are used.",))


def _stated_age(text: str) -> _Age:
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text)
    if match is None:
        return _Age(None)
    step = {"D": 1 / DAYS_PER_MONTH, "W": 7 / DAYS_PER_MONTH, "M": 1.0, "Y": 12.0}[match[2]]
    if (months := int(match[1]) * step) > _OLDEST_MONTHS:
        return _Age(None, warnings=(f"The age {text} in the file's header is impossible; it is not used.",))
    return _Age(months, step)


def _date(text: object) -> date | None:
    """Parses a date of eight digits; older files separate year, month and day with dots."""
    match = re.fullmatch(r"(\d{4})\.?(\d\d)\.?(\d\d)", str(text or "").strip())
    try:
        return date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None
