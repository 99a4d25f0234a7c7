"""Xception: feature map sizes, block structure, pointwise convolutions and residual blocks."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from boneage_jax.models.layers import Pointwise
from boneage_jax.models.xception import ResidualBlock, Xception
from boneage_jax.pretrained.names import shapes


@pytest.mark.parametrize(("size", "expected"), [(299, 10), (500, 16), (137, 5), (71, 3)])
def test_feature_map_size_matches_keras(size, expected):
    features = jax.eval_shape(
        lambda: Xception().init_with_output(jax.random.key(0), jnp.zeros((1, size, size, 1)), train=False)[0]
    )
    assert features.shape == (1, expected, expected, 2048)


def test_blocks_are_numbered_as_in_the_published_network():
    layers = shapes(Xception())["params"]
    blocks = {name for name in layers if "_" not in name}
    assert blocks == {f"block{i}" for i in range(2, 14)}
    downsampling = {name for name in blocks if "shortcut" in layers[name]}
    assert downsampling == {"block2", "block3", "block4", "block13"}
    assert {name for name in blocks if "sepconv3" in layers[name]} == {f"block{i}" for i in range(5, 13)}
    assert all(path[-2].endswith("_bn") for path in flatten_dict(layers) if path[-1] == "bias")


def test_middle_blocks_sets_the_length_of_the_middle_flow():
    layers = shapes(Xception(middle_blocks=2))["params"]
    assert {name for name in layers if "_" not in name} == {f"block{i}" for i in range(2, 8)}
    assert layers["block8_sepconv2"]["pointwise"]["kernel"].shape == (1, 1, 1536, 2048)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("use_bias", [False, True])
def test_pointwise_equals_flaxs_1x1_convolution(strides, use_bias):
    x = jax.random.normal(jax.random.key(0), (2, 7, 8, 5))
    reference = nn.Conv(6, (1, 1), strides, use_bias=use_bias, bias_init=nn.initializers.normal())
    ours = Pointwise(6, strides=strides, use_bias=use_bias)

    @jax.jit
    def both():
        variables = reference.init(jax.random.key(1), x)
        return ours.apply(variables, x), reference.apply(variables, x)

    actual, expected = both()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_identity_block_adds_its_input():
    norm = partial(nn.BatchNorm, use_running_average=True)
    block = ResidualBlock((4, 4), norm, downsample=False)
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 4))
    shapes = jax.eval_shape(block.init, jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    np.testing.assert_array_equal(jax.jit(block.apply)(variables, x), x)
