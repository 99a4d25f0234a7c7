"""The image of a DICOM data set as it is to be shown: grey, bright bones, 8 or 16 bits.

The order of the standard (PS3.3 C.11 and C.8.11.3): modality LUT or rescale, then VOI LUT or the first window, then one
inversion if low values are to be shown bright. All of it is one table from stored values to grey levels.
"""

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels import pixel_array

from boneage_jax.data.dicom_code import decoder
from boneage_jax.data.files import refuse_huge
from boneage_jax.errors import BoneAgeError

_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

WORDS = [
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
]
"""The elements that the image depends on."""


def shown_image(dataset: Dataset, name: str) -> np.ndarray:
    """Grey `[H, W]`, uint8 or uint16, with bright bones.

    Raises:
      BoneAgeError: as `read_dicom`.
    """
    photometric = _check_before_decoding(dataset, name)
    pixels = pixel_array(dataset, decoding_plugin=decoder(dataset, name))
    if photometric in _COLOUR:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    levels, bits = _shown(dataset, name)
    inverted = photometric == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    kind = np.uint8 if bits <= 8 else np.uint16
    table = np.rint((1 - levels if inverted else levels) * (2**bits - 1)).astype(kind)
    place = pixels.astype(np.int32) - _stored_values(dataset)[0]
    if place.min() < 0 or place.max() >= len(table):
        raise BoneAgeError(f"{name} holds pixels beyond its {dataset.BitsStored} bits; export it again.")
    image = table[place]
    return _darken(image, _padding(dataset, pixels), name)


def _check_before_decoding(dataset: Dataset, name: str) -> str:
    """Refuses what is no single radiograph of acceptable size; returns the photometric interpretation."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise BoneAgeError(f"{name} holds pixels in floating point; expected whole numbers: export it as a radiograph.")
    if "PixelData" not in dataset:
        raise BoneAgeError(f"{name} is a DICOM file without an image: it has no pixel data; export the image itself.")
    if (frames := int(dataset.get("NumberOfFrames") or 1)) != 1:
        raise BoneAgeError(
            f"{name} holds {frames} frames; expected one radiograph: export the frame as a file of its own."
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows < 1 or columns < 1:
        raise BoneAgeError(f"{name} has {columns} x {rows} pixels; export it again.")
    refuse_huge(columns, rows, name)
    photometric = dataset.PhotometricInterpretation
    stored, allocated = dataset.BitsStored, dataset.BitsAllocated
    if photometric not in _GREY + _COLOUR or dataset.SamplesPerPixel != (1 if photometric in _GREY else 3):
        known = ", ".join(_GREY + _COLOUR)
        raise BoneAgeError(
            f"{name} has the photometric interpretation {photometric} with {dataset.SamplesPerPixel} values per pixel; "
            f"expected one of {known}: export it as grey."
        )
    if allocated not in (8, 16) or not 8 <= stored <= allocated or dataset.get("HighBit", stored - 1) != stored - 1:
        raise BoneAgeError(
            f"{name} keeps {stored} bits of {allocated} per pixel up to bit {dataset.get('HighBit')}; expected 8 to 16 "
            "bits from bit 0 on: export it again."
        )
    return photometric


def _stored_values(dataset: Dataset) -> np.ndarray:
    """All values that a pixel can have, in rising order."""
    count = 2**dataset.BitsStored
    return np.arange(count) - (count // 2 if dataset.PixelRepresentation else 0)


def _shown(dataset: Dataset, name: str) -> tuple[np.ndarray, int]:
    """What is shown for each stored value, from 0 to 1 (dark to bright, before inversion), and the bits it is worth."""
    values, bits = _stored_values(dataset).astype(np.float64), int(dataset.BitsStored)
    if dataset.get("ModalityLUTSequence"):
        values, bits = _look_up(values, dataset.ModalityLUTSequence[0], name)
        low, high = 0.0, 2.0**bits - 1
    else:
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        slope = 1.0 if slope is None else float(slope)
        if slope == 0 or not np.isfinite(slope):
            raise BoneAgeError(f"{name} has a rescale slope of {slope:g}, which leaves no image; export it again.")
        values = values * slope + float(intercept or 0)
        low, high = values.min(), values.max()
    if dataset.get("VOILUTSequence"):
        values, bits = _look_up(values, dataset.VOILUTSequence[0], name)
        return values / (2.0**bits - 1), bits
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None or width is None:
        return (values - low) / (high - low), bits
    return window(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"), name), bits


def window(values: np.ndarray, centre: float, width: float, function: str, name: str) -> np.ndarray:
    """The window of PS3.3 C.11.2.1: `values` to what is shown, from 0 to 1, never falling.

    Raises:
      BoneAgeError: another function than LINEAR, LINEAR_EXACT or SIGMOID, or a width that it does not allow.
    """
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise BoneAgeError(f"{name} has the window function {function!r}; expected LINEAR, LINEAR_EXACT or SIGMOID.")
    least = 1 if function == "LINEAR" else 0
    if not np.isfinite([centre, width]).all() or width < least or width == 0:
        raise BoneAgeError(
            f"{name} has a window of the width {width:g}, which {function} does not allow; export it again."
        )
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _look_up(values: np.ndarray, item: Dataset, name: str) -> tuple[np.ndarray, int]:
    """Entries of a look-up table; values before its first and behind its last entry take those."""
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count % 2**16 or 2**16
    if first >= 2**15 and values.min() < 0:
        first -= 2**16  # Written without a sign where the values have one.
    entries = _entries(item)
    if not 8 <= bits <= 16 or len(entries) < count:
        raise BoneAgeError(
            f"{name} has a look-up table of {len(entries)} entries of {bits} bits; expected {count} of 8 to 16 bits: "
            "export it again."
        )
    place = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return np.minimum(entries[place], 2**bits - 1).astype(np.float64), bits


def _entries(item: Dataset) -> np.ndarray:
    """The entries of a look-up table, which are words, or bytes where the table is short of words."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    count = int(item.LUTDescriptor[0]) % 2**16 or 2**16
    if len(data) < 2 * count:
        return np.frombuffer(data, np.uint8)
    order = ">" if item.is_little_endian is False else "<"
    return np.frombuffer(data[: 2 * count], f"{order}u2")


def _first(value: object) -> float | None:
    """The first of several numbers, the only one, or None where the element is absent or empty."""
    if isinstance(value, (list, MultiValue)):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)  # type: ignore[arg-type]


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Where pixels stand for no measurement, bool `[H, W]`."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit", value)
    low, high = sorted(_signed(int(number), dataset) for number in (value, limit))
    return (pixels >= low) & (pixels <= high)


def _signed(value: int, dataset: Dataset) -> int:
    """A value whose sign got lost or invented: its VR follows the pixels' representation, which writers forget."""
    span = 2**dataset.BitsAllocated
    return (value + span // 2) % span - span // 2 if dataset.PixelRepresentation else value % span


def _darken(image: np.ndarray, padding: np.ndarray, name: str) -> np.ndarray:
    if padding.all():
        raise BoneAgeError(f"{name} holds nothing but padding; export the image again.")
    if padding.any():
        image[padding] = image[~padding].min()
    return image
