"""The study's Xception on two CPU cores: its recipe at a size whose training ends within hours.

    python launch.py --config=configs/study_xception.py --config.data.dir=DIR

Recipe and network are those of `configs/xception.py` (500 pixels there), at 128 pixels and in bfloat16: 24 to 29
images a second on two cores of an Intel Xeon with tile registers (AMX), so that 31 epochs are about four hours; in
float32 14, and twice the time. `configs/study_convmixer.py` is the other half of the comparison. Neither has been
trained to its end yet.
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
