"""The visits of one child: which files they are, how old the child was, and their order."""

import csv
import dataclasses
import datetime
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pydicom

from boneage_jax.data.dicom import DAYS_PER_MONTH
from boneage_jax.data.files import File
from boneage_jax.data.header import is_dicom
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.results import Reading, Result
from boneage_jax.sex import Sex

OLDEST = 300.0
"""Months; an older child is taken for a mistake."""

_COLUMNS = ("file", "date", "birth_date", "age", "age_months")
_IDENTITY = {"PatientID": "patient IDs", "PatientBirthDate": "dates of birth", "PatientSex": "sexes"}


@dataclasses.dataclass(frozen=True)
class Visit:
    """A radiograph that was read, with one reading, and the day on which it was taken, if that is known."""

    result: Result
    date: datetime.date | None = None

    @property
    def reading(self) -> Reading:
        """The bone age for the child's sex."""
        return self.result.readings[0]

    @property
    def sex(self) -> Sex:
        """The sex for which it was read."""
        return Sex.parse(self.reading.sex)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table of visits: `age` in months and `date` are None where the table does not give them."""

    file: Path
    age: float | None
    date: datetime.date | None


def read_table(path: Path) -> list[Entry]:
    """Reads a table of visits.

    Args:
        path: csv in UTF-8 with the columns file (its place, relative to the table), date (2024-05-31), and one of
            birth_date, age (years) and age_months. Without these, only the header of a DICOM file gives the age.

    Raises:
        BoneAgeError: it cannot be read, a column is missing or unknown, or a cell does not fit.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BoneAgeError(f"the table of visits {path} cannot be read: {error}; expected csv in UTF-8") from error
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    ages = [name for name in names if name in _COLUMNS[2:]]
    if not {"file", "date"} <= set(names) <= set(_COLUMNS) or len(set(names)) < len(names) or len(ages) > 1:
        raise BoneAgeError(
            f"the table of visits {path} has the columns {', '.join(names) or 'none'}; expected file, date, and one of "
            f"{', '.join(_COLUMNS[2:])}"
        )
    entries = []
    for line, row in rows:
        if len(row) != len(names) or None in row.values():
            raise BoneAgeError(f"{path}, line {line}: expected {len(names)} cells: {', '.join(names)}")
        cells = dict(zip(names, (cell.strip() for cell in row.values()), strict=True))
        entries.append(_entry(cells, path.parent, f"{path}, line {line}"))
    if not entries:
        raise BoneAgeError(f"the table of visits {path} has no row; expected one for each radiograph")
    return entries


def in_order(visits: Sequence[Visit]) -> list[Visit]:
    """The visits of one child by age.

    Raises:
        BoneAgeError: they are of both sexes, or there are several and one has no age.
    """
    if len({visit.sex for visit in visits}) > 1:
        raise BoneAgeError("the radiographs are of both sexes; a report is about one child: give its visits alone")
    if len(visits) == 1:
        return list(visits)
    ages = [(visit.result.age, visit) for visit in visits]
    if unknown := [visit.result.file for age, visit in ages if age is None]:
        raise BoneAgeError(
            f"the age of the child in {', '.join(unknown)} is unknown, so that the visits cannot be put in order; list "
            "the files in a csv with the columns file, date and birth_date (or age)"
        )
    return [visit for _, visit in sorted(ages, key=lambda pair: pair[0] or 0.0)]


def refuse_several_children(files: Mapping[str, File]) -> None:
    """Compares what DICOM headers say about whose radiographs these are, without keeping or repeating it.

    Args:
        files: by name, readable ones.

    Raises:
        BoneAgeError: two of them name different patients, dates of birth or sexes.
    """
    first: dict[str, tuple[str, str]] = {}
    for name, file in files.items():
        data = file.read()
        if not is_dicom(data):
            continue
        header = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=[*_IDENTITY])
        for word, plural in _IDENTITY.items():
            value = str(header.get(word) or "").strip()
            if not value:
                continue
            other, expected = first.setdefault(word, (name, value))
            if value != expected:
                raise BoneAgeError(
                    f"the headers of {other} and {name} name different {plural}; a report is about one child: give its "
                    "visits alone"
                )


def _entry(cells: Mapping[str, str], folder: Path, where: str) -> Entry:
    if not cells["file"]:
        raise BoneAgeError(f"{where}: the file is empty; expected its place, relative to the table")
    date = _date(cells["date"], "date", where)
    age = None
    if cells.get("birth_date"):
        born = _date(cells["birth_date"], "birth_date", where)
        age = (date - born).days / DAYS_PER_MONTH
    elif cells.get("age"):
        age = 12 * _number(cells["age"], where)
    elif cells.get("age_months"):
        age = _number(cells["age_months"], where)
    if age is not None and not 0 <= age <= OLDEST:
        raise BoneAgeError(f"{where}: the child would be {age / 12:.1f} years old; expected 0 to {OLDEST / 12:.0f}")
    return Entry(folder / cells["file"], age, date)


def _date(cell: str, column: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(cell)
    except ValueError:
        raise BoneAgeError(f"{where}: the {column} {cell!r} is not a date such as 2024-05-31") from None


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BoneAgeError(f"{where}: the age {cell!r} is not a number")
    return value
