"""Bias and ReLU6, which follow a convolution with a folded BatchNorm."""

import jax
import jax.numpy as jnp

from boneage_jax.kernels.sums import channel_sums


@jax.custom_vjp
def shifted(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a float32 bias [C] to x [..., C], in the type of x; the gradient of the bias takes one pass."""
    return (x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + bias.shape)).astype(x.dtype)


def _shifted_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return shifted(x, bias), None


def _shifted_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient, bias_gradient(gradient)


shifted.defvjp(_shifted_forward, _shifted_backward)


def bias_gradient(gradient: jax.Array) -> jax.Array:
    """The sums [C] of a gradient over all axes but the last, float32."""
    return channel_sums(gradient, gradient, jnp.zeros(gradient.shape[-1], jnp.float32))[0]


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """`jax.nn.relu6` with a backward pass that reads the output, not the input; the gradient at 0 and 6 is zero."""
    return jnp.clip(x, 0, 6)


def _relu6_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu6(x)
    return y, y


def _relu6_backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (relu6_gradient(y, gradient),)


relu6.defvjp(_relu6_forward, _relu6_backward)


def relu6_gradient(y: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient of ReLU6's input, from its output `y` and the gradient of `y`."""
    return jnp.where((y > 0) & (y < 6), gradient, jnp.zeros((), gradient.dtype))
