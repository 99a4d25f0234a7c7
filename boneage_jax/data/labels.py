"""Reads the three label tables of the RSNA bone-age challenge, as csv or xlsx, in every spelling in use."""

import csv
import dataclasses
import io
import zipfile
from collections.abc import Iterator
from typing import Any

from boneage_jax.data.files import File
from boneage_jax.data.radiograph import FEMALE, MALE
from boneage_jax.errors import BoneAgeError

MAX_AGE = 240.0
"""Months; the atlas ends at 19 years, and the challenge's classifiers at 240 months."""

_ID_COLUMNS = {"id": "train", "image id": "validation", "case id": "test"}
_AGE_COLUMNS = ("boneage", "bone age (months)", "ground truth bone age (months)")
_SEX_COLUMNS = {
    "male": {"true": MALE, "false": FEMALE},
    "sex": {"m": MALE, "f": FEMALE, "male": MALE, "female": FEMALE},
}
_SPLIT_WORDS = {"train": "train", "valid": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Label:
    """Sex (FEMALE or MALE) and bone age in months of the image `id`; `age` is None where it is withheld."""

    id: str
    sex: int
    age: float | None


def split_of_path(name: str) -> str | None:
    """The split that a path speaks of, by the innermost folder or file that names one."""
    for part in reversed(name.lower().split("/")):
        for word, split in _SPLIT_WORDS.items():
            if word in part:
                return split
    return None


def read_labels(file: File) -> tuple[str, list[Label]] | None:
    """Reads a label table: the split it belongs to and its labels, or None if the table holds no labels.

    Raises:
      BoneAgeError: an age that is not a number from 0 to `MAX_AGE`, an unknown sex or a duplicate id.
    """
    rows = _rows(file)
    _, header = next(rows, (0, []))
    columns = {_text(title).lower(): position for position, title in enumerate(header)}
    id_column = next((title for title in _ID_COLUMNS if title in columns), None)
    sex_column = next((title for title in _SEX_COLUMNS if title in columns), None)
    age_column = next((title for title in _AGE_COLUMNS if title in columns), None)
    if id_column is None or sex_column is None:
        return None
    split = split_of_path(file.name.rsplit("/", 1)[-1]) or _ID_COLUMNS[id_column]
    labels: dict[str, Label] = {}
    for number, row in rows:
        cells = [_text(cell) for cell in row] + [""] * (len(header) - len(row))
        where = f"{file.name}, row {number}"
        name = cells[columns[id_column]]
        if not name:
            raise BoneAgeError(f"{where}: the id is empty; expected the name of an image without its ending.")
        if name in labels:
            raise BoneAgeError(f"{where}: the id {name} appears twice; keep one of the two rows.")
        sex = _sex(cells[columns[sex_column]], sex_column, where)
        age = None if age_column is None else _age(cells[columns[age_column]], where)
        labels[name] = Label(name, sex, age)
    return split, list(labels.values())


def _sex(text: str, column: str, where: str) -> int:
    spellings = _SEX_COLUMNS[column]
    if text.lower() not in spellings:
        expected = " or ".join(sorted(spellings))
        raise BoneAgeError(f"{where}: the sex {text!r} is unknown; column {column!r} must hold {expected}.")
    return spellings[text.lower()]


def _age(text: str, where: str) -> float:
    try:
        age = float(text)
    except ValueError:
        raise BoneAgeError(f"{where}: the bone age {text!r} is not a number of months.") from None
    if not 0 <= age <= MAX_AGE:
        raise BoneAgeError(f"{where}: the bone age {text} lies outside 0 to {MAX_AGE:g} months.")
    return age


def _rows(file: File) -> Iterator[tuple[int, list[Any]]]:
    """Numbered rows (from 1, as a spreadsheet shows them) that are not blank."""
    data = file.read()
    if file.name.lower().endswith(".xlsx"):
        for number, row in enumerate(_sheet(file.name, data), start=1):
            if any(_text(cell) for cell in row):
                yield number, row
        return
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise BoneAgeError(f"{file.name} is not a csv table in UTF-8 ({error}).") from None


def _sheet(name: str, data: bytes) -> list[list[Any]]:
    import openpyxl  # Slow to import, and most copies of the data have no spreadsheet.

    try:
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        return [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, IndexError) as error:
        raise BoneAgeError(f"{name} is not an intact xlsx workbook ({error}).") from None


def _text(cell: Any) -> str:
    """A cell as text; spreadsheets hold ids as floating-point numbers."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
