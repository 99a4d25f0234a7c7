"""EfficientNet-B0 or -B4 at 512 pixels with a short head: two of the three networks of Deeplasia.

    python launch.py --config=configs/efficientnet.py:b0 --config.data.dir=DIR
    python launch.py --config=configs/efficientnet.py:b4 --config.data.dir=DIR

Rassmann et al., "Deeplasia: deep learning for bone age assessment validated on skeletal dysplasias" (Pediatric
Radiology 2024; 54:82-95). From the paper and its published code: one channel with its 1st percentile subtracted,
standardised per image, sex through 32 units, one hidden layer of 256, MSE, Adam 1e-3 with weight decay 5e-6
(decoupled here), batch 32, learning rate reduced to a fifth after 10 evaluations with a cooldown of 5 and a minimum of
1e-4, early stopping after 50, flips, rotation by 30 degrees, shifts of a fifth, initialisation from ImageNet weights
(`--config.model.init_from=FILE`; theirs, from efficientnet_pytorch, match `framework = "keras"`). Zoom is 0.8 to 1.2
here, 0.8 to 1.25 in the original; there are at most 100 epochs here, 300 in the original. Left out: the hand mask,
shear by 10 degrees, sharpening, CLAHE or gamma in augmentation, dropout in the head, the linear bias correction. Chosen
here: warm-up, gradient clipping. Published on the 200 test images of RSNA 2017: MAE 3.87 months, RMSE 5.1, by an
ensemble of three (B0 at 512 and at 1024 pixels, B4 at 512).
"""

from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError

VARIANTS = ("b0", "b4")


def get_config(variant: str = "b0") -> ConfigDict:
    """The configuration; the variant only sets the size of the network.

    Raises:
        BoneAgeError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise BoneAgeError(f"configs/efficientnet.py has no variant {variant!r}; expected one of {', '.join(VARIANTS)}")
    config = base()
    config.name = f"efficientnet_{variant}"
    config.preprocess.size = 512
    config.preprocess.exposure = (1.0, 100.0)
    config.preprocess.clahe_clips = ()
    config.preprocess.scaling = "standardise"
    config.augment.rotation = 30.0
    config.augment.shift = 0.2
    config.augment.zoom = 0.2
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0
    config.model.name = config.name
    config.model.options = ConfigDict({"framework": "keras", "drop_path": 0.2})
    config.model.head_options = ConfigDict({"hidden": (256,)})
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 5e-6
    config.optimizer.plateau.factor = 0.2
    config.optimizer.plateau.patience = 11  # PyTorch's 10, see config.py
    config.optimizer.plateau.cooldown = 5
    config.optimizer.plateau.min_scale = 0.1
    config.train.batch_size = 32
    config.train.early_stopping = 50
    return config
