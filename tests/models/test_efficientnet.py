"""EfficientNet: published sizes, compound scaling, both frameworks' padding, stochastic depth, weight names."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.efficientnet import (
    FRAMEWORKS,
    VARIANTS,
    EfficientNet,
    InvertedResidual,
    SqueezeExcite,
    pad_before_halving,
    scaled_channels,
    scaled_ends,
    scaled_stages,
)
from boneage_jax.models.layers import batch_norm
from boneage_jax.pretrained.efficientnet import efficientnet_pytorch_names, keras_names, timm_names, torchvision_names
from boneage_jax.pretrained.names import shapes
from tests.compiling import QUICK
from tests.models.classifier import Classifier, count
from tests.parity import comparison

# keras.applications without top but with the 7 values of its input normalisation; timm 1.0 with its classifier.
KERAS_SIZES = {"b0": 4_049_571, "b4": 17_673_823}
TIMM_SIZES = {
    "b0": 5_288_548,
    "b4": 19_341_616,
    "lite0": 4_652_008,
    "lite1": 5_416_680,
    "lite2": 6_092_072,
    "lite3": 8_197_096,
    "lite4": 13_006_568,
}
NOT_PUBLISHED = {"tiny", "tiny_lite"}


@pytest.mark.parametrize("variant", TIMM_SIZES)
def test_every_variant_has_its_published_size(variant):
    if variant in KERAS_SIZES:
        assert count(shapes(EfficientNet(variant=variant))) + 7 == KERAS_SIZES[variant]
    assert count(shapes(Classifier(EfficientNet(variant=variant)))["params"]) == TIMM_SIZES[variant]


def test_every_variant_except_the_test_ones_has_a_published_size():
    assert set(VARIANTS) - set(TIMM_SIZES) == NOT_PUBLISHED


@pytest.mark.parametrize(
    ("variant", "features", "blocks", "ends"),
    [
        ("b0", [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], (32, 1280)),
        ("b4", [24, 32, 56, 112, 160, 272, 448], [2, 4, 4, 6, 6, 8, 2], (48, 1792)),
        ("lite0", [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], (32, 1280)),
        ("lite4", [24, 32, 56, 112, 160, 272, 448], [1, 4, 4, 6, 6, 8, 1], (32, 1280)),
    ],
)
def test_scaling_gives_the_published_channels_and_blocks(variant, features, blocks, ends):
    assert [stage.features for stage in scaled_stages(variant)] == features
    assert [stage.blocks for stage in scaled_stages(variant)] == blocks
    assert scaled_ends(variant) == ends


def test_scaled_channels_are_rounded_up_if_more_than_a_tenth_is_lost():
    # 10 would be rounded to 8.
    assert scaled_channels(40, 0.25) == 16


def test_lite_has_relu6_and_no_squeeze_and_excitation():
    trunk = EfficientNet(variant="tiny_lite")
    variables = comparison.filled(trunk, comparison.drawn)
    assert not [path for path in flatten_dict(variables) if "squeeze_excite" in path]
    # With 100 times the scale, the last normalisation reaches both limits of ReLU6.
    variables["params"]["top_bn"]["scale"] *= 100
    run = jax.jit(lambda v, x: trunk.apply(v, x, train=False), compiler_options=QUICK)
    found = np.asarray(run(variables, comparison.image(32, 32)))
    assert (found.min(), found.max()) == (0, 6)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("size", "expected"), [(224, 7), (380, 12), (97, 4), (33, 2)])
def test_feature_map_is_a_thirty_second_of_the_image_rounded_up(framework, size, expected):
    trunk, image = EfficientNet(framework=framework), jnp.zeros((1, size, 64, 1))
    features = jax.eval_shape(lambda: trunk.init_with_output(jax.random.key(0), image, train=False)[0])
    assert features.shape == (1, expected, 2, 1280)


@pytest.mark.parametrize(
    ("framework", "size", "kernel_size", "zeros"),
    [("keras", 8, 3, (0, 1)), ("keras", 8, 5, (1, 2)), ("keras", 9, 5, (2, 2)), ("torch", 8, 5, (2, 2))],
)
def test_padding_before_a_strided_convolution_matches_the_framework(framework, size, kernel_size, zeros):
    padded = pad_before_halving(jnp.ones((1, size, 9, 1)), kernel_size, framework)
    np.testing.assert_array_equal(padded[0, :, 4, 0], np.pad(np.ones(size), zeros))


def test_squeeze_and_excitation_gates_channels_by_their_means():
    module, x = SqueezeExcite(2), jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    params = jax.jit(module.init, compiler_options=QUICK)(jax.random.key(1), x)
    weights = jax.tree.map(np.asarray, params["params"])
    hidden = np.asarray(x).mean(axis=(1, 2)) @ weights["reduce"]["kernel"][0, 0]
    gate = (hidden / (1 + np.exp(-hidden))) @ weights["expand"]["kernel"][0, 0]
    expected = np.asarray(x) / (1 + np.exp(-gate))[:, None, None]
    found: Any = module.apply(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def block(*, drop_rate: float, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a residual block for 64 images."""
    norm = batch_norm(train=False, momentum=0.9, epsilon=1e-5, axis_name=None, dtype=jnp.float32)
    module = InvertedResidual(4, 2, 3, 1, drop_rate, "keras", norm, train)
    x = jax.random.normal(jax.random.key(0), (64, 3, 3, 4))

    def run():
        variables = module.clone(train=False).init(jax.random.key(1), x)
        return module.apply(variables, x, rngs={"dropout": jax.random.key(2)})

    return np.asarray(x), np.asarray(jax.jit(run, compiler_options=QUICK)())


