"""The result of reading one image, its provenance, and the refusal of an image that the checks distrust."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from boneage_jax.data.header import Header
from boneage_jax.data.preprocess import VERSION as PREPROCESSING_VERSION
from boneage_jax.errors import BoneAgeError
from boneage_jax.released.checks import Finding
from boneage_jax.version import __version__

NOTICE = "Research use only. Not a medical device."


class MissingSexError(BoneAgeError):
    """Neither the caller nor the file's header names the sex."""


class RefusedImageError(BoneAgeError):
    """The checks distrust an image, so it gets no bone age unless the caller accepts warnings.

    Attributes:
        findings: the warnings of the checks.
    """

    def __init__(self, name: str, findings: Sequence[Finding]):
        super().__init__(f"{name} is refused: {' '.join(one.text for one in findings).removesuffix('.')}")
        self.findings = tuple(findings)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The program and the weights that made a result, and when.

    Attributes:
        weights: name of the weights, from their header.
        sha256: checksum of the weights file; None for weights that were not read from a file.
        time: when the result was made, UTC.
        version: version of the package.
        preprocessing: version of the preprocessing from pixels to network input.
    """

    weights: str
    sha256: str | None
    time: datetime.datetime
    version: str = __version__
    preprocessing: int = PREPROCESSING_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, with the notice that the result is for research use only."""
        return {
            "version": self.version,
            "weights": self.weights,
            "weights_sha256": self.sha256,
            "preprocessing": self.preprocessing,
            "time": self.time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notice": NOTICE,
        }


@dataclasses.dataclass(frozen=True)
class RegionReading:
    """The bone age read from one region of the hand.

    Attributes:
        months: bone age.
        interval: contains the reference age of nine in ten images; None without calibration.
    """

    months: float
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The bone age of one image, in months.

    If the sex is unknown, `by_sex` has the reading for each sex, and the other figures are None.

    Attributes:
        months: bone age; None if the sex is unknown.
        std: expected error (root mean square); None for a network that does not predict one.
        interval: contains the reference age of nine in ten images; None without calibration.
        sex: "F", "M" or "unknown".
        by_sex: both readings, under "F" and "M", if the sex is unknown.
        regions: readings of the hand regions that were found, by name; empty for networks that read the hand as a
            whole, and if the sex is unknown.
        regions_disagree: whether these lie farther apart than in 99 of 100 radiographs.
        warnings: reasons not to rely on the prediction, in sentences.
        notes: corrections made to the image before it was read, and further remarks, in sentences.
        header: the file's metadata that matter to a reading, see `Header`; None for an image given as pixels.
        inputs: the network's further inputs by name, as it took them, see `items.read_inputs`.
        provenance: program, weights and time; None in the readings of `by_sex`.
    """

    months: float | None
    std: float | None
    interval: tuple[float, float] | None
    sex: str
    by_sex: Mapping[str, "Prediction"] | None = None
    regions: Mapping[str, RegionReading] = dataclasses.field(default_factory=dict)
    regions_disagree: bool = False
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    header: Header | None = None
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    provenance: Provenance | None = dataclasses.field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields except header and inputs, as JSON types; regions only if there are readings of them."""
        regions = {
            name: {"months": one.months, "interval": None if one.interval is None else list(one.interval)}
            for name, one in self.regions.items()
        }
        return {
            "months": self.months,
            "std": self.std,
            "interval": None if self.interval is None else list(self.interval),
            "sex": self.sex,
            "by_sex": None if self.by_sex is None else {sex: one.to_dict() for sex, one in self.by_sex.items()},
            **({"regions": regions, "regions_disagree": self.regions_disagree} if regions else {}),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "provenance": None if self.provenance is None else self.provenance.to_dict(),
        }
