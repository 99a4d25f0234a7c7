"""The columns of label tables: their titles, and the ids, sexes and ages in their cells, in all common spellings."""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from boneage_jax.data.inputs import UNKNOWN, Kind, plain_title
from boneage_jax.data.radiograph import without_ending
from boneage_jax.data.tables import Table
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

MAX_AGE = 240.0
"""Months. The atlas ends at 19 years, and the challenge's classifiers at 240 months."""

OLDEST_YEARS = 25.0
"""Highest chronological age, in years."""

IDS = {"id": "train", "image id": "validation", "case id": "test"}
"""The split that each title is used for in the challenge's tables."""
BONE_AGES = ("boneage", "bone age (months)", "ground truth bone age (months)")
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "y"), ("false", "0", "0.0", "no", "n")
_WORDS: dict[str, Sex | str] = {
    **dict.fromkeys(("m", "male", "boy"), Sex.MALE),
    **dict.fromkeys(("f", "female", "girl", "w"), Sex.FEMALE),
    **dict.fromkeys(("o", "other", "u", "unknown", "unspecified", "undetermined"), UNKNOWN),
}
SEXES: dict[str, dict[str, Sex | str]] = {
    "male": {**dict.fromkeys(_TRUE, Sex.MALE), **dict.fromkeys(_FALSE, Sex.FEMALE)},
    "female": {**dict.fromkeys(_TRUE, Sex.FEMALE), **dict.fromkeys(_FALSE, Sex.MALE)},
    **dict.fromkeys(("sex", "gender", "patient sex", "patientsex", "patient gender"), _WORDS),
}
"""The sex that each spelling in a column stands for."""
CHRONOLOGICAL_AGES = {
    **dict.fromkeys(("age", "age years", "age (years)"), 12.0),
    **dict.fromkeys(("age months", "age (months)", "chronological age"), 1.0),
}
"""Number of months in the unit of each column."""
DATES = ("date", "study date", "studydate", "examination date", "exam date")
BIRTH_DATES = ("birth date", "birthdate", "date of birth", "patient birth date", "patientbirthdate")

_ROUNDING = 0.5  # months between a bone age and the same one rounded to whole months

_Value = TypeVar("_Value", bound=Sex | str | float | datetime.date)


def has(titles: Sequence[str], known: Iterable[str]) -> bool:
    """Whether any of the titles is known, in any spelling."""
    return not {plain_title(title) for title in titles}.isdisjoint(known)


def find(table: Table, known: Iterable[str]) -> dict[str, int]:
    """Positions of the columns with these titles, by title; only one of the `IDS` is allowed.

    Raises:
      BoneAgeError: a title occurs twice, or there are several id columns.
    """
    found: dict[str, int] = {}
    for place, title in enumerate(map(plain_title, table.titles)):
        if title not in known:
            continue
        if title in found or (found and known is IDS):
            also = (
                f"the column {title!r} twice" if title in found else f"the columns {next(iter(found))!r} and {title!r}"
            )
            raise BoneAgeError(f"{table.name} has {also}; keep the right one")
        found[title] = place
    return found


def find_inputs(table: Table, inputs: Mapping[str, Kind]) -> dict[str, int]:
    """Positions of the further inputs that have a column, by name.

    Raises:
      BoneAgeError: an input has several columns.
    """
    places = {}
    for key in inputs:
        found = [position for position, title in enumerate(table.titles) if plain_title(title) == plain_title(key)]
        if len(found) > 1:
            titles = " and ".join(repr(table.titles[position]) for position in found)
            raise BoneAgeError(f"{table.name} has several columns for {key}: {titles}; keep one of them")
        if found:
            places[key] = found[0]
    return places


def without_zeros(cell: str) -> str:
    """An id without the ".0" that spreadsheets add to integers."""
    return re.sub(r"^(\d+)\.0+$", r"\1", cell)


def plain_id(cell: str) -> str:
    """An id without the ".0" of spreadsheets and without the suffix of an image; `1.0.png` is the image `1.0`."""
    return without_ending(without_zeros(cell))


