"""Reads label tables of the RSNA bone-age challenge and of users, with all common spellings of columns and values.

A row that cannot be used does not affect the others: the `fault` of its label is a sentence with the reason.
"""

import dataclasses
import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from absl import logging

from boneage_jax.data.dates import age_of_dates, read_date
from boneage_jax.data.files import File
from boneage_jax.data.inputs import CHRONOLOGICAL_AGE, NUMBER, UNKNOWN, Kind, plain_title, read_cell
from boneage_jax.data.radiograph import without_ending
from boneage_jax.data.tables import Table, read_table
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

MAX_AGE = 240.0
"""Months. The atlas ends at 19 years, and the challenge's classifiers at 240 months."""

OLDEST_YEARS = 25.0
"""Highest chronological age, in years."""

_ID_COLUMNS = {"id": "train", "image id": "validation", "case id": "test"}
_AGE_COLUMNS = ("boneage", "bone age (months)", "ground truth bone age (months)")
_TRUE, _FALSE = ("true", "1", "1.0", "yes", "y"), ("false", "0", "0.0", "no", "n")
_WORDS: dict[str, Sex | str] = {
    **dict.fromkeys(("m", "male", "boy"), Sex.MALE),
    **dict.fromkeys(("f", "female", "girl", "w"), Sex.FEMALE),
    **dict.fromkeys(("o", "other", "u", "unknown", "unspecified", "undetermined"), UNKNOWN),
}
_SEX_COLUMNS: dict[str, dict[str, Sex | str]] = {
    "male": {**dict.fromkeys(_TRUE, Sex.MALE), **dict.fromkeys(_FALSE, Sex.FEMALE)},
    "female": {**dict.fromkeys(_TRUE, Sex.FEMALE), **dict.fromkeys(_FALSE, Sex.MALE)},
    **dict.fromkeys(("sex", "gender", "patient sex", "patientsex", "patient gender"), _WORDS),
}
_CHRONOLOGICAL_COLUMNS = {
    **dict.fromkeys(("age", "age years", "age (years)"), 12.0),
    **dict.fromkeys(("age months", "age (months)", "chronological age"), 1.0),
}
"""Number of months in the unit of each column."""
_DATE_COLUMNS = ("date", "study date", "studydate", "examination date", "exam date")
_BIRTH_COLUMNS = ("birth date", "birthdate", "date of birth", "patient birth date", "patientbirthdate")
_SIZE_COLUMNS = ("id", "width", "height")
_ROUNDING = 0.5  # months between a bone age and the same one rounded to whole months
_SPLIT_WORDS = {"train": "train", "valid": "validation", "test": "test"}

_Value = TypeVar("_Value", bound=Sex | str | float | datetime.date)
_Row = Callable[[Sequence[str], str], "Label"]
"""Maps the cells of a row, and its name in error messages, to its label without the id."""


