"""Collects the files to read and the sex and age of each child, the first step of `boneage predict`."""

import dataclasses
import datetime
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from boneage_jax.data.files import File, is_archive, list_files
from boneage_jax.data.labels import Label, read_children
from boneage_jax.data.matching import match
from boneage_jax.data.radiograph import ENDINGS, select_images, without_ending
from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.predict.items import UNKNOWN
from boneage_jax.sex import Sex

HEATMAP_ENDING = "-heatmap.png"
REGIONS_ENDING = "-regions.png"
REPORT_ENDING = "-boneage-sr.dcm"
CAPTURE_ENDING = "-boneage-sc.dcm"
OUTPUT_ENDINGS = (HEATMAP_ENDING, REGIONS_ENDING, REPORT_ENDING, CAPTURE_ENDING)
"""File name endings of the output written for images; such files are skipped when a folder is read."""

_AGE_TOLERANCE = 1.0  # months


@dataclasses.dataclass(frozen=True)
class Request:
    """A file, and the information that the user gave about the child.

    Attributes:
        name: the file's name in results and errors.
        place: the path below the given folder, or only the name for a file given directly.
        file: None if there is nothing to read.
        sex: "F", "M" or "unknown"; None to take it from the file's header.
        sex_from: "--sex", "--labels", or None.
        age: chronological age in months, or None.
        age_from: "--age", "--labels", or None.
        date: date of the examination from the label table, or None.
        error: why the file cannot be read, or "".
    """

    name: str
    place: str
    file: File | None
    sex: str | None = None
    sex_from: str | None = None
    age: float | None = None
    age_from: str | None = None
    date: datetime.date | None = None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Worklist:
    """The files to read.

    Attributes:
        requests: one for each given file and for each image below each given folder, sorted by name within a folder.
        left_out: names of the files that were skipped (not images, or earlier output), by the given folder.
        warnings: sentences about rows of the label table that match no file.
        notes: sentences about files that the label table does not list, and about birth dates that give no age.
    """

    requests: list[Request]
    left_out: Mapping[str, Sequence[str]]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


def gather(paths: Iterable[Path], sex: str | None, age: float | None, labels: Path | None) -> Worklist:
    """Finds the files and combines each with the information from the arguments and the label table.

    Args:
        paths: files of any name, folders and zip archives (nested archives count as folders).
        sex: "F", "M" or "unknown", for all files that the table does not list; None to use the headers.
        age: chronological age in months, for a single file; None to use the table or the headers.
        labels: csv or xlsx with the column id (name of the file) and others, see `read_children`.

    Raises:
        BoneAgeError: the table cannot be read, or an age is given for several files. Errors of a single file are
            stored in its request instead.
    """
    left_out: dict[str, Sequence[str]] = {}
    found = [one for path in paths for one in _requests(path, left_out)]
    if age is not None and len(found) > 1:
        raise BoneAgeError(
            f"--age is the age of one child, but there are {len(found)} files; give the ages in a table with --labels, "
            "in a column age (years) or age_months"
        )
    age_from = None if age is None else "--age"
    requests = [
        dataclasses.replace(one, sex=sex, sex_from=sex and "--sex", age=age, age_from=age_from) for one in found
    ]
    return Worklist(requests, left_out) if labels is None else _with_labels(Worklist(requests, left_out), labels)


def output_paths(folder: Path, requests: Sequence[Request], ending: str) -> list[Path]:
    """Output path of each request: named after the file, or after its whole path if two files would share a name.

    If whole paths share a name too, such as those of `a/b/1.png` and `a_b/1.png`, a number is appended to it.
    """
    short = [without_ending(one.place) for one in requests]
    shared = Counter(name.casefold() for name in short)  # many file systems ignore case
    whole = [one.name.strip("./\\").replace("/", "_").replace("\\", "_") for one in requests]
    taken = {name for name, count in shared.items() if count == 1}
    names = []
    for name, path in zip(short, whole, strict=True):
        if shared[name.casefold()] > 1:
            choices = itertools.chain([path], (f"{path}-{number}" for number in itertools.count(2)))
            name = next(one for one in choices if one.casefold() not in taken)
            taken.add(name.casefold())
        names.append(name)
    return [folder / f"{name}{ending}" for name in names]


