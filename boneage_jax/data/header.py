"""Facts from an image file beside the pixels, and where they contradict what the image is taken for."""

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
"""Of the body part in English, German, French, Spanish and Italian; the last words name no other one."""
_OTHER_PARTS = re.compile(r"LOWER|TARS|TOE|FOOT|FEET|LEG\b")
_RIGHT = re.compile(r"\b(R|RT|RE|RIGHT|RECHTS?|RECHTE|DROITE?|DERECHA|DESTRA|DX)\b|^R ?HAND")
_LEFT = re.compile(r"\b(L|LT|LI|LEFT|LINKS?|LINKE|GAUCHE|IZQUIERDA|SINISTRA|SX)\b|^L ?HAND")
_BOTH = re.compile(r"\b(B|BOTH|BILAT\w*|BEID\w*)\b")
_OTHER_VIEW = re.compile(r"\b(LL|RL|LLD|RLD|LLO|RLO|LAT\w*|\w*(?<!BI)LATERAL|PROFIL\w*|SEITL\w*|OBL\w*|SCHR[ÄA]G\w*)\b")
"""Of the view position: lateral, lateral decubitus and oblique views. The hand's own are AP, PA and DP."""


@dataclasses.dataclass(frozen=True)
class Header:
    """The parts of a file's header that matter to a reading; nothing that names anyone is kept.

    Only DICOM has more than warnings and notes.

    Attributes:
      sex: None where the header does not say, or says "other".
      age: chronological age in months at the examination, or None.
      age_step: months to which `age` is rounded down, 12 for an age in whole years, 0 for one from dates.
      age_slack: months by which `age` may be off either way: 12 for a birth date of which only the year seems true.
      laterality: in the header's words, or "".
      body_part: in the header's words, or "".
      view: the view position in the header's words, or "".
      spacing: distance between rows and between columns, in millimetres, or in pixels where the header gives only
        their ratio (PixelAspectRatio); None where it gives neither.
      warnings: sentences about what was wrong in the file and did not keep it from being read.
      notes: sentences about what was set right with certainty.
      age_notes: sentences about how exact the age is.
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

    @property
    def ages(self) -> tuple[float, float] | None:
        """The lowest and the highest age, in months, that the header allows for; None without an age."""
        if self.age is None:
            return None
        return self.age - self.age_slack, self.age + self.age_step + self.age_slack


def is_dicom(data: bytes) -> bool:
    """Whether this is a DICOM file; one without preamble begins with an element of group 2 or 8."""
    if data[PREFIX_AT : PREFIX_AT + 4] == PREFIX:
        return True
    return (data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00") or data[:2] == b"\x00\x08"


def can_be_hand(body_part: str) -> bool:
    """Whether a Body Part Examined is a hand, a part or a neighbour of it, or not named."""
    part = _words(body_part)
    return bool(_HAND_PARTS.search(part)) and not _OTHER_PARTS.search(part)


def contradictions(header: Header, sex: Sex | None = None, age: float | None = None) -> list[str]:
    """The header's warnings, and where it contradicts the given sex and age (months) or a left hand from the front.

    An empty list where all agrees; what is None is not compared. Nothing is corrected: the given values hold.
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
    """The side that the laterality names, or, where there is none, the body part."""
    for words in (_words(header.laterality), _words(header.body_part)):
        right, left = bool(_RIGHT.search(words)), bool(_LEFT.search(words))
        if _BOTH.search(words) or (right and left):
            return "both sides"
        if right or left:
            return "the right side" if right else ""
    return ""


def _words(text: str) -> str:
    """In capitals, with single spaces in the place of all that separates words."""
    return " ".join(re.sub(r"[\W_]+", " ", text).upper().split())
