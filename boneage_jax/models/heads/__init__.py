"""Heads: from a trunk's feature map, the sex and further inputs to the bone age in months."""

from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.heads.regression import Regression

__all__ = ["Estimate", "Regression"]
