"""The smallest run with every part: 32-pixel phantoms, a ConvMixer of one block; also for `--config`."""

from ml_collections import ConfigDict

from boneage_jax.config import base

BATCH_SIZE = 8
STEPS_PER_EPOCH = 3


def get_config() -> ConfigDict:
    config = base()
    config.name = "tiny"
    config.data.name = "phantom"
    config.data.options = ConfigDict({"count": {"train": BATCH_SIZE * STEPS_PER_EPOCH, "validation": 8}})
    config.data.workers = 0
    config.preprocess.size = 32
    config.preprocess.clahe_grid = 4
    config.preprocess.scaling = "standardise"
    config.model.name = "convmixer"
    config.model.options = ConfigDict({"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 8})
    config.model.head_options = ConfigDict({"hidden": (8,)})
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_epochs = 0.0
    config.train.batch_size = BATCH_SIZE
    config.train.epochs = 2
    config.train.log_every = 2
    config.evaluate.batch_size = 8
    return config
