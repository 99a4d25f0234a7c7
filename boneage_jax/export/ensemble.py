"""Combines released weights into an ensemble: the mean of their estimates, calibrated and evaluated as a whole."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boneage_jax.data import rsna
from boneage_jax.data.files import make_folder
from boneage_jax.data.rsna import LabelledImage
from boneage_jax.data.splits import hospital
from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import report
from boneage_jax.export import card, sources
from boneage_jax.export.estimates import estimate
from boneage_jax.predict.calibrated import Estimates, mean_of
from boneage_jax.predict.items import Item
from boneage_jax.released import calibration as calibrating
from boneage_jax.released import weights as released
from boneage_jax.version import __version__

_FIELDS = tuple(field.name for field in dataclasses.fields(calibrating.Calibrated))


def combine(files: Sequence[Path], out: Path, *, data_dir: Path) -> released.Header:
    """Writes a file with several networks and, beside it, the model card and the evaluation report of the mean.

    The mean is calibrated and evaluated on the validation split; no member may have been trained on these images. For
    an image that some member cannot read, the first member's calibrated estimate is used. The checks of input images
    are those of the first member.

    Args:
        files: weights files; the first one also provides the heat maps.
        out: the file to write, ".safetensors"; the report goes to a folder of its name.
        data_dir: the folder with the data that the members were trained on.

    Returns:
        The header of the file.

    Raises:
        BoneAgeError: fewer than two members, one that is an ensemble itself, takes further inputs or was trained on
            other data, too few validation images, `out` is one of the files or cannot be written.
    """
    members = [released.read(file) for file in files]
    _check(files, members)
    prepare_target(out, files)
    images = rsna.find(data_dir)["validation"]
    official = rsna.is_official(data_dir)
    hospitals = [hospital(one.id) if official else "" for one in images]
    items = [Item(image.file, image.sex) for image in images]
    estimates = [estimate(member, items, checks_of=members[0])[0] for member in members]
    age = np.array([one.age for one in images], float)
    fitted, cross_fitted = calibrate_mean(estimates, age, calibrating.balanced(hospitals))
    alone = calibrating.Calibration.from_dict(members[0].header.calibration or {})
    reported = published(fitted, alone, estimates)
    figures = write_report(out, images, reported, hospitals, "validation")
    figures["calibration"] = cross_fitted
    for one in members:
        if "regions" in one.header.figures:
            figures["regions"] = one.header.figures["regions"]
    combined = _combined(members, out.stem, fitted, figures)
    card.write_weights(out, combined)
    return combined.header


def _check(files: Sequence[Path], members: Sequence[released.Weights]) -> None:
    """Raises BoneAgeError unless these weights can be combined."""
    if not 2 <= len(members) <= released.MOST_MEMBERS:
        raise BoneAgeError(f"{len(members)} weights files cannot be combined; give 2 to {released.MOST_MEMBERS}")
    first = members[0].header
    for file, member in zip(files, members, strict=True):
        header = member.header
        if header.members:
            raise BoneAgeError(f"{file} already combines several networks; give the files that it was made from")
        radiographs = header.data.get("name") in (sources.RSNA["name"], sources.OTHER)
        if header.model["inputs"] or not radiographs or not header.calibration:
            raise BoneAgeError(
                f"{file} cannot be combined: expected calibrated weights that were trained on radiographs and read "
                "only image and sex"
            )
        if header.data.get("title") != first.data.get("title"):
            raise BoneAgeError(
                f"{file} was trained on other data ({header.data.get('title')}) than {files[0]} "
                f"({first.data.get('title')}); combine weights that were trained on the same data"
            )
        if header.storage != first.storage:
            raise BoneAgeError(f"{file} is stored in {header.storage}, {files[0]} in {first.storage}")


def calibrate_mean(
    estimates: Sequence[Estimates], age: np.ndarray, weight: np.ndarray
) -> tuple[calibrating.Calibration, dict[str, Any]]:
    """The calibration of the mean of several networks, and its cross-fitted metrics, on the images that all can read.

    Raises:
        BoneAgeError: too few such images.
    """
    mean = mean_of(estimates)
    together = ~np.isnan(mean.months)
    given = age[together], mean.months[together], None if mean.std is None else mean.std[together]
    return calibrating.fit(*given, weight=weight[together]), calibrating.measure(*given, weight=weight[together])


def published(
    calibration: calibrating.Calibration, alone: calibrating.Calibration, estimates: Sequence[Estimates]
) -> calibrating.Calibrated:
    """The reported values of every image, as `predict.averaging` reports them.

    Args:
        calibration: of the mean, or of the only network.
        alone: of the first network, for images that another one cannot read.
        estimates: of every network.
    """
    mean = mean_of(estimates)
    of_mean = calibration.apply(mean.months, mean.std)
    of_first = alone.apply(estimates[0].months, estimates[0].std)
    columns = (np.where(np.isnan(mean.months), getattr(of_first, key), getattr(of_mean, key)) for key in _FIELDS)
    return calibrating.Calibrated(*columns)


def prepare_target(out: Path, files: Iterable[Path]) -> None:
    """Checks `out` before images are read, and creates the folder of the report.

    Args:
        out: the file to write.
        files: the weights files that are read.

    Raises:
        BoneAgeError: `out` has another suffix, is a folder or one of the files, or the folder cannot be created.
    """
    card.check_target(out)
    if os.path.exists(out) and any(os.path.exists(file) and os.path.samefile(out, file) for file in files):
        raise BoneAgeError(f"{out} is one of the weights files that are read, and is not overwritten; choose another")
    make_folder(out.with_suffix(""), "--out")


def write_report(
    out: Path, images: Sequence[LabelledImage], reported: calibrating.Calibrated, hospitals: Sequence[str], split: str
) -> dict[str, Any]:
    """Writes the evaluation of weights into the folder of their name; returns the result of `report.write`."""
    return report.write(
        out.with_suffix(""),
        ids=[one.id for one in images],
        sex=np.array([one.sex for one in images]),
        age=np.array([one.age for one in images], float),
        predicted=reported.months,
        std=reported.std,
        interval=(reported.low, reported.high),
        hospital=hospitals,
        split=split,
    )


def _combined(
    members: Sequence[released.Weights], name: str, fitted: calibrating.Calibration, figures: dict[str, Any]
) -> released.Weights:
    """All networks as one file; its header is the first one's, except for what describes the mean."""
    headers = [dataclasses.replace(one.header, checks={}, members=[]) for one in members]
    first = members[0]
    data = {key: value for key, value in first.header.data.items() if key != "calibrated_on"}
    initial: list[dict[str, Any]] = []
    for one in headers:
        initial += [source for source in one.data.get("initialised_from", []) if source not in initial]
    header = dataclasses.replace(
        first.header,
        name=name,
        version=__version__,
        calibration=fitted.to_dict(),
        data=data
        | {
            "measured_split": "validation",
            "measured_images": figures["overall"]["count"],
            "initialised_from": initial,
        },
        figures=figures,
        members=[dataclasses.asdict(each) for each in headers],
    )
    networks = tuple(released.Weights(each, one.variables) for each, one in zip(headers, members, strict=True))
    return released.Weights(header, first.variables, first.checks, networks)
