"""Every file in `configs/`: it is the network that it says, and nothing in it is unknown to the base."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from boneage_jax import config as configuration
from boneage_jax.models import Estimate
from boneage_jax.train import optimizer
from boneage_jax.train.experiment import Experiment, Statistics

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
OPEN_SECTIONS = ("data.inputs.", "data.options.", "model.options.", "model.head_options.")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_file
def test_it_bears_its_name_and_says_how_it_is_run(path):
    module = load(path)
    assert module.get_config().name == path.stem
    assert f"python launch.py --config=configs/{path.name}" in module.__doc__


@each_file
def test_it_changes_only_keys_that_the_base_has(path):
    known = set(configuration.keys(configuration.base()))
    changed = {key for key in configuration.keys(load(path).get_config()) if not key.startswith(OPEN_SECTIONS)}
    assert changed <= known
    text = configuration.to_json(load(path).get_config())
    assert configuration.to_json(configuration.from_json(text, path)) == text


@each_file
def test_its_network_reads_its_images_and_its_loss_reads_its_network(path):
    config = load(path).get_config()
    numbers = {name: (130.0, 45.0) for name, kind in config.data.inputs.items() if kind == "number"}
    experiment = Experiment.create(config, Statistics(127.3, 41.2, numbers))
    prepared, channels = experiment.preprocessing.size, experiment.preprocessing.channels
    batch = {
        "image": jnp.zeros((2, prepared, prepared, channels), jnp.uint8),
        "sex": jnp.zeros(2, jnp.int32),
        "age": jnp.full(2, 100.0),
        "inputs": {name: jnp.full(2, 100.0) for name in numbers},
    }
    seen = jnp.zeros((2, experiment.preprocessing.visible, experiment.preprocessing.visible, channels))

    def predict(key):
        variables = experiment.network.init(key, seen, batch["sex"], batch["inputs"], train=False)
        return experiment.inference()(variables, batch)

    found = jax.eval_shape(predict, jax.random.key(0))
    assert {name: value.shape for name, value in found.items() if name != "std"} == {"months": (2,), "loss": (2,)}
    assert isinstance(optimizer.learning_rate(config.optimizer, steps_per_epoch=10, epochs=2)(3), float | jax.Array)


def test_the_heat_map_of_bonet_is_switched_on_by_its_argument():
    module = load(next(path for path in FILES if path.stem == "bonet"))
    config: ConfigDict = module.get_config("heatmap")
    assert config.model.options.heatmap
    assert config.data.inputs.to_dict() == {"heatmap": "keypoints"}


def test_estimates_of_distributions_have_a_loss_for_every_age():
    config = load(next(path for path in FILES if path.stem == "resnet50")).get_config()
    loss = Experiment.create(config, Statistics(127.3, 41.2, {})).loss
    estimate = Estimate(months=jnp.zeros(3), logits=jnp.zeros((3, 240)))
    np.testing.assert_allclose(loss(estimate, jnp.array([0.0, 228.0, 240.0])), np.log(240), rtol=1e-5)
