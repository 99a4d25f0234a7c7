"""Parses the sex and age of a child as users enter them in flags and forms."""

import math

from boneage_jax.data.columns import OLDEST_YEARS
from boneage_jax.sex import Sex


def parse_sex(text: str) -> str:
    """Reads a sex, in any case, as "F", "M" or "unknown".

    Raises:
        ValueError: the text is none of these; the message quotes it.
    """
    if text.casefold() == "unknown":
        return "unknown"
    try:
        return Sex.parse(text).letter
    except ValueError:
        raise ValueError(f"{text!r} is not F, M or unknown") from None


def parse_age(text: str) -> float:
    """Reads an age in years, and returns it in months.

    Raises:
        ValueError: the text is not a number from 0 to `OLDEST_YEARS`; the message quotes it.
    """
    try:
        years = float(text)
    except ValueError:
        years = math.nan
    if not 0 <= years <= OLDEST_YEARS:
        raise ValueError(f"{text!r} is not an age in years from 0 to {OLDEST_YEARS:.0f}, such as 9.5")
    return 12 * years
