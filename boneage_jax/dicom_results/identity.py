"""UIDs of results, and what the results say about the program that made them."""

import uuid
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import UID

from boneage_jax.predict.prediction import Provenance
from boneage_jax.predict.results import Result
from boneage_jax.version import __version__

EQUIPMENT = "boneage_jax"
"""Manufacturer and model name in the objects of this package, by which it recognises them."""


class Identity(NamedTuple):
    """UIDs of one result.

    Attributes:
        series: of one object.
        instance: of the object itself.
        tracking: of the measurement, across reports.
    """

    series: UID
    instance: UID
    tracking: UID


def identity(source: Dataset, result: Result, role: str) -> Identity:
    """The UIDs of the result of a radiograph.

    They are derived from the image, the weights, the program's version, the sex and the age. Reading an image again
    the same way gives the same UIDs, so that an archive keeps one result even if it receives it twice; reading it
    another way gives others.

    Args:
        source: from `source.read_source`.
        result: of its reading.
        role: of the object among the results of one reading.
    """
    provenance = provenance_of(result)
    weights = provenance.sha256 or provenance.weights
    key = (source.SOPInstanceUID, weights, provenance.version, result.sex, result.age)
    return Identity(_uid("series", role, *key), _uid("instance", role, *key), _uid("measurement", *key))


def device_uid() -> UID:
    """The UID of this version of the program as an observer."""
    return _uid("device", EQUIPMENT, __version__)


def provenance_of(result: Result) -> Provenance:
    """The provenance of a result that was read; every one has it."""
    assert result.provenance is not None
    return result.provenance


def _uid(*parts: Any) -> UID:
    """A UID below 2.25, the root for UUIDs (PS3.5, B.2), the same for the same parts."""
    name = "\0".join(["boneage_jax", *map(str, parts)])
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}")
