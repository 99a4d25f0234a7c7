"""The sentences in the comments of the report and below the pictures of the Secondary Capture."""

from boneage_jax.dicom_results.identity import provenance_of
from boneage_jax.predict import reference
from boneage_jax.predict.prediction import NOTICE
from boneage_jax.predict.results import Result, years_months
from boneage_jax.sex import Sex
from boneage_jax.terminal import printable


def bone_age(result: Result) -> str:
    """The bone age in months, and in years and months."""
    (reading,) = result.readings
    return f"Bone age {reading.months:.1f} months ({years_months(reading.months)})"


def details(result: Result) -> list[str]:
    """Uncertainty, comparison with the chronological age, warnings and notes."""
    (reading,) = result.readings
    uncertainty = [] if reading.std is None else [f"standard deviation {reading.std:.1f} months"]
    if reading.interval is not None:
        uncertainty.insert(0, f"90 % interval {reading.interval[0]:.1f} to {reading.interval[1]:.1f} months")
    found = [f"{_capital(', '.join(uncertainty))}."] if uncertainty else []
    age = "" if result.age is None else f", chronological age {result.age:.1f} months"
    found.append(f"Sex {Sex.parse(reading.sex).word}{age}.")
    if reading.difference is not None:
        found.append(f"Bone age minus chronological age {reading.difference:+.1f} months.")
    if reading.sd_score is not None:
        found.append(f"SD score {reading.sd_score:+.2f} ({reference.TABLE}).")
    return [*found, *(f"Warning: {text}" for text in result.warnings), *(f"Note: {text}" for text in result.notes)]


def origin(result: Result) -> str:
    """Program, weights and time."""
    made = provenance_of(result)
    weights = made.weights if made.sha256 is None else f"{made.weights} (SHA-256 {made.sha256[:12]}...)"
    return f"boneage_jax {made.version}, weights {weights}, {made.time:%Y-%m-%d %H:%M} UTC."


def sentences(result: Result) -> list[str]:
    """All sentences, ending with the notice that the result is for research use only.

    Control characters, which DICOM text must not have, are escaped.

    Args:
        result: the result, with one reading.
    """
    return [printable(text) for text in (f"{bone_age(result)}.", *details(result), origin(result), NOTICE)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
