"""Layers shared by several trunks: convolution with normalisation, stochastic depth."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from boneage_jax.kernels import relu6
from boneage_jax.models.depthwise import DepthwiseConv
from boneage_jax.models.layers import Activation, Pointwise, StochasticDepth, batch_norm, convolved

LAYERS: dict[str, nn.Module] = {
    "pointwise": Pointwise(24, name="layer"),
    "depthwise": DepthwiseConv(3, 2, name="layer"),
    "other": nn.Conv(8, (3, 3), use_bias=False, name="layer"),
}


class Convolved(nn.Module):
    """A layer of `LAYERS`, normalisation with stored statistics, and an activation."""

    kind: str
    activate: Activation | None
    folded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C]."""
        norm = batch_norm(train=False, momentum=0.9, epsilon=1e-3, axis_name=None, dtype=x.dtype, folded=self.folded)
        layer = LAYERS[self.kind].clone(parent=self)
        return convolved(layer, norm(name="norm"), x, self.activate)


@pytest.mark.parametrize("activate", [relu6, nn.swish, None], ids=["relu6", "swish", "none"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_folded_normalisation_gives_the_same_values_and_gradients(kind: str, activate: Activation | None) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 9, 10, 16)), jnp.float32)
    empty = Convolved(kind, activate, folded=True).init(jax.random.key(0), x)
    # Variances must be positive; the wide scale makes ReLU6 clip at both limits.
    variables = jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.5, 3, a.shape), jnp.float32), empty)
    variables["params"]["layer"]["kernel"] -= 1.75

    def run(folded: bool) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            y, new = Convolved(kind, activate, folded).apply(
                {**variables, "params": params}, x, mutable=["batch_stats"]
            )
            return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), (y, new)

        gradients, (y, new) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x)
        return y, gradients, new["batch_stats"]

    found, expected = run(folded=True), run(folded=False)
    if activate is relu6:
        assert (float(expected[0].min()), float(expected[0].max())) == (0, 6)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())
    np.testing.assert_array_equal(found[2]["norm"]["mean"], variables["batch_stats"]["norm"]["mean"])


BRANCH = jax.random.normal(jax.random.key(0), (256, 2, 3, 4))


def trained(rate: float, seed: int = 0, branch: jax.Array = BRANCH) -> Any:
    return StochasticDepth(rate, deterministic=False).apply({}, branch, rngs={"dropout": jax.random.key(seed)})


def test_stochastic_depth_drops_whole_images_and_rescales_the_others():
    out = np.asarray(trained(0.25))
    dropped = (out == 0).all(axis=(1, 2, 3))
    np.testing.assert_allclose(out[~dropped], np.asarray(BRANCH)[~dropped] / 0.75, rtol=1e-6)
    # 256 draws at 0.25: mean 64, standard deviation 7.
    assert 43 <= dropped.sum() <= 85


def test_stochastic_depth_is_determined_by_the_key():
    assert not np.array_equal(trained(0.5, seed=0), trained(0.5, seed=1))
    np.testing.assert_array_equal(trained(0.5, seed=0), trained(0.5, seed=0))


@pytest.mark.parametrize(("rate", "train"), [(0.9, False), (0.0, True), (0.0, False)])
def test_inactive_stochastic_depth_returns_its_input_and_needs_no_key(rate, train):
    assert StochasticDepth(rate, deterministic=not train).apply({}, BRANCH) is BRANCH


def test_active_stochastic_depth_requires_a_key():
    with pytest.raises(InvalidRngError, match="dropout"):
        StochasticDepth(0.5, deterministic=False).apply({}, BRANCH)


def test_stochastic_depth_keeps_the_dtype():
    assert trained(0.5, branch=BRANCH.astype(jnp.bfloat16)).dtype == jnp.bfloat16
