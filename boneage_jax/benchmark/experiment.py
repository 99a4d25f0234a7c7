"""`launch.py --mode=benchmark`: benchmarks the network, training step and data pipeline of a configuration."""

from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from boneage_jax import data
from boneage_jax.benchmark import report
from boneage_jax.benchmark.pipeline import Batch
from boneage_jax.benchmark.run import run
from boneage_jax.data import pipeline
from boneage_jax.data.stream import Batching
from boneage_jax.train import experiment, parallel, placement


def benchmark(config: ConfigDict, workdir: Path) -> report.Result:
    """Measures a configuration's network, step and pipeline, and writes `workdir/benchmark.json`.

    Inference always starts from host arrays, whatever `data.placement` is.

    Without `data.dir`, the images are phantoms of the same size: the speed does not depend on the content of images.

    Raises:
        BoneAgeError: the devices do not divide the batch evenly, or the data cannot be read.
    """
    batch_size = config.train.batch_size
    parallel.check_batch_size("train.batch_size", batch_size)
    split = _images(config)
    parts = experiment.Experiment.create(config, experiment.Statistics.of(split))
    transform, state = parts.fresh_state(pipeline.steps_per_epoch(split, batch_size))
    with pipeline.evaluation_batches(split, Batching(batch_size=batch_size)) as whole_images:
        sample = next(whole_images)

    def make_batch(count: int) -> Batch:
        chosen = np.arange(count) % batch_size
        return jax.tree.map(lambda values: values[chosen], sample)

    source = placement.create(config.data.placement, split)
    with source.train_batches(parts.training_batching()) as batches:
        result = run(
            model=f"{config.name} ({config.model.name})",
            dtype=config.model.dtype,
            train_step=parts.compile_train_step(transform),
            state=parallel.replicate(state),
            infer=jax.jit(parts.inference()),
            variables=state.variables,
            make_batch=make_batch,
            train_batch=next(batches),
            split=lambda batch: source.lay_out(dict(batch)),
            steps=config.benchmark.steps,
            warmup=config.benchmark.warmup,
            batches=batches,
            profile=workdir / "profile" if config.benchmark.profile else None,
        )
    workdir.mkdir(parents=True, exist_ok=True)
    result.write(workdir / "benchmark.json")
    return result


def _images(config: ConfigDict) -> data.Split:
    if config.data.name == "rsna_bone_age" and not config.data.dir:
        logging.warning("data.dir is not set: phantoms are used.")
        config = config.copy_and_resolve_references().unlock()
        config.data.name = "phantom"
        config.data.options = ConfigDict({"count": {"train": max(64, config.train.batch_size), "validation": 8}})
    return experiment.load_data(config)["train"]
