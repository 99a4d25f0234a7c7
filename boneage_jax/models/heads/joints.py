"""A head that reads the bone age of every joint, and weighs the readings."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.models.heads import layers
from boneage_jax.models.heads.estimate import Estimate
from boneage_jax.models.inputs import Input


class Joints(nn.Module):
    """Reads every row of a feature map as one joint, and the hand as the mean of the readings, weighted by attention.

    A row's mean, the sex, the further inputs and a vector that stands for the joint go through hidden layers that all
    joints share; each joint has its own output layer, of the z-score of the age and of the attention (Ilse et al.,
    "Attention-based deep multiple instance learning", ICML 2018, whose instances are the joints here). A row of zeros
    is a joint that was not found: it has no reading, and no weight.
    """

    sex_units: int = 32  # of every branch, and of the vector of each joint
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # months
    label_std: float = 1.0  # months
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuses a dropout that is no share or has nothing to act on."""
        layers.check_dropout("joints", self.dropout, self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, features: Float[Array, "B R n c"], sex: Int[Array, " B"], inputs: Mapping[str, Array], *, train: bool
    ) -> Estimate:
        """Needs a "dropout" key when it trains with `dropout` above 0."""
        batch, joints = features.shape[:2]
        found = (features != 0).any(axis=(2, 3))  # [B, R]
        pooled = jnp.mean(features, axis=2, dtype=jnp.float32).astype(self.dtype)  # [B, R, c]
        beside = layers.beside_image(sex, self.inputs, inputs)
        shared = jnp.concatenate(layers.branches(beside, self.sex_units, self.dtype), axis=-1)[:, None]
        which = self.param("joint", nn.initializers.normal(0.1), (joints, self.sex_units)).astype(self.dtype)
        x = jnp.concatenate(
            [
                pooled,
                jnp.broadcast_to(shared, (batch, joints, shared.shape[-1])),
                jnp.broadcast_to(which, (batch, joints, self.sex_units)),
            ],
            axis=-1,
        )
        x = layers.hidden_layers(x, self.hidden, self.dropout, train=train, dtype=self.dtype)  # [B, R, 256]
        each = nn.DenseGeneral(2, batch_dims=(0,), dtype=jnp.float32, name="output")  # one layer for each joint
        z_scores, attention = jnp.moveaxis(each(jnp.moveaxis(x, 1, 0)), (2, 0), (0, 2))  # [B, R]
        # Without any joint all count alike: the result is finite, and whoever asks for it must refuse it.
        counted = found | ~found.any(axis=1, keepdims=True)
        weights = jax.nn.softmax(jnp.where(counted, attention, -jnp.inf), axis=1)
        months = z_scores * self.label_std + self.label_mean  # [B, R]
        return Estimate(months=(weights * months).sum(axis=1), parts=jnp.where(found, months, jnp.nan))
