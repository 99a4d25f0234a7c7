"""Reads csv and xlsx tables, in the formats that spreadsheets write in any country, within size limits."""

import contextlib
import csv
import dataclasses
import io
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

from boneage_jax.data import python_warnings
from boneage_jax.data.files import File
from boneage_jax.errors import BoneAgeError

SUFFIXES = (".csv", ".tsv", ".xlsx")

_DELIMITERS = (",", ";", "\t", "|")
_MAX_BYTES = 32 * 2**20
_MAX_ROWS, _MAX_COLUMNS = 200_000, 200
"""The challenge's largest table has 12,611 rows. Even a tiny workbook may have a cell in the very last row."""
_ZIP, _OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table as text, without blank rows.

    Attributes:
      name: name of the file.
      titles: the first row.
      rows: the other rows, at least as long as the first, with their row numbers in the spreadsheet; longer only in a
        csv file, where this is a fault. In a workbook, cells beside the table are left out.
      decimal_comma: whether a comma may be the decimal point, as in tables delimited by semicolons or tabs.
    """

    name: str
    titles: list[str]
    rows: list[tuple[int, list[str]]]
    decimal_comma: bool

    def number(self, cell: str) -> str:
        """A number as Python writes it: a decimal comma, if allowed, becomes a point."""
        return cell.replace(",", ".") if self.decimal_comma else cell


def read_table(file: File, known: Callable[[Sequence[str]], bool]) -> Table:
    """Reads a csv table (UTF-8 or UTF-16; commas, semicolons, tabs or bars) or the first sheet of an xlsx workbook.

    Args:
      file: csv or xlsx, recognised by its bytes.
      known: whether titles belong to the expected table; used to detect the delimiter.

    Raises:
      BoneAgeError: the file is damaged, of another kind, or too large for a label table.
    """
    data = file.read()
    _refuse_large(file.name, len(data))
    if data[:4] == _ZIP or file.name.lower().endswith(".xlsx"):
        rows, decimal_comma = _sheet(file.name, data), False
    else:
        lines = _lines(file.name, data)
        delimiter = _delimiter(lines, known)
        rows, decimal_comma = _csv(file.name, lines, delimiter), delimiter != ","
    titles = rows[0][1] if rows else []
    return Table(
        file.name, titles, [(number, row + [""] * (len(titles) - len(row))) for number, row in rows[1:]], decimal_comma
    )


def _lines(name: str, data: bytes) -> list[str]:
    """The lines of a text with their line ends; a first line such as "sep=;", meant for Excel, becomes blank."""
    if data[:4] == _OLD_WORKBOOK:
        raise BoneAgeError(f"{name} is a workbook in the old Excel format (.xls); save it as .xlsx or csv")
    try:
        text = data.decode("utf-16" if data[:2] in _UTF_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BoneAgeError(f"{name} is not a csv table in UTF-8 or UTF-16 ({error}); save it as 'CSV UTF-8'") from None
    lines = io.StringIO(text, newline="").readlines()
    return ["\n", *lines[1:]] if lines and lines[0].lower().startswith("sep=") else lines


def _delimiter(lines: list[str], known: Callable[[Sequence[str]], bool]) -> str:
    """The delimiter that gives the first row known titles, or else a comma."""
    for delimiter in _DELIMITERS:
        with contextlib.suppress(csv.Error):  # `_csv` reports it, with the row.
            reader = csv.reader(lines, delimiter=delimiter)
            first = next((row for row in reader if any(cell.strip() for cell in row)), [])
            if known([_text(cell) for cell in first]):
                return delimiter
    return ","


def _csv(name: str, lines: list[str], delimiter: str) -> list[tuple[int, list[str]]]:
    rows, number = [], 0  # A row may span several lines.
    try:
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), start=1):
            if any(cell.strip() for cell in row):
                _refuse_long(name, number)
                rows.append((number, [_text(cell) for cell in row]))
    except csv.Error as error:
        raise BoneAgeError(f"{name}, row {number + 1}: this is not a valid row of a csv table ({error})") from None
    return rows


def _sheet(name: str, data: bytes) -> list[tuple[int, list[str]]]:
    import openpyxl  # Slow to import, and most copies of the data have no spreadsheet.

    rows, blank = [], (None,) * _MAX_COLUMNS
    try:
        # openpyxl warns about unknown styles and extensions.
        with python_warnings.suppressed(), zipfile.ZipFile(io.BytesIO(data)) as parts:
            _refuse_large(f"{name}, unpacked,", sum(part.file_size for part in parts.infolist()))
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # The stated dimensions may be wrong.
            for number, cells in enumerate(sheet.iter_rows(max_col=_MAX_COLUMNS, values_only=True), start=1):
                if cells == blank:
                    continue
                row = [_text(cell) for cell in cells]
                while row and not row[-1]:
                    row.pop()
                if row:
                    _refuse_long(name, number)
                    rows.append((number, row))
    except BoneAgeError:
        raise
    except Exception as error:  # A damaged part may raise any exception in openpyxl.
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise BoneAgeError(f"{name} is not an intact xlsx workbook ({reason}); save it again") from None
    return [(number, row[: len(rows[0][1])]) for number, row in rows]


def _refuse_large(name: str, size: int) -> None:
    if size > _MAX_BYTES:
        raise BoneAgeError(f"{name} has {size:,} bytes, more than the limit of {_MAX_BYTES:,} for a label table")


def _refuse_long(name: str, number: int) -> None:
    if number > _MAX_ROWS:
        raise BoneAgeError(f"{name} has a row {number:,}, beyond the last of {_MAX_ROWS:,}; keep the rows in use")


def _text(cell: Any) -> str:
    """A cell as text; spreadsheets store numeric ids as floats."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
