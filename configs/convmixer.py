"""ConvMixer at 256 pixels with CLAHE and the winner's head: the lighter network of the study.

    python launch.py --config=configs/convmixer.py --config.data.dir=DIR

Trockman and Kolter, "Patches Are All You Need?" (TMLR 2023), with the ConvMixer-768/32 of the paper (kernel 7, patch
7, ReLU). Recipe of the study: CLAHE, AdamW 1e-3 with weight decay 1e-5, batch 8, flips, rotation and shifts,
reduction on plateau, early stopping. Chosen here: exposure from the 1st to the 99th percentile, scaling to [-1, 1],
zoom, brightness and contrast in training, a warm-up over one epoch, gradients clipped at a norm of 1. Published on the
study's own split of RSNA 2017: MAE 9.01 months, MSE 142, R2 0.9216, training 25,724 s, memory 5,783 MB. The study does
not say which ConvMixer it used.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "convmixer"
    config.preprocess.size = 256
    config.model.name = "convmixer"
    config.model.options = ConfigDict(
        {"dim": 768, "depth": 32, "kernel_size": 7, "patch_size": 7, "activation": "relu"}
    )
    config.optimizer.learning_rate = 1e-3
    config.train.batch_size = 8
    return config
