"""Xception against `keras.applications`, with Keras' own random weights: stem, each block, the whole.

`pytest -m parity -rP` prints the errors of every stage.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from boneage_jax.models.xception import Xception

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import originals

pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras")
    module.utils.set_random_seed(0)
    return module


def move_normalisation(model, generator: np.random.Generator) -> None:
    """Fresh BatchNorm is the identity, which would hide swapped statistics."""
    for weight in model.weights:
        if weight.name in ("moving_variance", "gamma"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("moving_mean", "beta"):
            weight.assign(generator.normal(0, 0.1, weight.shape))


@pytest.mark.parametrize("size", [299, 137])
def test_xception_equals_keras(keras, size):
    model = keras.applications.Xception(weights=None, include_top=False, input_shape=(size, size, 3))
    move_normalisation(model, np.random.default_rng(1))
    trunk, image = Xception(), originals.image(size, size)
    variables = originals.filled(
        trunk, lambda path, shape: np.asarray(originals.keras_weight(model, path).value).reshape(shape)
    )
    expected = originals.keras_stages(model, image)
    actual = originals.stages(trunk, variables, image, originals.XCEPTION_STAGES)
    errors = {stage: originals.relative_error(actual[stage], expected[stage]) for stage in expected}
    for stage, error in errors.items():
        print(f"Xception {size:4} {stage:20} {error:.1e}")
    assert errors["block1_conv2_bn"] <= 1e-5, errors
    assert max(errors.values()) <= 1e-4, errors


def test_xception_has_as_many_numbers_as_keras(keras):
    without_top = keras.applications.Xception(weights=None, include_top=False)
    assert without_top.count_params() == 20_861_480
    assert keras.applications.Xception(weights=None).count_params() == 22_910_480
