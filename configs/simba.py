"""SIMBA: InceptionV3 that also takes the chronological age and predicts the bone age relative to it.

    python launch.py --config=configs/simba.py --config.data.dir=DIR
    python launch.py --config=configs/simba.py --config.data.name=phantom

Gonzalez et al., "SIMBA: Specific Identity Markers for Bone Age Assessment" (MICCAI 2020). The labels need a column
`chronological_age` (months); RSNA labels have none, so training on them stops with an error; the phantom has one.

From the paper and its published code: 500 pixels, one unmodified greyscale channel, sex and chronological age as
markers, the relative bone age, mean absolute error, Adam 1e-4 without weight decay, batch 20, 150 epochs, learning rate
reduced to 0.8 after 2 evaluations with a cooldown of 5 and a minimum of 1e-5, rotation by 20 degrees, shifts of a
fifth, mirror images. Zoom is 0.8 to 1.2 here, 1 to 1.2 in the original. Left out: the crop to the hand; the key-point
heat map that the original code feeds to a second stem (see configs/bonet.py). Chosen here: scaling to [-1, 1], warm-up,
gradient clipping, early stopping, and reduction on a plateau of the validation error instead of the training loss. To
start from ImageNet weights, add `--config.model.init_from=FILE`; Keras weights also need
`--config.model.options.framework=keras`. Published on RHPE: MAE 6.34 months (validation), 5.47 (test); there is no
figure for RSNA.
"""

from ml_collections import ConfigDict

from configs.bonet import get_config as bonet


def get_config() -> ConfigDict:
    """The configuration."""
    config = bonet()  # the same preprocessing, augmentation and optimiser
    config.name = "simba"
    config.data.inputs.chronological_age = "number"
    config.model.name = "inception_v3"
    config.model.options = ConfigDict({"framework": "torch"})
    config.model.head = "relative"
    config.train.epochs = 150
    return config
