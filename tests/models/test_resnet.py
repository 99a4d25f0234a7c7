"""ResNet-50 in both frameworks: sizes, strides, padding, and weight names."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.resnet import FRAMEWORKS, Bottleneck, ResNet50
from boneage_jax.pretrained.names import shapes
from boneage_jax.pretrained.resnet import keras_names, timm_names
from tests.models.classifier import Classifier, count

TINY: dict[str, Any] = {"blocks": (1, 2, 1, 1), "width": 4}
both_frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


def test_both_frameworks_have_their_published_sizes():
    torch, keras = (shapes(ResNet50(framework=name)) for name in ("torch", "keras"))
    assert count(torch["params"]) == 23_508_032
    assert count(keras) == 23_587_712  # Keras counts the running statistics
    assert count(torch["batch_stats"]) == count(keras["batch_stats"]) == 53_120


def test_classifiers_have_their_published_sizes():
    assert count(shapes(Classifier(ResNet50()))["params"]) == 25_557_032
    assert count(shapes(Classifier(ResNet50(framework="keras")))) == 25_636_712


@both_frameworks
@pytest.mark.parametrize(("size", "expected"), [(224, 7), (256, 8), (97, 4), (33, 2)])
def test_feature_map_is_a_thirty_second_of_the_image_rounded_up(framework, size, expected):
    trunk, image = ResNet50(framework=framework), jnp.zeros((1, size, 64, 1))
    features = jax.eval_shape(lambda: trunk.init_with_output(jax.random.key(0), image, train=False)[0])
    assert features.shape == (1, expected, 2, 2048)


def test_options_set_the_layer_sizes():
    layers = shapes(ResNet50(**TINY), channels=1)["params"]
    blocks = {name for name in layers if name.startswith("stage")}
    assert blocks == {"stage1_block1", "stage2_block1", "stage2_block2", "stage3_block1", "stage4_block1"}
    assert layers["conv1"]["kernel"].shape == (7, 7, 1, 4)
    assert layers["stage4_block1"]["conv3"]["kernel"].shape == (1, 1, 32, 128)


def test_the_first_block_of_each_stage_projects_its_input():
    layers = shapes(ResNet50())["params"]
    assert {name for name in layers if "shortcut" in layers[name]} == {f"stage{i}_block1" for i in (1, 2, 3, 4)}


@both_frameworks
def test_only_keras_has_biases_before_the_normalisation(framework):
    paths = flatten_dict(shapes(ResNet50(framework=framework))["params"])
    biases = [path for path in paths if path[-1] == "bias" and not path[-2].endswith("_bn")]
    assert len(biases) == {"torch": 0, "keras": 53}[framework]


@pytest.mark.parametrize(("framework", "seen"), [("torch", True), ("keras", False)])
def test_only_the_torch_downsampling_block_sees_every_pixel(framework, seen):
    norm = partial(nn.BatchNorm, use_running_average=True)
    block = Bottleneck(2, FRAMEWORKS[framework], norm, strides=2, project=True)
    nothing = jnp.zeros((1, 6, 6, 3))
    off_the_grid = nothing.at[0, 1, 1].set(1.0)

    @jax.jit
    def both():
        variables = block.init(jax.random.key(0), nothing)
        return block.apply(variables, nothing), block.apply(variables, off_the_grid)

    without, with_pixel = both()
    assert bool(np.any(without != with_pixel)) == seen


def test_unknown_framework_is_refused():
    with pytest.raises(BoneAgeError, match="unknown framework 'v2' of ResNet50; known: torch, keras"):
        ResNet50(framework="v2")


def test_every_leaf_has_one_name_in_keras_and_one_in_timm():
    for framework, names in (("keras", keras_names), ("torch", timm_names)):
        trunk = ResNet50(framework=framework)
        found = names(trunk)
        ours = {"/".join(path[1:]) for path in flatten_dict(shapes(trunk))}
        assert set(found) == ours
        assert len(set(found.values())) == len(ours)


def test_weight_names_match_keras_and_timm():
    keras, timm = keras_names(ResNet50(framework="keras")), timm_names(ResNet50())
    assert keras["conv1/bias"] == "conv1_conv/bias"
    assert keras["conv1_bn/bias"] == "conv1_bn/beta"
    assert keras["stage1_block1/shortcut/kernel"] == "conv2_block1_0_conv/kernel"
    assert keras["stage4_block3/conv3_bn/var"] == "conv5_block3_3_bn/moving_variance"
    assert timm["conv1_bn/mean"] == "bn1.running_mean"
    assert timm["stage1_block1/shortcut_bn/scale"] == "layer1.0.downsample.1.weight"
    assert timm["stage4_block3/conv2/kernel"] == "layer4.2.conv2.weight"


def test_weights_of_the_other_framework_are_refused():
    with pytest.raises(BoneAgeError, match=r'model\.options\.framework = "keras", and it is "torch"'):
        keras_names(ResNet50())
    with pytest.raises(BoneAgeError, match=r'model\.options\.framework = "torch", and it is "keras"'):
        timm_names(ResNet50(framework="keras"))
