"""Matches the ids of a table to files."""

import pathlib
import unicodedata
from collections.abc import Iterable, Sequence


def match(ids: Iterable[str], names: Sequence[str]) -> dict[str, list[int]]:
    """Finds the files that each id of a table refers to.

    An id is a path or the end of one, with or without the suffix, which is not a number; if several ids fit a file,
    the most specific one is used. So `hand` matches `A/hand.png` unless another row has `hand.png` or `A/hand`.
    Accented letters match whether they are stored as one character or, as by macOS, as a letter and its accent.

    Args:
      ids: the ids in the table.
      names: paths of the files.

    Returns:
      For each id, the positions in `names` of its files, in order; ids without a file are absent. Two or more files
      for one id mean that one row stands for several children.
    """
    known = {comparable(identifier): identifier for identifier in ids}
    meant: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        parts = comparable(pathlib.PurePath(name).as_posix()).split("/")
        ends = ["/".join(parts[at:]) for at in range(len(parts))]
        found = next((end for whole in ends for end in (whole, without_suffix(whole)) if end in known), None)
        if found is not None:
            meant.setdefault(known[found], []).append(place)
    return meant


def without_suffix(name: str) -> str:
    """A name or path without its suffix, which is not the last number of a UID: `1.2.3` is another image than `1.2`."""
    suffix = pathlib.PurePosixPath(name).suffix
    return name if suffix[1:].isdecimal() else name.removesuffix(suffix)


def comparable(path: str) -> str:
    """The form in which paths are compared: forward slashes, composed letters (Unicode NFC), and no "./" before it."""
    return unicodedata.normalize("NFC", path.replace("\\", "/")).removeprefix("./")
