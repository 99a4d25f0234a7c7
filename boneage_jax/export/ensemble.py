"""Combines released weights into an ensemble: the mean of their estimates, calibrated and evaluated as a whole."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from boneage_jax.atomic_files import write_text
from boneage_jax.data import rsna
from boneage_jax.data.splits import hospital
from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import report
from boneage_jax.export import card
from boneage_jax.predict.calibrated import Estimates
from boneage_jax.predict.items import Item
from boneage_jax.predict.prediction import Prediction
from boneage_jax.predict.predictor import Predictor
from boneage_jax.released import calibration as calibrating
from boneage_jax.released import weights as released

BATCH = 16


def combine(files: Sequence[Path], out: Path, *, data_dir: Path) -> released.Header:
    """Writes a file with several networks and, beside it, the model card and the evaluation report of the mean.

    The mean is calibrated and evaluated on RSNA's validation split; no member may have been trained on these images.
    For an image that some member cannot read, the first member's calibrated estimate is used. The checks of input
    images are those of the first member.

    Args:
        files: weights files; the first one also provides the heat maps.
        out: the file to write, ".safetensors"; the report goes to a folder of its name.
        data_dir: the folder with the RSNA files.

    Returns:
        The header of the file.

    Raises:
        BoneAgeError: fewer than two members, one that is an ensemble itself, takes further inputs or was trained on
            other data, data without a validation split, a file that cannot be written.
    """
    if out.suffix != ".safetensors":
        raise BoneAgeError(f"{out} does not end in .safetensors; the model card goes beside it as .md")
    members = [released.read(file) for file in files]
    _check(files, members)
    images = rsna.find(data_dir)["validation"]
    items = [Item(image.file, image.sex) for image in images]
    estimates = [_estimates(member, items) for member in members]
    months = np.stack([one.months for one in estimates])
    age, sex = np.array([one.age for one in images], float), np.array([one.sex for one in images])
    mean = months.mean(axis=0)
    together = ~np.isnan(mean)
    hospitals = [hospital(one.id) for one in images]
    weight = calibrating.balanced(hospitals)[together]
    fitted = calibrating.fit(age[together], mean[together], None, weight=weight)
    published = fitted.apply(mean, None)
    first = members[0].header
    alone = calibrating.Calibration.from_dict(first.calibration or {}).apply(months[0], estimates[0].std)
    predicted, std, low, high = (
        np.where(together, getattr(published, key), getattr(alone, key)) for key in ("months", "std", "low", "high")
    )
    figures = report.write(
        out.with_suffix(""),
        ids=[one.id for one in images],
        sex=sex,
        age=age,
        predicted=predicted,
        std=std,
        interval=(low, high),
        hospital=hospitals,
        split="validation",
    )
    figures["calibration"] = calibrating.measure(age[together], mean[together], None, weight=weight)
    for one in members:
        if "regions" in one.header.figures:
            figures["regions"] = one.header.figures["regions"]
    headers = [dataclasses.replace(one.header, checks={}, members=[]) for one in members]
    header = dataclasses.replace(
        first,
        name=out.stem,
        calibration=fitted.to_dict(),
        figures=figures,
        members=[dataclasses.asdict(each) for each in headers],
    )
    networks = tuple(released.Weights(each, one.variables) for each, one in zip(headers, members, strict=True))
    released.write(out, released.Weights(header, members[0].variables, members[0].checks, networks))
    write_text(out.with_suffix(".md"), card.text(released.read_header(out)))
    return header


def _check(files: Sequence[Path], members: Sequence[released.Weights]) -> None:
    if not 2 <= len(members) <= released.MOST_MEMBERS:
        raise BoneAgeError(f"{len(members)} weights files cannot be combined; give 2 to {released.MOST_MEMBERS}")
    for file, member in zip(files, members, strict=True):
        header = member.header
        if header.members:
            raise BoneAgeError(f"{file} already combines several networks; give the files that it was made from")
        if header.model["inputs"] or header.data.get("name") != "rsna_bone_age" or not header.calibration:
            raise BoneAgeError(
                f"{file} cannot be combined: expected calibrated weights that were trained on rsna_bone_age and read "
                "only image and sex"
            )
        if header.storage != members[0].header.storage:
            raise BoneAgeError(f"{file} is stored in {header.storage}, {files[0]} in {members[0].header.storage}")


def _estimates(member: released.Weights, items: Sequence[Item]) -> Estimates:
    """Estimates before calibration; NaN where the network cannot read the image."""
    raw = Predictor(dataclasses.replace(member, header=dataclasses.replace(member.header, calibration=None)))
    found = raw.predict_many(items, batch_size=BATCH, on_error="yield", accept_warnings=True)
    shown = tqdm(found, total=len(items), desc=member.header.name, unit=" images", disable=None)
    read = [(one.months, one.std) if isinstance(one, Prediction) else (np.nan, np.nan) for one in shown]
    std = None if any(one is None for _, one in read) else np.array([one for _, one in read], np.float32)
    return Estimates(np.array([one for one, _ in read], np.float32), std)
