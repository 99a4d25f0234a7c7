"""The regression head: the published layers, months from z-scores, dropout, float32 at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.models.heads import Regression

FEATURES = jax.random.normal(jax.random.key(0), (4, 3, 2, 5))
SEX = jnp.array([0, 1, 0, 1])


def made(**options):
    head = Regression(**options)
    return head, jax.jit(lambda key: head.init(key, FEATURES, SEX, {}, train=False))(jax.random.key(1))


def test_layers_are_the_winners():
    shapes = jax.eval_shape(
        lambda: Regression().init(jax.random.key(0), jnp.zeros((1, 4, 4, 2048)), SEX[:1], {}, train=False)
    )
    kernels = {name: layer["kernel"].shape for name, layer in shapes["params"].items()}
    assert kernels == {
        "sex": (1, 32),
        "hidden1": (2048 + 32, 1000),
        "hidden2": (1000, 1000),
        "output": (1000, 1),
    }


def test_output_is_what_the_published_layers_compute():
    head, variables = made(sex_units=3, hidden=(6, 4), label_mean=127.0, label_std=41.0)
    weights = jax.tree.map(np.asarray, variables["params"])

    def dense(x, name):
        return x @ weights[name]["kernel"] + weights[name]["bias"][None]

    sex = np.maximum(dense(np.asarray(SEX, np.float32)[:, None], "sex"), 0)
    x = np.concatenate([np.asarray(FEATURES).mean(axis=(1, 2)), sex], axis=1)
    for name in ("hidden1", "hidden2"):
        x = np.maximum(dense(x, name), 0)
    expected = dense(x, "output")[:, 0] * 41 + 127
    months = head.apply(variables, FEATURES, SEX, {}, train=False).months
    np.testing.assert_allclose(months, expected, rtol=1e-5)


def test_hidden_layers_may_be_none_at_all():
    _, variables = made(hidden=(), sex_units=2)
    assert variables["params"]["output"]["kernel"].shape == (5 + 2, 1)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_in_training_only(dropout):
    head, variables = made(dropout=dropout, hidden=(64,))

    def months(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(head.apply(variables, FEATURES, SEX, {}, train=train, rngs=rngs).months)

    np.testing.assert_array_equal(months(0, False), months(1, False))
    assert np.array_equal(months(0, True), months(1, True)) == (dropout == 0)
    assert np.array_equal(months(0, True), months(0, False)) == (dropout == 0)


def test_last_layer_is_float32_in_bfloat16_networks():
    head, variables = made(dtype=jnp.bfloat16, hidden=(8,))
    _, captured = head.apply(
        variables, FEATURES, SEX, {}, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    found = {
        name: value["__call__"][0].dtype
        for name, value in captured["intermediates"].items()
        if name in ("sex", "hidden1", "output")
    }
    assert found == {"sex": jnp.bfloat16, "hidden1": jnp.bfloat16, "output": jnp.float32}
