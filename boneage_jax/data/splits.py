"""The split that a path names, the hospital of an RSNA image, the tenth held out for validation, and folds."""

import hashlib
import re
from collections.abc import Sequence

from boneage_jax.errors import BoneAgeError

STANFORD, COLORADO = "Stanford", "Colorado"
_FIRST_COLORADO_ID = 4560
_EVERY, _OFFSET = 10, 5
_MOST_DIGITS = 9
_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of_path(name: str) -> str | None:
    """The split that a path names by a whole word, in the innermost folder or file name that contains one.

        split_of_path("Bone Age Test Set/7.png") == split_of_path("test_2/7.png") == "test"
        split_of_path("latest/7.png") is None

    Words are separated by anything but letters, and may be in upper or lower case.
    """
    for part in reversed(name.lower().split("/")):
        words = re.findall(r"[^\W\d_]+", part)
        for word, split in _WORDS.items():
            if word in words:
                return split
    return None


def hospital(image_id: str) -> str:
    """Returns "Stanford" for ids below 4560, "Colorado" for other numeric ids, "" for other names."""
    if not image_id.isdecimal():
        return ""
    number = image_id.lstrip("0")
    # int() raises ValueError for thousands of digits.
    return STANFORD if len(number) <= _MOST_DIGITS and int(number or "0") < _FIRST_COLORADO_ID else COLORADO


def validation_tenth(ids: Sequence[str], sexes: Sequence[int], ages: Sequence[float]) -> set[str]:
    """The ids of a fixed tenth with the same distribution of sex, age and hospital as the whole.

    Strata are (sex, year of age, hospital), each ordered by the SHA-256 of the id; every tenth child of their
    concatenation is selected. The choice depends only on the set of labels, not on the order of the files.

    For the 12,611 official training labels this selects 1,261 (269 from Stanford); the SHA-256 of their sorted
    ids, joined by newlines, begins with f4cbb7b6d8cc43af.
    """
    return _spread(ids, sexes, ages, _OFFSET, _EVERY)


def fold(which: str, ids: Sequence[str], sexes: Sequence[int], ages: Sequence[float]) -> set[str]:
    """The ids of one fold, such as "2/5"; all folds have the same distribution of sex, age and hospital.

    Together the folds hold every id exactly once. Strata and order are those of `validation_tenth`.

    Raises:
      BoneAgeError: not two numbers, or there is no such fold.
    """
    match = re.fullmatch(rf"(\d{{1,{_MOST_DIGITS}}})/(\d{{1,{_MOST_DIGITS}}})", which, re.ASCII)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not (count >= 2 and 1 <= number <= count):
        raise BoneAgeError(f"data.fold is {which!r}, expected K/N, the K-th of N folds, such as 1/5")
    return _spread(ids, sexes, ages, number - 1, count)


def _spread(ids: Sequence[str], sexes: Sequence[int], ages: Sequence[float], first: int, step: int) -> set[str]:
    """Every `step`-th child from `first` on, in the order of `validation_tenth`."""

    def key(child: tuple[str, int, float]) -> tuple[int, int, str, bytes]:
        image_id, sex, age = child
        return sex, int(age // 12), hospital(image_id), hashlib.sha256(image_id.encode()).digest()

    children = sorted(zip(ids, sexes, ages, strict=True), key=key)
    return {image_id for image_id, _, _ in children[first::step]}
