"""The plateau rule against Keras' ReduceLROnPlateau, which the study used."""

import os
import types

import jax
import numpy as np
import pytest

from boneage_jax.config import base
from boneage_jax.train import optimizer

os.environ["KERAS_BACKEND"] = "jax"
pytestmark = [pytest.mark.parity, pytest.mark.slow]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_rate_is_cut_at_the_same_evaluations_as_in_keras(patience):
    keras = pytest.importorskip("keras")
    config = base().optimizer
    config.plateau.update({"factor": 0.5, "patience": patience, "cooldown": 0, "min_scale": 0.1})
    rule = optimizer.plateau(config)
    assert rule is not None
    update = jax.jit(rule.update)
    state = rule.init({})
    theirs = keras.callbacks.ReduceLROnPlateau("mae", factor=0.5, patience=patience, min_lr=0.1, mode="min")
    theirs.set_model(types.SimpleNamespace(optimizer=keras.optimizers.SGD(1.0)))
    theirs.on_train_begin()
    found, expected = [], []
    # whole months, so that the minimum improvement (0.01 % here, 0.0001 months in Keras) makes no difference
    for epoch, mae in enumerate(np.random.default_rng(0).integers(5, 20, 60).astype(np.float32)):
        _, state = update({}, state, value=mae)
        found.append(float(state.scale))
        theirs.on_epoch_end(epoch, {"mae": mae})
        expected.append(float(theirs.model.optimizer.learning_rate))
    assert found == pytest.approx(expected)
    assert len(set(found)) == 5  # 1, 0.5, 0.25, 0.125 and the minimum
