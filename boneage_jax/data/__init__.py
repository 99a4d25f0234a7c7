"""Reads radiographs from files in any supported form; gives random access to prepared images with their labels."""

from boneage_jax.data.dataset import Repeated, Split, input_statistics, label_statistics, load
from boneage_jax.data.header import Header, contradictions
from boneage_jax.data.preprocess import Preprocessing
from boneage_jax.data.radiograph import Radiograph, decode, read
from boneage_jax.sex import Sex

__all__ = [
    "Header",
    "Preprocessing",
    "Radiograph",
    "Repeated",
    "Sex",
    "Split",
    "contradictions",
    "decode",
    "input_statistics",
    "label_statistics",
    "load",
    "read",
]
