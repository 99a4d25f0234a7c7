"""Reads label tables of the RSNA bone-age challenge and of users, with all common spellings of columns and values.

A row that cannot be used does not affect the others: the `fault` of its label is a sentence with the reason.
"""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from boneage_jax.data import columns
from boneage_jax.data.columns import OLDEST_YEARS
from boneage_jax.data.dates import age_of_dates, read_date
from boneage_jax.data.files import File
from boneage_jax.data.inputs import CHRONOLOGICAL_AGE, NUMBER, Kind, read_cell
from boneage_jax.data.matching import comparable
from boneage_jax.data.splits import split_of_path
from boneage_jax.data.tables import Table, read_table
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

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


def read_labels(file: File, inputs: Mapping[str, Kind] = {}) -> LabelTable | None:
    """Reads a label table for training or evaluation, or returns None if the file is another kind of table.

    Each row needs a sex, F or M, and, if there is a bone-age column, a bone age from 0 to `columns.MAX_AGE`.

    Args:
      file: csv or xlsx.
      inputs: further columns to read; ignored in a table without bone ages, which cannot be used.

    Raises:
      BoneAgeError: the file is damaged, or a column that is read occurs twice. Errors in a row are recorded in its
        label.
    """
    table = read_table(file, lambda titles: columns.has(titles, columns.IDS) and columns.has(titles, columns.SEXES))
    ids, sexes = columns.find(table, columns.IDS), columns.find(table, columns.SEXES)
    if not ids or not sexes:
        return None
    ages = columns.find(table, columns.BONE_AGES)
    places = columns.find_inputs(table, inputs) if ages else {}

    def read_row(cells: Sequence[str], where: str) -> Label:
        sex = columns.agreed(cells, sexes, where, lambda title, cell: columns.sex(title, cell, where))
        if not isinstance(sex, Sex):
            title, place = next(iter(sexes.items()))
            raise columns.unknown_sex(title, cells[place], where)
        age = columns.agreed(cells, ages, where, lambda _, cell: columns.bone_age(table.number(cell), where))
        if ages and age is None:
            raise BoneAgeError(f"{where}: the bone age '' is not a number of months")
        further = {key: _input(table, key, inputs[key], cells[at], where) for key, at in places.items()}
        return Label("", sex, age, further)

    split = split_of_path(file.name) or columns.IDS[next(iter(ids))]
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
        others = (columns.SEXES, columns.CHRONOLOGICAL_AGES, columns.DATES)
        return columns.has(titles, columns.IDS) and any(columns.has(titles, other) for other in others)

    table = read_table(file, known)
    if not known(table.titles):
        return None
    sexes, ages = columns.find(table, columns.SEXES), columns.find(table, columns.CHRONOLOGICAL_AGES)
    dates, births = columns.find(table, columns.DATES), columns.find(table, columns.BIRTH_DATES)

    def read_row(cells: Sequence[str], where: str) -> Label:
        sex = columns.agreed(cells, sexes, where, lambda title, cell: columns.sex(title, cell, where))
        age = columns.chronological_age({title: table.number(cells[place]) for title, place in ages.items()}, where)
        taken = columns.agreed(cells, dates, where, lambda title, cell: read_date(title, cell, where))
        born = columns.agreed(cells, births, where, lambda title, cell: read_date(title, cell, where))
        if born is not None and taken is not None:
            age = age_of_dates(born, taken, age, OLDEST_YEARS, where)
        return Label("", sex, None, chronological_age=age, date=taken, born=born)

    return _labels(table, columns.find(table, columns.IDS), read_row)


def _labels(table: Table, ids: Mapping[str, int], read_row: _Row) -> list[Label]:
    """A label for each row; the reason why a row is refused becomes the `fault` of its label."""
    (column,) = ids.values()
    raw = [columns.without_zeros(cells[column]) for _, cells in table.rows]
    short = [columns.plain_id(name) for name in raw]
    keys = list(map(comparable, short))
    count, bare = Counter(keys), set(map(comparable, raw))
    names = [one if count[key] == 1 or key in bare else whole for one, key, whole in zip(short, keys, raw, strict=True)]
    numbers: dict[str, list[int]] = {}
    for name, (number, _) in zip(names, table.rows, strict=True):
        numbers.setdefault(comparable(name), []).append(number)
    labels = []
    for name, (number, cells) in zip(names, table.rows, strict=True):
        same = numbers[comparable(name)]
        where, first, last = f"{table.name}, row {number}", same[0], same[-1]
        try:
            if not name:
                raise BoneAgeError(f"{where}: the id is empty; expected the name of an image")
            if first != last:
                raise BoneAgeError(
                    f"{table.name}, row {last}: the id {name} appears twice, in row {first} too; keep one"
                )
            if any(cells[len(table.titles) :]):
                raise BoneAgeError(
                    f"{where}: {len(cells)} cells for {len(table.titles)} columns; write decimals with a point, and "
                    "put cells that contain the delimiter in quotes"
                )
            labels.append(dataclasses.replace(read_row(cells, where), id=name))
        except BoneAgeError as error:
            labels.append(Label(name, None, None, fault=str(error)))
    return labels


def _input(table: Table, name: str, kind: Kind, cell: str, where: str) -> float | str:
    return read_cell(name, kind, table.number(cell) if kind == NUMBER else cell, where)
