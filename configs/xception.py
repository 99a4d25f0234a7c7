"""Xception at 500 pixels with the winner's head: the better network of the study this zoo started from.

    python launch.py --config=configs/xception.py --config.data.dir=DIR

Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (CVPR 2017). Recipe of the study: Keras'
preprocessing to [-1, 1], AdamW 1e-4 with weight decay 1e-5, batch 16, flips, rotation and shifts, reduction on
plateau, early stopping. Chosen here: zoom, brightness and contrast in training, a warm-up over one epoch, gradients
clipped at a norm of 1. Published on the study's own split of RSNA 2017: MAE 7.63 months, MSE 100, R2 0.9411,
training 30,905 s, memory 9,762 MB.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "xception"
    config.preprocess.size = 500
    config.preprocess.exposure = (0.0, 100.0)
    config.preprocess.clahe_clips = ()
    config.model.name = "xception"
    config.model.input_channels = "rgb"
    config.optimizer.learning_rate = 1e-4
    config.train.batch_size = 16
    return config
