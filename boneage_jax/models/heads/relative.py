"""SIMBA's head: the bone age relative to the chronological age."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.heads import layers
from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.inputs import Input

AGE = "chronological_age"


class Relative(nn.Module):
    """The head of SIMBA (Gonzalez et al., "SIMBA: Specific Identity Markers for Bone Age Assessment", MICCAI 2020).

    2x2 average pool, flattened (so a network takes images of one size only); sex (0 or 1), chronological age and
    every further input as markers, each multiplied by its own learnable scalar; concatenation; dense layers; one
    linear output, the relative bone age: chronological age minus bone age, in standard deviations of the training
    labels.

    In the original, the age marker and the output are in months; here the marker is the z-score of the chronological
    age and the output is in standard deviations, so that both have the scale of the features. The last layer is
    computed in float32 whatever `dtype` is.
    """

    pool: int = 2  # pixels of the feature map per side
    hidden: tuple[int, ...] = (1000, 1000)
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # not used: the output is a difference
    label_std: float = 1.0  # months
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects inputs without the chronological age, and an invalid dropout."""
        if (AGE, "number") not in [(spec.name, spec.kind) for spec in self.inputs]:
            raise BoneAgeError(
                f'the head "relative" gives the bone age relative to the further input "{AGE}" of kind "number", '
                "which is not configured. The RSNA data have no chronological age; with a label file that has "
                f'a column {AGE} (months), set config.data.inputs.{AGE} = "number"; else choose another head'
            )
        layers.check_dropout("relative", self.dropout, self.hidden)
        super().__post_init__()

    def rescaled(self, params: Mapping[str, Any], label_mean: float, label_std: float) -> dict[str, Any]:
        """Converts the parameters of a head with other label statistics, so that this one gives the same months."""
        del label_mean  # the output is a difference
        factor = label_std / self.label_std
        return {**params, "output": {key: value * factor for key, value in params["output"].items()}}

    @nn.compact
    def __call__(
        self, features: Float[Array, "B h w c"], sex: Int[Array, " B"], inputs: Mapping[str, Array], *, train: bool
    ) -> Estimate:
        """Needs a "dropout" key when it trains with `dropout` above 0."""
        if min(features.shape[1:3]) < self.pool:
            raise BoneAgeError(
                f"a feature map of {features.shape[1]} x {features.shape[2]} is too small for the {self.pool} x "
                f"{self.pool} pool of the relative head; use larger images"
            )
        pooled = nn.avg_pool(features.astype(jnp.float32), (self.pool,) * 2, strides=(self.pool,) * 2)
        markers = [
            value * self.param(f"{name}_scale", nn.initializers.uniform(1.0), ())
            for name, value in layers.beside_image(sex, self.inputs, inputs).items()
        ]
        x = jnp.concatenate([pooled.reshape(len(pooled), -1), *markers], axis=-1).astype(self.dtype)
        x = layers.hidden_layers(x, self.hidden, self.dropout, train=train, dtype=self.dtype)
        relative = nn.Dense(1, dtype=jnp.float32, name="output")(x)[:, 0]  # [B] in label_std
        return Estimate(months=inputs[AGE].astype(jnp.float32) - relative * self.label_std)
