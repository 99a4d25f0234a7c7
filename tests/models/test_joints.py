"""Networks that read every joint: the shared trunk, the head that weights the readings, and the loss."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax import models
from boneage_jax.models.efficientnet import EfficientNet
from boneage_jax.models.heads import Estimate, Joints
from boneage_jax.models.joint_crops import JointCrops
from boneage_jax.train import losses
from tests.compiling import QUICK

SEX = jnp.array([0, 1])


def crops() -> jax.Array:
    """Two hands of three joints; the last joint of the second hand was not found."""
    return jax.random.uniform(jax.random.key(1), (2, 32, 32, 3), minval=-1).at[1, ..., 2].set(-1)


def test_every_crop_goes_through_the_same_efficientnet():
    @partial(jax.jit, compiler_options=QUICK)
    def both(crops):
        features, variables = JointCrops("tiny_lite").init_with_output(jax.random.key(0), crops, train=False)
        each = jnp.stack([crops[hand, ..., joint, None] for hand in range(2) for joint in range(3)])
        return features, EfficientNet("tiny_lite").apply(variables, each, train=False)

    features, alone = both(crops())
    assert features.shape == (2, 3, 1, 1280)
    expected = np.array(alone).reshape(2, 3, 1, 1280)
    expected[1, 2] = 0  # the joint that was not found
    np.testing.assert_allclose(features, expected, atol=1e-5)
    found = np.asarray(features).reshape(6, 1280)[:5]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(found, 2))


def test_a_missing_joint_has_neither_reading_nor_weight():
    network = models.create("joint_crops", variant="tiny_lite", head="joints", label_mean=100.0, label_std=40.0)
    init = jax.jit(lambda key: network.init(key, crops(), SEX, train=False), compiler_options=QUICK)
    variables = init(jax.random.key(0))
    read = jax.jit(lambda images: network.apply(variables, images, SEX, train=False), compiler_options=QUICK)
    found = read(crops())
    assert np.isnan(found.parts).tolist() == [[False, False, False], [False, False, True]]
    parts = np.asarray(found.parts)[1, :2]
    assert parts.min() <= found.months[1] <= parts.max()
    blank = jnp.full_like(crops(), -1)
    assert np.isfinite(read(blank).months).all()
    assert np.isnan(read(blank).parts).all()


def test_equal_attention_gives_the_mean_of_the_joint_readings():
    head = Joints(hidden=(8,), label_mean=100.0, label_std=40.0)
    features = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (2, 5, 4, 6)), jnp.float32)
    init = jax.jit(lambda key: head.init(key, features, SEX, {}, train=False), compiler_options=QUICK)
    variables = init(jax.random.key(0))
    kernel = variables["params"]["output"]["kernel"]
    variables["params"]["output"]["kernel"] = kernel.at[..., 1].set(0)  # attention logits
    found: Estimate = jax.jit(lambda v: head.apply(v, features, SEX, {}, train=False))(variables)
    np.testing.assert_allclose(found.months, found.parts.mean(axis=1), rtol=1e-5)
    assert np.ptp(found.parts, axis=1).min() > 0.1


@pytest.mark.parametrize(("parts", "expected"), [([90.0, 130.0], 0.75), ([np.nan, 130.0], 0.75), ([np.nan] * 2, 0.25)])
def test_half_of_the_loss_comes_from_the_joints_that_were_found(parts, expected):
    loss = losses.create("mae", label_mean=100.0, label_std=20.0)
    age = jnp.array([110.0])
    whole = jnp.array([120.0])
    assert float(loss(Estimate(months=whole, parts=jnp.array([parts])), age)[0]) == pytest.approx(expected)
    gradient = jax.grad(lambda p: loss(Estimate(months=whole, parts=p), age).sum())(jnp.array([parts]))
    assert np.isfinite(gradient).all()
