"""Reads radiographs from files in any supported form; gives random access to prepared images with their labels."""

from boneage_jax.data.dataset import Repeated, Split, input_statistics, label_statistics, load
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import decode, read

__all__ = [
    "Preprocessing",
    "Repeated",
    "Split",
    "decode",
    "input_statistics",
    "label_statistics",
    "load",
    "read",
]
