"""Evaluates the best checkpoint of a work directory; the network and its settings come from the checkpoint."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from boneage_jax import data
from boneage_jax.atomic_files import write_text
from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import report
from boneage_jax.released.calibration import Calibration
from boneage_jax.train import parallel, placement
from boneage_jax.train.checkpoint import Store, digest, digest_json
from boneage_jax.train.experiment import Experiment, load_data, predict
from boneage_jax.train.state import TrainState

_CALIBRATION = "calibration.json"


def restore_best(workdir: Path) -> tuple[Experiment, TrainState]:
    """The network and state of the best checkpoint, from `workdir` alone.

    Raises:
        BoneAgeError: there is no checkpoint, or it is damaged.
    """
    store = Store(workdir / "checkpoints/best", keep=1, create=False)
    about = store.about()
    experiment = Experiment.from_about(about, store.directory)
    _, like = experiment.fresh_state(steps_per_epoch=1)
    restored = store.restore(like)
    store.close()
    return experiment, parallel.replicate(restored.state)


def evaluate_checkpoint(
    workdir: Path, config: ConfigDict, *, splits: dict[str, data.Split] | None = None
) -> dict[str, Any]:
    """Predicts one split with the best checkpoint and writes the report to `workdir/evaluate/<split>`.

    If the checkpoint has been calibrated (`boneage export-weights`), the calibrated months and intervals are reported.

    Args:
        workdir: of a training run.
        config: the sections `data` and `evaluate` are used; everything else comes from the checkpoint.
        splits: the data, if they are already loaded.

    Returns:
        The result of `report.write`.

    Raises:
        BoneAgeError: no checkpoint, or no such split.
    """
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size)
    experiment, state = restore_best(workdir)
    logging.info("Evaluating the best checkpoint, of step %d.", int(state.step))
    experiment = experiment.on_data_of(config)
    split, found = predict_split(experiment, state.variables, splits)
    return write_report(workdir, split, found, stored_calibration(workdir, experiment, state.variables))


def chosen_split(config: ConfigDict, splits: dict[str, data.Split]) -> data.Split:
    """The split that `evaluate.split` names.

    Raises:
        BoneAgeError: there is no such split.
    """
    name = config.evaluate.split
    if name not in splits:
        raise BoneAgeError(f"evaluate.split is {name!r}; available splits: {', '.join(splits)}")
    return splits[name]


def predict_split(
    experiment: Experiment, variables: Any, splits: dict[str, data.Split] | None = None
) -> tuple[data.Split, dict[str, np.ndarray]]:
    """The split that `evaluate.split` names, and the network's outputs on it (see `experiment.predict`)."""
    settings = experiment.config
    split = chosen_split(settings, splits or load_data(settings))
    source = placement.create(settings.data.placement, split)
    with source.evaluation_batches(experiment.evaluation_batching(workers=settings.data.workers)) as batches:
        return split, predict(experiment.compile_inference(), variables, batches, len(split), source.lay_out)


def write_report(
    workdir: Path, split: data.Split, found: dict[str, np.ndarray], calibration: Calibration | None
) -> dict[str, Any]:
    """Writes the report of a split, calibrated if there is a calibration, and returns the result of `report.write`.

    With several processes, only the first one writes.
    """
    months, std, interval = found["months"], found.get("std"), None
    if calibration:
        published = calibration.apply(months, std)
        months, std, interval = published.months, published.std, (published.low, published.high)
    return report.write(
        workdir / "evaluate" / split.name if jax.process_index() == 0 else None,
        ids=split.ids,
        sex=split.sex,
        age=split.age,
        predicted=months,
        std=std,
        interval=interval,
        hospital=split.hospital,
        split=split.name,
        loss=found["loss"],
    )


def store_calibration(workdir: Path, experiment: Experiment, variables: Any, calibration: Calibration) -> None:
    """Stores the calibration of the best checkpoint in `workdir`, for later evaluations."""
    stored = {**_calibrated(experiment, variables), "calibration": calibration.to_dict()}
    write_text(workdir / _CALIBRATION, json.dumps({**stored, "sha256": digest_json(stored)}, indent=2) + "\n")


def stored_calibration(workdir: Path, experiment: Experiment, variables: Any) -> Calibration | None:
    """The calibration of this checkpoint with these views, if there is one.

    Raises:
        BoneAgeError: the file is damaged.
    """
    path = workdir / _CALIBRATION
    if not path.exists():
        return None
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8")))
        if stored.pop("sha256", None) != digest_json(stored):
            raise ValueError("its contents do not match their checksum")
        calibration = Calibration.from_dict(stored.pop("calibration"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BoneAgeError(f"{path} is damaged ({error}); delete it, and export the weights again") from error
    if stored != _calibrated(experiment, variables):
        logging.warning("%s belongs to another checkpoint or other views; it is not applied.", path)
        return None
    logging.info("Ages and intervals are calibrated with %s.", path)
    return calibration


def _calibrated(experiment: Experiment, variables: Any) -> dict[str, str]:
    """Identifies the network and the views that a calibration is valid for."""
    return {"variables_sha256": digest(parallel.to_host(variables)), "views": experiment.config.evaluate.views}
