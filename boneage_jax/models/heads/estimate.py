"""What every head returns."""

from typing import Any

from flax import struct


@struct.dataclass
class Estimate:
    """What every head returns: float32 arrays; None stands for what the head does not know.

    The fields are typed as anything because JAX also fills such a tree with shapes, shardings and axes.
    """

    months: Any  # [B] bone age
    std: Any = None  # [B] its standard deviation, months
    logits: Any = None  # [B, classes] of a distribution over months
