"""Reads the three label tables of the RSNA bone-age challenge, as csv or xlsx, in every spelling in use."""

import csv
import dataclasses
import io
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from boneage_jax.data.files import File
from boneage_jax.data.inputs import CHRONOLOGICAL_AGE, Kind, read_cell, same_column
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex

MAX_AGE = 240.0
"""Months; the atlas ends at 19 years, and the challenge's classifiers at 240 months."""

_ID_COLUMNS = {"id": "train", "image id": "validation", "case id": "test"}
_AGE_COLUMNS = ("boneage", "bone age (months)", "ground truth bone age (months)")
_SEX_COLUMNS = {
    "male": {"true": Sex.MALE, "false": Sex.FEMALE},
    "sex": {text: sex for sex in Sex for text in (sex.letter.lower(), sex.word)},
}
_SPLIT_WORDS = {"train": "train", "valid": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Label:
    """Sex and bone age in months of the image `id`; `age` is None where it is withheld.

    `inputs` holds what else was asked for: numbers, and names of categories.
    """

    id: str
    sex: Sex
    age: float | None
    inputs: Mapping[str, float | str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The labels in one file; `lacks` names the further inputs that were asked for and have no column there."""

    name: str
    split: str
    labels: list[Label]
    lacks: tuple[str, ...] = ()

    def agrees(self, other: "LabelTable") -> bool:
        """Whether both label the same images alike, in what both have columns for."""
        inputs = not self.lacks and not other.lacks
        mine, theirs = ({x.id: (x.sex, x.age, x.inputs if inputs else {}) for x in t.labels} for t in (self, other))
        return mine == theirs

    def refuse_gaps(self) -> None:
        """Raises BoneAgeError if a column is missing."""
        if self.lacks:
            rsna = " The RSNA files do not have it." if CHRONOLOGICAL_AGE in self.lacks else ""
            unit = " (in months)" if CHRONOLOGICAL_AGE in self.lacks else ""
            raise BoneAgeError(
                f"{self.name} has no column {', '.join(map(repr, self.lacks))}, which data.inputs asks for.{rsna} "
                f"Give a label file with such a column{unit}, in its place or beside it."
            )


def split_of_path(name: str) -> str | None:
    """The split that a path speaks of, by the innermost folder or file that names one."""
    for part in reversed(name.lower().split("/")):
        for word, split in _SPLIT_WORDS.items():
            if word in part:
                return split
    return None


def read_labels(file: File, inputs: Mapping[str, Kind] = {}) -> LabelTable | None:
    """Reads a label table, or returns None if the file is a table of something else.

    Args:
      file: csv or xlsx.
      inputs: further columns to read; not looked for in a table that withholds the ages, which is of no use.

    Raises:
      BoneAgeError: an age that is not a number from 0 to `MAX_AGE`, an unknown sex, a duplicate id, or a cell
        that does not fit its further input.
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
    places = {} if age_column is None else _input_columns(header, inputs, file.name)
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
        values = {key: read_cell(key, inputs[key], cells[place], where) for key, place in places.items()}
        labels[name] = Label(name, sex, age, values)
    lacks = () if age_column is None else tuple(key for key in inputs if key not in places)
    return LabelTable(file.name, split, list(labels.values()), lacks)


def read_sizes(file: File) -> dict[str, tuple[int, int]] | None:
    """Reads width and height of originals by image id, or returns None if the file is not a table of sizes.

    Args:
      file: csv or xlsx with the columns id, width and height (pixels).

    Raises:
      BoneAgeError: a width or height that is not a positive whole number.
    """
    rows = _rows(file)
    _, header = next(rows, (0, []))
    columns = {_text(title).lower(): position for position, title in enumerate(header)}
    if not {"id", "width", "height"} <= columns.keys() or any(title in columns for title in _AGE_COLUMNS):
        return None
    sizes = {}
    for number, row in rows:
        cells = [_text(cell) for cell in row] + [""] * (len(header) - len(row))
        name, *size = (cells[columns[title]] for title in ("id", "width", "height"))
        if not all(side.isascii() and side.isdigit() and int(side) > 0 for side in size):
            raise BoneAgeError(
                f"{file.name}, row {number}: the size of {name} is {' x '.join(map(repr, size))}; "
                "expected width and height in pixels."
            )
        sizes[name] = (int(size[0]), int(size[1]))
    return sizes


def _input_columns(header: list[Any], inputs: Mapping[str, Kind], name: str) -> dict[str, int]:
    """Positions of the further inputs that have a column."""
    places = {}
    for key in inputs:
        found = [position for position, title in enumerate(header) if same_column(_text(title), key)]
        if len(found) > 1:
            titles = " and ".join(repr(_text(header[position])) for position in found)
            raise BoneAgeError(f"{name} has several columns for {key}: {titles}; keep one of them.")
        if found:
            places[key] = found[0]
    return places


def _sex(text: str, column: str, where: str) -> Sex:
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
