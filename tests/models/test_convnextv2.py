"""ConvNeXt V2: published sizes, patches, global response normalisation, stochastic depth, weight names."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.convnextv2 import VARIANTS, ConvNeXtV2, GlobalResponseNorm
from boneage_jax.pretrained.convnextv2 import fair_names, timm_names
from boneage_jax.pretrained.names import shapes
from tests.compiling import QUICK
from tests.models.classifier import Classifier
from tests.parity import comparison

# timm 1.0 convnextv2_*, with its classifier for 1,000 classes.
PUBLISHED_SIZES = {"atto": 3_708_400, "femto": 5_233_240, "pico": 9_066_280, "nano": 15_623_800, "tiny": 28_635_496}


@pytest.mark.parametrize("variant", PUBLISHED_SIZES)
def test_classifiers_have_their_published_sizes(variant):
    found = shapes(Classifier(ConvNeXtV2(variant), norm=True))
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == PUBLISHED_SIZES[variant]


def test_every_variant_except_the_test_one_has_a_published_size():
    assert set(VARIANTS) - set(PUBLISHED_SIZES) == {"micro"}


@pytest.mark.parametrize(("pixels", "expected"), [(224, 7), (99, 3), (95, 2), (32, 1)])
def test_pixels_outside_whole_patches_are_dropped(pixels, expected):
    image = jnp.zeros((1, pixels, 64, 1))
    features = jax.eval_shape(lambda: ConvNeXtV2("micro").init_with_output(jax.random.key(0), image, train=False)[0])
    assert features.shape == (1, expected, 2, 32)


def response_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Any:
    return GlobalResponseNorm().apply({"params": {"gamma": gamma, "beta": beta}}, jnp.asarray(x))


def test_global_response_norm_matches_the_paper():
    x, gamma, beta = (np.random.default_rng(0).normal(size=size).astype(np.float32) for size in ((2, 5, 3, 4), 4, 4))
    norm = np.sqrt((x.astype(np.float64) ** 2).sum(axis=(1, 2), keepdims=True))
    relative = norm / norm.mean(axis=3, keepdims=True)
    expected = x + gamma[None, None, None] * (x * relative) + beta[None, None, None]
    np.testing.assert_allclose(response_norm(x, gamma, beta), expected, rtol=1e-5, atol=1e-5)


def test_all_zero_channels_have_finite_gradients():
    x = np.ones((1, 2, 2, 3), np.float32) * np.array([0, 1, 2], np.float32)[None, None, None]
    ones = np.ones(3, np.float32)
    for nothing in (x, 0 * x):
        gradients = jax.grad(lambda *inputs: response_norm(*inputs).sum(), argnums=(0, 1, 2))(nothing, ones, ones)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_initial_weights_follow_the_paper():
    image = jnp.zeros((1, 32, 32, 3))
    init = jax.jit(lambda key: ConvNeXtV2("micro").init(key, image, train=False), compiler_options=QUICK)
    params = jax.device_get(init(jax.random.key(0)))["params"]
    for path, value in traverse_util.flatten_dict(params).items():
        if path[-1] == "kernel":
            assert abs(value.mean()) < 6e-3, path
            assert 0.015 < value.std() < 0.025, path
        else:
            assert np.all(value == (path[-1] == "scale")), path


def test_stochastic_depth_acts_in_training_only():
    plain, dropping = ConvNeXtV2("micro"), ConvNeXtV2("micro", drop_path=0.9)
    variables, image = comparison.filled(plain, comparison.drawn), comparison.image(32, 32)
    train = jax.jit(lambda v, x, key: dropping.apply(v, x, train=True, rngs={"dropout": key}), compiler_options=QUICK)
    first, second = (train(variables, image, jax.random.key(seed)) for seed in (0, 1))
    assert not np.allclose(first, second)

    def in_evaluation(trunk):
        return str(jax.make_jaxpr(lambda v, x: trunk.apply(v, x, train=False))(variables, image))

    assert in_evaluation(dropping) == in_evaluation(plain)
    trained, evaluated = (  # without a "dropout" key, which an active stochastic depth would need
        jax.jit(partial(plain.apply, train=train), compiler_options=QUICK)(variables, image) for train in (True, False)
    )
    np.testing.assert_array_equal(trained, evaluated)


def test_stochastic_depth_rises_linearly_from_zero_over_all_blocks():
    found = []

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            found.append(context.module.rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(ConvNeXtV2("atto", drop_path=0.22))
    np.testing.assert_allclose(found, np.arange(12) * 0.02)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            timm_names,
            {
                "stem_norm/scale": "stem.1.weight",
                "downsample2/kernel": "stages.1.downsample.1.weight",
                "downsample2_norm/bias": "stages.1.downsample.0.bias",
                "stage3_block2/grn/gamma": "stages.2.blocks.1.mlp.grn.weight",
                "stage3_block2/project/kernel": "stages.2.blocks.1.mlp.fc2.weight",
            },
        ),
        (
            fair_names,
            {
                "stem_norm/scale": "downsample_layers.0.1.weight",
                "downsample2/kernel": "downsample_layers.1.1.weight",
                "downsample2_norm/bias": "downsample_layers.1.0.bias",
                "stage3_block2/grn/gamma": "stages.2.1.grn.gamma",
                "stage3_block2/project/kernel": "stages.2.1.pwconv2.weight",
            },
        ),
    ],
)
def test_every_weight_has_one_name_in_the_original_files(names, expected):
    trunk = ConvNeXtV2("micro")
    table = names(trunk)
    assert set(table) == set(traverse_util.flatten_dict(shapes(trunk)["params"], sep="/"))
    assert len(set(table.values())) == len(table)
    assert {ours: table[ours] for ours in expected} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, "unknown variant 'huge' of ConvNeXt V2; known: atto, femto"),
        ({"drop_path": 1.0}, "drop_path of ConvNeXt V2 is 1.0, expected 0 to below 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(BoneAgeError, match=message):
        ConvNeXtV2(**options)
