"""The study's ConvMixer on two CPU cores: its recipe at an image size that trains within hours.

    python launch.py --config=configs/study_convmixer.py --config.data.dir=DIR

Recipe and network are those of `configs/convmixer.py` (256 pixels there), at 70 pixels and in bfloat16: 15 to 21
images a second on two cores of an Intel Xeon with tile registers (AMX), or about 45 epochs in 8 hours.
`configs/study_xception.py` is the other half of the comparison. Neither has been trained to completion yet.
"""

from ml_collections import ConfigDict

from configs.convmixer import get_config as published


def get_config() -> ConfigDict:
    """The configuration."""
    config = published()
    config.name = "study_convmixer"
    config.data.workers = 0
    config.model.dtype = "bfloat16"
    config.preprocess.size = 70
    config.train.checkpoint_every = 200
    return config
