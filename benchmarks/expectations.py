"""Checks this version against a table of expectations on inputs like those of users.

    python -m benchmarks.expectations --cases DIR [--inputs DIR] [--weights NAME ...]

DIR holds `expectations.csv` (case, arguments of `boneage`, what must hold) and `make_inputs.py`, which writes the
inputs from radiographs. `--inputs` names a folder that already contains them. Each row is run as a user would run it,
and judged by the function of its case below. `--strict` is removed from the rows because it is now the default. The
exit status is 1 if a row fails.
"""

import argparse
import contextlib
import csv
import io
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from boneage_jax.commands.main import main as boneage
from boneage_jax.released.weights import names


class Answer(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    def results(self) -> dict[str, dict[str, Any]]:
        """The JSON objects by file name, without folders."""
        return {Path(one["file"]).name: one for one in json.loads(self.out)}

    def months(self, *files: str) -> list[float]:
        """Readings in months of these files, or of all."""
        found = self.results()
        return [found[name]["months"] for name in files or found]

    def texts(self, file: str) -> str:
        """Warnings, notes and error of a file."""
        one = self.results()[file]
        return " ".join([*one["warnings"], *one["notes"], one["error"] or ""])


def spread(months: list[float], most: float) -> bool:
    """Whether all readings are numbers that lie within `most` months of each other."""
    return None not in months and max(months) - min(months) <= most


def by_child(most: float) -> Callable[[Answer], bool]:
    """All readings of one child (files that begin with the same id) lie within `most` months."""
    return lambda answer: all(
        spread([one["months"] for name, one in answer.results().items() if name.startswith(child)], most)
        for child in ("1433", "1407")
    )


def dates(answer: Answer) -> bool:
    """No age of 117 years is accepted; a birth date of 1 January gets a note and an adult a warning."""
    ages = {name: one["age"] for name, one in answer.results().items()}
    return (
        ages["born_1900.dcm"] in (None, 132.0)
        and "months apart" in answer.texts("born_1900.dcm")
        and "Only the year of the birth date" in answer.texts("born_1_january.dcm")
        and "age of an adult" in answer.texts("adult.dcm")
    )


def window(answer: Answer) -> bool:
    """Unusable windows are ignored with a warning."""
    unused = ("width_0.dcm", "width_negative.dcm", "empty_table.dcm", "for_8_bits.dcm")
    return (
        spread(answer.months(), 0.5)
        and all("was not used" in answer.texts(name) for name in unused)
        and not answer.texts("small_letters.dcm")
    )


def same_name(answer: Answer) -> bool:
    """The error names both files that match the id."""
    return answer.status == 1 and all(f"{folder}/hand.png" in answer.err for folder in "AB")


def contradicting_sex(answer: Answer) -> bool:
    """The error names the contradicting columns, and the row where it matters."""
    words = ("row 2", "'male'", "'sex'") if "male_and_sex" in answer.err else ("'male' twice",)
    return answer.status == 1 and all(word in answer.err for word in words)


def orientation(answer: Answer) -> bool:
    """The EXIF orientation is applied and noted, and the checks do not also report a turned hand."""
    texts = [answer.texts(f"orientation_{value}.jpg") for value in (3, 6)]
    return spread(answer.months(), 1.5) and all(
        text.count("turned") == 1 and f"EXIF orientation {value}" in text
        for value, text in zip((3, 6), texts, strict=True)
    )


JUDGES: Mapping[str, Callable[[Answer], bool]] = {
    "bit_depth": by_child(0.5),
    "padding": by_child(1.5),
    "bits_stored": lambda a: "beyond its 12 bits" in a.texts("stored_12.dcm") and a.months("stored_12.dcm") == [None],
    "same_name": same_name,
    "left_out": lambda a: a.status == 0 and spread(a.months("a.png", "b.bmp", "c.IMA", "d.jfif"), 1.5),
    "contradicting_sex": contradicting_sex,
    "dates": dates,
    "one_age": lambda a: a.status == 1 and "age of one child" in a.err,
    "view_and_side": lambda a: "lateral" in a.texts("lateral.dcm") and "right side" in a.texts("right.dcm"),
    "orientation": orientation,
    "body_part": lambda a: a.status == 0 and not any(map(a.texts, a.results())),
    "broken_zip": lambda a: a.status == 2 and None not in a.months("a.png", "b.png") and "rest.zip is not" in a.err,
    "window": window,
    "jp2_in_dicom": lambda a: spread(a.months(), 0.1),
    "overlay": lambda a: spread(a.months(), 0.1),
    "label_tables": lambda a: {(one["sex"], one["sex_from"]) for one in a.results().values()} == {("M", "--labels")},
    "zip_named": lambda a: a.status == 0 and None not in a.months("1390.png", "10002.png"),
    "missing_element": lambda a: a.status == 1 and "element Rows" in a.err and "Error" not in a.err,
}


def run(arguments: list[str]) -> Answer:
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = boneage(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Answer(status, out.getvalue(), err.getvalue())


def holds(row: Mapping[str, str], inputs: Path, weights: str, out: Path) -> str:
    """The reason why the row fails, or "" if it holds."""
    arguments = [part.replace("{dir}", str(inputs / row["case"])) for part in shlex.split(row["command"])]
    arguments = [part for part in arguments if part != "--strict"]
    if "--out" in arguments:
        arguments[arguments.index("--out") + 1] = str(out)
    answer = run([*arguments, f"--weights={weights}"])
    try:
        return (
            "" if JUDGES[row["case"]](answer) else f"status {answer.status}: {answer.err.strip()[-500:] or answer.out}"
        )
    except (ValueError, KeyError) as error:
        return f"{type(error).__name__} {error}; status {answer.status}: {answer.err.strip()[-500:]}"


@contextlib.contextmanager
def made(cases: Path, inputs: Path | None) -> Iterator[Path]:
    """The folder of inputs; if none is given, a temporary one is filled and removed after the block."""
    if inputs is not None:
        yield inputs
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, str(cases / "make_inputs.py"), folder], check=True, stdout=subprocess.DEVNULL)
        yield Path(folder)


def main() -> int:
    """Runs and judges all rows; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, required=True, help="folder with expectations.csv and make_inputs.py")
    parser.add_argument("--inputs", type=Path, help="folder that make_inputs.py has filled")
    parser.add_argument("--weights", nargs="+", default=names(), help="default: all in the package")
    flags = parser.parse_args()
    rows = list(csv.DictReader(io.StringIO((flags.cases / "expectations.csv").read_text(encoding="utf-8"))))
    failed = 0
    with made(flags.cases, flags.inputs) as inputs, tempfile.TemporaryDirectory() as out:
        for weights in flags.weights:
            for row in rows:
                reason = holds(row, inputs, weights, Path(out))
                failed += bool(reason)
                print(
                    f"{'fails' if reason else 'holds'}  {weights}  {row['case']}: {row['command']}  {reason}".rstrip()
                )
    print(f"{len(rows) * len(flags.weights) - failed} of {len(rows) * len(flags.weights)} rows hold")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
