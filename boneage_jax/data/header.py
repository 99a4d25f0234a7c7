"""Metadata from the header of an image file, and contradictions between it and the expected image."""

import dataclasses
import re

from boneage_jax.sex import Sex

PREFIX, PREFIX_AT = b"DICM", 128  # of a DICOM file

ADULT_FROM = 240.0
"""Months; the atlases end at 18 (girls) and 19 years (boys)."""

_AGE_TOLERANCE = 1.0  # Months: given ages are rounded, and a month has 28 to 31 days.
_HAND_PARTS = re.compile(
    r"HAND|HÄND|WRIST|FINGER|THUMB|DIGIT|PHALAN|CARP|\b(FORE)?ARM\b|UPPER ?LIMB|EXTREM|BONE ?AGE|SKELET"
    r"|\bMAIN|DOIGT|POIGNET|MANO|\bDEDO|MUÑECA|POLSO|^$|UNKNOWN|UNDEFINED|OTHER|NONE",
)
"""Body parts in English, German, French, Spanish and Italian; the last words do not name a body part."""
_OTHER_PARTS = re.compile(r"LOWER|TARS|TOE|FOOT|FEET|LEG\b")
_RIGHT = re.compile(r"\b(R|RT|RE|RIGHT|RECHTS?|RECHTE|DROITE?|DERECHA|DESTRA|DX)\b|^R ?HAND")
_LEFT = re.compile(r"\b(L|LT|LI|LEFT|LINKS?|LINKE|GAUCHE|IZQUIERDA|SINISTRA|SX)\b|^L ?HAND")
_BOTH = re.compile(r"\b(B|BOTH|BILAT\w*|BEID\w*)\b")
_OTHER_VIEW = re.compile(r"\b(LL|RL|LLD|RLD|LLO|RLO|LAT\w*|\w*(?<!BI)LATERAL|PROFIL\w*|SEITL\w*|OBL\w*|SCHR[ÄA]G\w*)\b")
"""View positions: lateral, lateral decubitus and oblique. Hand radiographs are AP, PA or DP."""


@dataclasses.dataclass(frozen=True)
class Header:
    """The header fields that matter for bone age; nothing that identifies a person is kept.

    Formats other than DICOM have only warnings and notes.

    Attributes:
      sex: None if the header has no sex, or "other".
      age: chronological age in months at the examination, or None.
      age_step: months to which `age` is rounded down, 12 for an age in whole years, 0 for one from dates.
      age_slack: months by which `age` may be off in either direction: 12 if only the year of the birth date seems true.
      laterality: as written in the header, or "".
      body_part: as written in the header, or "".
      view: the view position as written in the header, or "".
      spacing: distance between rows and between columns, in millimetres, or in pixels if the header gives only
        their ratio (PixelAspectRatio); None if it gives neither.
      warnings: sentences about faults in the file that did not prevent reading it.
      notes: sentences about faults that were corrected with certainty.
      age_notes: sentences about the accuracy of the age.
      stored_shape: rows and columns of the pixels in the file if the image was resampled because they are not square.
    """

    sex: Sex | None = None
    age: float | None = None
    age_step: float = 0.0
    age_slack: float = 0.0
    laterality: str = ""
    body_part: str = ""
    view: str = ""
    spacing: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    age_notes: tuple[str, ...] = ()
    stored_shape: tuple[int, int] | None = None

    @property
    def ages(self) -> tuple[float, float] | None:
        """The lowest and highest age, in months, consistent with the header; None without an age."""
        if self.age is None:
            return None
        return self.age - self.age_slack, self.age + self.age_step + self.age_slack


def is_dicom(data: bytes) -> bool:
    """Whether this is a DICOM file; a file without preamble begins with an element of group 2 or 8."""
    if data[PREFIX_AT : PREFIX_AT + 4] == PREFIX:
        return True
    return (data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00") or data[:2] == b"\x00\x08"


def can_be_hand(body_part: str) -> bool:
    """Whether a Body Part Examined is the hand, a part of it or next to it, or is not specified."""
    part = _words(body_part)
    return bool(_HAND_PARTS.search(part)) and not _OTHER_PARTS.search(part)


def contradictions(header: Header, sex: Sex | None = None, age: float | None = None) -> list[str]:
    """The header's warnings, and its contradictions with the given sex and age (months) or with a frontal left hand.

    The list is empty if all values agree; None is not compared. Nothing is corrected: the given values take precedence.
    """
    found = list(header.warnings)
    if sex is not None and header.sex is not None and sex != header.sex:
        found.append(f"The given sex is {sex.word}, but the file's header says {header.sex.word}.")
    if age is not None and header.ages is not None:
        low, high = header.ages
        if not low - _AGE_TOLERANCE <= age <= high + _AGE_TOLERANCE:
            stated = f"{high:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
            found.append(f"The given age is {age:.0f} months, but the file's header says {stated} months.")
    if header.age is not None and header.age >= ADULT_FROM:
        found.append(
            f"The file's header gives the age of an adult, {header.age / 12:.0f} years; a child's is expected."
        )
    if side := _wrong_side(header):
        found.append(f"The file's header says {side}; a left hand is expected.")
    if _OTHER_VIEW.search(_words(header.view)):
        found.append(
            f"The file's header names a lateral or oblique view ({header.view}); a view from the front is expected."
        )
    if not can_be_hand(header.body_part):
        found.append(f"The file's header says that this is the body part {header.body_part}, not a hand.")
    return found


def _wrong_side(header: Header) -> str:
    """The side named by the laterality or else the body part; "" if that is the left, or if none is named."""
    for words in (_words(header.laterality), _words(header.body_part)):
        right, left = bool(_RIGHT.search(words)), bool(_LEFT.search(words))
        if _BOTH.search(words) or (right and left):
            return "both sides"
        if right or left:
            return "the right side" if right else ""
    return ""


def _words(text: str) -> str:
    """The text in capitals, with words separated by single spaces."""
    return " ".join(re.sub(r"[\W_]+", " ", text).upper().split())
