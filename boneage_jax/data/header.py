"""What a radiograph's file says about it beside the pixels, and where that contradicts what it is taken for."""

import dataclasses

from boneage_jax.sex import Sex

PREFIX, PREFIX_AT = b"DICM", 128  # of a DICOM file

_HAND_PARTS = ("", "HAND", "FINGER", "WRIST", "EXTREMITY", "UPPEREXTREMITY", "UPPERLIMB", "ARM", "FOREARM", "BONEAGE")
_AGE_TOLERANCE = 1.0  # Months: given ages are rounded, and a month has 28 to 31 days.


@dataclasses.dataclass(frozen=True)
class Header:
    """The parts of a DICOM header that matter to a reading; nothing that names anyone is kept.

    Attributes:
      sex: None where the header does not say, or says "other".
      age: chronological age in months at the examination, or None.
      age_step: months to which `age` is rounded down, 12 for an age in whole years, 0 for one from dates.
      stated_age: the age in words that contradicts the one from the dates, else "".
      laterality: "L", "R", another word of the header, or "".
      body_part: in the header's words, or "".
      view: the view position in the header's words, or "".
      spacing: distance between rows and between columns, in millimetres, or in pixels where the header gives only
        their ratio (PixelAspectRatio); None where it gives neither.
    """

    sex: Sex | None = None
    age: float | None = None
    age_step: float = 0.0
    stated_age: str = ""
    laterality: str = ""
    body_part: str = ""
    view: str = ""
    spacing: tuple[float, float] | None = None


def is_dicom(data: bytes) -> bool:
    """Whether this is a DICOM file; one without preamble begins with an element of group 2 or 8."""
    if data[PREFIX_AT : PREFIX_AT + 4] == PREFIX:
        return True
    return (data[:2] in (b"\x02\x00", b"\x08\x00") and data[3:4] == b"\x00") or data[:2] == b"\x00\x08"


def contradictions(header: Header, sex: Sex | None = None, age: float | None = None) -> list[str]:
    """Sentences about where the header contradicts the given sex and age (months), itself, or a left hand.

    An empty list where all agrees; what is None is not compared. Nothing is corrected: the given values hold.
    """
    found = []
    if sex is not None and header.sex is not None and sex != header.sex:
        found.append(f"The given sex is {sex.word}, but the file's header says {header.sex.word}.")
    if age is not None and header.age is not None:
        last = header.age + header.age_step
        if not header.age - _AGE_TOLERANCE <= age <= last + _AGE_TOLERANCE:
            said = f"{header.age:.0f}" if not header.age_step else f"{header.age:.0f} to {last:.0f}"
            found.append(f"The given age is {age:.0f} months, but the file's header says {said} months.")
    if header.stated_age:
        found.append(
            f"The file's header contradicts itself: the patient's age is {header.stated_age}, "
            f"but birth and study dates are {header.age:.0f} months apart; the dates are used."
        )
    if header.laterality in ("R", "B"):
        side = {"R": "the right side", "B": "both sides"}[header.laterality]
        found.append(f"The file's header says {side}; a left hand is expected.")
    if header.body_part.upper().replace(" ", "").replace("_", "") not in _HAND_PARTS:
        found.append(f"The file's header says that this is the body part {header.body_part}, not a hand.")
    return found
