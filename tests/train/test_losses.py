import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Estimate
from boneage_jax.train import losses

# z-scores 0.5, -1 and 3 away from the age: mean 100, sd 20 months
AGE = np.array([100.0, 120.0, 60.0], np.float32)
MONTHS = np.array([110.0, 100.0, 120.0], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", [0.25, 1.0, 9.0]), ("mae", [0.5, 1.0, 3.0]), ("huber", [0.125, 0.5, 2.5])]
)
def test_losses_are_on_z_scores_and_per_image(name, expected):
    loss = losses.create(name, label_mean=100.0, label_std=20.0)
    np.testing.assert_allclose(loss(Estimate(months=jnp.asarray(MONTHS)), jnp.asarray(AGE)), expected, rtol=1e-5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(BoneAgeError, match=r"train.loss is 'mape', expected one of mse, mae, huber"):
        losses.create("mape", label_mean=100.0, label_std=20.0)
