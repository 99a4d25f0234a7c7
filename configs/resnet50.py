"""ResNet-50 with a softmax over 240 months for each sex: the Stanford system of 2017.

    python launch.py --config=configs/resnet50.py --config.data.dir=DIR

Larson et al., "Performance of a Deep-Learning Neural Network Model in Assessing Skeletal Maturity on Pediatric Hand
Radiographs" (Radiology 2018; 287:313-322). From the paper: 256 pixels, CLAHE at three clip limits as three channels,
crops of 224, a softmax over the months of the chosen sex and its expectation, cross-entropy, Adam, flips, crops and
contrast in training, ten crops in evaluation, initialisation from ImageNet weights (`--config.model.init_from=FILE`;
Keras weights also need `--config.model.options.framework=keras`). Chosen here, because the original values are not
known: the clip limits, the amount of contrast, learning rate, batch size, warm-up, clipping of gradients, reduction on
plateau, early stopping, exposure from the 1st to the 99th percentile, standardised intensities. Published on the 200
test images of RSNA 2017: MAE 0.50 years (6.0 months) against four readers, 0.52 years (6.24 months) against the
challenge's labels.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "resnet50"
    config.preprocess.size = 256
    config.preprocess.clahe_clips = (1.0, 2.0, 4.0)
    config.preprocess.scaling = "standardise"
    config.preprocess.crop = 224
    config.augment.rotation = 0.0
    config.augment.shift = 0.0
    config.augment.zoom = 0.0
    config.augment.brightness = 0.0
    config.augment.contrast = 0.2
    config.model.name = "resnet50"
    config.model.options = ConfigDict({"framework": "torch"})
    config.model.head = "sex_split_distribution"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.0
    config.train.loss = "cross_entropy"
    config.train.batch_size = 32
    config.evaluate.views = "ten_crop"
    return config
