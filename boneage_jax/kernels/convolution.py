"""Dense convolution: this package's kernels for stride 1 on the CPU, XLA's for everything else."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from boneage_jax.kernels import library
from boneage_jax.kernels.kept import kept

LAYOUT = ("NHWC", "HWIO", "NHWC")
DTYPES = (jnp.float32, jnp.bfloat16)
Pads = tuple[tuple[int, int], tuple[int, int]]  # zeros above and below, left and right


def conv_general_dilated(lhs: jax.Array, rhs: jax.Array, window_strides: Any, padding: Any, **settings: Any) -> Any:
    """Replacement for `jax.lax.conv_general_dilated`, for `nn.Conv(conv_general_dilated=...)`.

    Convolutions of images [B, H, W, Ci] (Ci a multiple of 4, Co of 16) with square kernels and stride 1 use this
    package's kernels on CPUs that support them: products in the type of the images, sums in float32.
    """
    pads = _kernel_pads(lhs, rhs, window_strides, padding, settings)
    if pads is not None and library.available():
        return kept(_convolution(lhs, rhs, pads))
    return kept(lax.conv_general_dilated(lhs, rhs, window_strides, padding, **settings))


def fits(x: jax.Array, kernel: jax.Array) -> bool:
    """Whether there is a kernel for the convolution of images [B, H, W, Ci] by [k, k, Ci, Co] without padding."""
    return _kernel_pads(x, kernel, (1, 1), "VALID", {"dimension_numbers": LAYOUT}) is not None


def _kernel_pads(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, settings: dict[str, Any]) -> Pads | None:
    """The padding in pixels if there is a kernel for this convolution, else None."""
    if x.ndim != 4 or x.dtype not in DTYPES or x.dtype != kernel.dtype or tuple(strides) != (1, 1):
        return None
    plain = {
        "lhs_dilation": (None, (1, 1)),
        "rhs_dilation": (None, (1, 1)),
        "feature_group_count": (1,),
        "batch_group_count": (1,),
        "precision": (None,),
        "preferred_element_type": (None,),
    }
    spec = lax.conv_dimension_numbers(x.shape, kernel.shape, settings.get("dimension_numbers"))
    if spec != lax.conv_dimension_numbers(x.shape, kernel.shape, LAYOUT) or any(
        settings.get(key, allowed[0]) not in allowed for key, allowed in plain.items()
    ):
        return None
    k, width, channels, features = kernel.shape
    numbers = lax.padtype_to_pads(x.shape[1:3], (k, width), (1, 1), padding) if isinstance(padding, str) else padding
    top, left = ((int(low), int(high)) for low, high in numbers)
    outputs = [size + low + high - k + 1 for size, (low, high) in zip(x.shape[1:3], (top, left), strict=True)]
    fits = k == width and channels % 4 == 0 and features % 16 == 0
    inside = all(0 <= pad < k for pads in (top, left) for pad in pads)
    return (top, left) if fits and inside and min(outputs) > 0 and x.size > 0 else None


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolution(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return lax.platform_dependent(x, kernel, cpu=partial(_call, pads=pads), default=partial(_plain, pads=pads))


def _forward(x: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolution(x, kernel, pads), (x, kernel)


def _backward(pads: Pads, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(
        *residuals, gradient, cpu=partial(_gradient_calls, pads=pads), default=partial(_plain_gradients, pads=pads)
    )


_convolution.defvjp(_forward, _backward)


def _plain(x: jax.Array, kernel: jax.Array, *, pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)


def _plain_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    # Not jax.vjp, which would compute the convolution itself as well.
    (of_kernel,) = jax.linear_transpose(lambda kernel: _plain(x, kernel, pads=pads), kernel)(gradient)
    return _plain_image_gradient(x, kernel, gradient, pads), of_kernel


def _plain_image_gradient(x: jax.Array, kernel: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    return jax.linear_transpose(lambda x: _plain(x, kernel, pads=pads), x)(gradient)[0]


def _call(x: jax.Array, kernel: jax.Array, *, pads: Pads, transpose: bool = False) -> jax.Array:
    height, width = (
        size + low + high - kernel.shape[0] + 1 for size, (low, high) in zip(x.shape[1:3], pads, strict=True)
    )
    out = jax.ShapeDtypeStruct((x.shape[0], height, width, kernel.shape[2 if transpose else 3]), x.dtype)
    corner = {"top": np.int64(pads[0][0]), "left": np.int64(pads[1][0])}
    return jax.ffi.ffi_call("BoneageConvolution", out)(x, kernel, transpose=transpose, **corner)


def _gradient_calls(x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, pads: Pads) -> tuple[jax.Array, jax.Array]:
    if x.shape[-1] % 16:
        of_image = _plain_image_gradient(x, kernel, gradient, pads)
    else:
        rest = kernel.shape[0] - 1
        (top, bottom), (left, right) = pads
        turned = ((rest - top, rest - bottom), (rest - left, rest - right))
        of_image = _call(gradient, kernel, pads=turned, transpose=True)
    out = jax.ShapeDtypeStruct(kernel.shape, jnp.float32)
    corner = {"top": np.int64(pads[0][0]), "left": np.int64(pads[1][0])}
    of_kernel = jax.ffi.ffi_call("BoneageKernelGradient", out)(x, gradient, **corner)
    return of_image, of_kernel.astype(kernel.dtype)
