from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.models.convnextv2 import ConvNeXtV2
from boneage_jax.models.heads.regression import Regression
from boneage_jax.models.inception_v3 import InceptionV3
from boneage_jax.models.network import Network
from boneage_jax.models.resnet import ResNet50
from boneage_jax.pretrained import convmixer, convnextv2, inception_v3, load, names, start_from
from boneage_jax.pretrained.assign import to_original
from tests.models.families import OWN
from tests.pretrained import weight_files
from tests.trees import structure

OPTIONS: dict[str, Any] = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4}
CLASSIFIER = {"head.weight": np.zeros((1000, 8), np.float32), "head.bias": np.zeros(1000, np.float32)}


IMAGE = np.random.default_rng(3).uniform(-1, 1, (2, 17, 19, 1)).astype(np.float32)


@cache
def network(channels: str = "native") -> models.Network:
    return models.create("convmixer", head_options={"hidden": (4,)}, input_channels=channels, **OPTIONS)


@cache
def fresh(channels: str = "native"):
    sex = jax.ShapeDtypeStruct((2,), np.int32)
    shapes = jax.eval_shape(
        lambda sex: network(channels).init(jax.random.key(0), jnp.asarray(IMAGE), sex, train=False), sex
    )
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.25, np.float32), shapes)


@cache
def theirs() -> dict[str, np.ndarray]:
    """A ConvMixer for colour images as timm would store it."""
    trunk = ConvMixer(**OPTIONS)
    stored = {"blocks.0.3.num_batches_tracked": np.array(7)}
    for path, leaf in traverse_util.flatten_dict(names.shapes(trunk), sep="/").items():
        shape = leaf.shape if len(leaf.shape) == 1 else tuple(leaf.shape[i] for i in (3, 2, 0, 1))
        value = np.random.default_rng(len(stored)).uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        stored[convmixer.timm_names(trunk)[path.partition("/")[2]]] = to_original(value, shape, "torch")
    return stored


def saved(tmp_path, arrays=None):
    arrays = {key: np.ascontiguousarray(value) for key, value in (arrays or theirs()).items()}
    save_file(arrays, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def start(path, channels: str = "native"):
    return start_from(path, "convmixer", network(channels), fresh(channels))


def features(channels: str, variables) -> jax.Array:
    return jax.jit(lambda v: network(channels).apply(v, jnp.asarray(IMAGE), train=False, method="features"))(variables)


def test_the_trunk_is_replaced_and_the_head_stays(tmp_path):
    started = start(saved(tmp_path))
    assert structure(started) == structure(fresh())
    for (path, after), before in zip(
        jax.tree_util.tree_leaves_with_path(started), jax.tree.leaves(fresh()), strict=True
    ):
        assert after.dtype == np.float32
        in_trunk = jax.tree_util.DictKey("trunk") in path
        assert np.array_equal(before, after) != in_trunk, jax.tree_util.keystr(path)
    kernel = started["params"]["trunk"]["block2"]["pointwise"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 0], theirs()["blocks.1.1.weight"][:, :, 0, 0].T)


def test_summing_the_stem_over_channels_equals_repeating_a_grey_image(tmp_path):
    path = saved(tmp_path)
    grey, colour = start(path), start(path, "rgb")
    assert grey["params"]["trunk"]["patch_embedding"]["kernel"].shape == (4, 4, 1, 8)
    assert colour["params"]["trunk"]["patch_embedding"]["kernel"].shape == (4, 4, 3, 8)
    np.testing.assert_allclose(features("native", grey), features("rgb", colour), rtol=1e-5, atol=1e-5)


def test_a_stem_with_the_channels_of_the_image_is_loaded_unchanged(tmp_path):
    kernel = theirs()["stem.0.weight"][:, :1]
    started = start(saved(tmp_path, theirs() | {"stem.0.weight": kernel}))
    found = started["params"]["trunk"]["patch_embedding"]["kernel"]
    np.testing.assert_array_equal(found, kernel.transpose(2, 3, 1, 0))


def test_a_stem_with_another_number_of_channels_is_refused(tmp_path):
    arrays = theirs() | {"stem.0.weight": np.zeros((8, 4, 4, 4), np.float32)}
    with pytest.raises(BoneAgeError, match=r"stem\.0\.weight takes 4 input channels, the network's images have 1"):
        start(saved(tmp_path, arrays))


def test_classifier_and_step_counters_are_ignored(tmp_path):
    expected, found = start(saved(tmp_path)), start(saved(tmp_path, theirs() | CLASSIFIER))
    assert jax.tree.all(jax.tree.map(np.array_equal, expected, found))


