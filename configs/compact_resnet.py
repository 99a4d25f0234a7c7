"""CompactResNet from scratch on the hand at 128 pixels: a small network for two CPU cores.

    python launch.py --config=configs/compact_resnet.py --config.data.dir=DIR

With the first version of the preprocessing, 24 epochs took 98 minutes on two cores of an AMD EPYC (Zen 4, shared with
other jobs): MAE 8.81 months [8.39, 9.23] on the validation tenth.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "compact_resnet"
    config.data.workers = 0
    config.preprocess.size = 128
    config.preprocess.region = "hand"
    config.preprocess.scaling = "standardise"
    config.augment.rotation = 15.0
    config.augment.shift = 0.05
    config.model.name = "compact_resnet"
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.model.dtype = "bfloat16"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_epochs = 0.5
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.998
    config.train.batch_size = 32
    config.train.epochs = 24
    config.train.loss = "mae"
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.evaluate.batch_size = 64
    return config
