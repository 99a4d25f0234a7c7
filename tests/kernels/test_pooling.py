"""Max pooling and its gradient against XLA's, ties included."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.kernels import max_pool, pooling
from tests.kernels.machine import needs_kernels

PADDINGS = ["SAME", "VALID", ((1, 1), (1, 1)), ((0, 1), (2, 0))]


def plain(x, size, stride, padding):
    pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def value_and_gradient(pool, x):
    y, pull = jax.vjp(pool, x)
    rng = np.random.default_rng(y.size)
    return y, pull(jnp.asarray(rng.integers(-8, 8, y.shape), y.dtype))[0]  # sums of small integers are exact


@needs_kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize(("size", "stride", "channels"), [(3, 2, 16), (2, 2, 24), (3, 1, 7), (5, 3, 16)])
def test_value_and_gradient_equal_xla_even_with_ties(size, stride, channels, padding, dtype):
    levels = np.random.default_rng(0).integers(0, 4, (3, 11, 14, channels))  # as after a ReLU: many equal pixels
    x = jnp.asarray(levels, dtype)
    found = jax.jit(lambda x: value_and_gradient(lambda x: max_pool(x, size, stride, padding), x))(x)
    expected = value_and_gradient(lambda x: plain(x, size, stride, padding), x)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(np.asarray(ours, np.float32), np.asarray(theirs, np.float32))


@needs_kernels
def test_nan_propagates_to_the_output():
    x = jnp.zeros((1, 6, 6, 16)).at[0, 2, 3, 5].set(jnp.nan)
    assert np.isnan(np.asarray(max_pool(x, 3, 2, "SAME"))[0, :, :, 5]).any()


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
def test_the_portable_implementation_equals_xla(padding):
    pads = padding if not isinstance(padding, str) else jax.lax.padtype_to_pads((11, 14), (3, 3), (2, 2), padding)
    settings: dict[str, Any] = {"size": 3, "stride": 2, "pads": tuple(tuple(pad) for pad in pads)}
    x = jnp.asarray(np.random.default_rng(0).integers(0, 4, (3, 11, 14, 8)), jnp.float32)
    y, gradient = value_and_gradient(lambda x: plain(x, 3, 2, padding), x)
    largest, winner = pooling._plain_winner(x, **settings)
    np.testing.assert_array_equal(largest, y)
    upstream = jnp.asarray(np.random.default_rng(y.size).integers(-8, 8, y.shape), y.dtype)
    np.testing.assert_array_equal(pooling._plain_gradient(winner, upstream, shape=(11, 14), **settings), gradient)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_an_image_smaller_than_the_window_has_no_output_and_a_gradient_of_zero(size, stride):
    y, gradient = value_and_gradient(lambda x: max_pool(x, size, stride), jnp.ones((2, 1, 2, 16)))
    assert y.shape == (2, 0, 0, 16)
    np.testing.assert_array_equal(gradient, np.zeros((2, 1, 2, 16)))


@needs_kernels  # without them, XLA pools all windows
def test_large_windows_are_pooled_by_xla():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 19, 18, 16)), jnp.float32)
    assert "Boneage" not in str(jax.make_jaxpr(lambda x: max_pool(x, 17, 2))(x))
    np.testing.assert_array_equal(max_pool(x, 17, 2), plain(x, 17, 2, "VALID"))
