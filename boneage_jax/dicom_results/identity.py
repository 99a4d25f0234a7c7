"""UIDs of the results, and the equipment and provenance recorded in them."""

import hashlib
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from boneage_jax.predict.prediction import Provenance
from boneage_jax.predict.results import Result
from boneage_jax.version import __version__

EQUIPMENT = "boneage_jax"
"""Manufacturer and model name in the objects of this package, which uses them to recognise its own objects."""


class Identity(NamedTuple):
    """UIDs of one result.

    Attributes:
        series: UID of the series, which holds one object.
        instance: UID of the object itself.
        tracking: UID of the measurement, the same across reports.
    """

    series: UID
    instance: UID
    tracking: UID


def identity(source: Dataset, result: Result, role: str) -> Identity:
    """The UIDs of the result of a radiograph.

    They are derived from the image, the weights, the program's version, the sex, the age, the network's further inputs
    if it has any, and whether the regions were found, which may add warnings. If an image is read again with the same
    settings, the UIDs are the same, so an archive keeps one result even if it receives it twice. Other settings give
    other UIDs.

    Args:
        source: from `source.read_source`.
        result: the result of reading the radiograph.
        role: distinguishes the objects of one result: "report" or "capture".
    """
    provenance = provenance_of(result)
    weights = provenance.sha256 or provenance.weights
    key = (source.SOPInstanceUID, weights, provenance.version, result.sex, result.age, *_further(result))
    key += ("regions",) if result.regions is not None else ()
    return Identity(_uid("series", role, *key), _uid("instance", role, *key), _uid("measurement", *key))


def device_uid() -> UID:
    """The UID of this version of the program as an observer."""
    return _uid("device", EQUIPMENT, __version__)


def provenance_of(result: Result) -> Provenance:
    """The provenance of a result with a reading, which always has one."""
    assert result.provenance is not None
    return result.provenance


def _further(result: Result) -> Iterator[str]:
    """The name and value of each further input, for a heat map the SHA-256 of its pixels, in alphabetical order."""
    for name, value in sorted(result.inputs.items()):
        yield name
        yield str(value) if np.ndim(value) == 0 else hashlib.sha256(np.asarray(value).tobytes()).hexdigest()


def _uid(*parts: Any) -> UID:
    """A UID under 2.25, the root for UUIDs (PS3.5, B.2); the same parts give the same UID."""
    name = "\0".join(["boneage_jax", *map(str, parts)])
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")
