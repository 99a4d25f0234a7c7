"""Calls of the CPU's own depthwise convolution."""

import jax
import jax.numpy as jnp
import numpy as np

from boneage_jax.kernels import library
from boneage_jax.kernels.convolution import DTYPES, Pads

SIZES = (3, 5, 7, 9)
STRIDES = (1, 2)


def has_kernel(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether there is a kernel for images [B, H, W, C] and filters [k, k, C], and it can be called on CPUs."""
    k, width, _ = kernel.shape
    fits = k == width and k in SIZES and stride in STRIDES and x.dtype in DTYPES and x.dtype == kernel.dtype
    return fits and x.size > 0 and library.available()


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, pads: Pads) -> jax.Array:
    """Convolves images [B, H, W, C] with zeros around them with filters [k, k, C]; needs `has_kernel`."""
    k = kernel.shape[0]
    height, width = ((n + low + high - k) // stride + 1 for n, (low, high) in zip(x.shape[1:3], pads, strict=True))
    out = jax.ShapeDtypeStruct((x.shape[0], height, width, x.shape[3]), x.dtype)
    return jax.ffi.ffi_call("BoneageDepthwise", out)(x, kernel, stride=np.int64(stride), **_corner(pads))


def kernel_gradient(x: jax.Array, gradient: jax.Array, *, k: int, stride: int, pads: Pads) -> jax.Array:
    """The gradient [k, k, C], float32, from that of the output; needs `has_kernel`."""
    out = jax.ShapeDtypeStruct((k, k, x.shape[3]), jnp.float32)
    call = jax.ffi.ffi_call("BoneageDepthwiseKernelGradient", out)
    return call(x, gradient, stride=np.int64(stride), **_corner(pads))


def _corner(pads: Pads) -> dict[str, np.int64]:
    return {"top": np.int64(pads[0][0]), "left": np.int64(pads[1][0])}
