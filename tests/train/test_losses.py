import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Estimate
from boneage_jax.train import losses

LABELS = {"label_mean": 100.0, "label_std": 20.0}
# z-scores 0.5, -1 and 3 away from the age: mean 100, sd 20 months
AGE = np.array([100.0, 120.0, 60.0], np.float32)
MONTHS = np.array([110.0, 100.0, 120.0], np.float32)


def cross_entropy(logits, age, label_sigma=0.0):
    loss = losses.create("cross_entropy", **LABELS, label_sigma=label_sigma)
    return loss(Estimate(months=jnp.zeros(len(age)), logits=logits), jnp.asarray(age, jnp.float32))


@pytest.mark.parametrize(
    ("name", "expected"), [("mse", [0.25, 1.0, 9.0]), ("mae", [0.5, 1.0, 3.0]), ("huber", [0.125, 0.5, 2.5])]
)
def test_losses_are_per_image_and_on_z_scores(name, expected):
    loss = losses.create(name, **LABELS)
    np.testing.assert_allclose(loss(Estimate(months=jnp.asarray(MONTHS)), jnp.asarray(AGE)), expected, rtol=1e-5)


def test_an_unknown_loss_is_refused():
    with pytest.raises(BoneAgeError, match=r"train.loss is 'mape', expected one of mse, mae, huber, cross_entropy"):
        losses.create("mape", **LABELS)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf")])
def test_an_invalid_label_sigma_is_refused(sigma):
    with pytest.raises(BoneAgeError, match=r"train.label_sigma is .*, expected 0 .* or more months"):
        losses.create("cross_entropy", **LABELS, label_sigma=sigma)


def test_cross_entropy_needs_a_head_with_a_distribution():
    loss = losses.create("cross_entropy", **LABELS)
    with pytest.raises(BoneAgeError, match=r"the head gives no distribution over months; set model.head to .*"):
        loss(Estimate(months=jnp.asarray(MONTHS)), jnp.asarray(AGE))


def test_cross_entropy_with_hard_labels_is_minus_log_probability():
    # Probabilities of 1 / 2 for the month and 1 / 478 for each of the other 239.
    logits = jnp.zeros((3, 240)).at[jnp.arange(3), jnp.array([0, 120, 239])].set(np.log(239.0))
    value = cross_entropy(logits, [0.4, 120.4, 238.6])
    np.testing.assert_allclose(value, np.full(3, np.log(2.0)), rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits, [1.0, 121.0, 238.0]), np.full(3, np.log(478.0)), rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 0.01, 3.0, 100.0])
@pytest.mark.parametrize("age", [0.0, 1.3, 120.0, 168.93, 228.0, 239.0, 240.0])
def test_a_soft_label_sums_to_one_at_any_age(age, sigma):
    label = np.asarray(losses.soft_label(jnp.array([age]), sigma, 240))
    assert (label >= 0).all()
    np.testing.assert_allclose(label.sum(), 1.0, rtol=1e-5)


def test_a_soft_label_is_a_gaussian_truncated_to_the_grid():
    grid = np.arange(240)
    for age in (0.0, 120.25, 238.0):
        gaussian = np.exp(-((grid - age) ** 2) / (2 * 5.0**2))
        label = np.asarray(losses.soft_label(jnp.array([age]), 5.0, 240))[0]
        np.testing.assert_allclose(label, gaussian / gaussian.sum(), rtol=1e-4, atol=1e-7)


def test_an_age_beyond_the_grid_counts_as_its_last_month():
    for sigma in (0.0, 4.0):
        beyond, last = losses.soft_label(jnp.array([240.0, 239.0]), sigma, 240)
        np.testing.assert_array_equal(beyond, last)


@pytest.mark.parametrize("sigma", [0.5, 6.0])
def test_cross_entropy_is_minimal_at_the_true_distribution(sigma):
    age = jnp.array([2.0, 120.5, 236.0])
    label = losses.soft_label(age, sigma, 240)
    true = jnp.log(jnp.maximum(label, 1e-30))
    entropy = -np.sum(np.asarray(label) * np.asarray(true), axis=1)
    np.testing.assert_allclose(cross_entropy(true, age, sigma), entropy, rtol=1e-4)
    gradient = jax.grad(lambda logits: cross_entropy(logits, age, sigma).sum())
    np.testing.assert_allclose(gradient(true), np.zeros((3, 240)), atol=1e-6)
    for seed in range(5):
        other = true + 0.3 * jax.random.normal(jax.random.key(seed), true.shape)
        assert (np.asarray(cross_entropy(other, age, sigma)) > entropy).all()


@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_cross_entropy_and_gradient_are_finite_for_confident_mistakes(sigma):
    logits = jnp.zeros((2, 240)).at[:, 10].set(1e4)
    age = jnp.array([10.0, 200.0])
    value, gradient = jax.value_and_grad(lambda x: cross_entropy(x, age, sigma).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient[1, 10] > 0
