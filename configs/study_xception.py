"""The study's Xception on two CPU cores: its recipe at an image size that trains within hours.

    python launch.py --config=configs/study_xception.py --config.data.dir=DIR

Recipe and network are those of `configs/xception.py` (500 pixels there), at 128 pixels and in bfloat16: 24 to 29
images a second on two cores of an Intel Xeon with tile registers (AMX), or 31 epochs in about four hours; float32
reaches 14 images a second and takes twice as long. `configs/study_convmixer.py` is the other half of the comparison.
Neither has been trained to completion yet.
"""

from ml_collections import ConfigDict

from configs.xception import get_config as published


def get_config() -> ConfigDict:
    """The configuration."""
    config = published()
    config.name = "study_xception"
    config.data.workers = 0
    config.model.dtype = "bfloat16"
    config.preprocess.size = 128
    config.train.checkpoint_every = 200
    return config
