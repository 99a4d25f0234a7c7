"""The winner's head: one linear output, the z-score of the age."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.inputs import Input, encode


class Regression(nn.Module):
    """The head of 16Bit, winner of the RSNA challenge 2017 (Halabi et al., Radiology 2019; 290:498-503).

    Global average pool, the sex (0 or 1) through a dense layer of its own, both concatenated, dense layers,
    one linear output: the z-score of the age, which becomes months with the training labels' mean and
    standard deviation. The last layer is computed in float32 whatever `dtype` is: a bfloat16 z-score
    would come in steps of a third of a month at the ends of the scale.
    """

    sex_units: int = 32
    hidden: tuple[int, ...] = (1000, 1000)
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # months
    label_std: float = 1.0  # months
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuses a dropout that is no share."""
        if not 0 <= self.dropout < 1:
            raise BoneAgeError(f"dropout of the regression head is {self.dropout}, expected 0 to below 1")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B h w c"],
        sex: Int[Array, " B"],
        inputs: Mapping[str, Array],
        *,
        train: bool,
    ) -> Estimate:
        """Needs a "dropout" key when it trains with `dropout` above 0."""
        pooled = jnp.mean(features, axis=(1, 2), dtype=jnp.float32).astype(self.dtype)  # [B, c]
        beside = {"sex": sex[:, None]} | {f"input_{i.name}": encode(i, inputs[i.name]) for i in self.inputs}
        branches = [
            nn.relu(nn.Dense(self.sex_units, dtype=self.dtype, name=name)(value.astype(self.dtype)))
            for name, value in beside.items()
        ]
        x = jnp.concatenate([pooled, *branches], axis=-1)  # [B, c + sex_units for each]
        for i, units in enumerate(self.hidden, start=1):
            x = nn.relu(nn.Dense(units, dtype=self.dtype, name=f"hidden{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
        z_score = nn.Dense(1, dtype=jnp.float32, name="output")(x)[:, 0]  # [B]
        return Estimate(months=z_score * self.label_std + self.label_mean)
