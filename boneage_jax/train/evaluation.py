"""Evaluates the best checkpoint of a work directory, from what is stored there."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from boneage_jax import data
from boneage_jax.data import pipeline
from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import report
from boneage_jax.train import parallel
from boneage_jax.train.checkpoint import Store
from boneage_jax.train.experiment import Experiment, load_data, predict
from boneage_jax.train.state import TrainState


def restore_best(workdir: Path) -> tuple[Experiment, TrainState]:
    """The network and state of the best checkpoint, from `workdir` alone.

    Raises:
        BoneAgeError: there is none, or it is damaged.
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

    Args:
        workdir: of a training run.
        config: the sections `data` and `evaluate` are used; everything else comes from the checkpoint.
        splits: the data, if they are open already.

    Returns:
        What `report.write` returns.
    """
    parallel.check_batch_size("evaluate.batch_size", config.evaluate.batch_size)
    experiment, state = restore_best(workdir)
    stored = experiment.config.copy_and_resolve_references().unlock()
    inputs = stored.data.inputs
    stored.data, stored.evaluate = config.data, config.evaluate
    stored.data.inputs = inputs  # the network has been trained with these
    experiment = dataclasses.replace(experiment, config=stored)
    splits = splits or load_data(stored)
    name = config.evaluate.split
    if name not in splits:
        raise BoneAgeError(f"evaluate.split is {name!r}; the data have {', '.join(splits)}")
    split = splits[name]
    with pipeline.evaluation_batches(
        split,
        batch_size=config.evaluate.batch_size,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    ) as batches:
        found = predict(experiment.compile_inference(), state.variables, batches, len(split))
    return report.write(
        workdir / "evaluate" / name,
        ids=split.ids,
        sex=split.sex,
        age=split.age,
        predicted=found["months"],
        std=found.get("std"),
        hospital=split.hospital,
        split=name,
        loss=found["loss"],
    )