def _requests(path: Path, left_out: dict[str, Sequence[str]]) -> list[Request]:
    if not os.path.isdir(path) and not is_archive(path):
        return [Request(str(path), path.name, File(str(path), 0, 0, path))]
    listing = list_files(path)
    images, others = select_images(file for file in listing.files if not file.name.endswith(OUTPUT_ENDINGS))
    outputs = [file for file in listing.files if file.name.endswith(OUTPUT_ENDINGS)]
    if others or outputs:
        left_out[str(path)] = sorted(file.name for file in (*others, *outputs))
    requests = [
        Request(name, file.name, dataclasses.replace(file, name=name))
        for file in images
        if (name := str(path / file.name))
    ]
    problems = [Request(name, Path(name).name, None, error=error) for name, error in listing.problems.items()]
    if not requests and not problems:
        expected = ", ".join(ENDINGS)
        problems = [
            Request(str(path), path.name, None, error=f"{path} contains no image; expected files ending in {expected}")
        ]
    return sorted([*requests, *problems], key=lambda one: one.name)


def _with_labels(work: Worklist, path: Path) -> Worklist:
    """Adds the information from the label table to the requests, and messages about rows and files without a match.

    Raises:
        BoneAgeError: the table does not exist, or has other columns.
    """
    if not os.path.isfile(path):
        raise BoneAgeError(f"the label table {path} does not exist; expected a csv or xlsx file")
    labels = read_children(File(str(path), path.stat().st_size, 0, path))
    if labels is None:
        raise BoneAgeError(
            f"{path} is not a label table; expected the columns id, and male, sex, age, age_months or date"
        )
    known, requests, done = {label.id: label for label in labels}, work.requests, list(work.requests)
    matches = match(known, [one.name for one in requests])
    for identifier, places in matches.items():
        names = sorted({requests[place].name for place in places})
        for place in places:
            if len(names) > 1:
                error = (
                    f"{requests[place].name}: the id {identifier} of {path} matches {' and '.join(names)}; write the "
                    "ids with folders or suffixes"
                )
                done[place] = dataclasses.replace(requests[place], error=requests[place].error or error)
            else:
                done[place] = _with_label(requests[place], known[identifier])
    listed_places = {place for places in matches.values() for place in places}
    others = [one for place, one in enumerate(requests) if place not in listed_places and not one.error]
    unlisted = _unlisted(path, others) if any(label.sex is not None for label in labels) else []
    return dataclasses.replace(
        work,
        requests=done,
        warnings=_unmatched(path, [identifier for identifier in known if identifier not in matches]),
        notes=[*unlisted, *_undated(path, labels)],
    )


def _unmatched(table: Path, ids: Sequence[str]) -> list[str]:
    if not ids:
        return []
    what = f"1 id of {table} matches" if len(ids) == 1 else f"{len(ids)} ids of {table} match"
    return [f"{what} no file: {listed(identifier or repr(identifier) for identifier in ids)}"]


def _unlisted(table: Path, requests: Sequence[Request]) -> list[str]:
    if not requests:
        return []
    what = "1 file is" if len(requests) == 1 else f"{len(requests)} files are"
    origin = requests[0].sex_from or "the DICOM header, if there is one"
    names = listed(one.name for one in requests)
    return [f"{what} not listed in {table}, so the sex comes from {origin}: {names}"]


def _undated(table: Path, labels: Iterable[Label]) -> list[str]:
    count = sum(one.born is not None and one.date is None and one.chronological_age is None for one in labels)
    if not count:
        return []
    what, them = (f"1 row of {table} has", "it") if count == 1 else (f"{count} rows of {table} have", "them")
    return [f"{what} a birth date but no date; no age is taken from {them}"]


def _with_label(request: Request, label: Label) -> Request:
    error = request.error or label.fault
    if label.sex is not None:
        sex = label.sex.letter if isinstance(label.sex, Sex) else UNKNOWN
        if request.sex not in (None, UNKNOWN) and sex != request.sex:
            error = error or (
                f"{request.name}: --sex says {request.sex}, but the label table says {sex}; correct one of them"
            )
        request = dataclasses.replace(request, sex=sex, sex_from="--labels")
    if label.chronological_age is not None:
        age = label.chronological_age
        if request.age is not None and abs(age - request.age) > _AGE_TOLERANCE:
            error = error or (
                f"{request.name}: --age says {request.age:.0f} months, but the label table says {age:.0f}; correct one "
                "of them"
            )
        request = dataclasses.replace(request, age=age, age_from="--labels")
    return dataclasses.replace(request, date=label.date, error=error)
