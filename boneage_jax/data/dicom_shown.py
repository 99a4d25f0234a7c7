"""The display level of each stored value of a DICOM image: modality table or rescale, then VOI table or window.

For valid files, pydicom's `apply_modality_lut` and `apply_voi_lut` do the same; the tests use them as the reference.
They are not called here because one table over all stored values replaces float arrays of the image, and because files
have errors: pydicom raises for a width of 0 or for "linear", and shows a blank image if the window lies outside the
range of the pixels.
"""

import dataclasses

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from boneage_jax.errors import BoneAgeError

WORDS = [
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
]
"""The elements that `shown` uses."""

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LEAST_CONTRAST, _LEAST_SHARE = 0.03, 0.1


class _UnusableError(ValueError):
    """Why a table or a window is not used; does not quote the header, which may contain a name."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """The level of each stored value, in rising order of the values.

    Attributes:
      levels: 0 to 1, dark to bright, before any inversion.
      bits: bit depth of the levels.
      warnings: sentences about a table or a window that is not used.
    """

    levels: np.ndarray
    bits: int
    warnings: tuple[str, ...] = ()


def shown(dataset: Dataset, values: np.ndarray, counts: np.ndarray, name: str) -> Shown:
    """Computes the level of each stored value.

    A VOI table or a window that cannot be used, or shows almost nothing of the pixels, is ignored with a warning.

    Args:
      dataset: has the elements `WORDS`.
      values: all possible stored values, rising.
      counts: number of pixels with each value.
      name: the name of the file in error messages.

    Raises:
      BoneAgeError: a modality table or a rescale slope that leaves no image.
    """
    values, low, high, bits = _modality(dataset, values, name)
    plain = Shown((values - low) / (high - low), bits)
    warnings: list[str] = []
    for kind, read in (("VOI table", _voi_table), ("window", _window)):
        try:
            found = read(dataset, values, bits)
            if found is None:
                continue
            if not _shows(found.levels, counts):
                raise _UnusableError("it shows next to nothing of the pixels")
            return dataclasses.replace(found, warnings=tuple(warnings))
        except ValueError as error:
            # Other errors, such as pydicom's, may quote the header.
            reason = error if isinstance(error, _UnusableError) else "its values cannot be read"
            warnings.append(f"The {kind} in the file's header was not used: {reason}.")
    return dataclasses.replace(plain, warnings=tuple(warnings))


def window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """The window of PS3.3 C.11.2.1: maps `values` to levels from 0 to 1, monotonically.

    Raises:
      ValueError: a function other than LINEAR, LINEAR_EXACT or SIGMOID, or a width that it does not allow.
    """
    if function not in _FUNCTIONS:
        raise _UnusableError(f"its function is none of {', '.join(_FUNCTIONS)}")
    least = 1 if function == "LINEAR" else 0
    if not np.isfinite([centre, width]).all() or width < least or width == 0:
        raise _UnusableError(f"its width is {width:g}, which {function} does not allow")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _modality(dataset: Dataset, values: np.ndarray, name: str) -> tuple[np.ndarray, float, float, int]:
    """The values after the modality table or the rescale, their possible minimum and maximum, and their bits."""
    values, bits = values.astype(np.float64), int(dataset.BitsStored)
    if dataset.get("ModalityLUTSequence"):
        try:
            values, bits = _look_up(values, dataset.ModalityLUTSequence[0])
        except ValueError as error:
            raise BoneAgeError(f"{name} has a modality table that cannot be used: {error}; export it again") from None
        return values, 0.0, 2.0**bits - 1, bits
    slope, intercept = _first(dataset.get("RescaleSlope")), _first(dataset.get("RescaleIntercept"))
    slope = 1.0 if slope is None else slope
    if slope == 0 or not np.isfinite([slope, intercept or 0]).all():
        raise BoneAgeError(
            f"{name} has a rescale slope of {slope:g} and an intercept of {intercept or 0:g}, which leave no image; "
            "export it again"
        )
    values = values * slope + (intercept or 0)
    return values, values.min(), values.max(), bits


def _voi_table(dataset: Dataset, values: np.ndarray, bits: int) -> Shown | None:
    del bits
    if not dataset.get("VOILUTSequence"):
        return None
    entries, bits = _look_up(values, dataset.VOILUTSequence[0])
    return Shown(entries / (2.0**bits - 1), bits)


def _window(dataset: Dataset, values: np.ndarray, bits: int) -> Shown | None:
    """Levels by the window; the first one if there are several."""
    centre, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if centre is None and width is None:
        return None
    if centre is None or width is None:
        raise _UnusableError("it has no centre" if centre is None else "it has no width")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    return Shown(window(values, centre, width, function), bits)


def _shows(levels: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the values between the 1st and 99th percentile of the pixels are shown with enough contrast.

    Their levels must span at least `_LEAST_CONTRAST`, and at least `_LEAST_SHARE` of the values must be neither black
    nor white. An image of a single value has no contrast in any window, and passes.
    """
    share = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(share, (0.01, 0.99))
    if first == last:
        return True
    seen = levels[first : last + 1]
    between = (seen > 0.01) & (seen < 0.99)
    return bool(np.ptp(seen) >= _LEAST_CONTRAST and between.mean() >= _LEAST_SHARE)


def _look_up(values: np.ndarray, item: Dataset) -> tuple[np.ndarray, int]:
    """Maps values by a look-up table; values before its first or after its last entry take that entry.

    Raises:
      ValueError: its descriptor or its data are missing, or they do not match.
    """
    descriptor = item.get("LUTDescriptor")
    if descriptor is None or len(descriptor) != 3 or item.get("LUTData") is None:
        raise _UnusableError("its descriptor or its data are missing")
    count, first, bits = (int(number) for number in descriptor)
    count = count % 2**16 or 2**16
    if first >= 2**15 and values.min() < 0:
        first -= 2**16  # Written as unsigned although the values are signed.
    entries = _entries(item, count)
    if not 8 <= bits <= 16 or len(entries) < count:
        raise _UnusableError(f"it has {len(entries)} entries of {bits} bits, expected {count} of 8 to 16 bits")
    place = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return np.minimum(entries[place], 2**bits - 1).astype(np.float64), bits


def _entries(item: Dataset, count: int) -> np.ndarray:
    """The entries of a look-up table: 16-bit words, or bytes if the data is too short for words."""
    data = item.LUTData
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    if len(data) < 2 * count:
        return np.frombuffer(data, np.uint8)
    order = ">" if item.is_little_endian is False else "<"
    return np.frombuffer(data[: 2 * count], f"{order}u2")


def _first(value: object) -> float | None:
    """The first number, or None if the element is absent or empty."""
    if isinstance(value, (list, MultiValue)):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)  # type: ignore[arg-type]
