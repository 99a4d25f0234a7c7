"""BatchNorm against `flax.linen.BatchNorm`: values, gradients, running statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.models.normalisation import BatchNorm

SETTINGS: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-3}


def data(shape=(6, 5, 7, 20), offset=4.0):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape) * 2 + offset, jnp.float32)
    channels = shape[-1]
    params = {name: jnp.asarray(rng.normal(size=channels), jnp.float32) for name in ("scale", "bias")}
    statistics = {"mean": jnp.full(channels, offset), "var": jnp.linspace(1.0, 3.0, channels)}
    return x, {"params": params, "batch_stats": statistics}, jnp.asarray(rng.normal(size=shape), jnp.float32)


def in_training(layer, x, variables, weights):
    """Value, gradients with respect to parameters and input, and new statistics."""

    def loss(params, x):
        y, new = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return (y * weights).sum(), (y, new["batch_stats"])

    gradients, (y, statistics) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
    return {"value": y, "gradients": gradients, "statistics": statistics}


def assert_close(found, expected, rtol):
    def check(path, a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(check, found, expected)


@pytest.mark.parametrize("channels", [20, 32])
def test_training_equals_flax(channels):
    x, variables, weights = data((6, 5, 7, channels))
    ours = in_training(BatchNorm(use_running_average=False, **SETTINGS), x, variables, weights)
    flax = in_training(nn.BatchNorm(use_running_average=False, **SETTINGS), x, variables, weights)
    assert_close(ours, flax, rtol=2e-5)


def test_training_without_a_scale_equals_flax():
    x, variables, weights = data()
    variables = {**variables, "params": {"bias": variables["params"]["bias"]}}
    ours, flax = (
        in_training(kind(use_running_average=False, use_scale=False, **SETTINGS), x, variables, weights)
        for kind in (BatchNorm, nn.BatchNorm)
    )
    assert_close(ours, flax, rtol=2e-5)


def test_evaluation_equals_flax_and_keeps_the_statistics():
    x, variables, _ = data()
    y, new = BatchNorm(use_running_average=True, **SETTINGS).apply(variables, x, mutable=["batch_stats"])
    expected: Any = nn.BatchNorm(use_running_average=True, **SETTINGS).apply(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert_close(new["batch_stats"], variables["batch_stats"], rtol=0)


def test_initial_variables_equal_flax():
    x, _, _ = data()
    ours, flax = (
        kind(use_running_average=False, **SETTINGS).init(jax.random.key(0), x) for kind in (BatchNorm, nn.BatchNorm)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, flax)


def test_statistics_are_synchronised_across_devices():
    x, variables, weights = data((8, 5, 7, 16))
    whole = in_training(BatchNorm(use_running_average=False, **SETTINGS), x, variables, weights)
    layer = BatchNorm(use_running_average=False, axis_name="devices", **SETTINGS)
    shared = jax.pmap(
        lambda x: layer.apply(variables, x, mutable=["batch_stats"]), axis_name="devices", devices=jax.devices()[:4]
    )
    y, new = shared(x.reshape(4, 2, *x.shape[1:]))
    np.testing.assert_allclose(y.reshape(x.shape), whole["value"], rtol=1e-4, atol=1e-4)
    for device in range(4):
        assert_close(jax.tree.map(lambda a, d=device: a[d], new["batch_stats"]), whole["statistics"], rtol=1e-5)


def test_bfloat16_images_have_float32_statistics_and_bfloat16_outputs():
    x, variables, weights = data()
    layer = BatchNorm(use_running_average=False, dtype=jnp.bfloat16, **SETTINGS)
    found = in_training(layer, x.astype(jnp.bfloat16), variables, weights)
    assert found["value"].dtype == jnp.bfloat16
    assert found["statistics"]["mean"].dtype == jnp.float32
    exact = in_training(BatchNorm(use_running_average=False, **SETTINGS), x, variables, weights)
    assert_close(found["statistics"], exact["statistics"], rtol=1e-2)
