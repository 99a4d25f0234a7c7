"""SIMBA's head against a hand computation; it requires the chronological age."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax import models
from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Input
from boneage_jax.models.heads import Relative

FEATURES = jax.random.normal(jax.random.key(0), (3, 5, 4, 2))
SEX = jnp.array([0, 1, 1])
CHRONOLOGICAL = Input("chronological_age", "number", mean=120.0, std=40.0)
HEIGHT = Input("height", "number", mean=140.0, std=20.0)
GIVEN = {"chronological_age": jnp.array([60.0, 130.0, 200.0]), "height": jnp.array([110.0, 150.0, 160.0])}


def made(**options):
    head = Relative(inputs=(CHRONOLOGICAL, HEIGHT), label_mean=127.0, label_std=41.0, **options)
    return head, jax.jit(lambda: head.init(jax.random.key(1), FEATURES, SEX, GIVEN, train=False))()


def test_output_matches_a_numpy_computation_of_the_published_layers():
    head, variables = made(hidden=(7, 6))
    weights = jax.tree.map(np.asarray, variables["params"])

    def dense(x, name):
        return x @ weights[name]["kernel"] + weights[name]["bias"][None]

    # [3, 5, 4, 2]: the fifth row does not fill a pooling window and is dropped.
    pooled = np.asarray(FEATURES)[:, :4].reshape(3, 2, 2, 2, 2, 2).mean(axis=(2, 4))
    markers = [
        np.array([0.0, 1.0, 1.0]) * weights["sex_scale"],
        np.array([-1.5, 0.25, 2.0]) * weights["input_chronological_age_scale"],
        np.array([-1.5, 0.5, 1.0]) * weights["input_height_scale"],
    ]
    x = np.concatenate([pooled.reshape(3, 8), np.stack(markers, axis=1)], axis=1)
    for name in ("hidden1", "hidden2"):
        x = np.maximum(dense(x, name), 0)
    expected = np.asarray(GIVEN["chronological_age"]) - 41 * dense(x, "output")[:, 0]
    estimate = head.apply(variables, FEATURES, SEX, GIVEN, train=False)
    np.testing.assert_allclose(estimate.months, expected, rtol=1e-5)


def test_output_counts_standard_deviations_below_the_chronological_age():
    head, variables = made(hidden=(4,))
    output = jax.tree.map(jnp.zeros_like, variables["params"]["output"])
    for bias, expected in [(0.0, [60, 130, 200]), (1.0, [60 - 41, 130 - 41, 200 - 41])]:
        parameters = variables["params"] | {"output": output | {"bias": jnp.array([bias])}}
        estimate = head.apply({"params": parameters}, FEATURES, SEX, GIVEN, train=False)
        np.testing.assert_allclose(estimate.months, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "inputs",
    [(), (HEIGHT,), (Input("chronological_age", "category", categories=("child", "adult")),)],
)
def test_the_error_without_chronological_age_names_the_setting(inputs):
    message = r'RSNA data have no chronological age; .*set config.data.inputs.chronological_age = "number"'
    with pytest.raises(BoneAgeError, match=message):
        models.create("convmixer", head="relative", inputs=inputs)


def test_a_feature_map_smaller_than_the_pool_is_refused():
    head = Relative(pool=5, inputs=(CHRONOLOGICAL,))
    with pytest.raises(BoneAgeError, match="feature map of 5 x 4 is too small for the 5 x 5 pool"):
        head.init(jax.random.key(0), FEATURES, SEX, GIVEN, train=False)
