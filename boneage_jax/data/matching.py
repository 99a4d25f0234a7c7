"""Which files the ids of a table mean."""

import pathlib
from collections.abc import Iterable, Sequence


def match(ids: Iterable[str], names: Sequence[str]) -> dict[str, list[int]]:
    """Which files each id of a table means.

    An id is a path or the end of one, with or without the suffix; of several ids that fit a file, the most exact one
    counts. So `hand` means `A/hand.png` unless another row says `hand.png`, or `A/hand`.

    Args:
      ids: of the table.
      names: paths of the files.

    Returns:
      The places in `names` of the files that each id means, in their order; an id without a file is absent. Two or more
      files for one id are two children under one row.
    """
    known = {identifier.replace("\\", "/").removeprefix("./"): identifier for identifier in ids}
    meant: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        parts = pathlib.PurePath(name).as_posix().replace("\\", "/").split("/")
        ends = ["/".join(parts[at:]) for at in range(len(parts))]
        suffix = pathlib.PurePosixPath(parts[-1]).suffix
        found = next((end for whole in ends for end in (whole, whole.removesuffix(suffix)) if end in known), None)
        if found is not None:
            meant.setdefault(known[found], []).append(place)
    return meant