def test_missing_unexpected_and_misshapen_keys_are_counted_and_listed(tmp_path):
    arrays = {key: value for key, value in theirs().items() if not key.startswith("blocks.0.0.fn")}
    arrays |= {f"extra.{i}": np.zeros(1, np.float32) for i in range(12)}
    arrays["blocks.1.1.bias"] = np.zeros(9, np.float32)
    with pytest.raises(BoneAgeError) as error:
        start(saved(tmp_path, arrays))
    assert f"convmixer cannot start from {tmp_path}" in str(error.value)
    assert "6 missing: blocks.0.0.fn.0.bias, blocks.0.0.fn.0.weight, " in str(error.value)
    assert "12 unexpected: extra.0, extra.1, extra.10, extra.11, " in str(error.value)
    assert "extra.9" not in str(error.value)
    assert "1 of the wrong shape: blocks.1.1.bias (9, expected 8)" in str(error.value)


def test_weights_of_a_deeper_network_are_refused(tmp_path):
    deeper = {key.replace("blocks.1.", "blocks.2."): value for key, value in theirs().items() if "blocks.1." in key}
    with pytest.raises(BoneAgeError, match=r"12 unexpected: blocks\.2"):
        start(saved(tmp_path, theirs() | deeper))


@pytest.mark.parametrize("value", [np.full(8, np.nan, np.float32), np.zeros(8, np.int8)])
def test_non_finite_and_integer_weights_are_refused(tmp_path, value):
    with pytest.raises(BoneAgeError, match=r"finite floating-point numbers in 1 arrays: stem\.0\.bias"):
        start(saved(tmp_path, theirs() | {"stem.0.bias": value}))


def test_weights_of_a_framework_without_a_name_table_are_refused(tmp_path):
    weight_files.write_old(tmp_path / "weights.h5", {"stem": weight_files.norm(8)})
    with pytest.raises(
        BoneAgeError, match=r"it contains keras weights, but no keras layer names are known .*; known: timm"
    ):
        start(tmp_path / "weights.h5")


def test_the_home_folder_of_an_unknown_user_has_no_weights():
    with pytest.raises(BoneAgeError, match=r"~nobody-of-this-name/weights\.pth does not exist"):
        start("~nobody-of-this-name/weights.pth")


def test_weights_of_the_other_framework_name_the_option_to_set(tmp_path):
    path = saved(tmp_path, {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})
    with pytest.raises(BoneAgeError, match=r'resnet50 cannot start from .*model\.options\.framework = "torch"'):
        start_from(path, "resnet50", Network(ResNet50(framework="keras"), Regression()), {"params": {"trunk": {}}})


def test_the_name_table_that_fits_the_file_is_chosen():
    trunk = ConvNeXtV2(variant="micro")
    for table in (convnextv2.timm_names(trunk), convnextv2.fair_names(trunk)):
        stored = dict.fromkeys(table.values(), np.zeros(1))
        assert load._fitting_table("convnextv2_micro", trunk, "torch", stored) == table


def test_every_published_trunk_has_a_name_table():
    for name in set(models.names()) - OWN:
        assert load._tables(models.create(name).trunk), name


def test_our_own_trunk_accepts_no_third_party_weights():
    trunk = models.create("compact_resnet").trunk
    with pytest.raises(BoneAgeError, match="no torch layer names are known for compact_resnet; known: none"):
        load._fitting_table("compact_resnet", trunk, "torch", {"conv1.weight": np.zeros(1, np.float32)})


def test_bonets_second_stem_keeps_its_initial_weights(tmp_path):
    trunk = InceptionV3(framework="torch")
    table = inception_v3.timm_names(trunk)
    leaves = traverse_util.flatten_dict(names.shapes(trunk, channels=1), sep="/")
    shapes = {path.partition("/")[2]: (path, leaf.shape) for path, leaf in leaves.items()}
    ours = {path: np.zeros(shape, np.float32) for path, shape in shapes.values()}
    own = {"params/heatmap_stem/conv/kernel": np.ones(1), "batch_stats/conv5a_1x1/bn/mean": np.ones(1)}
    like = {}
    for path, value in (ours | own).items():
        kind, _, leaf = path.partition("/")
        like[f"{kind}/trunk/{leaf}"] = value
    stored = {}
    for leaf, (_, shape) in shapes.items():
        if len(shape) == 4:
            shape = (shape[3], 3 if leaf.startswith("stem/conv1a") else shape[2], *shape[:2])
        stored[table[leaf]] = np.full(shape, 2, np.float32)
    bonet = models.create("bonet", heatmap=True, framework="torch", inputs=(models.Input("hand", "heatmap"),)).trunk
    started = start_from(
        saved(tmp_path, stored), "bonet", Network(bonet, Regression()), traverse_util.unflatten_dict(like, sep="/")
    )
    found = traverse_util.flatten_dict(started, sep="/")
    assert found.pop("params/trunk/heatmap_stem/conv/kernel") == 1
    assert found.pop("batch_stats/trunk/conv5a_1x1/bn/mean") == 1
    assert all((value >= 2).all() for value in found.values())
