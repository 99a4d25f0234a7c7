"""Which files are to be read, and what is said of each child: the part of `boneage predict` before any network."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from boneage_jax.data.files import File, list_files
from boneage_jax.data.header import PREFIX, PREFIX_AT
from boneage_jax.data.labels import read_labels
from boneage_jax.data.radiograph import ENDINGS
from boneage_jax.errors import BoneAgeError

HEATMAP_ENDING = "-heatmap.png"


@dataclasses.dataclass(frozen=True)
class Request:
    """A file and the sex that the user gives for it.

    Attributes:
        name: of the file, as results and errors call it.
        place: below the folder that was named, or the name of the file alone.
        file: None where there is nothing to read.
        sex: "F", "M" or "unknown"; None where only the file's header can tell.
        sex_from: "--sex", "--labels", or None.
        error: why it cannot be read, or "".
    """

    name: str
    place: str
    file: File | None
    sex: str | None = None
    sex_from: str | None = None
    error: str = ""


def gather(paths: Iterable[Path], sex: str | None, labels: Path | None) -> list[Request]:
    """One request for each file named, and for each image below each folder, sorted by name there.

    Args:
        paths: files of any name, and folders (archives in them count as folders).
        sex: "F", "M" or "unknown", for all files but those in the table; None for what the headers say.
        labels: csv or xlsx with the columns id (name of the file without its ending), and male or sex.

    Raises:
        BoneAgeError: the table cannot be read. What is wrong with a single file stands in its request.
    """
    known = {} if labels is None else read_sexes(labels)
    return [_with_sex(one, sex, known) for path in paths for one in _requests(path)]


def read_sexes(path: Path) -> dict[str, str]:
    """Reads the sexes of a table: "F" or "M" by id.

    Raises:
        BoneAgeError: no such table, other columns, an unknown sex, an id that appears twice.
    """
    if not path.is_file():
        raise BoneAgeError(f"the label table {path} does not exist; expected a csv or xlsx file")
    table = read_labels(File(str(path), path.stat().st_size, 0, path))
    if table is None:
        raise BoneAgeError(f"{path} is no label table; expected the columns id, and male or sex")
    return {label.id: label.sex.letter for label in table.labels}


def heatmap_paths(folder: Path, requests: Sequence[Request]) -> list[Path]:
    """Where the heat map of each goes: named like the file, by its whole path where two would share a name."""
    short = [str(PurePosixPath(one.place).with_suffix("")) for one in requests]
    shared = Counter(short)
    whole = [one.name.strip("./\\").replace("/", "_").replace("\\", "_") for one in requests]
    names = [a if shared[a] == 1 else b for a, b in zip(short, whole, strict=True)]
    return [folder / f"{name}{HEATMAP_ENDING}" for name in names]


def _requests(path: Path) -> list[Request]:
    if not path.is_dir():
        return [Request(str(path), path.name, File(str(path), 0, 0, path))]
    try:
        found = [file for file in list_files(path) if _is_image(file)]
    except BoneAgeError as error:
        return [Request(str(path), path.name, None, error=str(error))]
    if not found:
        expected = ", ".join(ENDINGS)
        return [
            Request(str(path), path.name, None, error=f"{path} holds no image; expected files ending in {expected}")
        ]
    named = ((file.name, dataclasses.replace(file, name=str(path / file.name))) for file in found)
    return [Request(file.name, place, file) for place, file in named]


def _is_image(file: File) -> bool:
    """By its ending, or, as archives of clinics name files, without one and by DICOM's mark."""
    name = PurePosixPath(file.name)
    if name.suffix.lower() in ENDINGS:
        return not file.name.endswith(HEATMAP_ENDING)
    if name.suffix and not name.suffix[1:].isdigit():
        return False
    return name.name != "DICOMDIR" and file.head(PREFIX_AT + len(PREFIX)).endswith(PREFIX)


def _with_sex(request: Request, sex: str | None, known: Mapping[str, str]) -> Request:
    told = known.get(PurePosixPath(request.place).stem)
    if told is None:
        return dataclasses.replace(request, sex=sex, sex_from=sex and "--sex")
    if sex in ("F", "M") and sex != told and not request.error:
        error = f"{request.name}: --sex says {sex}, but the label table says {told}; correct one of them"
        return dataclasses.replace(request, error=error)
    return dataclasses.replace(request, sex=told, sex_from="--labels")
