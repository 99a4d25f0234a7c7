"""Fits the calibration of released weights anew, to labelled images of another hospital; the networks stay the same."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging

from boneage_jax.data.rsna import LabelledImage
from boneage_jax.errors import BoneAgeError
from boneage_jax.export import card, sources
from boneage_jax.export.ensemble import calibrate_mean, prepare_target, published, write_report
from boneage_jax.export.estimates import estimate, region_figures
from boneage_jax.predict.calibrated import Estimates
from boneage_jax.predict.items import Item
from boneage_jax.predict.predictor import OnError
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released import calibration as calibrating
from boneage_jax.released import weights as released
from boneage_jax.released.calibration import MINIMUM, Calibration
from boneage_jax.version import __version__

_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True)
class Recalibrated:
    """The result of `recalibrate`.

    Attributes:
        header: of the file that was written.
        mae_before: mean absolute error with the earlier calibration on the images that every network reads, months.
        coverage_before: share of their reference ages within the earlier intervals; None if there were none.
    """

    header: released.Header
    mae_before: float
    coverage_before: float | None


def recalibrate(
    weights: released.Weights,
    out: Path,
    *,
    images: Sequence[LabelledImage],
    items: Sequence[Item],
    hospitals: Sequence[str],
    split: str,
    source: str | None = None,
    on_error: OnError = "raise",
) -> Recalibrated:
    """Writes a copy of weights with a new calibration and, beside it, its model card and the evaluation report.

    Every network in the file is calibrated by itself and, if there are several, their mean.

    Args:
        weights: with or without a calibration.
        out: the file to write, ".safetensors"; the report goes to a folder of its name.
        images: labelled images that the networks were not trained on.
        items: the same images as the networks read them.
        hospitals: hospital of each image, "" if unknown; every hospital has the same weight.
        split: name of the images in the report.
        source: who provided the images; None if the caller does not name it.
        on_error: for an image that cannot be read: "raise", or "yield" to log a warning and leave it out.

    Raises:
        BoneAgeError: fewer than 100 images that a network can read or that show a region, an image that cannot be read,
            an empty source, `out` is the file of the weights or cannot be written.
    """
    provider = sources.describe(sources.OTHER, official=False, source=source)
    _check_count(len(images), "labelled images")
    prepare_target(out, () if weights.file is None else (weights.file,))
    networks = weights.members or (weights,)
    first, errors = estimate(networks[0], items, checks_of=weights, on_error=on_error)
    for error in errors.values():
        logging.warning("%s; the image is left out.", error)
    read = [place for place in range(len(images)) if place not in errors]
    _check_count(len(read), "labelled images that can be read")
    images, items, hospitals = _at(images, read), _at(items, read), _at(hospitals, read)
    # Where one of the others cannot read an image, the first network reads it alone.
    estimates = [first.rows(read), *(estimate(each, items, checks_of=weights)[0] for each in networks[1:])]
    age = np.array([image.age for image in images], float)
    weight = calibrating.balanced(hospitals)
    own = [_fit(network.header, found, age, weight) for network, found in zip(networks, estimates, strict=True)]
    if len(networks) > 1:
        fitted, measured = calibrate_mean(estimates, age, weight)
    else:
        fitted, measured = own[0], calibrating.measure(age, estimates[0].months, estimates[0].std, weight=weight)
    reported = published(fitted, own[0], estimates)
    figures = _figures(weights, estimates, age, weight) | {"calibration": measured}
    figures |= write_report(out, images, reported, hospitals, split)
    members = tuple(
        dataclasses.replace(one, header=dataclasses.replace(one.header, calibration=calibration.to_dict()))
        for one, calibration in zip(weights.members, own if weights.members else (), strict=True)
    )
    header = dataclasses.replace(
        weights.header,
        name=out.stem,
        version=__version__,
        calibration=fitted.to_dict(),
        data=weights.header.data
        | {"measured_split": split, "measured_images": len(images), "calibrated_on": provider["title"]},
        figures=figures,
        members=[dataclasses.asdict(one.header) for one in members],
    )
    card.write_weights(out, dataclasses.replace(weights, header=header, members=members))
    return Recalibrated(header, *_before(weights, estimates, age))


def _at(values: Sequence[_Value], places: Sequence[int]) -> list[_Value]:
    return [values[place] for place in places]


def _fit(header: released.Header, found: Estimates, age: np.ndarray, weight: np.ndarray) -> Calibration:
    """The calibration of one network.

    Raises:
        BoneAgeError: too few images that it can read, or that show a region.
    """
    seen = ~np.isnan(found.months)
    _check_count(int(seen.sum()), f"images that {header.name!r} can read")
    if found.parts is not None:
        for name, count in zip(NAMES, (~np.isnan(found.parts[seen])).sum(axis=0).tolist(), strict=True):
            _check_count(count, f"images that show the region {name}")
    here = found.rows(np.flatnonzero(seen).tolist())
    return calibrating.fit(age[seen], here.months, here.std, here.parts, weight=weight[seen])


def _check_count(count: int, what: str) -> None:
    if count < MINIMUM:
        raise BoneAgeError(
            f"{count} {what} are too few for a calibration, expected {MINIMUM} or more; give more images"
        )


def _figures(
    weights: released.Weights, estimates: Sequence[Estimates], age: np.ndarray, weight: np.ndarray
) -> dict[str, Any]:
    """The figures beside those of the report: what was measured of the networks, and the regions on these images."""
    kept = {key: value for key, value in weights.header.figures.items() if key == "attention"}
    for found in estimates:
        if found.parts is not None:
            kept["regions"] = region_figures(age, found.parts, weight)
    return kept


def _before(weights: released.Weights, estimates: Sequence[Estimates], age: np.ndarray) -> tuple[float, float | None]:
    """Error and coverage with the calibration that the weights had, on the images that every network reads."""
    together = ~np.isnan([one.months for one in estimates]).any(axis=0)
    estimates, age = [one.rows(np.flatnonzero(together).tolist()) for one in estimates], age[together]
    first = weights.members[0].header if weights.members else weights.header
    if weights.header.calibration is None or first.calibration is None:
        return float(np.abs(estimates[0].months - age).mean()), None
    earlier = published(
        Calibration.from_dict(weights.header.calibration), Calibration.from_dict(first.calibration), estimates
    )
    covered = (earlier.low <= age) & (age <= earlier.high)
    return float(np.abs(earlier.months - age).mean()), float(covered.mean())
