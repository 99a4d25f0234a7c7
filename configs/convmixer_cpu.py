"""A ConvMixer sized for two CPU cores, on the whole image at 128 pixels.

    python launch.py --config=configs/convmixer_cpu.py --config.data.dir=DIR

With the first version of the preprocessing, 18 epochs took 35 minutes on two cores of an AMD EPYC: MAE 9.93 months
[9.43, 10.46] on the validation tenth.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "convmixer_cpu"
    config.data.workers = 0
    config.preprocess.size = 128
    config.preprocess.scaling = "standardise"
    config.augment.rotation = 10.0
    config.augment.shift = 0.05
    config.model.name = "convmixer"
    config.model.options = ConfigDict({"dim": 96, "depth": 6, "kernel_size": 5, "patch_size": 4, "activation": "relu"})
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_epochs = 0.3
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.998
    config.train.batch_size = 32
    config.train.epochs = 18
    config.train.loss = "mae"
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.evaluate.batch_size = 64
    return config
