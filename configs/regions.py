"""A bone age for every ossification region: crops around 17 joints of the hand, one EfficientNet-Lite0 for all of them.

    python -m boneage_jax.regions.keypoints --data DIR --out keypoints.json
    python launch.py --config=configs/regions.py --config.data.dir=DIR --config.data.keypoints=keypoints.json
    boneage export-weights --workdir runs/regions --out runs/regions.safetensors --checks 0
    python launch.py --config=configs/regions.py:frozen --config.data.dir=DIR --config.data.keypoints=keypoints.json

Readers rate bone by bone (Tanner and Whitehouse), and so does BoneXpert. The design is our own: the detector of
`boneage_jax.regions` finds the regions; `preprocess.reach` and `preprocess.size` set the crop size on the hand and in
pixels; all crops share one trunk; the head predicts an age for each region and weights the predictions by attention.
Training starts from the weights "fast"; the second training continues from the first with frozen BatchNorm
statistics. On RSNA images of 299 pixels a crop is small; with full-size originals, larger crops show more detail:
`--config.preprocess.size=152 --config.preprocess.crop=128`.

From an earlier "fast", on two cores beside other jobs, the trainings took 65 minutes (AMD EPYC) and 73 (Intel Xeon).
MAE on the validation tenth after each: 7.26 and 7.13 months; 7.05 [6.67, 7.46] as the mean of two rotated views.
"""

from ml_collections import ConfigDict

from boneage_jax.config import base
from boneage_jax.errors import BoneAgeError

VARIANTS = (None, "frozen")


def get_config(stage: str = "start") -> ConfigDict:
    """The configuration of the first training ("start") or of the second ("frozen")."""
    config = base()
    config.name = "regions"
    config.data.workers = 0
    config.data.on_missing = "skip"  # the detector finds no named region in a few radiographs
    config.preprocess.region = "joints"
    config.preprocess.size = 76
    config.preprocess.crop = 64
    config.preprocess.reach = 0.24
    config.preprocess.clahe_clips = ()
    config.augment.rotation = 15.0
    config.augment.shift = 0.05
    config.augment.gamma = 0.3
    config.augment.sharpness = 0.7
    config.model.name = "joint_crops"
    config.model.options = ConfigDict({"drop_path": 0.05, "frozen_statistics": False})
    config.model.head = "joints"
    config.model.init_from = "fast"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.weight_decay = 0.02
    config.optimizer.warmup_epochs = 0.25
    config.optimizer.schedule = "cosine"
    config.optimizer.plateau.factor = 1.0
    config.optimizer.ema_decay = 0.995
    config.train.batch_size = 32
    config.train.epochs = 4
    config.train.loss = "mae"
    config.train.early_stopping = 0
    config.train.log_every = 50
    config.train.checkpoint_every = 100
    config.evaluate.batch_size = 32
    if stage == "frozen":
        config.name = "regions_frozen"
        config.model.options.frozen_statistics = True
        config.model.init_from = "runs/regions.safetensors"
        config.optimizer.learning_rate = 3e-4
        config.optimizer.ema_decay = 0.998
        config.train.epochs = 6
    elif stage != "start":
        raise BoneAgeError(f"configs/regions.py:{stage}: expected start or frozen")
    return config
