"""The base configuration: every constant a user may want to change, in the field's standard terms.

A file in `configs/` takes `base()` and changes the few lines that differ.
"""

import json
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from boneage_jax.errors import BoneAgeError

# Settings that may change between two starts of one run: where and how it runs, never what it computes.
_PLACE = {
    "compilation_cache",
    "data.dir",
    "data.cache",
    "data.workers",
    "evaluate.split",
    "evaluate.batch_size",
    "data.keypoints",
    "train.epochs",
    "train.early_stopping",
    "train.log_every",
    "train.checkpoint_every",
    "checkpoint.step",
}
_PLACE_SECTIONS = ("benchmark.", "distributed.")

# Valid ranges of settings; values outside them would give nonsense, or a traceback much later.
_RANGES = {
    "seed": (0, 2**32 - 1),
    "data.workers": (0, 1024),
    "data.limit": (0, math.inf),
    "data.stanford_copies": (1, 100),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.warmup_epochs": (0, 10**6),
    "optimizer.clip_norm": (0, math.inf),
    "optimizer.ema_decay": (0, 1),
    "optimizer.plateau.factor": (1e-6, 1),
    "optimizer.plateau.patience": (1, math.inf),
    "optimizer.plateau.cooldown": (0, math.inf),
    "optimizer.plateau.min_scale": (0, 1),
    "train.batch_size": (1, math.inf),
    "train.epochs": (1, math.inf),
    "train.label_sigma": (0, math.inf),
    "train.early_stopping": (0, math.inf),
    "train.log_every": (1, math.inf),
    "train.checkpoint_every": (0, math.inf),
    "evaluate.batch_size": (1, math.inf),
    "checkpoint.step": (-1, math.inf),
    "benchmark.steps": (1, math.inf),
    "benchmark.warmup": (0, math.inf),
    "distributed.processes": (1, math.inf),
    "distributed.process": (0, math.inf),
}


def base() -> ConfigDict:
    """A configuration with every key that exists, at its default."""
    config = ConfigDict()
    config.name = "base"  # of the configuration; runs/<name> is the default of --workdir
    config.seed = 0  # of the initial parameters, the order of the images and their augmentation
    config.compilation_cache = ""  # folder of compiled functions; "" for the user's cache folder, or "off"

    config.data = ConfigDict()
    config.data.name = "rsna_bone_age"  # or "phantom", the procedural hand
    config.data.dir = ""  # folder with the official RSNA files, in any form
    config.data.cache = ""  # prepared images; "" for boneage_jax in the user's cache folder
    config.data.on_missing = "error"  # "skip": continue without missing images or labels
    # "device": all prepared images are kept in the memory of every device, and the compiled step augments them.
    config.data.placement = "host"
    config.data.workers = 1  # processes that prepare batches; 0 for threads of this process
    config.data.fold = ""  # "K/N": the K-th of N folds of the training images becomes the split "fold"
    # How often an epoch of training uses each image from Stanford: 21 % of RSNA's training set, all of its test set.
    config.data.stanford_copies = 1
    config.data.limit = 0  # images of each split, evenly spread, for a quick trial; 0 for all
    # Further inputs besides the sex, by column name: "number", or the categories such as
    # ("asian", "black", "unknown", "white"); "keypoints" for a heat map of the points in data.keypoints.
    config.data.inputs = ConfigDict()
    config.data.keypoints = ""  # JSON file of hand key points, as BoNet publishes it
    config.data.options = ConfigDict()  # of the data set: count, seed and even of the phantom

    config.preprocess = ConfigDict()
    config.preprocess.size = 299  # pixels per side
    # "hand": the square around the hand, exposed for the hand; "joints": one around each of its data.keypoints.
    config.preprocess.region = "image"
    config.preprocess.margin = 0.06  # of that square around the hand, as a fraction
    # Larger images are blurred like RSNA's copies of this side; 0 for no blur, to train on full-size originals.
    config.preprocess.copy_side = 299
    config.preprocess.reach = 0.24  # of "joints": side of their squares, as a fraction of the one around the hand
    config.preprocess.exposure = (1.0, 99.0)  # of "image": percentiles mapped to black and white
    config.preprocess.clahe_clips = (2.0,)  # one channel per clip limit; () without CLAHE
    config.preprocess.clahe_grid = 8  # tiles per side
    config.preprocess.scaling = "symmetric"  # [-1, 1]; "standardise": per image
    config.preprocess.crop = 0  # pixels per side of the crop, at a random position in training; 0 for no crop

    config.augment = ConfigDict()
    config.augment.flip = 0.5  # probability
    config.augment.rotation = 20.0  # degrees, both ways
    config.augment.shift = 0.1  # of the side, both ways
    config.augment.zoom = 0.1  # of the scale, both ways
    config.augment.brightness = 0.1  # of the range, both ways
    config.augment.contrast = 0.1  # of the factor, both ways
    config.augment.sharpness = 0.0  # of fine detail, both ways
    config.augment.gamma = 0.0  # exponent of the intensities up to 1 + gamma, and down to its inverse

    config.model = ConfigDict()
    config.model.name = "xception"  # of the trunk, as in docs/zoo.md
    config.model.options = ConfigDict()  # of the trunk
    config.model.input_channels = "native"  # "rgb": repeat the intensity in three channels
    # Weights to start from: a Keras or PyTorch file, one of this package, the name of included weights, or "imagenet".
    config.model.init_from = ""
    config.model.head = "regression"  # or "relative", "distribution", "sex_split_distribution", "joints"
    config.model.head_options = ConfigDict()  # of the head
    config.model.dtype = "float32"  # of the computation; parameters are float32
    config.model.remat = False  # rematerialise whole blocks: about half the memory

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 1e-4  # at the end of the warm-up
    config.optimizer.weight_decay = 1e-5  # of kernels; biases and the scales of normalisations do not decay
    config.optimizer.layer_decay = 1.0  # of the learning rate, per layer of the trunk away from the head
    # Paths of frozen parameters, such as ("trunk/block1",) or ("trunk",). The BatchNorm statistics of frozen layers
    # are still updated in training.
    config.optimizer.freeze = ()
    config.optimizer.warmup_epochs = 1.0  # in which the learning rate rises linearly from 0
    config.optimizer.schedule = "constant"  # after the warm-up; "cosine": to zero at train.epochs
    config.optimizer.clip_norm = 1.0  # of the gradient; 0 for none
    config.optimizer.ema_decay = 0.0  # of the moving average of the weights, which is used in evaluation; 0 for none
    config.optimizer.plateau = ConfigDict()
    # As Keras' ReduceLROnPlateau, which the study used: the rate is cut at the patience-th evaluation in a row without
    # a better MAE. PyTorch cuts one later, so that its patience of 2 is a patience of 3 here.
    config.optimizer.plateau.factor = 0.5  # 1 for no reduction
    config.optimizer.plateau.patience = 5  # evaluations
    config.optimizer.plateau.cooldown = 0  # evaluations ignored after a cut; Keras counts the last of them
    config.optimizer.plateau.min_scale = 1e-3  # of the learning rate

    config.train = ConfigDict()
    config.train.batch_size = 16  # over all devices
    config.train.epochs = 100  # passes over the training split
    config.train.loss = "mse"  # on z-scores: "mse", "mae", "huber"; of a distribution: "cross_entropy"
    config.train.label_sigma = 0.0  # months; width of the cross-entropy's soft label, 0 for the month itself
    config.train.sync_batch_norm = True  # statistics over all devices
    config.train.early_stopping = 15  # evaluations without a better MAE; 0 for none
    config.train.log_every = 20  # steps
    config.train.checkpoint_every = 0  # steps, in addition to the checkpoint after every epoch; 0 for none

    config.evaluate = ConfigDict()
    config.evaluate.split = "validation"  # or "train", "test", or "fold" if data.fold is set
    config.evaluate.batch_size = 32  # over all devices
    # Views to average over. "flip": the image and its mirror image; "rotations": the image turned by 10 degrees either
    # way; "ten_crop": corners, centre, mirror images.
    config.evaluate.views = "centre"

    config.checkpoint = ConfigDict()
    config.checkpoint.step = -1  # of the checkpoint to resume from; -1 for the newest

    config.benchmark = ConfigDict()
    config.benchmark.steps = 20  # timed
    config.benchmark.warmup = 3  # untimed steps before them
    config.benchmark.profile = False  # trace the training step, list its costliest operations and its floor

    config.distributed = ConfigDict()
    config.distributed.coordinator = ""  # host:port of process 0; "" for one process
    config.distributed.processes = 1  # in all
    config.distributed.process = 0  # index of this process
    return config


