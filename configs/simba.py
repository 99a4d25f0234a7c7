"""SIMBA: InceptionV3 that reads the chronological age too and says how far the bone age is from it.

    python launch.py --config=configs/simba.py --config.data.dir=DIR
    python launch.py --config=configs/simba.py --config.data.name=phantom

Gonzalez et al., "SIMBA: Specific Identity Markers for Bone Age Assessment" (MICCAI 2020). The labels need a column
`chronological_age` (months); those of RSNA have none, so that there it ends with an error; the phantom has one.

Of the paper and its published code: 500 pixels, one grey channel as it is, sex and chronological age as markers, the
relative bone age, mean absolute error, Adam 1e-4 without weight decay, batch 20, 150 epochs, reduction to 0.8 after 2
evaluations and 5 of cooldown down to 1e-5, rotation by 20 degrees, shifts of a fifth, mirror images. Zoom is 0.8 to 1.2
here, 1 to 1.2 there. Not here: the crop to the hand; the heat map of key points that their code gives to a second stem
(see configs/bonet.py). Chosen here: scaling to [-1, 1], warm-up, clipping of the gradient, early stopping, validation
error and not the training loss on the plateau. A start from ImageNet weights is `--config.model.init_from=FILE`; those
of Keras need `--config.model.options.framework=keras`. Published on RHPE: MAE 6.34 months (validation), 5.47 (test);
there is no figure for RSNA.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "simba"
    config.data.inputs.chronological_age = "number"
    config.preprocess.size = 500
    config.preprocess.exposure = (0.0, 100.0)
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 20.0
    config.augment.shift = 0.2
    config.augment.zoom = 0.2
    config.augment.brightness = 0.0
    config.augment.contrast = 0.0
    config.model.name = "inception_v3"
    config.model.options = ConfigDict({"framework": "torch"})
    config.model.head = "relative"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0
    config.optimizer.plateau.factor = 0.8
    config.optimizer.plateau.patience = 3  # PyTorch's 2, see config.py
    config.optimizer.plateau.cooldown = 5
    config.optimizer.plateau.min_scale = 0.1
    config.train.batch_size = 20
    config.train.epochs = 150
    config.train.loss = "mae"
    return config
