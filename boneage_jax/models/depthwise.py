"""Depthwise convolution: one filter per channel, in the form that each platform runs best.

On the CPU, XLA's grouped convolution is about 45 times slower than a sum of shifted products. The CPU therefore
uses this package's kernels (`boneage_jax.kernels`) or, where there are none, that sum with custom gradients (automatic
differentiation of the sum is slow). Every other platform uses `jax.lax.conv_general_dilated`. The choice is made at
lowering, so models do not depend on the platform.
"""

from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.kernels import depthwise as kernels
from boneage_jax.kernels.activation import bias_gradient, relu6, relu6_gradient, shifted
from boneage_jax.kernels.convolution import Pads
from boneage_jax.kernels.kept import kept

Padding = Literal["SAME", "VALID"]

# Rows that one step of the kernel gradient adds up in registers; more rows only make compilation slower.
MAX_BLOCK_ROWS = 16


def depthwise_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "kh kw C"], *, stride: int = 1, padding: Padding = "SAME"
) -> Float[Array, "B h w C"]:
    """Convolves every channel of `x` with its own `kernel[:, :, c]` (cross-correlation, as in every framework).

    Args:
        x: input, [B, H, W, C].
        kernel: filters, [kh, kw, C].
        stride: step in pixels along both axes.
        padding: "SAME" (TensorFlow's rule: the odd pixel goes to the bottom and right) or "VALID".

    Returns:
        [B, h, w, C] with h = ceil(H / stride) for SAME, max(0, ceil((H - kh + 1) / stride)) for VALID.
    """
    if _is_empty(x, kernel, padding):
        return kept(_grouped(x, kernel, stride=stride, padding=padding))
    return kept(_depthwise(x, kernel, stride, padding))


def depthwise_conv_relu6(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw C"],
    bias: Float[Array, "C"],
    *,
    stride: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "B h w C"]:
    """ReLU6 of `depthwise_conv` plus a float32 bias; the CPU kernels need fewer passes for it."""
    if _is_empty(x, kernel, padding) or not kernels.has_kernel(x, kernel, stride):
        return relu6(shifted(depthwise_conv(x, kernel, stride=stride, padding=padding), bias))
    return kept(_depthwise_relu6(x, kernel, bias, stride, padding))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _depthwise_relu6(x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int, padding: Padding) -> jax.Array:
    pads = _pads(x, kernel, stride, padding)
    return jax.lax.platform_dependent(
        x,
        kernel,
        bias,
        cpu=partial(kernels.convolve_relu6, stride=stride, pads=pads),
        default=lambda x, kernel, bias: relu6(shifted(_grouped(x, kernel, stride=stride, padding=padding), bias)),
    )


