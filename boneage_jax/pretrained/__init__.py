"""Weights trained by others: reading their files, mapping their names, and initialising a trunk from them."""

from boneage_jax.pretrained.load import start_from

__all__ = ["start_from"]
