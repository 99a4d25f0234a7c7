"""Sums over pixels against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.kernels import channel_sums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 16), (1, 1, 1, 7), (3, 33, 31, 40), (600, 16)], ids=str)
def test_sums_match_float64(shape, dtype):
    rng = np.random.default_rng(shape)
    a, b = (jnp.asarray(rng.normal(size=shape) + 3, dtype) for _ in range(2))
    centre = jnp.asarray(rng.normal(size=shape[-1]), jnp.float32)
    wide = [np.asarray(x, np.float64).reshape(-1, shape[-1]) for x in (a, b)]
    expected = wide[0].sum(axis=0), (wide[0] * (wide[1] - np.asarray(centre))).sum(axis=0)
    for found, exact in zip(jax.jit(channel_sums)(a, b, centre), expected, strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