def check(config: ConfigDict) -> None:
    """Rejects values outside their valid range.

    Raises:
        BoneAgeError: the message names the key, its value and the expected range.
    """
    values = _flat(config.to_dict())
    for key, (least, most) in _RANGES.items():
        if not least <= values[key] <= most:
            expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise BoneAgeError(f"{key} is {values[key]}, expected {expected}")
    distributed = config.distributed
    if distributed.processes > 1 and not distributed.coordinator:
        raise BoneAgeError(
            f"distributed.coordinator is empty, expected HOST:PORT for {distributed.processes} processes"
        )
    if distributed.process >= distributed.processes:
        raise BoneAgeError(
            f"distributed.process is {distributed.process}, expected 0 to {distributed.processes - 1}, as there are "
            f"{distributed.processes} processes"
        )


def to_json(config: ConfigDict) -> str:
    """The configuration as text, for the work directory and the checkpoints."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str | bytes, where: Path | str) -> ConfigDict:
    """The inverse of `to_json`.

    Raises:
        BoneAgeError: `where` (the file's name) holds something else, or keys that are unknown to this version.
    """
    try:
        fields = json.loads(text)
        config = base()
        for section in ("data.inputs", "data.options", "model.options", "model.head_options"):
            outer, inner = section.split(".")
            config[outer][inner] = ConfigDict(fields[outer].pop(inner))
        config.lock().update(fields)
        return config
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BoneAgeError(
            f"{where} is not a configuration of this version ({error}); start again in another --workdir"
        ) from error


def keys(config: ConfigDict) -> list[str]:
    """Every key, as "section.key"."""
    return sorted(_flat(config.to_dict()))


def differences(stored: ConfigDict, given: ConfigDict) -> list[str]:
    """Differing settings among those that affect the results of a run, as "key: stored, now given"."""
    old, new = _flat(stored.to_dict()), _flat(given.to_dict())
    keys = [
        key
        for key in sorted(old.keys() | new.keys())
        if key not in _PLACE and not key.startswith(_PLACE_SECTIONS) and old.get(key) != new.get(key)
    ]
    if given.optimizer.schedule == "cosine" and old["train.epochs"] != new["train.epochs"]:
        keys.append("train.epochs")
    return [f"{key}: {old.get(key)}, now {new.get(key)}" for key in keys]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    # As flax.traverse_util.flatten_dict, but importing flax would start jax before the flags have been checked.
    flat: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
