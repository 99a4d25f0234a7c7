"""A distribution over months: its expectation is the bone age, its spread the uncertainty."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.models.heads import layers
from boneage_jax.models.heads.estimate import MONTHS, Estimate, from_logits
from boneage_jax.models.inputs import Input


class Distribution(nn.Module):
    """A softmax over 0 to 239 months, its expectation and standard deviation.

    Expected value after softmax as in DEX (Rothe et al., IJCV 2018; 126:144-157). Global average pool; one
    dense layer each for the sex (0 or 1) and every further input; all concatenated; hidden layers; one logit per
    month. The logits and everything after them are float32 whatever `dtype` is.
    """

    sex_units: int = 32  # of every branch
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # not used: the classes are months
    label_std: float = 1.0  # not used
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects a dropout outside [0, 1) or without hidden layers to act on."""
        layers.check_dropout("distribution", self.dropout, self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, features: Float[Array, "B h w c"], sex: Int[Array, " B"], inputs: Mapping[str, Array], *, train: bool
    ) -> Estimate:
        """Needs a "dropout" key when it trains with `dropout` above 0."""
        pooled = layers.pool(features, self.dtype)  # [B, c]
        beside = layers.beside_image(sex, self.inputs, inputs)
        x = jnp.concatenate([pooled, *layers.branches(beside, self.sex_units, self.dtype)], axis=-1)
        x = layers.hidden_layers(x, self.hidden, self.dropout, train=train, dtype=self.dtype)
        return from_logits(nn.Dense(MONTHS, dtype=jnp.float32, name="logits")(x))  # [B, 240]
