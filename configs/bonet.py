"""BoNet: InceptionV3 with an optional second stem for a heat map of the hand's 17 key points.

    python launch.py --config=configs/bonet.py --config.data.dir=DIR
    python launch.py --config=configs/bonet.py:heatmap --config.data.dir=DIR --config.data.keypoints=FILE

Escobar et al., "Hand Pose Estimation for Pediatric Bone Age Assessment" (MICCAI 2019), which publishes the key points
of the RSNA images. `:heatmap` sets `config.model.options.heatmap` and `config.data.inputs.heatmap = "keypoints"`.

From the paper and its published code: 500 pixels, one unmodified greyscale channel, sex through 32 units, two hidden
layers of 1000, mean absolute error, Adam 1e-4 without weight decay, batch 20, 60 epochs, learning rate reduced to 0.8
after 2 evaluations with a cooldown of 5 and a minimum of 1e-5, rotation by 20 degrees, shifts of a fifth, mirror
images. Zoom is 0.8 to 1.2 here, 1 to 1.2 in the original. The head here pools the whole feature map; the original
pools 2x2 pixels and uses the remaining 7 x 7 x 2048 values. Left out: the crop to the hand. Chosen here: scaling to
[-1, 1], warm-up, gradient clipping, early stopping, and reduction on a plateau of the validation error instead of the
training loss. To start from ImageNet weights, add `--config.model.init_from=FILE`; Keras weights also need
`--config.model.options.framework=keras`. Published on RSNA 2017: MAE about 4.14 months (secondary source).
"""

from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError


def get_config(option: str = "") -> ConfigDict:
    """The configuration; with the option "heatmap", the network also takes the key points."""
    if option not in ("", "heatmap"):
        raise BoneAgeError(f"configs/bonet.py has no option {option!r}; write configs/bonet.py:heatmap, or no option")
    config = base()
    config.name = "bonet"
    config.preprocess.size = 500
    config.preprocess.exposure = (0.0, 100.0)
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 20.0
    config.augment.shift = 0.2
    config.augment.zoom = 0.2
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0
    config.model.name = "bonet"
    config.model.options = ConfigDict({"framework": "torch", "heatmap": False})
    if option == "heatmap":
        config.model.options.heatmap = True
        config.data.inputs.heatmap = "keypoints"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.plateau.factor = 0.8
    config.optimizer.plateau.patience = 3  # PyTorch's 2, see config.py
    config.optimizer.plateau.cooldown = 5
    config.optimizer.plateau.min_scale = 0.1
    config.train.batch_size = 20
    config.train.epochs = 60
    config.train.loss = "mae"
    return config
