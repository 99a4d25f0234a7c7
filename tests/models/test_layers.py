"""Layers that several trunks share: stochastic depth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from boneage_jax.models.layers import StochasticDepth

BRANCH = jax.random.normal(jax.random.key(0), (256, 2, 3, 4))


def trained(rate: float, seed: int = 0, branch: jax.Array = BRANCH) -> Any:
    return StochasticDepth(rate, deterministic=False).apply({}, branch, rngs={"dropout": jax.random.key(seed)})


def test_stochastic_depth_drops_whole_images_and_scales_those_that_stay():
    out = np.asarray(trained(0.25))
    dropped = (out == 0).all(axis=(1, 2, 3))
    np.testing.assert_allclose(out[~dropped], np.asarray(BRANCH)[~dropped] / 0.75, rtol=1e-6)
    # 256 draws with 0.25: 64, and a standard deviation of 7.
    assert 43 <= dropped.sum() <= 85


def test_stochastic_depth_drops_other_images_with_another_key():
    assert not np.array_equal(trained(0.5, seed=0), trained(0.5, seed=1))
    np.testing.assert_array_equal(trained(0.5, seed=0), trained(0.5, seed=0))


@pytest.mark.parametrize(("rate", "train"), [(0.9, False), (0.0, True), (0.0, False)])
def test_stochastic_depth_without_effect_returns_the_branch_and_needs_no_key(rate, train):
    assert StochasticDepth(rate, deterministic=not train).apply({}, BRANCH) is BRANCH


def test_stochastic_depth_that_drops_asks_for_a_key():
    with pytest.raises(InvalidRngError, match="dropout"):
        StochasticDepth(0.5, deterministic=False).apply({}, BRANCH)


def test_stochastic_depth_keeps_the_precision():
    assert trained(0.5, branch=BRANCH.astype(jnp.bfloat16)).dtype == jnp.bfloat16
