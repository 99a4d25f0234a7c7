"""Distribution heads over months: mean and SD by hand, and Larson's head with one half per sex."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.models.heads import Distribution, SexSplitDistribution
from boneage_jax.models.heads.estimate import from_logits

FEATURES = jax.random.normal(jax.random.key(0), (4, 3, 2, 5))
SEX = jnp.array([0, 1, 0, 1])
MONTHS = np.arange(240)


def made(head):
    return jax.jit(lambda: head.init(jax.random.key(1), FEATURES, SEX, {}, train=False))()


def assert_is_the_distribution_of(estimate, logits):
    np.testing.assert_allclose(estimate.logits, logits, rtol=1e-5, atol=1e-5)
    probability = np.exp(logits.astype(np.float64))
    probability /= probability.sum(axis=1, keepdims=True)
    mean = probability @ MONTHS
    np.testing.assert_allclose(estimate.months, mean, rtol=1e-5)
    np.testing.assert_allclose(estimate.std, np.sqrt(probability @ MONTHS**2 - mean**2), rtol=1e-4)


def test_months_and_std_match_a_hand_calculation():
    logits = np.full((3, 240), -np.inf, np.float32)
    logits[0, [100, 140]] = 3.0  # half and half: mean 120, SD 20
    logits[1, [0, 239]] = np.log([3.0, 1.0])  # three quarters and one quarter
    logits[2] = 0.0  # uniform
    estimate = from_logits(jnp.asarray(logits))
    np.testing.assert_allclose(estimate.months, [120, 239 / 4, 239 / 2], rtol=1e-6)
    np.testing.assert_allclose(estimate.std, np.sqrt([20**2, 3 * 239**2 / 16, (240**2 - 1) / 12]), rtol=1e-6)


def test_std_of_a_narrow_distribution_is_small_and_not_nan():
    months = np.array([0, 1, 37, 238, 239])
    logits = jnp.full((5, 240), -50.0).at[jnp.arange(5), months].set(50.0)
    estimate = from_logits(logits)
    np.testing.assert_allclose(estimate.months, months, atol=1e-6)
    np.testing.assert_allclose(estimate.std, np.zeros(5), atol=1e-6)


def test_months_of_a_one_hot_distribution_have_a_finite_gradient():
    def distance(logits):
        return jnp.abs(from_logits(logits).months - 100.0).sum()

    logits = jnp.zeros((1, 240)).at[0, 37].set(1e4)
    assert np.isfinite(jax.jit(jax.grad(distance))(logits)).all()


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_distribution_head_matches_a_numpy_computation(hidden):
    head = Distribution(sex_units=3, hidden=hidden)
    variables = made(head)
    weights = jax.tree.map(np.asarray, variables["params"])

    def dense(x, name):
        return x @ weights[name]["kernel"] + weights[name]["bias"][None]

    sex = np.maximum(dense(np.asarray(SEX, np.float32)[:, None], "sex"), 0)
    x = np.concatenate([np.asarray(FEATURES).mean(axis=(1, 2)), sex], axis=1)
    if hidden:
        x = np.maximum(dense(x, "hidden1"), 0)
    estimate = head.apply(variables, FEATURES, SEX, {}, train=False)
    assert_is_the_distribution_of(estimate, dense(x, "logits"))


def test_sex_selects_its_half_of_the_logits_girls_first():
    head = SexSplitDistribution()
    variables = made(head)
    layer = jax.tree.map(np.asarray, variables["params"]["logits"])
    logits = np.asarray(FEATURES).mean(axis=(1, 2)) @ layer["kernel"] + layer["bias"][None]
    chosen = np.where(np.asarray(SEX)[:, None] == 0, logits[:, :240], logits[:, 240:])
    assert_is_the_distribution_of(head.apply(variables, FEATURES, SEX, {}, train=False), chosen)


@pytest.mark.parametrize(("half", "unmoved"), [(slice(0, 240), 1), (slice(240, 480), 0)])
def test_the_half_of_the_other_sex_has_no_effect(half, unmoved):
    head = SexSplitDistribution()
    apply = jax.jit(lambda variables: head.apply(variables, FEATURES, SEX, {}, train=False))
    variables = made(head)
    bias = variables["params"]["logits"]["bias"].at[half].set(jnp.linspace(0.0, 5.0, 240))
    changed = {"params": {"logits": variables["params"]["logits"] | {"bias": bias}}}
    before, after = apply(variables), apply(changed)
    same = np.asarray(SEX) == unmoved
    np.testing.assert_array_equal(np.asarray(before.months) == np.asarray(after.months), same)
    np.testing.assert_array_equal((np.asarray(before.logits) == np.asarray(after.logits)).all(axis=1), same)


def test_an_invalid_sex_code_gives_nan():
    head = SexSplitDistribution()
    estimate: Any = head.apply(made(head), FEATURES, jnp.array([0, 1, 2, 0]), {}, train=False)
    assert np.isnan(estimate.months).tolist() == [False, False, True, False]
