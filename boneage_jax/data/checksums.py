"""Checksums of a built dataset, which detect damage before the dataset is used.

The tables and descriptions are small, and their SHA-256 is checked whenever the dataset is opened. For record files,
only the length is checked: ArrayRecord stores a hash of each chunk, and refuses a chunk that does not match when it is
read.
"""

import hashlib
import json
from pathlib import Path
from typing import NoReturn

from boneage_jax.atomic_files import write_text
from boneage_jax.errors import BoneAgeError

NAME = "checksums.json"
_RECORDS = ".array_record"


def write(folder: Path) -> None:
    """Writes the checksums of all files in the folder to `NAME`."""
    listed = {path.name: _describe(path) for path in sorted(folder.iterdir())}
    write_text(folder / NAME, json.dumps(listed, indent=2) + "\n")


def verify(folder: Path) -> None:
    """Compares the files in the folder with their checksums.

    Raises:
        BoneAgeError: a file or the list of checksums is missing or has changed.
    """
    try:
        listed = dict(json.loads((folder / NAME).read_text(encoding="utf-8")))
        for name, expected in listed.items():
            if _describe(folder / name) != expected:
                refuse(folder, f"{name} has changed since it was written")
    except (OSError, ValueError, TypeError) as error:
        refuse(folder, str(error))


def refuse(folder: Path, reason: str) -> NoReturn:
    """Raises the BoneAgeError for a damaged dataset."""
    raise BoneAgeError(
        f"The prepared images in {folder} are damaged ({reason}); delete this folder and start again: "
        "the images will be prepared again"
    )


def _describe(path: Path) -> dict[str, int | str]:
    if _RECORDS in path.name:
        return {"bytes": path.stat().st_size}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
