"""Marks results that a backward pass shall find instead of computing them again."""

import jax
from jax.ad_checkpoint import checkpoint_name

NAME = "boneage_jax.kept"


def kept(x: jax.Array) -> jax.Array:
    """`x`, which took a convolution or a sum over pixels; `NAME` is for `jax.checkpoint_policies`."""
    return checkpoint_name(x, NAME)
