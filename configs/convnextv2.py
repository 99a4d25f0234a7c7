"""ConvNeXt V2 at 512 pixels with a distribution over months, modelled on the strongest open weights.

    python launch.py --config=configs/convnextv2.py --config.data.dir=DIR
    python launch.py --config=configs/convnextv2.py --config.data.dir=DIR --config.model.name=convnextv2_tiny

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders" (CVPR 2023). The weights of the
original system are at https://huggingface.co/ianpan/bone-age. From its model card: convnextv2_tiny, a softmax over
months and its expectation, cross-entropy, 20,000 steps of 64 images (here 19,700, or 17,700 if a tenth of the training
images is held out). Left out: its second, regression head, which the original also drops after training; the crop to
the hand and the histogram matching to one reference image, each applied to half of the images. From the ConvNeXt V2
paper, for ImageNet: AdamW with weight decay 0.05, cosine schedule, moving average of the weights, stochastic depth of
0.1 (`--config.model.options.drop_path=0.2` for tiny). Chosen here, because the original values are not known: 512
pixels, exposure, standardised intensities, sex through 32 units, amount of augmentation, learning rate, warm-up,
gradient clipping. To start from ImageNet weights (`--config.model.init_from=FILE`), add
`--config.optimizer.learning_rate=1e-4 --config.optimizer.layer_decay=0.9`. Published on the 200 test images of RSNA
2017: MAE 4.16 months, by three networks trained on three folds.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base


def get_config() -> ConfigDict:
    """The configuration."""
    config = base()
    config.name = "convnextv2"
    config.preprocess.size = 512
    config.preprocess.clahe_clips = ()
    config.preprocess.scaling = "standardise"
    config.model.name = "convnextv2_atto"
    config.model.options = ConfigDict({"drop_path": 0.1})
    config.model.head = "distribution"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.999
    config.train.batch_size = 64
    config.train.loss = "cross_entropy"
    config.train.early_stopping = 0
    return config
