"""What the tables of names share."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

# Our names of BatchNorm's and LayerNorm's numbers, and theirs; convolutions' "kernel" and "bias" differ by source.
KERAS_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def shapes(trunk: nn.Module, channels: int = 3, size: int = 75) -> dict[str, Any]:
    """The trunk's variables for images of that many channels, as shapes only; nothing is computed."""
    return jax.tree.map(lambda leaf: leaf, _traced(trunk, channels, size))  # the caller may change its own copy


@functools.lru_cache(maxsize=32)
def _traced(trunk: nn.Module, channels: int, size: int) -> dict[str, Any]:
    """Traced once, which takes a second for a large trunk: the table of its names and the loading both need it."""
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    return jax.eval_shape(lambda key, image: trunk.init(key, image, train=False), jax.random.key(0), image)


def leaves(trunk: nn.Module) -> list[tuple[str, ...]]:
    """Paths of the trunk's leaves without the collection, e.g. ("block1_conv1_bn", "mean")."""
    return [path[1:] for path in traverse_util.flatten_dict(shapes(trunk))]
