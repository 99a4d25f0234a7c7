"""Sums over all pixels of a batch, which normalisation and its gradient need."""

import jax
import jax.numpy as jnp
from jax import lax

from boneage_jax.kernels import library


def channel_sums(a: jax.Array, b: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums of `a` and of `a * (b - centre)` over all axes but the last; not differentiable.

    Args:
        a: [..., C], float32 or bfloat16.
        b: same shape and type as `a`.
        centre: [C], float32.

    Returns:
        Two float32 arrays [C], accumulated in float32.
    """
    if not library.available() or a.dtype not in (jnp.float32, jnp.bfloat16):
        return _plain(a, b, centre)
    return lax.platform_dependent(a, b, centre, cpu=_call, default=_plain)


def _plain(a: jax.Array, b: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    axes = tuple(range(a.ndim - 1))
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return a.sum(axes), (a * (b - centre.reshape((1,) * (a.ndim - 1) + centre.shape))).sum(axes)


def _call(a: jax.Array, b: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    sums = jax.ffi.ffi_call("BoneageChannelSums", jax.ShapeDtypeStruct((2, a.shape[-1]), jnp.float32))(a, b, centre)
    return sums[0], sums[1]
