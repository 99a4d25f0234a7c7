"""Calls of the CPU kernels for depthwise convolution."""

import jax
import jax.numpy as jnp
import numpy as np

from boneage_jax.kernels import library
from boneage_jax.kernels.convolution import DTYPES, Pads

SIZES = (3, 5, 7, 9)
STRIDES = (1, 2)


def has_kernel(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether there is a kernel for images [B, H, W, C] and filters [k, k, C] and the kernels can be called."""
    k, width, _ = kernel.shape
    fits = k == width and k in SIZES and stride in STRIDES and x.dtype in DTYPES and x.dtype == kernel.dtype
    return fits and x.size > 0 and library.available()


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, pads: Pads) -> jax.Array:
    """Convolves zero-padded images [B, H, W, C] with filters [k, k, C]; needs `has_kernel`."""
    out = jax.ShapeDtypeStruct(_out_shape(x, kernel, stride, pads), x.dtype)
    return jax.ffi.ffi_call("BoneageDepthwise", out)(x, kernel, **_geometry(stride, pads))


def kernel_gradient(x: jax.Array, gradient: jax.Array, *, k: int, stride: int, pads: Pads) -> jax.Array:
    """The gradient of the filters [k, k, C], float32, from that of the output; needs `has_kernel`."""
    out = jax.ShapeDtypeStruct((k, k, x.shape[3]), jnp.float32)
    return jax.ffi.ffi_call("BoneageDepthwiseKernelGradient", out)(x, gradient, **_geometry(stride, pads))


def convolve_relu6(x: jax.Array, kernel: jax.Array, bias: jax.Array, *, stride: int, pads: Pads) -> jax.Array:
    """ReLU6 of `convolve` plus a bias [C]; needs `has_kernel`."""
    out = jax.ShapeDtypeStruct(_out_shape(x, kernel, stride, pads), x.dtype)
    return jax.ffi.ffi_call("BoneageDepthwiseRelu6", out)(x, kernel, bias, **_geometry(stride, pads))


def relu6_gradients(
    x: jax.Array, kernel: jax.Array, y: jax.Array, gradient: jax.Array, *, stride: int, pads: Pads
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of images, filters and bias of `convolve_relu6`, from its output `y` and the gradient of `y`."""
    outs = (
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
        jax.ShapeDtypeStruct(kernel.shape[-1:], jnp.float32),
    )
    call = jax.ffi.ffi_call("BoneageDepthwiseRelu6Gradients", outs)
    of_x, of_kernel, of_bias = call(x, kernel, y, gradient, **_geometry(stride, pads))
    return of_x, of_kernel.astype(kernel.dtype), of_bias


def _out_shape(x: jax.Array, kernel: jax.Array, stride: int, pads: Pads) -> tuple[int, ...]:
    k = kernel.shape[0]
    height, width = ((n + low + high - k) // stride + 1 for n, (low, high) in zip(x.shape[1:3], pads, strict=True))
    return (x.shape[0], height, width, x.shape[3])


def _geometry(stride: int, pads: Pads) -> dict[str, np.int64]:
    return {"stride": np.int64(stride), "top": np.int64(pads[0][0]), "left": np.int64(pads[1][0])}
