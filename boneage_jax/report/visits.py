"""The visits of one child, and their order."""

import dataclasses
import datetime
import io
from collections.abc import Mapping, Sequence

import pydicom

from boneage_jax.data import python_warnings
from boneage_jax.data.files import File
from boneage_jax.data.header import is_dicom
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.results import Reading, Result
from boneage_jax.sex import Sex

_IDENTITY = {"PatientID": "patient IDs", "PatientBirthDate": "dates of birth", "PatientSex": "sexes"}


@dataclasses.dataclass(frozen=True)
class Visit:
    """A radiograph that was read.

    Attributes:
        name: the name of the file, without the folder that the user gave.
        result: the result, with one reading.
        date: when the radiograph was taken, if the label table gives it.
    """

    name: str
    result: Result
    date: datetime.date | None = None

    @property
    def reading(self) -> Reading:
        """The reading for the child's sex."""
        return self.result.readings[0]

    @property
    def sex(self) -> Sex:
        """The sex that the radiograph was read for."""
        return Sex.parse(self.reading.sex)


def in_order(visits: Mapping[int, Visit]) -> list[int]:
    """The keys of one child's visits, sorted by age.

    Raises:
        BoneAgeError: the sex is unknown, there are both sexes, or there are several visits and one has no age.
    """
    if unknown := [visit.name for visit in visits.values() if len(visit.result.readings) != 1]:
        raise BoneAgeError(f"the sex of the child in {unknown[0]} is unknown; a report needs --sex F or --sex M")
    if len({visit.sex for visit in visits.values()}) > 1:
        raise BoneAgeError("the radiographs are of both sexes; a report is about one child: give its visits alone")
    ages = {key: visit.result.age for key, visit in visits.items()}
    if len(visits) > 1 and None in ages.values():
        first = next(visits[key].name for key, age in ages.items() if age is None)
        raise BoneAgeError(
            f"the age of the child in {first} is unknown, so that its visits cannot be put in order; give a table of "
            "--labels with the columns id, date and birth_date, or id and age"
        )
    return sorted(visits, key=lambda key: ages[key] or 0.0)


def refuse_several_children(images: Sequence[object]) -> None:
    """Checks that the DICOM headers name the same patient; the values are neither stored nor shown.

    Args:
        images: the images; only DICOM files among them are compared.

    Raises:
        BoneAgeError: two of them name different patients, dates of birth or sexes, or a header is damaged.
    """
    first: dict[str, tuple[str, str]] = {}
    for file in images:
        if not isinstance(file, File) or not is_dicom(data := file.read()):
            continue
        for word, value in _identity(data, file.name).items():
            name, expected = first.setdefault(word, (file.name, value))
            if value != expected:
                raise BoneAgeError(
                    f"the headers of {name} and {file.name} name different {_IDENTITY[word]}; a report is about one "
                    "child: give its visits alone"
                )


def _identity(data: bytes, name: str) -> dict[str, str]:
    """The values of `_IDENTITY` in a DICOM file, without the empty ones.

    Raises:
        BoneAgeError: the header is damaged.
    """
    try:
        with python_warnings.suppressed():  # pydicom quotes values that are not valid
            header = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True, specific_tags=[*_IDENTITY])
            found = {word: str(header.get(word) or "").strip() for word in _IDENTITY}
    except Exception as error:  # a damaged element can raise any exception, with its value in the message
        raise BoneAgeError(f"{name} has a damaged header ({type(error).__name__}); export the file again") from None
    found["PatientBirthDate"] = found["PatientBirthDate"].replace(".", "")  # older files separate the parts with dots
    return {word: value for word, value in found.items() if value}
