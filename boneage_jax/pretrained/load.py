"""Initialises a trunk from a file of pretrained weights; every array in the file is used or deliberately left out."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn
import numpy as np
from absl import logging
from flax import traverse_util

from boneage_jax.errors import BoneAgeError, listed
from boneage_jax.models.bonet import BoNet
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.models.joint_crops import JointCrops
from boneage_jax.models.network import Network
from boneage_jax.models.resnet import ResNet50
from boneage_jax.models.xception import Xception
from boneage_jax.pretrained import (
    convmixer,
    convnextv2,
    efficientnet,
    formats,
    imagenet,
    inception_v3,
    released,
    resnet,
    xception,
)
from boneage_jax.pretrained.assign import assign
from boneage_jax.released import weights

# The module with the name tables of each trunk: its functions `keras_names`, `timm_names`, ...
TABLES: dict[type[nn.Module], ModuleType] = {
    BoNet: inception_v3,
    ConvMixer: convmixer,
    ConvNeXtV2: convnextv2,
    EfficientNet: efficientnet,
    InceptionV3: inception_v3,
    JointCrops: efficientnet,
    ResNet50: resnet,
    Xception: xception,
}
# Layers of this package that no other file holds: they keep their initial values.
OURS_ALONE: dict[type[nn.Module], tuple[str, ...]] = {BoNet: ("heatmap_stem/", "conv5a_1x1/")}
# Prefixes of the keys of classifiers, which a bone age network does not use.
CLASSIFIERS = {
    "keras": ("predictions/",),
    "torch": ("head.", "fc.", "_fc.", "classifier.", "norm.", "AuxLogits."),
}
# Suffixes of the keys of arrays that are not weights: Keras' input scaling, PyTorch's step counters.
BOOKKEEPING = {
    "keras": ("normalization/mean", "normalization/variance", "normalization/count"),
    "torch": ("num_batches_tracked",),
}

Names = dict[str, str]


def start_from(path: Path | str, name: str, network: Network, variables: dict[str, Any]) -> dict[str, Any]:
    """Replaces the trunk's variables by those of a file; the head is unchanged, unless this package wrote the file.

    If the network has one input channel, a stem for three is summed over its input channels. Its output for a
    single-channel image then equals the original's for that image repeated in all three channels.

    Args:
        path: a file that `formats.read` reads, a weights file of this package, the name of weights that are included in
            this package, or "imagenet" for those of `imagenet.find`.
        name: of the trunk, for messages.
        network: trunk and head.
        variables: of the network, {"params": {"trunk", "head"}, "batch_stats": {"trunk"}}.

    Returns:
        Variables of the same structure.

    Raises:
        BoneAgeError: the file cannot be read, or an array is missing, unexpected or of another shape.
    """
    path = _find(path, name)
    if weights.is_released(path):
        return released.start_from(path, name, network, variables)
    trunk = network.trunk
    source, stored = formats.read(path)
    like = {kind: tree["trunk"] for kind, tree in variables.items() if "trunk" in tree}
    alone = OURS_ALONE.get(type(trunk), ())
    flat = traverse_util.flatten_dict(like)
    kept = {leaf: value for leaf, value in flat.items() if "/".join(leaf[1:]).startswith(alone)}
    replaced = {leaf: value for leaf, value in flat.items() if leaf not in kept}
    try:
        names = _fitting_table(name, trunk, source, stored)
        arrays = _of_trunk(stored, names, source)
        arrays = _for_our_channels(arrays, names, replaced, source)
        loaded = assign(arrays, names, traverse_util.unflatten_dict(replaced), source)
    except BoneAgeError as error:
        raise BoneAgeError(f"{name} cannot start from {path}: {error}") from error
    logging.info("%s starts from %s: %d arrays, %d left out.", name, path, len(arrays), len(stored) - len(arrays))
    together = traverse_util.unflatten_dict(kept | traverse_util.flatten_dict(loaded))
    return {kind: {**tree, "trunk": together[kind]} if kind in together else tree for kind, tree in variables.items()}


def _find(path: Path | str, name: str) -> Path:
    if str(path) == imagenet.NAME:
        return imagenet.find(name)
    return weights.find(path) if str(path) in weights.names() else Path(os.path.expanduser(path))


def _fitting_table(name: str, trunk: nn.Module, source: str, stored: dict[str, np.ndarray]) -> Names:
    """The name table that matches most of the file's keys."""
    tables: list[Names] = []
    refusals: list[BoneAgeError] = []
    functions = _tables(trunk)
    for framework, table in functions.items():
        if (framework == "keras") != (source == "keras"):
            continue
        try:
            tables.append(table(trunk))
        except BoneAgeError as error:  # this trunk is configured for another framework
            refusals.append(error)
    fitting = max(tables, key=lambda names: len(stored.keys() & {*names.values()}), default=None)
    if refusals and (fitting is None or not stored.keys() & {*fitting.values()}):
        raise refusals[0]
    if fitting is None:
        known = ", ".join(functions) or "none"
        raise BoneAgeError(
            f"it contains {source} weights, but no {source} layer names are known for {name}; known: {known}"
        )
    return fitting


def _tables(trunk: nn.Module) -> dict[str, Callable[[Any], Names]]:
    """The known name tables of a trunk, by framework."""
    if type(trunk) not in TABLES:
        return {}
    functions = inspect.getmembers(TABLES[type(trunk)], inspect.isfunction)
    return {name.removesuffix("_names"): table for name, table in functions if name.endswith("_names")}


def _of_trunk(stored: dict[str, np.ndarray], names: Names, source: str) -> dict[str, np.ndarray]:
    """Drops classifier and bookkeeping arrays, unless the trunk itself has a layer of that name."""
    known = {*names.values()}

    def left_out(key: str) -> bool:
        return key.startswith(CLASSIFIERS[source]) or key.endswith(BOOKKEEPING[source])

    arrays = {key: value for key, value in stored.items() if key in known or not left_out(key)}
    broken = [key for key, value in arrays.items() if value.dtype != np.float32 or not np.isfinite(value).all()]
    if broken:
        raise BoneAgeError(
            f"not all values are finite floating-point numbers in {len(broken)} arrays: {listed(broken)}"
        )
    return arrays


def _for_our_channels(
    arrays: dict[str, np.ndarray], names: Names, ours: dict[tuple[str, ...], Any], source: str
) -> dict[str, np.ndarray]:
    """Sums a kernel over its three input channels where ours has one and the same shape otherwise: the stem's."""
    axis = 2 if source == "keras" else 1  # of the input channels, in HWIO or OIHW
    adapted = dict(arrays)
    for (_, *path), value in ours.items():
        kernel = arrays.get(names.get("/".join(path), ""))
        if kernel is None or kernel.ndim != 4 or len(value.shape) != 4:
            continue
        theirs = kernel.shape if source == "keras" else tuple(kernel.shape[i] for i in (2, 3, 1, 0))
        if theirs == (*value.shape[:2], 3, value.shape[3]) and value.shape[2] == 1:
            adapted[names["/".join(path)]] = kernel.sum(axis=axis, keepdims=True)
        elif theirs[2] != value.shape[2] and theirs == (*value.shape[:2], theirs[2], value.shape[3]):
            raise BoneAgeError(
                f"its layer {names['/'.join(path)]} takes {theirs[2]} input channels, the network's images have "
                f"{value.shape[2]}; only three can be reduced to one, otherwise the two numbers must be equal"
            )
    return adapted