@dataclasses.dataclass(frozen=True)
class Label:
    """The label in one row of a table.

    Attributes:
      id: image id; without the ".0" of spreadsheets, and without the file suffix unless ids differ only in it.
      sex: UNKNOWN if the table has other or unknown, None for an empty cell.
      age: bone age in months; None if it is withheld or was not requested.
      inputs: further inputs that were requested: numbers, and names of categories.
      chronological_age: in months, or None.
      date: date of the examination, or None.
      born: date of birth, or None.
      fault: a sentence about the error in the row, or "".
    """

    id: str
    sex: Sex | str | None
    age: float | None
    inputs: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    chronological_age: float | None = None
    date: datetime.date | None = None
    born: datetime.date | None = None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The labels in one file.

    Attributes:
      name: name of the file.
      split: the split that its path names, or else the one that its id column is used for.
      labels: one for each row.
      has_ages: whether there is a column of bone ages.
      lacks: the further inputs that were requested but have no column.
    """

    name: str
    split: str
    labels: list[Label]
    has_ages: bool = True
    lacks: tuple[str, ...] = ()

    def agrees(self, other: "LabelTable") -> bool:
        """Whether both tables give the same images the same labels, in the columns that both have."""
        inputs = not self.lacks and not other.lacks
        mine, theirs = ({x.id: (x.sex, x.age, x.inputs if inputs else {}) for x in t.labels} for t in (self, other))
        return mine == theirs

    def refuse_gaps(self) -> None:
        """Raises BoneAgeError if a column is missing."""
        if self.lacks:
            age = CHRONOLOGICAL_AGE in self.lacks
            rsna, unit = (" and the RSNA files do not have", " (in months)") if age else ("", "")
            raise BoneAgeError(
                f"{self.name} has no column {', '.join(map(repr, self.lacks))}, which data.inputs requires{rsna}; "
                f"give a label file with such a column{unit}, in its place or beside it"
            )


def split_of_path(name: str) -> str | None:
    """The split that a path names, by the innermost folder or file name that contains one."""
    for part in reversed(name.lower().split("/")):
        for word, split in _SPLIT_WORDS.items():
            if word in part:
                return split
    return None


def read_labels(file: File, inputs: Mapping[str, Kind] = {}) -> LabelTable | None:
    """Reads a label table for training or evaluation, or returns None if the file is another kind of table.

    Each row needs a sex, F or M, and, if there is a bone-age column, a bone age from 0 to `MAX_AGE`.

    Args:
      file: csv or xlsx.
      inputs: further columns to read; ignored in a table without bone ages, which cannot be used.

    Raises:
      BoneAgeError: the file is damaged, or a column that is read occurs twice. Errors in a row are recorded in its
        label.
    """
    table = read_table(file, lambda titles: _has(titles, _ID_COLUMNS) and _has(titles, _SEX_COLUMNS))
    ids, sexes = _columns(table, _ID_COLUMNS), _columns(table, _SEX_COLUMNS)
    if not ids or not sexes:
        return None
    ages = _columns(table, _AGE_COLUMNS)
    places = _input_columns(table, inputs) if ages else {}

    def read_row(cells: Sequence[str], where: str) -> Label:
        sex = _agreed(cells, sexes, where, lambda title, cell: _sex(title, cell, where))
        if not isinstance(sex, Sex):
            title, place = next(iter(sexes.items()))
            raise BoneAgeError(_unknown_sex(title, cells[place], where))
        age = _agreed(cells, ages, where, lambda _, cell: _bone_age(table.number(cell), where))
        if ages and age is None:
            raise BoneAgeError(f"{where}: the bone age '' is not a number of months")
        further = {key: _input(table, key, inputs[key], cells[at], where) for key, at in places.items()}
        return Label("", sex, age, further)

    split = split_of_path(file.name) or _ID_COLUMNS[next(iter(ids))]
    lacks = tuple(key for key in inputs if key not in places) if ages else ()
    return LabelTable(file.name, split, _labels(table, ids, read_row), bool(ages), lacks)


def read_children(file: File) -> list[Label] | None:
    """Reads a table about children whose bone age should be predicted, or returns None if it lacks the columns.

    The table needs a column of ids, and at least one of sexes, chronological ages (`age` in years, `age_months` in
    months) or examination dates (`date`, such as 2024-05-31). With a `birth_date` too, the age is computed from the
    dates. Bone ages are ignored.

    Raises:
      BoneAgeError: as `read_labels`.
    """

    def known(titles: Sequence[str]) -> bool:
        others = (_SEX_COLUMNS, _CHRONOLOGICAL_COLUMNS, _DATE_COLUMNS)
        return _has(titles, _ID_COLUMNS) and any(_has(titles, columns) for columns in others)

    table = read_table(file, known)
    if not known(table.titles):
        return None
    sexes, ages = _columns(table, _SEX_COLUMNS), _columns(table, _CHRONOLOGICAL_COLUMNS)
    dates, births = _columns(table, _DATE_COLUMNS), _columns(table, _BIRTH_COLUMNS)

    def read_row(cells: Sequence[str], where: str) -> Label:
        sex = _agreed(cells, sexes, where, lambda title, cell: _sex(title, cell, where))
        age = _chronological_age({title: table.number(cells[place]) for title, place in ages.items()}, where)
        taken = _agreed(cells, dates, where, lambda title, cell: read_date(title, cell, where))
        born = _agreed(cells, births, where, lambda title, cell: read_date(title, cell, where))
        if born is not None and taken is not None:
            age = age_of_dates(born, taken, age, OLDEST_YEARS, where)
        return Label("", sex, None, chronological_age=age, date=taken, born=born)

    return _labels(table, _columns(table, _ID_COLUMNS), read_row)


def read_sizes(file: File) -> dict[str, tuple[int, int]] | None:
    """Reads the original width and height by image id, or returns None if the file is not a table of sizes.

    A file that is no table at all is logged, because any csv or xlsx file may lie beside the images.

    Args:
      file: csv or xlsx with the columns id, width and height (pixels).

    Raises:
      BoneAgeError: a width or height that is not a positive whole number, or two sizes for one id.
    """

    def known(titles: Sequence[str]) -> bool:
        return all(_has(titles, [title]) for title in _SIZE_COLUMNS) and not _has(titles, _AGE_COLUMNS)

    try:
        table = read_table(file, known)
    except BoneAgeError as error:
        logging.warning("%s; it is not used.", error)
        return None
    if not known(table.titles):
        return None
    columns = _columns(table, _SIZE_COLUMNS)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in table.rows:
        name, *size = (cells[columns[title]] for title in _SIZE_COLUMNS)
        if not all(re.fullmatch(r"0*[1-9]\d{,8}", side, re.ASCII) for side in size):
            raise BoneAgeError(
                f"{file.name}, row {number}: the size of {name} is {' x '.join(map(repr, size))}; "
                "expected width and height in pixels"
            )
        stated = (int(size[0]), int(size[1]))
        if sizes.setdefault(_plain_id(name), stated) != stated:
            raise BoneAgeError(
                f"{file.name}, row {number}: {name} has another size in an earlier row; keep one of them"
            )
    return sizes


def _labels(table: Table, ids: Mapping[str, int], read_row: _Row) -> list[Label]:
    """A label for each row; the reason why a row is refused becomes the `fault` of its label."""
    (column,) = ids.values()
    raw = [_without_zeros(cells[column]) for _, cells in table.rows]
    short = [_plain_id(name) for name in raw]
    count, bare = Counter(short), set(raw)
    names = [one if count[one] == 1 or one in bare else whole for one, whole in zip(short, raw, strict=True)]
    numbers: dict[str, list[int]] = {}
    for name, (number, _) in zip(names, table.rows, strict=True):
        numbers.setdefault(name, []).append(number)
    labels = []
    for name, (number, cells) in zip(names, table.rows, strict=True):
        where, first, last = f"{table.name}, row {number}", numbers[name][0], numbers[name][-1]
        try:
            if not name:
                raise BoneAgeError(f"{where}: the id is empty; expected the name of an image")
            if first != last:
                raise BoneAgeError(
                    f"{table.name}, row {last}: the id {name} appears twice, in row {first} too; keep one"
                )
            labels.append(dataclasses.replace(read_row(cells, where), id=name))
        except BoneAgeError as error:
            labels.append(Label(name, None, None, fault=str(error)))
    return labels


def _without_zeros(cell: str) -> str:
    """An id without the ".0" that spreadsheets add to integers."""
    return re.sub(r"^(\d+)\.0+$", r"\1", cell)


def _plain_id(cell: str) -> str:
    """An id without the ".0" of spreadsheets and without the suffix of an image."""
    return _without_zeros(without_ending(cell))


def _has(titles: Sequence[str], known: Iterable[str]) -> bool:
    return not {plain_title(title) for title in titles}.isdisjoint(known)


def _columns(table: Table, known: Iterable[str]) -> dict[str, int]:
    """Positions of the columns with these titles, by title; only one id column is allowed.

    Raises:
      BoneAgeError: a title occurs twice, or there are several id columns.
    """
    found: dict[str, int] = {}
    for place, title in enumerate(map(plain_title, table.titles)):
        if title not in known:
            continue
        if title in found or (found and known is _ID_COLUMNS):
            also = (
                f"the column {title!r} twice" if title in found else f"the columns {next(iter(found))!r} and {title!r}"
            )
            raise BoneAgeError(f"{table.name} has {also}; keep the right one")
        found[title] = place
    return found


def _input_columns(table: Table, inputs: Mapping[str, Kind]) -> dict[str, int]:
    """Positions of the further inputs that have a column."""
    places = {}
    for key in inputs:
        found = [position for position, title in enumerate(table.titles) if plain_title(title) == plain_title(key)]
        if len(found) > 1:
            titles = " and ".join(repr(table.titles[position]) for position in found)
            raise BoneAgeError(f"{table.name} has several columns for {key}: {titles}; keep one of them")
        if found:
            places[key] = found[0]
    return places


def _input(table: Table, name: str, kind: Kind, cell: str, where: str) -> float | str:
    return read_cell(name, kind, table.number(cell) if kind == NUMBER else cell, where)


def _agreed(
    cells: Sequence[str], columns: Mapping[str, int], where: str, read: Callable[[str, str], _Value]
) -> _Value | None:
    """The value on which all non-empty cells of the columns agree, or None if all cells are empty.

    Numbers may differ by `_ROUNDING`; the first one is returned.

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


