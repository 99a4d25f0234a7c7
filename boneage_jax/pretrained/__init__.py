"""Weights trained by others: their files, their names, and how a trunk starts from them."""

from boneage_jax.pretrained.load import start_from

__all__ = ["start_from"]
