"""A head that estimates the bone age of every joint and averages the estimates with learned weights."""

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
    """Estimates the bone age of every joint (a row of the feature map); the hand's is their attention-weighted mean.

    A row's mean, the sex, the further inputs and a learned embedding of the joint go through hidden layers that all
    joints share. Each joint has its own output layer for the z-score of the age and the attention (Ilse et al.,
    "Attention-based deep multiple instance learning", ICML 2018; the instances here are the joints). A row of zeros
    is a joint that was not found: it has no estimate and no weight.
    """

    sex_units: int = 32  # of every branch, and of the embedding of each joint
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.0  # share of the units dropped after each hidden layer
    inputs: tuple[Input, ...] = ()
    label_mean: float = 0.0  # months
    label_std: float = 1.0  # months
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects a dropout outside [0, 1) or without hidden layers to act on."""
        layers.check_dropout("joints", self.dropout, self.hidden)
        super().__post_init__()

    def rescaled(self, params: Mapping[str, Any], label_mean: float, label_std: float) -> dict[str, Any]:
        """Converts the parameters of a head with other label statistics, so that this one gives the same months."""
        output, factor = params["output"], label_std / self.label_std
        kernel = jnp.asarray(output["kernel"]).at[..., 0].multiply(factor)  # the outputs are age and attention
        bias = jnp.asarray(output["bias"]).at[..., 0].multiply(factor)
        bias = bias.at[..., 0].add((label_mean - self.label_mean) / self.label_std)
        return {**params, "output": {"kernel": kernel, "bias": bias}}

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
        # If no joint was found, all joints count: the result is finite, and the caller must reject it.
        counted = found | ~found.any(axis=1, keepdims=True)
        weights = jax.nn.softmax(jnp.where(counted, attention, -jnp.inf), axis=1)
        months = z_scores * self.label_std + self.label_mean  # [B, R]
        return Estimate(months=(weights * months).sum(axis=1), parts=jnp.where(found, months, jnp.nan))
