"""Every file in `configs/`: its name and command, its keys, and the network that it describes."""

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
from tests import modules

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
OPEN_SECTIONS = ("data.inputs.", "data.options.", "model.options.", "model.head_options.")


def every_config():
    """Yields each configuration with its module and the value of --config."""
    for path in FILES:
        module = modules.load(path)
        for variant in getattr(module, "VARIANTS", (None,)):
            flag = f"configs/{path.name}" + (f":{variant}" if variant else "")
            config = module.get_config(variant) if variant else module.get_config()
            name = f"{path.stem}_{variant}" if variant else path.stem
            yield pytest.param(module, flag, config, id=name)


each_config = pytest.mark.parametrize(("module", "flag", "config"), list(every_config()))


@each_config
def test_name_and_documented_command_match_the_file(module, flag, config):
    assert config.name == flag.removeprefix("configs/").replace(".py:", "_").removesuffix(".py")
    assert f"python launch.py --config={flag}" in module.__doc__


@each_config
def test_only_keys_of_the_base_are_changed(module, flag, config):
    known = set(configuration.keys(configuration.base()))
    assert {key for key in configuration.keys(config) if not key.startswith(OPEN_SECTIONS)} <= known
    text = configuration.to_json(config)
    assert configuration.to_json(configuration.from_json(text, flag)) == text


@each_config
def test_the_network_accepts_its_images_and_the_loss_its_output(module, flag, config):
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
    assert {name: value.shape for name, value in found.items() if name not in ("std", "parts")} == {
        "months": (2,),
        "loss": (2,),
    }


@each_config
def test_the_learning_rate_peaks_after_a_warm_up_within_the_training(module, flag, config):
    settings, epochs = config.optimizer, config.train.epochs
    rate = optimizer.learning_rate(settings, steps_per_epoch=10, epochs=epochs)
    assert 0 <= settings.warmup_epochs < epochs
    assert float(rate(round(10 * settings.warmup_epochs))) == pytest.approx(settings.learning_rate)
    rates = [float(rate(step)) for step in np.linspace(0, 10 * epochs, 9, dtype=int)]
    assert 0 <= min(rates) <= max(rates) <= settings.learning_rate * (1 + 1e-6)


def test_the_argument_of_the_bonet_config_enables_the_heat_map():
    module = modules.load(next(path for path in FILES if path.stem == "bonet"))
    config: ConfigDict = module.get_config("heatmap")
    assert config.model.options.heatmap
    assert config.data.inputs.to_dict() == {"heatmap": "keypoints"}


def test_the_loss_of_the_resnet50_config_is_defined_at_every_age():
    config = modules.load(next(path for path in FILES if path.stem == "resnet50")).get_config()
    loss = Experiment.create(config, Statistics(127.3, 41.2, {})).loss
    estimate = Estimate(months=jnp.zeros(3), logits=jnp.zeros((3, 240)))
    np.testing.assert_allclose(loss(estimate, jnp.array([0.0, 228.0, 240.0])), np.log(240), rtol=1e-5)
