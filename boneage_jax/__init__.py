"""Bone age from hand radiographs: networks, data pipeline, training and evaluation in JAX."""

__version__ = "0.1.0"
