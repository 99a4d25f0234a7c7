"""InceptionV3 at 500 pixels with the head that won the RSNA challenge of 2017: the system of 16Bit.

    python launch.py --config=configs/inception_v3.py --config.data.dir=DIR

Halabi et al., "The RSNA Pediatric Bone Age Machine Learning Challenge" (Radiology 2019; 290(2):498-503). From the
paper: 500 pixels, one greyscale channel, sex through 32 units, two hidden layers of 1000, mean absolute error, Adam.
From secondary sources: reduction on plateau, rotation by 20 degrees, shifts and zoom of a fifth, mirror images. Chosen
here, because the original values are not known: exposure, scaling to [-1, 1], learning rate, batch size, plateau
patience, warm-up, gradient clipping, early stopping. To start from ImageNet weights, add
`--config.model.init_from=FILE`; timm and torchvision weights also need `--config.model.options.framework=torch`.
Published on the 200 test images of RSNA 2017: MAE 4.2 months, by an ensemble and (secondary source) several views of
each image.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "inception_v3"
    config.preprocess.size = 500
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 20.0
    config.augment.shift = 0.2
    config.augment.zoom = 0.2
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0
    config.model.name = "inception_v3"
    config.model.options = ConfigDict({"framework": "keras"})
    config.optimizer.weight_decay = 0.0
    config.train.loss = "mae"
    return config
