"""Dates of birth and of examination, and the age between them."""

from datetime import date

from boneage_jax.errors import BoneAgeError

DAYS_PER_MONTH = 365.2425 / 12

_ROUNDING = 12.0
"""Largest difference in months between a rounded age and the age from dates."""


def months_between(born: date, taken: date) -> float:
    """Age in months on the day `taken`; negative before birth."""
    return (taken - born).days / DAYS_PER_MONTH


def read_date(title: str, cell: str, where: str) -> date:
    """Reads a cell such as 2024-05-31; a time of day, which spreadsheets may add, is ignored.

    Formats that differ between countries, such as 31/05/2024 and 05/31/2024, are not guessed.

    Raises:
      BoneAgeError: the cell is not such a date; the message begins with `where`.
    """
    try:
        return date.fromisoformat(cell.replace("T", " ").partition(" ")[0])
    except ValueError:
        raise BoneAgeError(f"{where}: the {title} {cell!r} is not a date such as 2024-05-31") from None


def age_of_dates(born: date, taken: date, stated: float | None, oldest: float, where: str) -> float:
    """The age in months between two dates; a stated age (months) may differ from it by rounding.

    Raises:
      BoneAgeError: the age is below 0 or above `oldest` (years), or the stated age contradicts it.
    """
    between = months_between(born, taken)
    if not 0 <= between <= 12 * oldest:
        raise BoneAgeError(
            f"{where}: the dates {born} and {taken} give an age of {between / 12:.1f} years; expected 0 to {oldest:g}"
        )
    if stated is not None and abs(stated - between) > _ROUNDING:
        raise BoneAgeError(
            f"{where}: the age is {stated:.0f} months, but the dates are {between:.0f} months apart; correct one of "
            "them"
        )
    return between
