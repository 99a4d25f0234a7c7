"""Further inputs in addition to the radiograph and the sex: their kinds, and how table cells are read."""

import math
from collections.abc import Mapping, Sequence

from boneage_jax.errors import BoneAgeError

NUMBER = "number"
KEYPOINTS = "keypoints"
UNKNOWN = "unknown"
CHRONOLOGICAL_AGE = "chronological_age"

Kind = str | tuple[str, ...]
"""`NUMBER`, `KEYPOINTS` (a heat map of hand key points), or the names of the categories."""

_LIMITS = {CHRONOLOGICAL_AGE: (0.0, 300.0)}  # months
_TAKEN = {"id", "image", "sex", "male", "age", "boneage", "hospital"}


def checked(inputs: Mapping[str, str | Sequence[str]]) -> dict[str, Kind]:
    """Returns `inputs` with categories as tuples, sorted by name: the order in the config does not matter.

    Raises:
      BoneAgeError: an invalid or reserved name, an unknown kind, or categories that cannot be distinguished.
    """
    kinds = {name: _kind(name, kind) for name, kind in sorted(inputs.items())}
    for name in kinds:
        if not name.isidentifier() or name.lower() in _TAKEN:
            raise BoneAgeError(
                f"data.inputs.{name} is not a valid name for a further input: expected letters, digits and "
                f"underscores, and not {', '.join(sorted(_TAKEN))}, which every image already has"
            )
    if len(maps := [name for name, kind in kinds.items() if kind == KEYPOINTS]) > 1:
        raise BoneAgeError(f"data.inputs has several heat maps ({', '.join(maps)}); keep one")
    return kinds


def columns(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """The inputs that are columns of the label tables."""
    return {name: kind for name, kind in kinds.items() if kind != KEYPOINTS}


def heatmap(kinds: Mapping[str, Kind]) -> str | None:
    """The name of the heat-map input, or None."""
    return next((name for name, kind in kinds.items() if kind == KEYPOINTS), None)


def plain_title(title: str) -> str:
    """A column title in lower case, with words separated by single spaces instead of underscores and other spaces."""
    return " ".join(title.replace("_", " ").casefold().split())


def read_cell(name: str, kind: Kind, text: str, where: str) -> float | str:
    """Reads a cell of a label table: a number, or the category as spelled in `kind`.

    An empty cell is the category "unknown" if that is listed, and otherwise an error: nothing is guessed.

    Args:
      name: the input.
      kind: `NUMBER`, or the categories, which are matched without regard to case.
      text: the cell.
      where: file and row for error messages.
    """
    if kind == NUMBER:
        return _number(name, text, where)
    categories = {category.casefold(): category for category in kind}
    if found := categories.get(text.casefold() or UNKNOWN):
        return found
    expected = f"expected {', '.join(kind)}"
    if not text:
        raise BoneAgeError(f"{where}: {name} is empty; {expected} (list {UNKNOWN!r} among them to allow empty cells)")
    raise BoneAgeError(f"{where}: {name} {text!r} is not known; {expected}")


def _number(name: str, text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        what = f"{text!r}, which is not a number" if text else "empty; missing numbers are not imputed: enter a value"
        raise BoneAgeError(f"{where}: {name} is {what}")
    low, high = _LIMITS.get(name.lower(), (-math.inf, math.inf))
    if not low <= value <= high:
        raise BoneAgeError(f"{where}: {name} {text} lies outside {low:g} to {high:g} months")
    return value


def _kind(name: str, kind: str | Sequence[str]) -> Kind:
    if kind in (NUMBER, KEYPOINTS):
        return str(kind)
    categories = () if isinstance(kind, str) else tuple(kind)
    if len(categories) < 2 or not all(isinstance(c, str) and c and c == c.strip() for c in categories):
        raise BoneAgeError(
            f"data.inputs.{name} is {kind!r}; expected {NUMBER!r}, {KEYPOINTS!r} or the names of two or more "
            "categories, such as ('asian', 'black', 'unknown')"
        )
    if len({category.casefold() for category in categories}) < len(categories):
        raise BoneAgeError(f"data.inputs.{name} names a category twice: {', '.join(categories)}")
    return categories
