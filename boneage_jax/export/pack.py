"""Exports a run's best checkpoint as released weights, calibrated and evaluated on images it was not trained on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from boneage_jax import data
from boneage_jax.atomic_files import write_text
from boneage_jax.errors import BoneAgeError
from boneage_jax.export import card, check_fitting
from boneage_jax.regions.fingers import NAMES
from boneage_jax.released import calibration as calibrating
from boneage_jax.released import weights as released
from boneage_jax.train import evaluation, parallel
from boneage_jax.train.experiment import Experiment, describe_network, load_data
from boneage_jax.version import __version__

CHECKS_IMAGES = 8000  # radiographs to fit the checks on; the documented rates are for this number

# Settings with local paths, which are removed from exported configurations.
_PATHS = ("data.dir", "data.cache", "data.keypoints")
SOURCES: dict[str, dict[str, str]] = {
    "rsna_bone_age": {
        "title": "RSNA Pediatric Bone Age Machine Learning Challenge 2017 "
        "(Stanford University, University of Colorado, UCLA)",
        "url": "https://www.rsna.org/rsnai/ai-image-challenge/rsna-pediatric-bone-age-challenge-2017",
        "terms": "academic research, education and other non-commercial use; no attempt to identify anyone",
        "citation": "Halabi SS, Prevedello LM, Kalpathy-Cramer J, et al. The RSNA Pediatric Bone Age Machine Learning "
        "Challenge. Radiology 2018; 290(2):498-503",
    },
    "phantom": {
        "title": "phantoms: drawn hands of children who do not exist",
        "url": "",
        "terms": "none",
        "citation": "",
    },
}


def export(
    workdir: Path,
    out: Path,
    *,
    storage: str = "float32",
    split: str | None = None,
    data_dir: str | None = None,
    views: str | None = None,
    calibrated: bool = True,
    checks: int = CHECKS_IMAGES,
) -> released.Header:
    """Writes the weights to `out` and their model card beside them, as `.md`.

    The split is predicted again: the report goes to `workdir/evaluate/<split>` and the calibration to `workdir`, so
    that later evaluations of the run give the same months as the exported file. Released weights compute in float32,
    whatever the type in training, so that results on different processors differ only by float32 rounding.

    Args:
        workdir: of a training run.
        out: the file to write, ".safetensors".
        storage: "float32", "bfloat16" or "float16".
        split: the split on which to calibrate and evaluate; by default the one that the run evaluated.
        data_dir: folder with the data, if not the one that the run used.
        views: the views to average over, if not those of the run's evaluation.
        checks: radiographs of RSNA's training split on which to fit the checks of input images; 0 for no checks.
        calibrated: whether to fit a calibration; without it there are no intervals and no bias correction.

    Returns:
        The header of the file.

    Raises:
        BoneAgeError: no checkpoint, no such split, too few images to calibrate on, a file that cannot be written.
    """
    if out.suffix != ".safetensors":
        raise BoneAgeError(f"{out} does not end in .safetensors; the model card goes beside it as .md")
    if storage not in released.STORAGES:
        raise BoneAgeError(f"storage is {storage!r}, expected one of {', '.join(released.STORAGES)}")
    experiment, state = evaluation.restore_best(workdir)
    trained_in = experiment.config.model.dtype
    experiment = _placed(experiment, split, data_dir, views)
    splits = load_data(experiment.config)
    measured, found = evaluation.predict_split(experiment, state.variables, splits)
    if measured.name == "train":
        raise BoneAgeError("metrics on images that the network was trained on are meaningless; choose another split")
    fitted, figures = None, {}
    if calibrated:
        parts = found.get("parts")
        weight = calibrating.balanced(measured.hospital)
        fitted = calibrating.fit(measured.age, found["months"], found.get("std"), parts, weight=weight)
        figures["calibration"] = calibrating.measure(measured.age, found["months"], found.get("std"), weight=weight)
        if parts is not None:
            figures["regions"] = _of_regions(measured.age, parts, weight)
        evaluation.store_calibration(workdir, experiment, state.variables, fitted)
    figures |= evaluation.write_report(workdir, measured, found, fitted)
    fitted_checks = _checks(experiment.config, checks)
    header = released.Header(
        name=experiment.config.name,
        model=describe_network(experiment.config, experiment.statistics).to_dict(),
        preprocessing=experiment.preprocessing.to_dict(),
        views=experiment.config.evaluate.views,
        calibration=None if fitted is None else fitted.to_dict(),
        data=_told_of_data(experiment, splits, measured),
        figures=figures,
        config=_recipe(experiment.config, trained_in),
        commit=_commit(workdir),
        version=__version__,
        storage=storage,
        checks=fitted_checks[0],
    )
    released.write(out, released.Weights(header, parallel.to_host(state.variables), fitted_checks[1]))
    write_text(out.with_suffix(".md"), card.text(released.read_header(out)))
    return header


def _of_regions(age: np.ndarray, parts: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """Cross-fitted metrics of every region that the network reads, by name, over the images that show the region."""
    there = ~np.isnan(parts)
    columns = zip(NAMES, parts.T, there.T, strict=True)
    return {name: calibrating.measure(age[seen], part[seen], None, weight=weight[seen]) for name, part, seen in columns}


def _checks(config: ConfigDict, images: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Settings and arrays of the checks; empty for other data sets, where it is not known which images are good."""
    if not images or config.data.name != "rsna_bone_age":
        return {}, {}
    try:
        return check_fitting.fit_rsna(config.data.dir, images).to_parts()
    except BoneAgeError as error:
        raise BoneAgeError(f"{error}; --checks=0 exports the weights without them") from error


def _placed(experiment: Experiment, split: str | None, data_dir: str | None, views: str | None) -> Experiment:
    """The experiment with this split, data folder and views for evaluation in float32."""
    config = experiment.config.copy_and_resolve_references().unlock()
    config.data.dir = data_dir or config.data.dir
    config.evaluate.split = split or config.evaluate.split
    config.evaluate.views = views or config.evaluate.views
    config.model.dtype = "float32"
    experiment.preprocessing.check_views(config.evaluate.views)
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size)
    return dataclasses.replace(experiment, config=config)


def _told_of_data(experiment: Experiment, splits: dict[str, data.Split], measured: data.Split) -> dict[str, Any]:
    name = experiment.config.data.name
    return {
        "name": name,
        **SOURCES[name],
        "train_images": len(splits["train"]),
        "measured_split": measured.name,
        "measured_images": len(measured),
    }


def _recipe(config: ConfigDict, trained_in: str) -> dict[str, Any]:
    """The configuration of the training, without paths."""
    fields = json.loads(config.to_json_best_effort())
    fields["model"]["dtype"] = trained_in
    for path in _PATHS:
        section, key = path.split(".")
        fields[section][key] = ""
    fields["model"]["init_from"] = Path(fields["model"]["init_from"]).name
    return fields


def _commit(workdir: Path) -> str | None:
    """The commit of the code that trained the run, as recorded in its run.json."""
    try:
        return json.loads((workdir / "run.json").read_text(encoding="utf-8"))["commit"]
    except (OSError, ValueError, KeyError):
        return None
