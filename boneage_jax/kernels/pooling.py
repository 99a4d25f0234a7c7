"""Max pooling: this package's kernels on the CPU, where XLA's gradient is many times slower."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from boneage_jax.kernels import library
from boneage_jax.kernels.convolution import DTYPES, Pads
from boneage_jax.kernels.kept import kept

LARGEST = 15  # largest window size; a byte can count its pixels


def max_pool(x: jax.Array, size: int, stride: int, padding: Any = "VALID") -> jax.Array:
    """The maximum of every `size` x `size` window.

    Args:
        x: [B, H, W, C].
        size: of the window, pixels.
        stride: from window to window, pixels.
        padding: "SAME", "VALID" or ((above, below), (left, right)); pixels are added as minus infinity.

    Returns:
        [B, h, w, C]. Of equal pixels, the first in row-major order gets the gradient.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], (size, size), (stride, stride), padding)
    top, left = ((int(low), int(high)) for low, high in padding)
    settings: dict[str, Any] = {"size": size, "stride": stride, "pads": (top, left)}
    filled = x.size > 0 and min(_out_shape(x.shape, size, stride, (top, left))) > 0
    fits = x.dtype in DTYPES and size <= LARGEST and filled
    return kept(_pool(x, **settings) if fits and library.available() else _plain(x, **settings))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool(x: jax.Array, size: int, stride: int, pads: Pads) -> jax.Array:
    settings: dict[str, Any] = {"size": size, "stride": stride, "pads": pads}
    return lax.platform_dependent(x, cpu=partial(_call, **settings), default=partial(_plain, **settings))


def _forward(x: jax.Array, size: int, stride: int, pads: Pads) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    settings: dict[str, Any] = {"size": size, "stride": stride, "pads": pads}
    y, winner = lax.platform_dependent(
        x, cpu=partial(_winner_call, **settings), default=partial(_plain_winner, **settings)
    )
    return y, (kept(winner), jnp.zeros((0, *x.shape[1:3]), x.dtype))  # the second carries only the shape and type


def _backward(
    size: int, stride: int, pads: Pads, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    winner, like = residuals
    settings: dict[str, Any] = {"shape": like.shape[1:], "size": size, "stride": stride, "pads": pads}
    of_image = lax.platform_dependent(
        winner, gradient, cpu=partial(_gradient_call, **settings), default=partial(_plain_gradient, **settings)
    )
    return (of_image,)


_pool.defvjp(_forward, _backward)


def _plain(x: jax.Array, *, size: int, stride: int, pads: Pads) -> jax.Array:
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *pads, (0, 0)))


def _plain_winner(x: jax.Array, *, size: int, stride: int, pads: Pads) -> tuple[jax.Array, jax.Array]:
    """The maximum of every window and its index within the window: `size` * row + column."""
    _, height, width, _ = _out_shape(x.shape, size, stride, pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    ends = ((height - 1) * stride + 1, (width - 1) * stride + 1)
    taps = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]
    return jnp.stack(taps).max(axis=0), jnp.stack(taps).argmax(axis=0).astype(jnp.uint8)


def _plain_gradient(
    winner: jax.Array, gradient: jax.Array, *, shape: tuple[int, int], size: int, stride: int, pads: Pads
) -> jax.Array:
    batch, height, width, channels = gradient.shape
    sides = [n + low + high for n, (low, high) in zip(shape, pads, strict=True)]
    total = jnp.zeros((batch, *sides, channels), gradient.dtype)
    for tap in range(size * size):
        corner = divmod(tap, size)
        rows, columns = (
            slice(first, first + (count - 1) * stride + 1, stride)
            for first, count in zip(corner, (height, width), strict=True)
        )
        total = total.at[:, rows, columns].add(jnp.where(winner == tap, gradient, jnp.zeros((), gradient.dtype)))
    (top, _), (left, _) = pads
    return total[:, top : top + shape[0], left : left + shape[1]]


def _call(x: jax.Array, *, size: int, stride: int, pads: Pads) -> jax.Array:
    out = jax.ShapeDtypeStruct(_out_shape(x.shape, size, stride, pads), x.dtype)
    return jax.ffi.ffi_call("BoneageMaxPool", out)(x, **_numbers(size, stride, pads))


def _winner_call(x: jax.Array, *, size: int, stride: int, pads: Pads) -> tuple[jax.Array, jax.Array]:
    shape = _out_shape(x.shape, size, stride, pads)
    outs = (jax.ShapeDtypeStruct(shape, x.dtype), jax.ShapeDtypeStruct(shape, jnp.uint8))
    y, winner = jax.ffi.ffi_call("BoneageMaxPoolWinner", outs)(x, **_numbers(size, stride, pads))
    return y, winner


def _gradient_call(
    winner: jax.Array, gradient: jax.Array, *, shape: tuple[int, int], size: int, stride: int, pads: Pads
) -> jax.Array:
    out = jax.ShapeDtypeStruct((gradient.shape[0], *shape, gradient.shape[3]), gradient.dtype)
    return jax.ffi.ffi_call("BoneageMaxPoolGradient", out)(winner, gradient, **_numbers(size, stride, pads))


def _out_shape(shape: tuple[int, ...], size: int, stride: int, pads: Pads) -> tuple[int, int, int, int]:
    height, width = ((n + low + high - size) // stride + 1 for n, (low, high) in zip(shape[1:3], pads, strict=True))
    return shape[0], height, width, shape[3]


def _numbers(size: int, stride: int, pads: Pads) -> dict[str, np.int64]:
    values = {"k": size, "stride": stride, "top": pads[0][0], "left": pads[1][0]}
    return {name: np.int64(value) for name, value in values.items()}