def _sex(title: str, cell: str, where: str) -> Sex | str:
    spellings = _SEX_COLUMNS[title]
    if cell.casefold() not in spellings:
        raise BoneAgeError(_unknown_sex(title, cell, where))
    return spellings[cell.casefold()]


def _unknown_sex(title: str, cell: str, where: str) -> str:
    expected = "true or false" if _SEX_COLUMNS[title] is not _WORDS else "F or M"
    return f"{where}: the sex {cell!r} is unknown; column {title!r} must hold {expected}"


def _bone_age(cell: str, where: str) -> float:
    try:
        age = float(cell)
    except ValueError:
        raise BoneAgeError(f"{where}: the bone age {cell!r} is not a number of months") from None
    if not 0 <= age <= MAX_AGE:
        raise BoneAgeError(f"{where}: the bone age {cell} lies outside 0 to {MAX_AGE:g} months")
    return age


def _chronological_age(cells: Mapping[str, str], where: str) -> float | None:
    """The age in months from the most exact of these columns, or None if all cells are empty.

    An age in whole years may be off by up to 12 months, any other by a month: ages are rounded, or rounded down.

    Raises:
      BoneAgeError: a cell is not an age, or the cells contradict each other.
    """
    cells = {title: cell for title, cell in cells.items() if cell}
    found = []  # (tolerance, months in the unit, age)
    for title, cell in cells.items():
        age, unit = _age(title, cell, where), _CHRONOLOGICAL_COLUMNS[title]
        found.append((12.0 if unit == 12 and age % 12 == 0 else 1.0, unit, age))
    if not found:
        return None
    _, _, exact = min(found)
    if any(abs(age - exact) > tolerance for tolerance, _, age in found):
        raise _contradiction(cells, where)
    return exact


def _age(title: str, cell: str, where: str) -> float:
    unit = _CHRONOLOGICAL_COLUMNS[title]
    try:
        age = float(cell) * unit
    except ValueError:
        raise BoneAgeError(f"{where}: the age {cell!r} is not a number") from None
    if not 0 <= age <= 12 * OLDEST_YEARS:
        hint = "; ages in months belong in a column age_months" if unit == 12 else ""
        raise BoneAgeError(f"{where}: the {title} {cell} lies outside 0 to {OLDEST_YEARS:g} years{hint}")
    return age
