"""The result of `boneage predict` for one file: bone age, interval, and comparison with the chronological age."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from boneage_jax.data.header import Header, contradictions
from boneage_jax.predict import reference
from boneage_jax.predict.items import UNKNOWN
from boneage_jax.predict.prediction import Prediction, Provenance, RefusedImageError
from boneage_jax.predict.worklist import Request
from boneage_jax.sex import Sex

READING_KEYS = ("months", "years_months", "std", "low", "high", "difference", "sd_score", "conclusion")
_DIGITS = 4  # decimals of months in JSON: far finer than their accuracy, and the same everywhere to 0.01


@dataclasses.dataclass(frozen=True)
class Reading:
    """The bone age for one sex, in months.

    Attributes:
        sex: "F" or "M".
        months: bone age.
        std: expected error, or None.
        interval: contains nine of ten reference ages, or None.
        difference: bone age minus chronological age; None without an age.
        sd_score: the difference in standard deviations of healthy children; None outside the reference table.
        conclusion: whether the bone age is delayed, normal or advanced; None without an age.
        reason: why there is no such conclusion, in a sentence, or "".
    """

    sex: str
    months: float
    std: float | None
    interval: tuple[float, float] | None
    difference: float | None = None
    sd_score: float | None = None
    conclusion: reference.Conclusion | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The reading as JSON types; "years_months" is the bone age in words."""
        low, high = self.interval or (None, None)
        numbers = (self.std, low, high, self.difference, self.sd_score)
        conclusion = None if self.conclusion is None else self.conclusion.value
        values = (_rounded(self.months), years_months(self.months), *map(_rounded, numbers), conclusion)
        return dict(zip(READING_KEYS, values, strict=True))


@dataclasses.dataclass(frozen=True)
class Result:
    """The complete result for one file.

    Attributes:
        file: name of the file.
        sex: "F", "M" or "unknown"; None if the file was not read.
        sex_from: "--sex", "--labels" or "header".
        age: chronological age in months, or None.
        age_from: "--age", "--labels" or "header".
        readings: one reading; two, for a girl and for a boy, if the sex is unknown; none if there is an error.
        heatmap: the file of the heat map, or None.
        regions: the JSON of `RegionFinder.find`, with the file of the overlay as "picture"; None if not requested.
        dicom_report: the file of the Structured Report, or None.
        dicom_capture: the file of the Secondary Capture, or None.
        warnings: reasons not to rely on the result.
        notes: corrections of the image, and other remarks.
        error: why the file was not read, or "".
        refused: whether the checks of the image are the reason for the error.
        inputs: the network's further inputs by name, as in the prediction.
        provenance: program, weights and time.
    """

    file: str
    sex: str | None = None
    sex_from: str | None = None
    age: float | None = None
    age_from: str | None = None
    readings: tuple[Reading, ...] = ()
    heatmap: str | None = None
    regions: Mapping[str, Any] | None = None
    dicom_report: str | None = None
    dicom_capture: str | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""
    refused: bool = False
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    provenance: Provenance | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields except the inputs, as JSON types; `by_sex` has both readings if the sex is unknown."""
        one = self.readings[0].to_dict() if len(self.readings) == 1 else dict.fromkeys(READING_KEYS)
        both = {reading.sex: reading.to_dict() for reading in self.readings}
        return {
            "file": self.file,
            "error": self.error or None,
            "refused": self.refused,
            "sex": self.sex,
            "sex_from": self.sex_from,
            **one,
            "by_sex": both if len(self.readings) == 2 else None,
            "age": _rounded(self.age),
            "age_from": self.age_from,
            "sd_table": reference.TABLE if any(one.sd_score is not None for one in self.readings) else None,
            "heatmap": self.heatmap,
            "regions": None if self.regions is None else dict(self.regions),
            "dicom_report": self.dicom_report,
            "dicom_capture": self.dicom_capture,
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }


def failed(file: str, error: str, provenance: Provenance) -> Result:
    """The result of a file that could not be read."""
    return Result(file, error=error, provenance=provenance)


def refused(file: str, error: RefusedImageError, hint: str, provenance: Provenance) -> Result:
    """The result of an image that the checks distrust; `hint` explains how to read it anyway."""
    warnings = tuple(one.text for one in error.findings)
    return Result(file, error=f"{error}. {hint}", refused=True, warnings=warnings, provenance=provenance)


def result(prediction: Prediction, request: Request) -> Result:
    """The result of a prediction.

    Args:
        prediction: the prediction of the network.
        request: the file, and the sex and age that the user gave; if they are missing, the file's header is used.
    """
    file, sex_from, age = request.name, request.sex_from, request.age
    header = prediction.header or Header()
    given = Sex.parse(prediction.sex) if sex_from and prediction.sex != UNKNOWN else None
    # The predictor does not know the age; it has already compared the rest.
    warnings = tuple(dict.fromkeys([*prediction.warnings, *contradictions(header, given, age)]))
    age_from = request.age_from or (None if header.age is None else "header")
    known = header.age if age is None else age
    by_sex: Mapping[str, Prediction] = prediction.by_sex or {prediction.sex: prediction}
    ages = header.ages if age_from == "header" else None if known is None else (known, known)
    compared = [_reading(one, known, ages) for one in by_sex.values()]
    return Result(
        file,
        sex=prediction.sex,
        sex_from=sex_from or "header",
        age=known,
        age_from=age_from,
        readings=tuple(reading for reading, _ in compared),
        warnings=warnings,
        notes=(*_notes(prediction, header, age_from), *dict.fromkeys(reason for _, reason in compared if reason)),
        inputs=prediction.inputs,
        provenance=prediction.provenance,
    )


def years_months(months: float) -> str:
    """Formats months in words: 112.3 becomes "9 years 4 months", and -1 becomes "-0 years 1 month"."""
    years, rest = divmod(abs(round(months)), 12)
    sign = "-" if round(months) < 0 else ""
    return f"{sign}{years} {'year' if years == 1 else 'years'} {rest} {'month' if rest == 1 else 'months'}"


def _reading(prediction: Prediction, age: float | None, ages: tuple[float, float] | None) -> tuple[Reading, str]:
    """The reading, and why it has no SD score although the age is known; `ages` is the range that contains the age."""
    months = prediction.months
    assert months is not None  # a prediction for one sex
    plain = Reading(prediction.sex, months, prediction.std, prediction.interval)
    if age is None or ages is None:
        return plain, ""
    sex = Sex.parse(prediction.sex)
    score, why_none = reference.sd_score(months, age, sex)
    conclusion, reason = reference.conclude(prediction.interval, ages, sex)
    compared = dataclasses.replace(plain, difference=months - age, sd_score=score, conclusion=conclusion, reason=reason)
    return compared, why_none


def _notes(prediction: Prediction, header: Header, age_from: str | None) -> list[str]:
    notes = list(prediction.notes)
    if prediction.by_sex:
        said = "" if header.sex is None else f" (the file's header says {header.sex.letter})"
        notes.append(f"The sex is unknown{said}: read as a girl's and as a boy's hand.")
    if age_from == "header":
        notes += header.age_notes
    if age_from == "header" and header.age_step == 12:
        notes.append(
            "The header gives the age in whole years: the child may be up to 12 months older, and the difference that "
            "much lower."
        )
    return notes


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
