"""The head of the RSNA challenge's winner: one linear output, the z-score of the age."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.models.heads import layers
from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.inputs import Input


class Regression(nn.Module):
    """The head of 16Bit, winner of the RSNA challenge 2017 (Halabi et al., Radiology 2019; 290(2):498-503).

    Global average pool, the sex (0 or 1) through a dense layer of its own, both concatenated, dense layers,
    one linear output: the z-score of the age, converted to months with the training labels' mean and
    standard deviation. Every further input gets a branch like that of the sex. The last layer is computed in
    float32 whatever `dtype` is: a bfloat16 z-score would have a resolution of a third of a month at the ends
    of the scale.
    """

    sex_units: int = 32  # of every branch
    hidden: tuple[int, ...] = (1000, 1000)
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # months
    label_std: float = 1.0  # months
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects a dropout outside [0, 1) or without hidden layers to act on."""
        layers.check_dropout("regression", self.dropout, self.hidden)
        super().__post_init__()

    def rescaled(self, params: Mapping[str, Any], label_mean: float, label_std: float) -> dict[str, Any]:
        """Converts the parameters of a head with other label statistics, so that this one gives the same months."""
        output = params["output"]
        kernel = output["kernel"] * (label_std / self.label_std)
        bias = (output["bias"] * label_std + label_mean - self.label_mean) / self.label_std
        return {**params, "output": {"kernel": kernel, "bias": bias}}

    @nn.compact
    def __call__(
        self, features: Float[Array, "B h w c"], sex: Int[Array, " B"], inputs: Mapping[str, Array], *, train: bool
    ) -> Estimate:
        """Needs a "dropout" key when it trains with `dropout` above 0."""
        pooled = layers.pool(features, self.dtype)  # [B, c]
        beside = layers.beside_image(sex, self.inputs, inputs)
        x = jnp.concatenate([pooled, *layers.branches(beside, self.sex_units, self.dtype)], axis=-1)
        x = layers.hidden_layers(x, self.hidden, self.dropout, train=train, dtype=self.dtype)  # [B, 1000]
        z_score = nn.Dense(1, dtype=jnp.float32, name="output")(x)[:, 0]  # [B]
        return Estimate(months=z_score * self.label_std + self.label_mean)
