"""The study's Xception on two CPU cores: its recipe at 96 pixels.

    python launch.py --config=configs/study_xception.py --config.data.dir=DIR

Network and recipe are those of `configs/xception.py` (500 pixels there), with a learning rate that is cut after 2
evaluations without a better MAE, as there are far fewer epochs. `configs/study_convmixer.py` is the other half of the
comparison.

On two cores of an AMD EPYC, 25 epochs until early stopping took 21,630 s beside other work: validation MAE 12.07
months. Alone, it trains on 23 to 28 images a second.
"""

from ml_collections import ConfigDict

from configs.xception import get_config as published


def get_config() -> ConfigDict:
    """The configuration."""
    config = published()
    config.name = "study_xception"
    config.data.workers = 0
    config.preprocess.size = 96
    config.optimizer.plateau.patience = 2
    config.train.epochs = 60  # most, if early stopping does not end it before
    config.train.early_stopping = 5
    config.train.checkpoint_every = 200
    return config
