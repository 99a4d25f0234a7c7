"""Heads: from a trunk's feature map, the sex and further inputs to the bone age in months."""

from boneage_jax.models.heads.distribution import Distribution
from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.heads.joints import Joints
from boneage_jax.models.heads.regression import Regression
from boneage_jax.models.heads.relative import Relative
from boneage_jax.models.heads.sex_split_distribution import SexSplitDistribution

__all__ = ["Distribution", "Estimate", "Joints", "Regression", "Relative", "SexSplitDistribution"]
