"""Reads tables with the sizes of the originals of resized copies."""

import re
from collections.abc import Iterable, Sequence

from absl import logging

from boneage_jax.data import columns
from boneage_jax.data.files import File
from boneage_jax.data.matching import comparable
from boneage_jax.data.tables import read_table
from boneage_jax.errors import BoneAgeError

_TITLES = ("id", "width", "height")


def all_sizes(files: Iterable[File]) -> dict[str, tuple[int, int]]:
    """The sizes in all of the files that are tables of sizes, see `read_sizes`.

    Raises:
      BoneAgeError: as `read_sizes`, or two tables give one id different sizes.
    """
    found: dict[str, tuple[int, int]] = {}
    tables: dict[str, str] = {}
    for file in files:
        for identifier, size in (read_sizes(file) or {}).items():
            if found.setdefault(identifier, size) != size:
                raise BoneAgeError(
                    f"{tables[identifier]} and {file.name} give different sizes for {identifier}; keep one of them, or "
                    "write ids with folders"
                )
            tables.setdefault(identifier, file.name)
    return found


def read_sizes(file: File) -> dict[str, tuple[int, int]] | None:
    """Reads the original width and height by image id, or returns None if the file is not a table of sizes.

    A file that is no table at all is logged, because any csv or xlsx file may lie beside the images.

    Args:
      file: csv or xlsx with the columns id, width and height (pixels).

    Raises:
      BoneAgeError: a width or height that is not a positive whole number, or two sizes for one id.
    """

    def known(titles: Sequence[str]) -> bool:
        return all(columns.has(titles, [title]) for title in _TITLES) and not columns.has(titles, columns.BONE_AGES)

    try:
        table = read_table(file, known)
    except BoneAgeError as error:
        logging.warning("%s; it is not used.", error)
        return None
    if not known(table.titles):
        return None
    places = columns.find(table, _TITLES)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in table.rows:
        name, *size = (cells[places[title]] for title in _TITLES)
        if not all(re.fullmatch(r"0*[1-9]\d{,8}", side, re.ASCII) for side in size):
            raise BoneAgeError(
                f"{file.name}, row {number}: the size of {name} is {' x '.join(map(repr, size))}; "
                "expected width and height in pixels"
            )
        stated = (int(size[0]), int(size[1]))
        if sizes.setdefault(comparable(columns.plain_id(name)), stated) != stated:
            raise BoneAgeError(
                f"{file.name}, row {number}: {name} has another size in an earlier row; keep one of them"
            )
    return sizes
