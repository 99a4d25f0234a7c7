"""Exports a run's best checkpoint as released weights, calibrated and evaluated on images it was not trained on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from boneage_jax import data
from boneage_jax.data import rsna
from boneage_jax.errors import BoneAgeError
from boneage_jax.export import card, check_fitting, sources
from boneage_jax.export.estimates import region_figures
from boneage_jax.released import calibration as calibrating
from boneage_jax.released import weights as released
from boneage_jax.train import evaluation, parallel
from boneage_jax.train.experiment import Experiment, describe_network, load_data

CHECKS_IMAGES = 8000  # radiographs to fit the checks on; the documented rates are for this number

# Settings with local paths and addresses, which are removed from exported configurations.
_LOCAL = ("compilation_cache", "data.dir", "data.cache", "data.keypoints", "distributed.coordinator")


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
    source: str | None = None,
) -> released.Header:
    """Writes the weights to `out` and their model card beside them, as `.md`; they are named like the file.

    The split is predicted again with the values that the file stores: the report goes to `workdir/evaluate/<split>` and
    the calibration to `workdir`, so that later evaluations of the run give the months of the exported file, up to the
    rounding of the stored values. Released weights compute in float32, whatever the type in training, so that results
    on different processors differ only by float32 rounding.

    Args:
        workdir: of a training run.
        out: the file to write, ".safetensors".
        storage: "float32", "bfloat16" or "float16".
        split: the split on which to calibrate and evaluate; by default the one that the run evaluated.
        data_dir: folder with the data, if not the one that the run used.
        views: the views to average over, if not those of the run's evaluation.
        calibrated: whether to fit a calibration; without it there are no intervals and no bias correction.
        checks: most radiographs of the training split to fit the checks of input images on; 0 for no checks.
        source: who provided the training data. By default, the RSNA challenge is named if the training labels are its
            official ones, and otherwise nobody.

    Returns:
        The header of the file.

    Raises:
        BoneAgeError: no checkpoint, no such split, too few images to calibrate or to fit checks on, an empty source, a
            file that cannot be written.
    """
    card.check_target(out)
    if storage not in released.STORAGES:
        raise BoneAgeError(f"storage is {storage!r}, expected one of {', '.join(released.STORAGES)}")
    if checks != 0 and checks < check_fitting.LEAST_IMAGES:
        raise BoneAgeError(
            f"checks is {checks}, expected at least {check_fitting.LEAST_IMAGES} radiographs, or 0 for no checks"
        )
    experiment, state = evaluation.restore_best(workdir)
    trained_in = experiment.config.model.dtype
    experiment = _placed(experiment, split, data_dir, views)
    splits = load_data(experiment.config)
    official = experiment.config.data.name == "rsna_bone_age" and rsna.is_official(experiment.config.data.dir)
    provider = sources.describe(experiment.config.data.name, official=official, source=source)
    variables = released.rounded(parallel.to_host(state.variables), storage)
    measured, found = _predicted(experiment, parallel.replicate(variables), splits)
    calibration, figures = _evaluated(workdir, experiment, state.variables, measured, found, calibrated=calibrated)
    settings, arrays, checks_images = _checks(experiment.config, checks)
    header = released.Header(
        name=out.stem,
        model=describe_network(experiment.config, experiment.statistics).to_dict(),
        preprocessing=experiment.preprocessing.to_dict(),
        views=experiment.config.evaluate.views,
        calibration=None if calibration is None else calibration.to_dict(),
        checks=settings,
        data=_data_section(experiment.config, provider, splits, measured, checks_images),
        figures=figures,
        config=_recipe(experiment.config, trained_in),
        commit=_commit(workdir),
        storage=storage,
    )
    card.write_weights(out, released.Weights(header, variables, arrays))
    return header


def _predicted(
    experiment: Experiment, variables: Any, splits: dict[str, data.Split]
) -> tuple[data.Split, dict[str, np.ndarray]]:
    """`evaluation.predict_split`; raises BoneAgeError for the training split."""
    measured, found = evaluation.predict_split(experiment, variables, splits)
    if measured.name == "train":
        raise BoneAgeError("metrics on images that the network was trained on are meaningless; choose another split")
    return measured, found


def _evaluated(
    workdir: Path,
    experiment: Experiment,
    variables: Any,
    measured: data.Split,
    found: dict[str, np.ndarray],
    *,
    calibrated: bool,
) -> tuple[calibrating.Calibration | None, dict[str, Any]]:
    """The calibration, if requested, and all metrics; calibration and report are also written to `workdir`.

    Raises:
        BoneAgeError: too few images to calibrate on.
    """
    if not calibrated:
        return None, evaluation.write_report(workdir, measured, found, None)
    parts, std = found.get("parts"), found.get("std")
    weight = calibrating.balanced(measured.hospital)
    fitted = calibrating.fit(measured.age, found["months"], std, parts, weight=weight)
    figures = {"calibration": calibrating.measure(measured.age, found["months"], std, weight=weight)}
    if parts is not None:
        figures["regions"] = region_figures(measured.age, parts, weight)
    evaluation.store_calibration(workdir, experiment, variables, fitted)
    return fitted, figures | evaluation.write_report(workdir, measured, found, fitted)


def _checks(config: ConfigDict, images: int) -> tuple[dict[str, Any], dict[str, np.ndarray], int]:
    """Settings and arrays of the checks, and the number of radiographs they were fitted on; none for phantoms.

    Raises:
        BoneAgeError: too few radiographs, or one that cannot be read.
    """
    if not images or config.data.name != "rsna_bone_age":
        return {}, {}, 0
    try:
        squares = check_fitting.training_squares(config.data.dir, images, config.data.on_missing)
        return *check_fitting.fit(squares).to_parts(), len(squares)
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
    return Experiment.create(config, experiment.statistics)


def _data_section(
    config: ConfigDict,
    provider: dict[str, str],
    splits: dict[str, data.Split],
    measured: data.Split,
    checks_images: int,
) -> dict[str, Any]:
    """The section `data` of the header: sources, and numbers of images."""
    return {
        **provider,
        "train_images": len(splits["train"]),
        "measured_split": measured.name,
        "measured_images": len(measured),
        "checks_images": checks_images,
        "initialised_from": sources.initial_weights(config.model.init_from),
    }


def _recipe(config: ConfigDict, trained_in: str) -> dict[str, Any]:
    """The configuration of the training, without paths and addresses."""
    fields = json.loads(config.to_json_best_effort())
    fields["model"]["dtype"] = trained_in
    for setting in _LOCAL:
        section, _, key = setting.rpartition(".")
        (fields[section] if section else fields)[key] = ""
    fields["model"]["init_from"] = Path(fields["model"]["init_from"]).name
    return fields


def _commit(workdir: Path) -> str | None:
    """The commit of the code that trained the run, as recorded in its run.json."""
    try:
        return json.loads((workdir / "run.json").read_text(encoding="utf-8"))["commit"]
    except (OSError, ValueError, KeyError):
        return None
