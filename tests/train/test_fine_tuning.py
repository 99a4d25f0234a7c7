"""Initialisation from a file, frozen parameters, and layer-wise learning rate decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from boneage_jax import config as configuration
from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models.convmixer import ConvMixer
from boneage_jax.pretrained import convmixer, names
from boneage_jax.pretrained.assign import to_original
from boneage_jax.train import loop, optimizer, state
from boneage_jax.train.evaluation import restore_best
from boneage_jax.train.experiment import Experiment, Statistics
from tests.train.runs import newest
from tests.train.tiny_run import STEPS_PER_EPOCH
from tests.trees import structure

# As flax returns them from a compiled function: in alphabetical order.
PARAMS = {
    "head": {"output": {"kernel": jnp.ones(2)}},
    "trunk": {name: {"kernel": jnp.ones(2)} for name in ("block1", "block10", "block2", "stem", "stem_bn")},
}
LAYERS = ("stem", "stem_bn", "block1", "block2", "block10")


def settings(**changes) -> ConfigDict:
    config = configuration.base().optimizer
    config.warmup_epochs = 0.0
    config.learning_rate = 1.0
    config.update(changes)
    return config


def first_update(config: ConfigDict, gradient: float = 0.1):
    transform = optimizer.create(config, steps_per_epoch=2, epochs=2, trunk_layers=LAYERS)
    gradients = jax.tree.map(lambda x: jnp.full_like(x, gradient), PARAMS)
    updates, after = transform.update(gradients, transform.init(PARAMS), PARAMS)
    return {path: leaf[0].item() for path, leaf in traverse_util.flatten_dict(updates, sep="/").items()}, after


def test_the_learning_rate_decays_with_distance_from_the_head():
    rates, _ = first_update(settings(layer_decay=0.5, weight_decay=0.0))
    assert rates == pytest.approx(
        {
            "head/output/kernel": -1,
            "trunk/block10/kernel": -1 / 2,
            "trunk/block2/kernel": -1 / 4,
            "trunk/block1/kernel": -1 / 8,
            "trunk/stem/kernel": -1 / 16,
            "trunk/stem_bn/kernel": -1 / 16,
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_convolution_and_normalisation_are_one_layer(frozen):
    network = models.create("efficientnet_lite0", variant="tiny_lite", frozen_statistics=frozen)
    layers = state.trunk_layers(network, (32, 32, 1))
    scaled = optimizer._slower_by_layer(0.5, layers)
    ones = {"trunk": {layer: jnp.ones(()) for layer in layers}}
    factors = scaled.update(ones, scaled.init(ones))[0]["trunk"]
    assert factors["top_conv"] == factors["top_bn"] == 0.5
    assert factors["stem_conv"] == factors["stem_bn"] == min(factors.values())


def test_weight_decay_is_scaled_by_layer_decay():
    rates, _ = first_update(settings(layer_decay=0.5, weight_decay=1.0), gradient=0.0)
    assert rates["head/output/kernel"] == pytest.approx(-1)
    assert rates["trunk/stem/kernel"] == pytest.approx(-1 / 16)


@pytest.mark.parametrize("decay", [0.0, -1.0, 1.1])
def test_an_out_of_range_layer_decay_is_refused(decay):
    with pytest.raises(BoneAgeError, match=rf"optimizer\.layer_decay is {decay}, expected above 0 to 1"):
        first_update(settings(layer_decay=decay))


def test_trunk_layers_are_in_forward_order_not_alphabetical():
    options: dict[str, Any] = {"dim": 4, "depth": 11, "kernel_size": 3, "patch_size": 4}
    order = state.trunk_layers(models.create("convmixer", **options), (16, 16, 1))
    assert order == ("patch_embedding", "patch_embedding_bn", *(f"block{i}" for i in range(1, 12)))


def test_frozen_parameters_do_not_change_even_by_weight_decay():
    rates, _ = first_update(settings(freeze=("trunk/block1", "head"), weight_decay=0.5))
    still = {path for path, rate in rates.items() if rate == 0}
    assert still == {"trunk/block1/kernel", "head/output/kernel"}  # and not block10


def test_frozen_parameters_add_no_gradient_norm_and_no_optimizer_state():
    _, after = first_update(settings(freeze=("trunk",), clip_norm=1.0), gradient=3.0)
    moments = jax.tree.leaves(optax.tree_utils.tree_get(after, "mu"))
    assert len(moments) == 1
    np.testing.assert_allclose(jnp.linalg.norm(moments[0]), 0.1, rtol=1e-5)  # beta 1 is 0.9


def test_freezing_and_layer_decay_can_be_combined():
    rates, _ = first_update(settings(freeze=("trunk/stem", "trunk/stem_bn"), layer_decay=0.5, weight_decay=0.0))
    assert rates["trunk/stem/kernel"] == rates["trunk/stem_bn/kernel"] == 0
    assert rates["trunk/block1/kernel"] == pytest.approx(-1 / 8, rel=1e-5)


def test_freezing_an_unknown_path_is_refused_with_the_known_ones():
    with pytest.raises(BoneAgeError, match=r"names 'trunk/bloc', .*; known: head, head/output, trunk, trunk/block1, "):
        first_update(settings(freeze=("trunk/bloc",)))


def test_frozen_paths_round_trip_through_json(config):
    config.optimizer.freeze = ("trunk/block1", "trunk/patch_embedding")
    back = configuration.from_json(configuration.to_json(config), "config.json")
    assert back.optimizer.freeze == config.optimizer.freeze
    assert configuration.differences(back, config) == []


@pytest.fixture
def pretrained(config, tmp_path):
    """The tiny run's configuration with a weight file for its trunk, and the leaves expected from it."""
    trunk = models.create("convmixer", **config.model.options.to_dict()).trunk
    assert isinstance(trunk, ConvMixer)
    leaves: dict[str, np.ndarray] = {}
    stored: dict[str, np.ndarray] = {}
    for path, leaf in traverse_util.flatten_dict(names.shapes(trunk, channels=1), sep="/").items():
        leaves[path] = np.random.default_rng(len(leaves)).uniform(0.5, 1, leaf.shape).astype(np.float32)
        shape = leaf.shape if len(leaf.shape) == 1 else tuple(leaf.shape[i] for i in (3, 2, 0, 1))
        key = convmixer.timm_names(trunk)[path.partition("/")[2]]
        stored[key] = to_original(leaves[path], shape, "torch")
    save_file(stored, tmp_path / "weights.safetensors")
    config.model.init_from = str(tmp_path / "weights.safetensors")
    config.train.epochs = 1
    return config, leaves


