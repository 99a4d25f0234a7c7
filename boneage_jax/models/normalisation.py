"""Batch normalisation with single-pass sums over pixels, forward and backward, or with fixed statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.kernels import channel_sums
from boneage_jax.kernels.kept import kept


class _Normalisation(nn.Module):
    """The settings and variables of a batch normalisation, the same as those of `nn.BatchNorm`."""

    use_running_average: bool
    momentum: float
    epsilon: float
    axis_name: str | None = None
    dtype: Any = jnp.float32
    use_scale: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.nowrap
    def _variables(self, channels: int) -> tuple[nn.Variable[Any], nn.Variable[Any], Any, Any]:
        """Running mean, running variance, scale and bias, each of shape [channels]."""
        shape = (channels,)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32) if self.use_scale else jnp.ones(shape)
        bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
        return mean, var, scale, bias


class BatchNorm(_Normalisation):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015): variables and results of `nn.BatchNorm`, faster on CPUs.

    Statistics are float32: mean and mean square, averaged over `axis_name`. The running variance is the biased one.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Normalises every channel; in training, updates the running statistics, except during initialisation."""
        running_mean, running_var, scale, bias = self._variables(x.shape[-1])
        if self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean, mean_square = _moments(x)
            if self.axis_name is not None and not self.is_initializing():
                mean, mean_square = jax.lax.pmean((mean, mean_square), self.axis_name)
            mean, mean_square = kept(mean), kept(mean_square)
            var = jnp.maximum(mean_square - mean**2, 0.0)
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * mean
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * var
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return affine(x, mean, factor, bias).astype(self.dtype)


class FoldedBatchNorm(_Normalisation):
    """Batch normalisation by its running statistics, also in training, to be folded into the preceding layer.

    Its variables are those of `BatchNorm`; scale and bias are still trained, the statistics stay fixed.
    """

    @nn.compact
    def __call__(self, channels: int) -> tuple[Float[Array, "C"], Float[Array, "C"]]:
        """Factor and bias of every channel, float32; the normalised value is x * factor + bias."""
        mean, var, scale, bias = self._variables(channels)
        factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
        return factor, bias - mean.value * factor


@jax.custom_vjp
def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and mean square over all axes but the last."""
    sums = channel_sums(x, x, jnp.zeros(x.shape[-1], jnp.float32))
    pixels = x.size // x.shape[-1]
    return sums[0] / pixels, sums[1] / pixels


def _moments_forward(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    return _moments(x), x


def _moments_backward(x: jax.Array, gradients: tuple[jax.Array, jax.Array]) -> tuple[jax.Array]:
    of_mean, of_square = (g / (x.size // x.shape[-1]) for g in gradients)
    return ((_per_channel(of_mean, x) + 2 * _per_channel(of_square, x) * x.astype(jnp.float32)).astype(x.dtype),)


_moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    """(x - mean) * factor + bias, channel by channel, in the type of x."""
    centred = x.astype(jnp.float32) - _per_channel(mean, x)
    return (centred * _per_channel(factor, x) + _per_channel(bias, x)).astype(x.dtype)


def _affine_forward(
    x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return affine(x, mean, factor, bias), (x, mean, factor)


def _affine_backward(
    residuals: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mean, factor = residuals
    of_bias, of_factor = channel_sums(gradient, x, mean)
    of_x = (gradient.astype(jnp.float32) * _per_channel(factor, x)).astype(x.dtype)
    return of_x, -factor * of_bias, of_factor, of_bias


affine.defvjp(_affine_forward, _affine_backward)


def _per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    return values.reshape((1,) * (x.ndim - 1) + values.shape)
