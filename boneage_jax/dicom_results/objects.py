"""Makes the two DICOM objects of a result from the radiograph's file, and writes them to files."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from pydicom.dataset import Dataset

from boneage_jax.atomic_files import refuse_existing, write_new
from boneage_jax.data import python_warnings
from boneage_jax.dicom_results.capture import draw, make_capture
from boneage_jax.dicom_results.report import make_report
from boneage_jax.dicom_results.source import SourceError, read_source
from boneage_jax.dicom_results.wording import sentences
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.results import Result

UTF_8 = "ISO_IR 192"
"""Defined Term of Unicode in UTF-8 (PS3.3, C.12.1.1.2)."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """The results of one radiograph as DICOM files.

    Attributes:
        report: the Structured Report.
        capture: the Secondary Capture.
    """

    report: bytes
    capture: bytes

    def write(self, report: Path, capture: Path) -> None:
        """Writes both as new files, or neither.

        Raises:
            BoneAgeError: one of them exists, or cannot be written.
        """
        for path in (report, capture):
            refuse_existing(path)
        write_new(report, self.report)
        try:
            write_new(capture, self.capture)
        except BaseException:
            report.unlink(missing_ok=True)
            raise


def make(
    data: bytes,
    name: str,
    result: Result,
    picture: Callable[[], UInt8[np.ndarray, "h w 3"]],
    *,
    has_heatmap: bool = True,
) -> Objects:
    """Makes the DICOM objects of a result.

    Args:
        data: the bytes of the radiograph's file.
        name: name of the file in errors.
        result: the result of reading the radiograph.
        picture: draws the picture of the Secondary Capture (blue, green, red) like `heatmap.illustrate`; called only
            after the source has been checked.
        has_heatmap: whether the picture shows a heat map beside the radiograph.

    Raises:
        BoneAgeError: the sex is unknown, so there is no single bone age, or the file cannot be a source of DICOM
            results (see `source.read_source`).
    """
    if len(result.readings) != 1:
        raise BoneAgeError(
            f"{name} was read for both sexes, and a DICOM result has one bone age; give the sex (--sex F or --sex M)"
        )
    source = read_source(data, name)
    drawn = draw(picture(), result, has_heatmap=has_heatmap)
    try:
        with python_warnings.suppressed():  # highdicom warnings quote names that lack a caret
            made = make_report(source, result), make_capture(source, result, drawn, has_heatmap=has_heatmap)
            characters = _character_set(source, result, name)
            return Objects(*(_encoded(one, characters) for one in made))
    except (MemoryError, SourceError):
        raise
    except Exception as error:  # a value that highdicom or pydicom does not accept; the message may quote it
        raise SourceError(
            f"{name} has a header that cannot be copied into results ({type(error).__name__}); correct the header"
        ) from None


def _character_set(source: Dataset, result: Result, name: str) -> str | Sequence[str] | None:
    """The character set of the results: that of the source, or UTF-8 if a sentence of the result is not ASCII.

    Every character set contains ASCII. The name of the weights and code meanings from the header may have characters
    that the set of the source lacks.

    Raises:
        SourceError: UTF-8 is needed, but text of the source has no declared character set, so it cannot be converted.
    """
    declared: str | Sequence[str] | None = source.get("SpecificCharacterSet")
    if all(sentence.isascii() for sentence in sentences(result)):
        return declared
    if not declared and not all(str(element.value).isascii() for element in source):
        raise SourceError(
            f"{name} has text outside ASCII without a Specific Character Set, and the results have other characters "
            "too, so one character set cannot be declared for both; correct the header"
        )
    return UTF_8


def _encoded(made: Dataset, characters: str | Sequence[str] | None) -> bytes:
    """The bytes of the DICOM file, with its text in this character set."""
    if characters is not None:
        made.SpecificCharacterSet = characters
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
