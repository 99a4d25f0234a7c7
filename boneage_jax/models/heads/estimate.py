"""The output of every head."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

# Classes of a distribution: 0, 1, ... 239 months (Larson et al. 2017). RSNA's labels end at 228.
MONTHS = 240


@struct.dataclass
class Estimate:
    """The output of every head: float32 arrays, or None for quantities that the head does not estimate.

    The fields are typed `Any` because JAX also builds such trees of shapes, shardings and axes.
    """

    months: Any  # [B] bone age
    std: Any = None  # [B] its standard deviation, months
    logits: Any = None  # [B, 240] of the bone ages 0, 1, ... 239 months
    parts: Any = None  # [B, R] bone age of every part of the hand, months; NaN where the part was not found


def from_logits(logits: Float[Array, "B 240"]) -> Estimate:
    """The expectation and the standard deviation of the distribution softmax(logits) over 0 to 239 months."""
    # Sums, not matrix products: some GPUs round those to ten bits, which costs a tenth of a month.
    probability = jax.nn.softmax(logits)
    grid = jnp.arange(MONTHS, dtype=jnp.float32)[None]
    months = jnp.sum(probability * grid, axis=-1)
    # E[x²] - E[x]² would cancel to a negative number where the distribution is narrow.
    variance = jnp.sum(probability * (grid - months[:, None]) ** 2, axis=-1)
    return Estimate(months=months, std=jnp.sqrt(variance), logits=logits)