def agreed(
    cells: Sequence[str], columns: Mapping[str, int], where: str, read: Callable[[str, str], _Value]
) -> _Value | None:
    """The value on which all non-empty cells of the columns agree, or None if all cells are empty.

    Numbers may differ by `_ROUNDING`; the first one is returned.

    Args:
      cells: the row.
      columns: positions of the columns, by title.
      where: file and row for error messages.
      read: maps title and cell to the value.

    Raises:
      BoneAgeError: the cells contradict each other.
    """
    found = {title: read(title, cells[place]) for title, place in columns.items() if cells[place]}
    numbers = [value for value in found.values() if isinstance(value, float)]
    contradictory = max(numbers) - min(numbers) > _ROUNDING if numbers else len(set(found.values())) > 1
    if contradictory:
        raise _contradiction({title: cells[columns[title]] for title in found}, where)
    return next(iter(found.values()), None)


def _contradiction(cells: Mapping[str, str], where: str) -> BoneAgeError:
    both = " and ".join(f"{title!r} ({cell})" for title, cell in cells.items())
    return BoneAgeError(f"{where}: the columns {both} contradict each other; correct one of them")


def sex(title: str, cell: str, where: str) -> Sex | str:
    """The sex in a cell of one of the `SEXES`, or `UNKNOWN` for other or unknown.

    Raises:
      BoneAgeError: the cell holds none of the column's spellings; the message begins with `where`.
    """
    spellings = SEXES[title]
    if cell.casefold() not in spellings:
        raise unknown_sex(title, cell, where)
    return spellings[cell.casefold()]


def unknown_sex(title: str, cell: str, where: str) -> BoneAgeError:
    """The error for a cell without a usable sex."""
    expected = "true or false" if SEXES[title] is not _WORDS else "F or M"
    return BoneAgeError(f"{where}: the sex {cell!r} is unknown; column {title!r} must hold {expected}")


def bone_age(cell: str, where: str) -> float:
    """A bone age in months, from 0 to `MAX_AGE`.

    Raises:
      BoneAgeError: the cell holds anything else; the message begins with `where`.
    """
    try:
        age = float(cell)
    except ValueError:
        raise BoneAgeError(f"{where}: the bone age {cell!r} is not a number of months") from None
    if not 0 <= age <= MAX_AGE:
        raise BoneAgeError(f"{where}: the bone age {cell} lies outside 0 to {MAX_AGE:g} months")
    return age


def chronological_age(cells: Mapping[str, str], where: str) -> float | None:
    """The age in months from the most exact of these `CHRONOLOGICAL_AGES`, or None if all cells are empty.

    An age in whole years may be off by up to 12 months, any other by a month: ages are rounded, or rounded down.

    Raises:
      BoneAgeError: a cell is not an age, or the cells contradict each other.
    """
    cells = {title: cell for title, cell in cells.items() if cell}
    found = []  # (tolerance, months in the unit, age)
    for title, cell in cells.items():
        age, unit = _age(title, cell, where), CHRONOLOGICAL_AGES[title]
        found.append((12.0 if unit == 12 and age % 12 == 0 else 1.0, unit, age))
    if not found:
        return None
    _, _, exact = min(found)
    if any(abs(age - exact) > tolerance for tolerance, _, age in found):
        raise _contradiction(cells, where)
    return exact


def _age(title: str, cell: str, where: str) -> float:
    unit = CHRONOLOGICAL_AGES[title]
    try:
        age = float(cell) * unit
    except ValueError:
        raise BoneAgeError(f"{where}: the age {cell!r} is not a number") from None
    if not 0 <= age <= 12 * OLDEST_YEARS:
        hint = "; ages in months belong in a column age_months" if unit == 12 else ""
        raise BoneAgeError(f"{where}: the {title} {cell} lies outside 0 to {OLDEST_YEARS:g} years{hint}")
    return age
