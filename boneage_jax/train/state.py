"""What a training step reads and writes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from boneage_jax.models import Network


class TrainState(struct.PyTreeNode):
    """One tree, the same on every device.

    The fields are typed as anything because JAX also fills such a tree with shapes, shardings and axes.
    """

    step: Any  # steps done, []
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Any  # state of the plateau rule; None when it is switched off
    ema: Any  # moving average of {"params", "batch_stats"}; None when it is switched off

    @property
    def variables(self) -> dict[str, Any]:
        """What evaluation uses: the moving average if there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create(
    network: Network,
    optimizer: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs | None,
    *,
    image_shape: tuple[int, int, int],
    seed: int,
    with_ema: bool,
) -> TrainState:
    """A fresh state; the same seed gives the same parameters on any number of devices."""

    def initialise() -> TrainState:
        image = jnp.zeros((1, *image_shape), jnp.float32)
        inputs = {spec.name: spec.example(image) for spec in network.inputs}
        variables = network.init(jax.random.key(seed), image, jnp.zeros(1, jnp.int32), inputs, train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            plateau=plateau.init(params) if plateau else None,
            ema={"params": params, "batch_stats": batch_stats} if with_ema else None,
        )

    # Own memory per leaf: a step that reuses the state's memory must not meet one buffer twice.
    return jax.tree.map(jnp.array, jax.jit(initialise)())
