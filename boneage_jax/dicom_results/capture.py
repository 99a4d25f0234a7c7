"""The Secondary Capture of a reading: radiograph, heat map and result in one colour picture."""

import textwrap

import numpy as np
from highdicom.sc import SCImage
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from boneage_jax.dicom_results import wording
from boneage_jax.dicom_results.identity import EQUIPMENT, identity
from boneage_jax.predict.prediction import NOTICE
from boneage_jax.predict.results import Result
from boneage_jax.version import __version__

CAPTION = "Left: the radiograph as it was read. Right: the regions that moved the bone age, the strongest in yellow."
PLAIN_CAPTION = "The radiograph as it was read. These weights have no heat map."

_SERIES_NUMBER = 9002  # above the series numbers that modalities use
_LEAST_WIDTH = 1024  # pixels; narrower pictures are padded with black at the sides, so that the text is readable
_WHITE, _GREY, _YELLOW = (255, 255, 255), (170, 170, 170), (255, 220, 0)


def make_capture(
    source: Dataset, result: Result, picture: UInt8[np.ndarray, "h w 3"], *, has_heatmap: bool = True
) -> SCImage:
    """Makes the Secondary Capture of a radiograph.

    Args:
        source: from `source.read_source`.
        result: the result, with one reading.
        picture: from `draw`, in red, green and blue.
        has_heatmap: whether the picture shows a heat map.
    """
    uids = identity(source, result, "capture")
    capture = SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=uids.series,
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uids.instance,
        instance_number=1,
        manufacturer=EQUIPMENT,
        manufacturer_model_name=EQUIPMENT,
        software_versions=__version__,
        series_description=f"Bone age{' heat map' if has_heatmap else ''}, research use only",
        patient_orientation=("L", "F"),  # highdicom insists on one; see below
    )
    capture.copy_patient_and_study_information(source)
    capture.PatientOrientation = []  # unknown: the hand may have been turned before it was read
    capture.Laterality = (
        side if (side := source.get("ImageLaterality") or source.get("Laterality")) in ("L", "R") else ""
    )
    capture.BodyPartExamined = source.get("BodyPartExamined") or "HAND"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    # The text below the radiograph identifies nobody, but the radiograph itself may. If the attribute is absent, a
    # picture may or may not identify the patient (PS3.3, C.7.6.1).
    if (burned_in := source.get("BurnedInAnnotation")) in ("YES", "NO"):
        capture.BurnedInAnnotation = burned_in
    capture.DerivationDescription = (
        "Regions that moved the bone age, over the radiograph" if has_heatmap else "The bone age, below the radiograph"
    )
    capture.SourceImageSequence = [_reference(source)]
    return capture


def draw(
    picture: UInt8[np.ndarray, "h w 3"], result: Result, *, has_heatmap: bool = True
) -> UInt8[np.ndarray, "H W 3"]:
    """Writes the result below a picture.

    Args:
        picture: from `heatmap.illustrate`, in blue, green and red.
        result: the result, with one reading.
        has_heatmap: whether the picture shows a heat map beside the radiograph.

    Returns:
        The picture in red, green and blue, at least 1,024 pixels wide.
    """
    width = max(picture.shape[1], _LEAST_WIDTH)
    large, small = width // 30, width // 60
    lines = [(wording.bone_age(result), large, _WHITE), (NOTICE.upper(), large, _YELLOW)]
    lines += [(text, small, _YELLOW if text.startswith("Warning") else _WHITE) for text in wording.details(result)]
    caption = CAPTION if has_heatmap else PLAIN_CAPTION
    lines += [(caption, small, _GREY), (wording.origin(result), small, _GREY)]
    text = _text(lines, width)
    canvas = Image.new("RGB", (width, picture.shape[0] + text.height))
    canvas.paste(Image.fromarray(picture[..., ::-1].copy()), ((width - picture.shape[1]) // 2, 0))
    canvas.paste(text, (0, picture.shape[0]))
    return np.asarray(canvas)


def _text(lines: list[tuple[str, int, tuple[int, int, int]]], width: int) -> Image.Image:
    """Draws lines of (text, height in pixels, colour), wrapped to the width."""
    margin = width // 60
    placed, top = [], margin
    for text, height, colour in lines:
        font = ImageFont.load_default(height)
        mean = font.getlength(text) / len(text)
        for part in textwrap.wrap(text, int((width - 2 * margin) / mean)):
            placed.append((top, part, font, colour))
            top += round(1.3 * height)
    image = Image.new("RGB", (width, top + margin))
    pen = ImageDraw.Draw(image)
    for top, part, font, colour in placed:
        pen.text((margin, top), part, fill=colour, font=font)
    return image


def _reference(source: Dataset) -> Dataset:
    """The item of the Source Image Sequence that refers to the radiograph."""
    purpose = Dataset()
    code = codes.DCM.SourceImageForImageProcessingOperation
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
