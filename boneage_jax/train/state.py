"""The training state, which a training step reads and updates."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from boneage_jax.models import Network


class TrainState(struct.PyTreeNode):
    """The training state: one pytree, replicated on every device.

    The fields are typed `Any` because JAX also builds such trees of shapes, shardings and axes.
    """

    step: Any  # steps done, []
    params: Any
    batch_stats: Any
    opt_state: Any
    plateau: Any  # state of the plateau rule; None when it is switched off
    ema: Any  # moving average of {"params", "batch_stats"}; None when it is switched off

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for evaluation: the moving average if there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}

    def starting_from(self, variables: dict[str, Any]) -> "TrainState":
        """A fresh state with these parameters and batch statistics in place of its own."""
        params, batch_stats = _own_memory((variables["params"], variables["batch_stats"]))
        ema = None if self.ema is None else _own_memory({"params": params, "batch_stats": batch_stats})
        return self.replace(params=params, batch_stats=batch_stats, ema=ema)


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
        variables = _initial_variables(network, image_shape, seed)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            plateau=plateau.init(params) if plateau else None,
            ema={"params": params, "batch_stats": batch_stats} if with_ema else None,
        )

    return _own_memory(jax.jit(initialise)())


def trunk_layers(network: Network, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Names of the trunk's layers from the image to the head: the order in which flax creates their parameters."""
    order: list[str] = []

    def trace() -> None:  # a returned dictionary would come back in alphabetical order
        order.extend(_initial_variables(network, image_shape, seed=0)["params"]["trunk"])

    jax.eval_shape(trace)
    return tuple(order)


def _initial_variables(network: Network, image_shape: tuple[int, int, int], seed: int) -> Any:
    image = jnp.zeros((1, *image_shape), jnp.float32)
    inputs = {spec.name: spec.example(image) for spec in network.inputs}
    return network.init(jax.random.key(seed), image, jnp.zeros(1, jnp.int32), inputs, train=False)


def _own_memory(tree: Any) -> Any:
    """Copies every leaf: a step that donates the state must not receive the same buffer twice."""
    return jax.tree.map(jnp.array, tree)
