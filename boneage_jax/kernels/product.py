"""1x1 convolution as a matrix product: this package's kernels on the CPU, XLA's everywhere else."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from boneage_jax.kernels import library
from boneage_jax.kernels.activation import bias_gradient, relu6, relu6_gradient, shifted
from boneage_jax.kernels.convolution import DTYPES, LAYOUT, conv_general_dilated, fits
from boneage_jax.kernels.kept import kept


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Maps the channels of every pixel: images [B, H, W, Ci] and kernel [Ci, Co] to [B, H, W, Co].

    The kernel is rounded to the type of the images, which is also the type of the products; sums, and the gradient of a
    float32 kernel, are float32. CPUs that support it use this package's kernels: XLA's product is as fast in float32,
    but computes bfloat16 in float32 and rearranges whole images for the gradient of the kernel.
    """
    if 0 in (x.size, kernel.size) or x.dtype not in DTYPES or not library.available():
        return kept(_plain(x, kernel))
    if x.dtype == jnp.float32 or library.has_tiles():
        return kept(_product(x, kernel.astype(jnp.float32)))
    rounded = kernel.astype(x.dtype)
    if fits(x, as_image := rounded[None, None]):
        return conv_general_dilated(x, as_image, (1, 1), "VALID", dimension_numbers=LAYOUT)
    return kept(_product(x.astype(jnp.float32), rounded.astype(jnp.float32)).astype(x.dtype))


def pointwise_relu6(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """ReLU6 of `pointwise` plus a float32 bias [Co]: one pass over the pixels forward and one or two backward."""
    tiles = x.dtype == jnp.bfloat16 and library.has_tiles()
    if x.size == 0 or not (tiles or x.dtype == jnp.float32) or not library.available():
        return relu6(shifted(pointwise(x, kernel), bias))
    return kept(_product_relu6(x, kernel.astype(jnp.float32), bias))


def _plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.tensordot(x, kernel.astype(x.dtype), axes=1)


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, kernel, cpu=partial(_call, transpose=False), default=_plain)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(*residuals, gradient, cpu=_gradient_calls, default=_plain_gradients)


_product.defvjp(_forward, _backward)


def _plain_gradients(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Not jax.vjp, which would compute the product itself as well.
    (of_x,) = jax.linear_transpose(lambda x: _plain(x, kernel), x)(gradient)
    (of_kernel,) = jax.linear_transpose(lambda kernel: _plain(x, kernel), kernel)(gradient)
    return of_x, of_kernel


def _call(a: jax.Array, b: jax.Array, *, transpose: bool) -> jax.Array:
    out = jax.ShapeDtypeStruct((*a.shape[:-1], b.shape[0 if transpose else 1]), a.dtype)
    return jax.ffi.ffi_call("BoneageProduct", out)(a, b, transpose=transpose)


def _gradient_calls(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    out = jax.ShapeDtypeStruct(kernel.shape, jnp.float32)
    of_kernel = jax.ffi.ffi_call("BoneageProductKernelGradient", out)(x, gradient)
    return _call(gradient, kernel, transpose=True), of_kernel


@jax.custom_vjp
def _product_relu6(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return lax.platform_dependent(x, kernel, bias, cpu=_relu6_call, default=_plain_relu6)


def _relu6_forward(
    x: jax.Array, kernel: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    y = _product_relu6(x, kernel, bias)
    return y, (x, kernel, y)


def _relu6_backward(
    residuals: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return lax.platform_dependent(*residuals, gradient, cpu=_relu6_gradients_call, default=_plain_relu6_gradients)


_product_relu6.defvjp(_relu6_forward, _relu6_backward)


def _plain_relu6(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    return relu6(shifted(_plain(x, kernel), bias))


def _plain_relu6_gradients(
    x: jax.Array, kernel: jax.Array, y: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    through = relu6_gradient(y, gradient)
    return *_plain_gradients(x, kernel, through), bias_gradient(through)


def _relu6_call(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    out = jax.ShapeDtypeStruct((*x.shape[:-1], kernel.shape[1]), x.dtype)
    return jax.ffi.ffi_call("BoneageProductRelu6", out)(x, kernel, bias)


def _relu6_gradients_call(
    x: jax.Array, kernel: jax.Array, y: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    outs = (
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct(kernel.shape, kernel.dtype),
        jax.ShapeDtypeStruct((kernel.shape[1],), jnp.float32),
    )
    of_x, of_kernel, of_bias = jax.ffi.ffi_call("BoneageProductRelu6Gradients", outs)(x, kernel, y, gradient)
    return of_x, of_kernel, of_bias
