"""Larson's head: one distribution over months for each sex; the child's sex selects one."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.models.heads import layers
from boneage_jax.models.heads.estimate import MONTHS, Estimate, from_logits
from boneage_jax.models.inputs import Input


class SexSplitDistribution(nn.Module):
    """The head of Larson et al. (Radiology 2018; 287:313-322).

    Global average pool and one linear layer of 480 logits, 240 months for girls, then 240 for boys; softmax and
    expectation over the half for the child's sex. Every further input passes through its own dense layer with
    ReLU and is concatenated with the pooled features. The logits and everything after them are float32 whatever
    `dtype` is.
    """

    input_units: int = 32  # of the branch of every further input
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # not used: the classes are months
    label_std: float = 1.0  # not used
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: Float[Array, "B h w c"], sex: Int[Array, " B"], inputs: Mapping[str, Array], *, train: bool
    ) -> Estimate:
        """The same in training and evaluation."""
        pooled = layers.pool(features, self.dtype)  # [B, c]
        beside = layers.beside_image(sex, self.inputs, inputs)
        del beside["sex"]  # it selects the half
        x = jnp.concatenate([pooled, *layers.branches(beside, self.input_units, self.dtype)], axis=-1)
        halves = nn.Dense(2 * MONTHS, dtype=jnp.float32, name="logits")(x).reshape(-1, 2, MONTHS)
        return from_logits(jnp.take_along_axis(halves, sex[:, None, None], axis=1)[:, 0])  # [B, 240]
