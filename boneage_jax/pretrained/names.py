"""Helpers of the name tables."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

# Our names of variables to Keras' (of normalisation layers only) and to PyTorch's; names not listed are the same.
KERAS_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def shapes(trunk: nn.Module, channels: int = 3, size: int = 75) -> dict[str, Any]:
    """The shapes of the trunk's variables for images of that many channels; nothing is computed."""
    return jax.tree.map(lambda leaf: leaf, _traced(trunk, channels, size))  # the caller may change its own copy


@functools.lru_cache(maxsize=32)
def _traced(trunk: nn.Module, channels: int, size: int) -> dict[str, Any]:
    """Cached, because tracing a large trunk takes a second and both its name table and the loading need it."""
    image = jax.ShapeDtypeStruct((1, size, size, channels), np.float32)
    return jax.eval_shape(lambda key, image: trunk.init(key, image, train=False), jax.random.key(0), image)


def leaves(trunk: nn.Module) -> list[tuple[str, ...]]:
    """Paths of the trunk's leaves without the collection, e.g. ("block1_conv1_bn", "mean")."""
    return [path[1:] for path in traverse_util.flatten_dict(shapes(trunk))]