def test_stochastic_depth_passes_dropped_images_and_rescales_the_others():
    x, evaluated = block(drop_rate=0.5, train=False)
    _, trained = block(drop_rate=0.5, train=True)
    dropped = (trained == x).all(axis=(1, 2, 3))
    assert 16 <= dropped.sum() <= 48
    assert not (evaluated == x).all(axis=(1, 2, 3)).any()
    np.testing.assert_allclose((trained - x)[~dropped], 2 * (evaluated - x)[~dropped], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_rises_linearly_from_zero_over_all_blocks():
    found = {}

    def record(next_call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
            found[context.module.path[0]] = context.module.rate
        return next_call(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(EfficientNet(drop_path=0.16))
    # The blocks with a shortcut, by their place among all 16.
    places = {"2b": 2, "3b": 4, "4b": 6, "4c": 7, "5b": 9, "5c": 10, "6b": 12, "6c": 13, "6d": 14}
    assert found == {f"block{name}": pytest.approx(0.01 * place) for name, place in places.items()}


def test_stochastic_depth_changes_the_features_in_training_only():
    trunk = EfficientNet(variant="tiny", drop_path=0.9)
    variables = comparison.filled(trunk, comparison.drawn)

    def features(variables, image, key, train):
        out, _ = trunk.apply(variables, image, train=train, rngs={"dropout": key}, mutable=["batch_stats"])
        return out

    run = jax.jit(features, static_argnums=3, compiler_options=QUICK)
    keys = jax.random.key(0), jax.random.key(1)
    assert not np.allclose(*(run(variables, comparison.image(33, 33), key, True) for key in keys))
    np.testing.assert_array_equal(*(run(variables, comparison.image(33, 33), key, False) for key in keys))


@pytest.mark.parametrize("variant", ["tiny", "tiny_lite"])
def test_with_frozen_statistics_training_matches_evaluation(variant):
    trunk = EfficientNet(variant=variant, drop_path=0.0, frozen_statistics=True)
    variables = comparison.filled(trunk, comparison.drawn)

    def features(train: bool, variables: Any, image: jax.Array) -> Any:
        return trunk.apply(variables, image, train=train, mutable=["batch_stats"])

    run = jax.jit(features, static_argnums=0, compiler_options=QUICK)
    (trained, statistics), (evaluated, _) = (run(train, variables, comparison.image(33, 32)) for train in (True, False))
    np.testing.assert_allclose(trained, evaluated, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, statistics["batch_stats"], variables["batch_stats"])


def test_the_frameworks_share_parameter_shapes_but_differ_in_output():
    keras, torch = (EfficientNet(variant="tiny", framework=name) for name in FRAMEWORKS)
    assert jax.tree.map(jnp.shape, shapes(keras)) == jax.tree.map(jnp.shape, shapes(torch))

    def features(trunk, variables, image):
        return trunk.apply(variables, image, train=False)

    run = jax.jit(features, static_argnums=0, compiler_options=QUICK)
    variables, image = comparison.filled(keras, comparison.drawn), comparison.image(32, 32)
    assert not np.allclose(run(keras, variables, image), run(torch, variables, image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "b9"}, "unknown variant 'b9' of EfficientNet; known: b0, b4"),
        ({"framework": "timm"}, "unknown framework 'timm' of EfficientNet; known: keras, torch"),
        ({"drop_path": 1.0}, "drop_path of EfficientNet is 1.0, expected 0 to below 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(BoneAgeError, match=message):
        EfficientNet(**options)


@pytest.mark.parametrize(
    ("names", "framework"),
    [
        (efficientnet_pytorch_names, "keras"),
        (keras_names, "keras"),
        (timm_names, "keras"),
        (timm_names, "torch"),
        (torchvision_names, "torch"),
    ],
)
@pytest.mark.parametrize("variant", ["b4", "lite4"])
def test_every_weight_has_one_name_in_the_original_files(variant, names, framework):
    trunk = EfficientNet(variant=variant, framework=framework)
    table = names(trunk)
    assert set(table) == {"/".join(path[1:]) for path in flatten_dict(shapes(trunk))}
    assert len(set(table.values())) == len(table)


def test_weight_names_match_keras_timm_and_torchvision():
    keras, timm = keras_names(EfficientNet()), timm_names(EfficientNet())
    vision = torchvision_names(EfficientNet(framework="torch"))
    names = [
        ("stem_bn/scale", "stem_bn/gamma", "bn1.weight", "features.0.1.weight"),
        (
            "block1a/depthwise/kernel",
            "block1a_dwconv/kernel",
            "blocks.0.0.conv_dw.weight",
            "features.1.0.block.0.0.weight",
        ),
        (
            "block1a/project_bn/mean",
            "block1a_project_bn/moving_mean",
            "blocks.0.0.bn2.running_mean",
            "features.1.0.block.2.1.running_mean",
        ),
        (
            "block3b/depthwise_bn/var",
            "block3b_bn/moving_variance",
            "blocks.2.1.bn2.running_var",
            "features.3.1.block.1.1.running_var",
        ),
        (
            "block6d/squeeze_excite/reduce/bias",
            "block6d_se_reduce/bias",
            "blocks.5.3.se.conv_reduce.bias",
            "features.6.3.block.2.fc1.bias",
        ),
        ("top_conv/kernel", "top_conv/kernel", "conv_head.weight", "features.8.0.weight"),
    ]
    for leaf, *theirs in names:
        assert [table[leaf] for table in (keras, timm, vision)] == theirs


def test_efficientnet_pytorch_names_number_blocks_consecutively():
    table, lite = (efficientnet_pytorch_names(EfficientNet(variant=variant)) for variant in ("b0", "lite1"))
    assert table["stem_bn/bias"] == "_bn0.bias"
    assert table["top_bn/var"] == "_bn1.running_var"
    assert table["block6d/squeeze_excite/reduce/bias"] == "_blocks.14._se_reduce.bias"
    # Lite1 has 1, 3, 3, 4, 4, 5 and 1 blocks.
    assert lite["block1a/project/kernel"] == "_blocks.0._project_conv.weight"
    assert lite["block7a/depthwise_bn/mean"] == "_blocks.20._bn1.running_mean"


def test_weights_of_the_other_framework_are_refused():
    for names in (keras_names, efficientnet_pytorch_names):
        with pytest.raises(BoneAgeError, match=r'model\.options\.framework = "keras", and it is "torch"'):
            names(EfficientNet(framework="torch"))
    with pytest.raises(BoneAgeError, match=r'model\.options\.framework = "torch", and it is "keras"'):
        torchvision_names(EfficientNet())
