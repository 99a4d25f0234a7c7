"""The image of a DICOM data set as it should be displayed: one value per pixel, bright bones, 8 or 16 bits.

Follows the order of the standard (PS3.3 C.11 and C.8.11.3): modality LUT or rescale, then VOI LUT or the first window,
then one inversion if low values are displayed bright. All steps are combined in one table from stored values to levels.
"""

import contextlib

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.tag import Tag

from boneage_jax.data import dicom_shown, jpeg
from boneage_jax.data.dicom_code import decoder
from boneage_jax.data.files import refuse_huge
from boneage_jax.errors import BoneAgeError

_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_REQUIRED = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    "PhotometricInterpretation",
)
_OVERLAYS = range(0x6000, 0x6020, 2)
"""Overlay groups; a retired form stores overlays in pixel bits that the image does not use (PS3.5 8.1.2)."""
_OVERLAY_BITS_ALLOCATED, _OVERLAY_BIT_POSITION = 0x0100, 0x0102

_OTHERS = (
    *("PlanarConfiguration", "NumberOfFrames", "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("PresentationLUTShape", "PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)

TAGS = [
    *(Tag(word) for word in (*_REQUIRED, *_OTHERS, *dicom_shown.WORDS)),
    *(Tag(group, word) for group in _OVERLAYS for word in (_OVERLAY_BITS_ALLOCATED, _OVERLAY_BIT_POSITION)),
]
"""The elements that the image depends on."""


def shown_image(dataset: Dataset, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The image `[H, W]`, uint8 or uint16, with bright bones, and warnings about unused or possibly damaged data.

    Raises:
      BoneAgeError: as `read_dicom`.
    """
    photometric = _check_before_decoding(dataset, name)
    # correct_unused_bits would wrap values that exceed the stored bits.
    plugin, warnings = decoder(dataset, name)
    with contextlib.ExitStack() as stack:
        doubts = stack.enter_context(jpeg.report_damage(name)) if plugin == "gdcm" else []
        pixels = pixel_array(dataset, decoding_plugin=plugin, correct_unused_bits=False)
    warnings = (*warnings, *doubts)
    pixels = _stored_pixels(pixels, dataset, name)
    if photometric in _COLOUR:
        kind = np.uint8 if dataset.BitsAllocated == 8 else np.uint16
        return cv2.cvtColor(pixels.astype(kind), cv2.COLOR_RGB2GRAY), warnings
    values = _stored_values(dataset)
    place, padding = pixels - values[0], _padding(dataset, pixels)
    if padding.all():
        raise BoneAgeError(f"{name} contains only padding; export the image again")
    found = dicom_shown.shown(dataset, values, np.bincount(place[~padding], minlength=len(values)), name)
    inverted = photometric == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    levels = 1 - found.levels if inverted else found.levels
    table = np.rint(levels * (2**found.bits - 1)).astype(np.uint8 if found.bits <= 8 else np.uint16)
    image = table[place]
    if padding.any():
        image[padding] = image[~padding].min()
    return image, (*warnings, *found.warnings)


def _check_before_decoding(dataset: Dataset, name: str) -> str:
    """Refuses anything but one radiograph of acceptable size; returns the photometric interpretation."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise BoneAgeError(f"{name} has floating-point pixels; expected whole numbers: export it as a radiograph")
    if not dataset.get("PixelData"):
        raise BoneAgeError(f"{name} is a DICOM file without an image: it has no pixel data; export the image itself")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise BoneAgeError(
            f"{name} holds {frames} frames; expected one radiograph: export the frame as a separate file"
        )
    _refuse_incomplete(dataset, name)
    if dataset.Rows < 1 or dataset.Columns < 1:
        raise BoneAgeError(f"{name} has {dataset.Columns} x {dataset.Rows} pixels; export it again")
    refuse_huge(dataset.Columns, dataset.Rows, name)
    photometric = dataset.PhotometricInterpretation
    stored, allocated, signed = dataset.BitsStored, dataset.BitsAllocated, dataset.PixelRepresentation
    if photometric not in _GREY + _COLOUR or dataset.SamplesPerPixel != (1 if photometric in _GREY else 3):
        known = ", ".join(_GREY + _COLOUR)
        raise BoneAgeError(
            f"{name} has the photometric interpretation {photometric} with {dataset.SamplesPerPixel} values per pixel; "
            f"expected one of {known}: export it with one value per pixel"
        )
    if allocated not in (8, 16) or not 8 <= stored <= allocated or dataset.get("HighBit", stored - 1) != stored - 1:
        raise BoneAgeError(
            f"{name} stores {stored} of {allocated} bits per pixel, up to bit {dataset.get('HighBit')}; expected 8 to "
            "16 bits starting at bit 0: export it again"
        )
    if signed not in ((0, 1) if photometric in _GREY else (0,)):
        raise BoneAgeError(
            f"{name} has the pixel representation {signed}, which {photometric} does not allow; export it again"
        )
    return photometric


def _refuse_incomplete(dataset: Dataset, name: str) -> None:
    """Refuses a header that lacks an element needed to read the pixels."""
    for word in _REQUIRED:
        value = dataset.get(word)
        if value is None or value == "":
            raise BoneAgeError(
                f"{name} is a DICOM file without the element {word}, which says how its pixels are stored; export it "
                "again"
            )
        if not isinstance(value, str if word == "PhotometricInterpretation" else int):
            raise BoneAgeError(f"{name} has {value!r} in the element {word}; expected one value: export it again")


def _stored_pixels(pixels: np.ndarray, dataset: Dataset, name: str) -> np.ndarray:
    """The values in the stored bits, int32; `pixels` come from the decoder and include all allocated bits.

    The bits above the stored ones may extend the sign, hold an overlay that the header declares, or be constant over
    the image.

    Raises:
      BoneAgeError: the bits above the stored ones hold anything else.
    """
    stored, allocated = int(dataset.BitsStored), 8 * pixels.dtype.itemsize
    raw = pixels.astype(pixels.dtype.newbyteorder("=")).view(f"u{pixels.dtype.itemsize}").astype(np.int32)
    values, above = raw & (2**stored - 1), raw >> stored
    if dataset.PixelRepresentation:
        negative = values >> (stored - 1) == 1
        values[negative] -= 2**stored
        above[negative & (above == 2 ** (allocated - stored) - 1)] = 0
    above &= ~(_overlay_bits(dataset) >> stored)
    if above.min() != above.max():
        raise BoneAgeError(f"{name} holds pixels beyond its {stored} bits; export it again")
    return values


def _overlay_bits(dataset: Dataset) -> int:
    """Mask of the pixel bits that overlays use; an overlay stored separately has 1 bit allocated, not the pixel's."""
    found = 0
    for group in _OVERLAYS:
        allocated, bit = (dataset.get((group, word)) for word in (_OVERLAY_BITS_ALLOCATED, _OVERLAY_BIT_POSITION))
        if allocated is not None and bit is not None and allocated.value == dataset.BitsAllocated:
            found |= 1 << int(bit.value)
    return found


def _stored_values(dataset: Dataset) -> np.ndarray:
    """All possible stored values, in rising order."""
    count = 2**dataset.BitsStored
    return np.arange(count, dtype=np.int32) - (count // 2 if dataset.PixelRepresentation else 0)


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Mask of the padding pixels, bool `[H, W]`."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted(_signed(int(number), dataset) for number in (value, value if limit is None else limit))
    return (pixels >= low) & (pixels <= high)


def _signed(value: int, dataset: Dataset) -> int:
    """Corrects the sign of a value: its VR should follow PixelRepresentation, but some writers ignore that."""
    span = 2**dataset.BitsAllocated
    return (value + span // 2) % span - span // 2 if dataset.PixelRepresentation else value % span