def as_loaded(variables, leaves):
    """Whether the trunk in `variables` has the values of the file, leaf by leaf."""
    flat = traverse_util.flatten_dict(variables, sep="/")
    inside = {path.replace("/", "/trunk/", 1): value for path, value in leaves.items()}
    return {path: np.allclose(flat[path], value, rtol=1e-6) for path, value in inside.items()}


def test_only_a_new_run_reads_the_weight_file(pretrained):
    config, leaves = pretrained
    config.optimizer.ema_decay = 0.9
    experiment = Experiment.create(config, Statistics(label_mean=100.0, label_std=30.0, inputs={}))
    _, begun = experiment.fresh_state(STEPS_PER_EPOCH, pretrained=True)
    assert all(as_loaded({"params": begun.params, "batch_stats": begun.batch_stats}, leaves).values())
    assert all(as_loaded(begun.ema, leaves).values())

    config.model.init_from = "no longer there"
    _, like = experiment.fresh_state(STEPS_PER_EPOCH)
    assert structure(like) == structure(begun)
    assert not any(as_loaded(like.ema, leaves).values())
    assert jax.tree.all(jax.tree.map(np.array_equal, like.params["head"], begun.params["head"]))


@pytest.mark.slow
def test_a_run_needs_the_weight_file_only_at_its_start(pretrained, tmp_path):
    config, leaves = pretrained
    config.optimizer.freeze = ("trunk",)
    workdir = tmp_path / "run"
    loop.train_and_evaluate(config, workdir)
    (tmp_path / "weights.safetensors").unlink()

    found = newest(workdir)
    kept = as_loaded({"params": found.state.params, "batch_stats": found.state.batch_stats}, leaves)
    # Parameters are frozen, batch statistics are not.
    assert kept == {path: path.startswith("params") for path in kept}
    assert int(restore_best(workdir)[1].step) == STEPS_PER_EPOCH
    config.train.epochs = 2
    loop.train_and_evaluate(config, workdir)
    assert newest(workdir).step == 2 * STEPS_PER_EPOCH


def test_a_mismatched_weight_file_fails_before_config_json_is_written(pretrained, tmp_path):
    config, _ = pretrained
    config.model.options.depth = 2
    with pytest.raises(BoneAgeError, match=r"convmixer cannot start from .*12 missing: blocks\.1\."):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run/config.json").exists()
