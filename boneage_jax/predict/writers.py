"""Output formats of `boneage predict`: a table to read, JSON and CSV for programs; results are printed one by one."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from boneage_jax.predict import reference
from boneage_jax.predict.results import Reading, Result, years_months
from boneage_jax.terminal import printable

CSV_COLUMNS = (
    *("file", "sex", "sex_from", "months", "years_months", "std", "low", "high"),
    *("age", "age_from", "difference", "sd_score", "sd_table", "conclusion"),
    *("heatmap", "dicom_report", "dicom_capture", "warnings", "notes", "error", "refused"),
    *("version", "weights", "weights_sha256", "preprocessing", "time", "notice"),
)


class Table:
    """One line per reading; files that could not be read appear on stderr only."""

    def __init__(self, width: int):
        self._width = width
        self._results: list[Result] = []

    def begin(self) -> str:
        """The line of column titles."""
        return self._line("file", "sex", "bone age, months", "", "SD", "90 % interval", "age", "difference", "SD score")

    def each(self, result: Result) -> str:
        """A line per reading, with a question mark after the sex if it is unknown."""
        self._results.append(result)
        return "\n".join(self._reading(result, one) for one in result.readings)

    def end(self) -> str:
        """A legend if one is needed, and the provenance."""
        readings = [one for result in self._results for one in result.readings]
        lines = []
        if any(result.sex == "unknown" for result in self._results):
            lines.append("F?, M?: the sex is unknown; both readings are shown, and neither is preferred")
        if any(one.sd_score is not None for one in readings):
            lines.append(f"SD score: (bone age - age) / standard deviation of healthy children, from {reference.TABLE}")
        if self._results and (provenance := self._results[-1].provenance) is not None:
            lines += _provenance(provenance.to_dict())
        return "\n".join(["", *lines]) if lines else ""

    def _reading(self, result: Result, one: Reading) -> str:
        low_high = "-" if one.interval is None else f"{one.interval[0]:.1f} to {one.interval[1]:.1f}"
        return self._line(
            printable(result.file),
            one.sex + "?" * (result.sex == "unknown"),
            f"{one.months:.1f}",
            f"({years_months(one.months)})",
            _number(one.std, ".1f"),
            low_high,
            _number(result.age, ".1f"),
            _number(one.difference, "+.1f"),
            _number(one.sd_score, "+.2f"),
        )

    def _line(self, *cells: str) -> str:
        file, sex, months, words, std, interval, age, difference, score = cells
        months = f"{months} {words}" if words else months
        line = f"{file:<{self._width}}  {sex:<3}  {months:<26}  {std:>5}  {interval:<14}  {age:>5}"
        return f"{line}  {difference:>10}  {score:>8}".rstrip()


class Json:
    """A list with one object per file, see `Result.to_dict`."""

    def __init__(self) -> None:
        self._first = True

    def begin(self) -> str:
        """The bracket that opens the list."""
        return "["

    def each(self, result: Result) -> str:
        """One object, preceded by a comma unless it is the first, because the last object is not known in advance.

        Other characters than ASCII are escaped, so the output does not depend on the encoding of the terminal.
        """
        comma, self._first = "" if self._first else ",\n", False
        return comma + json.dumps(result.to_dict(), allow_nan=False, indent=2)

    def end(self) -> str:
        """The bracket that closes the list."""
        return "]"


class Csv:
    """A header, then a row per reading (two if the sex is unknown, with sex_from "unknown") or per error."""

    def begin(self) -> str:
        """The line of column titles."""
        return _row(CSV_COLUMNS)

    def each(self, result: Result) -> str:
        """The rows of this file: one for each reading, or one for its error."""
        row = result.to_dict()
        row |= {"warnings": " ".join(result.warnings), "notes": " ".join(result.notes)} | (row["provenance"] or {})
        if not result.readings:
            return self._row(row)
        unknown = {"sex_from": "unknown"} if result.sex == "unknown" else {}
        return "\n".join(self._row({**row, **one.to_dict(), "sex": one.sex, **unknown}) for one in result.readings)

    def end(self) -> str:
        """An empty string: CSV has no closing line."""
        return ""

    def _row(self, row: dict[str, Any]) -> str:
        return _row(["" if row.get(name) is None else row[name] for name in CSV_COLUMNS])


def make(form: str, files: Sequence[str]) -> Table | Json | Csv:
    """Makes the writer of "table", "json" or "csv" for files of these names.

    Each writer returns the text before all results, the text of one result, and the text after all results, without
    the final newline.
    """
    if form == "table":
        return Table(max(len(printable(name)) for name in ["file", *files]))
    return Json() if form == "json" else Csv()


def _provenance(fields: dict[str, Any]) -> list[str]:
    return [
        f"boneage_jax {fields['version']}, preprocessing {fields['preprocessing']}, {fields['time']}",
        f"weights {fields['weights']}, SHA-256 {fields['weights_sha256'] or 'unknown'}",
        fields["notice"],
    ]


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    plain = [printable(cell) if isinstance(cell, str) else cell for cell in cells]  # A newline could forge a row.
    csv.writer(text, lineterminator="").writerow(plain)
    return text.getvalue()


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
