"""The study's ConvMixer on two CPU cores: its recipe at 96 pixels, for a small ConvMixer.

    python launch.py --config=configs/study_convmixer.py --config.data.dir=DIR

The recipe is that of `configs/convmixer.py` (256 pixels there), with a learning rate that is cut after 2 evaluations
without a better MAE, as there are far fewer epochs. The network is ConvMixer-256/8 with kernel 5, the size of Keras'
code example, here with patches of 4 pixels and ReLU. `configs/study_xception.py` is the other half of the comparison.

On two cores of an AMD EPYC, 35 epochs took 18,000 s beside other work: validation MAE 9.68 months, ended by early
stopping.
Alone, it trains on 57 images a second.
"""

from ml_collections import ConfigDict

from configs.convmixer import get_config as published


def get_config() -> ConfigDict:
    """The configuration."""
    config = published()
    config.name = "study_convmixer"
    config.data.workers = 0
    config.preprocess.size = 96
    config.model.options = ConfigDict({"dim": 256, "depth": 8, "kernel_size": 5, "patch_size": 4, "activation": "relu"})
    config.optimizer.plateau.patience = 2
    config.train.epochs = 60  # most, if early stopping does not end it before
    config.train.early_stopping = 5
    config.train.checkpoint_every = 400
    return config
