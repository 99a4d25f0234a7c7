"""A small ConvMixer on procedural hands: no data to download, no GPU, under three minutes on two cores.

python launch.py --config=configs/quickstart.py
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "quickstart"
    config.data.name = "phantom"
    # Half of the training hands have uniformly distributed ages; RSNA-like ages include few very young or old children.
    config.data.options = ConfigDict({"count": {"train": 4096, "validation": 256}, "even": 0.5})
    config.data.workers = 0

    # A growth plate is a millimetre wide: it is visible in a crop around the hand, but not in the whole image.
    config.preprocess.region = "hand"
    config.preprocess.size = 144
    config.preprocess.clahe_grid = 4
    config.preprocess.scaling = "standardise"
    config.augment.flip = 0.0  # Drawn hands are left hands.
    config.augment.rotation = 5.0
    config.augment.shift = 0.05
    config.augment.zoom = 0.05

    config.model.name = "convmixer"
    config.model.options = ConfigDict({"dim": 64, "depth": 4, "kernel_size": 5, "patch_size": 6, "activation": "relu"})
    config.model.head_options = ConfigDict({"hidden": (128, 128)})

    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.02
    config.optimizer.warmup_epochs = 0.5
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.99

    config.train.batch_size = 32
    config.train.epochs = 14
    config.train.early_stopping = 0
    return config
