"""The released weights "detailed": "compact" trained on at 192 pixels instead of 128, on two CPU cores.

python launch.py --config=configs/release_detailed.py --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "release_detailed"
    config.data.workers = 0
    config.preprocess.size = 192
    config.preprocess.region = "hand"
    config.preprocess.scaling = "standardise"
    config.augment.rotation = 10.0
    config.augment.shift = 0.05
    config.model.name = "compact_resnet"
    config.model.init_from = "compact"
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.model.dtype = "bfloat16"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_epochs = 0.25
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.998
    config.train.batch_size = 32
    config.train.epochs = 8
    config.train.loss = "mae"
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.evaluate.batch_size = 64
    return config