def _forward_relu6(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    y = _depthwise_relu6(x, kernel, bias, stride, padding)
    return y, (x, kernel, y)


def _backward_relu6(
    stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def plain(x: jax.Array, kernel: jax.Array, y: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        through = relu6_gradient(y, g)
        return *_grouped_gradients(x, kernel, through, stride=stride, padding=padding), bias_gradient(through)

    pads = _pads(*residuals[:2], stride, padding)
    on_cpu = partial(kernels.relu6_gradients, stride=stride, pads=pads)
    return jax.lax.platform_dependent(*residuals, g, cpu=on_cpu, default=plain)


_depthwise_relu6.defvjp(_forward_relu6, _backward_relu6)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_on_cpu, stride=stride, padding=padding),
        default=partial(_grouped, stride=stride, padding=padding),
    )


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return jax.lax.platform_dependent(
        x,
        kernel,
        g,
        cpu=partial(_gradients_on_cpu, stride=stride, padding=padding),
        default=partial(_grouped_gradients, stride=stride, padding=padding),
    )


_depthwise.defvjp(_forward, _backward)


def _grouped(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(
    x: jax.Array, kernel: jax.Array, g: jax.Array, *, stride: int, padding: Padding
) -> tuple[jax.Array, jax.Array]:
    # Not jax.vjp, which would compute the convolution itself as well.
    form = partial(_grouped, stride=stride, padding=padding)
    (of_x,) = jax.linear_transpose(lambda x: form(x, kernel), x)(g)
    (of_kernel,) = jax.linear_transpose(lambda kernel: form(x, kernel), kernel)(g)
    return of_x, of_kernel


def _is_empty(x: jax.Array, kernel: jax.Array, padding: Padding) -> bool:
    """Whether the result has no pixels; XLA's convolution is used for it on every platform."""
    least = kernel.shape[:2] if padding == "VALID" else (1, 1)
    return any(size < needed for size, needed in zip(x.shape[1:3], least, strict=True))


def _pads(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> Pads:
    top, left = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    return (top, left)


def _on_cpu(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    if kernels.has_kernel(x, kernel, stride):
        return kernels.convolve(x, kernel, stride=stride, pads=_pads(x, kernel, stride, padding))
    return _shifted_sum(x, kernel, stride=stride, padding=padding)


def _gradients_on_cpu(
    x: jax.Array, kernel: jax.Array, g: jax.Array, *, stride: int, padding: Padding
) -> tuple[jax.Array, jax.Array]:
    pads = _pads(x, kernel, stride, padding)
    if kernels.has_kernel(x, kernel, stride):
        of_kernel = kernels.kernel_gradient(x, g, k=kernel.shape[0], stride=stride, pads=pads).astype(kernel.dtype)
    else:
        of_kernel = _kernel_gradient(x, kernel, g, stride, padding)
    return _input_gradient(x, kernel, g, stride, pads), of_kernel


def _padded(x: jax.Array, kernel_shape: tuple[int, int], stride: int, padding: Padding) -> jax.Array:
    pads = jax.lax.padtype_to_pads(x.shape[1:3], kernel_shape, (stride, stride), padding)
    return _computed_once(jnp.pad(x, ((0, 0), *pads, (0, 0))))


def _computed_once(x: jax.Array) -> jax.Array:
    """Keeps XLA from fusing `x` into its consumer, which would recompute it for every filter tap."""
    return jax.lax.optimization_barrier(x)


def _window(padded: jax.Array, i: int, j: int, out_shape: tuple[int, int], stride: int) -> jax.Array:
    """The pixels that filter tap (i, j) is multiplied with, [B, h, w, C]."""
    h, w = out_shape
    b, _, _, c = padded.shape
    limit = (b, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, c)
    return jax.lax.slice(padded, (0, i, j, 0), limit, (1, stride, stride, 1))


def _shifted_sum(x: jax.Array, kernel: jax.Array, *, stride: int, padding: Padding) -> jax.Array:
    kh, kw, _ = kernel.shape
    padded = _padded(x, (kh, kw), stride, padding)
    out_shape = ((padded.shape[1] - kh) // stride + 1, (padded.shape[2] - kw) // stride + 1)
    total = jnp.zeros((x.shape[0], *out_shape, x.shape[3]), jnp.float32)
    for i in range(kh):
        for j in range(kw):
            tap = kernel[i, j].astype(jnp.float32)[None, None, None, :]
            total += _window(padded, i, j, out_shape, stride).astype(jnp.float32) * tap
    return _computed_once(total.astype(x.dtype))


def _input_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Convolves the output gradient, dilated by the stride, with the flipped filter."""
    spread = []
    for axis, (low, _) in enumerate(pads):
        k, size, h = kernel.shape[axis], x.shape[1 + axis], g.shape[1 + axis]
        before = k - 1 - low
        after = size + k - 1 - before - ((h - 1) * stride + 1)
        spread.append((before, after, stride - 1))
    turned = kernel[::-1, ::-1]
    if stride == 1 and kernels.has_kernel(g, turned, 1):
        return kernels.convolve(g, turned, stride=1, pads=(spread[0][:2], spread[1][:2])).astype(x.dtype)
    zero = jnp.zeros((), g.dtype)
    padded = _computed_once(jax.lax.pad(g, zero, ((0, 0, 0), *spread, (0, 0, 0))))
    return _on_cpu(padded, turned, stride=1, padding="VALID").astype(x.dtype)


def _kernel_gradient(x: jax.Array, kernel: jax.Array, g: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Sums x * g per filter tap, as multiply-adds over blocks of rows with one [w, C] accumulator per tap.

    XLA does not vectorise a reduction over the leading axes on the CPU (about 1.5 GFLOP/s). The blocks turn it
    into elementwise work over [w, C] (20 to 40 GFLOP/s); only the short sum over w at the end remains.
    """
    kh, kw, channels = kernel.shape
    batch, h, w, _ = g.shape
    rows = min(h, MAX_BLOCK_ROWS)
    blocks = -(-h // rows)
    missing = blocks * rows - h
    padded = _padded(x, (kh, kw), stride, padding)
    padded = jnp.pad(padded, ((0, 0), (0, missing * stride), (0, 0), (0, 0)))
    g = jnp.pad(g, ((0, 0), (0, missing), (0, 0), (0, 0)))
    in_rows = (rows - 1) * stride + kh

    def add_block(sums: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], None]:
        image, block = index // blocks, index % blocks
        start = (image, block * rows * stride, 0, 0)
        x_block = jax.lax.dynamic_slice(padded, start, (1, in_rows, *padded.shape[2:]))[0]
        g_block = jax.lax.dynamic_slice(g, (image, block * rows, 0, 0), (1, rows, w, channels))[0]
        x_block, g_block = x_block.astype(jnp.float32), g_block.astype(jnp.float32)
        for tap in range(kh * kw):
            i, j = divmod(tap, kw)
            columns = slice(j, j + (w - 1) * stride + 1, stride)
            sums[tap] += sum(x_block[r * stride + i, columns] * g_block[r] for r in range(rows))
        return sums, None

    zeros = [jnp.zeros((w, channels), jnp.float32)] * (kh * kw)
    sums, _ = jax.lax.scan(add_block, zeros, jnp.arange(batch * blocks))
    taps = jnp.stack([tap.sum(axis=0) for tap in sums])
    return taps.reshape(kernel.shape).astype(kernel.dtype)


class DepthwiseConv(nn.Module):
    """Depthwise convolution layer; its kernel has the shape of a grouped `nn.Conv` kernel, [k, k, 1, C]."""

    kernel_size: int
    strides: int = 1
    padding: Padding = "SAME"
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        factor: Float[Array, "C"] | None = None,
        relu6_bias: Float[Array, "C"] | None = None,
    ) -> Float[Array, "B h w C"]:
        """Convolves [B, H, W, C], one filter per channel.

        `factor` multiplies the filters. With `relu6_bias`, the bias is added to the result and ReLU6 applied.
        """
        k, channels = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (k, k, 1, channels), jnp.float32)
        if factor is not None:
            kernel = kernel * factor.reshape(1, 1, 1, -1)
        x, filters = x.astype(self.dtype), kernel[:, :, 0, :].astype(self.dtype)
        if relu6_bias is not None:
            return depthwise_conv_relu6(x, filters, relu6_bias, stride=self.strides, padding=self.padding)
        x = depthwise_conv(x, filters, stride=self.strides, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
            x = shifted(x, bias)
        return x
