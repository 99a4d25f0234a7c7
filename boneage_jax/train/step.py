"""The training step and the inference function: pure functions of (state, batch) and (variables, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from boneage_jax.data import Preprocessing
from boneage_jax.inference import Batch, further_inputs, make_estimate
from boneage_jax.models import Network
from boneage_jax.train import parallel
from boneage_jax.train.losses import Loss
from boneage_jax.train.resident import view
from boneage_jax.train.state import TrainState


def make_train_step(
    network: Network,
    preprocessing: Preprocessing,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    seed: int,
    ema_decay: float,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """The function to compile with `parallel.compile_step`.

    If the loss or the gradient is not finite, the update is skipped: parameters stay unchanged, and the metrics show
    the value.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        device = jax.lax.axis_index(parallel.AXIS)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), device)
        batch = view(batch, preprocessing.visible)
        image = preprocessing.scale(batch["image"])

        def objective(params: Any) -> tuple[jax.Array, Any]:
            estimate, updated = network.apply(
                {"params": params, "batch_stats": state.batch_stats},
                image,
                batch["sex"],
                further_inputs(batch.get("inputs", {})),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return loss(estimate, batch["age"]).mean(), (estimate.months, updated.get("batch_stats", {}))

        (value, (months, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        mae = jnp.abs(months - batch["age"]).mean()
        value, mae, grads, batch_stats = parallel.mean((value, mae, grads, batch_stats))
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if state.plateau is not None:
            updates = jax.tree.map(lambda u: u * state.plateau.scale, updates)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=_averaged(state, params, batch_stats, ema_decay),
        )
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state.replace(step=new.step))
        return kept, {"loss": value, "mae": mae, "gradient_norm": norm}

    return train_step


def make_inference(
    network: Network, preprocessing: Preprocessing, loss: Loss, views: str
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """The function to compile with `parallel.compile_inference`.

    Args:
        network: from `Description.network`.
        preprocessing: cuts the views and scales them.
        loss: one value per image.
        views: the views to average over, see `Preprocessing.views`.

    Returns:
        A function `(variables, batch) -> {"months" [B], "loss" [B], "std" [B] and "parts" [B, R] if the head predicts
        them}`.
    """
    estimates = make_estimate(network, preprocessing, views)

    def infer(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        estimate = estimates(variables, view(batch, preprocessing.visible))
        found = {"months": estimate.months, "loss": loss(estimate, batch["age"])}
        known = {"std": estimate.std, "parts": estimate.parts}
        return found | {name: value for name, value in known.items() if value is not None}

    return infer


def _averaged(state: TrainState, params: Any, batch_stats: Any, decay: float) -> Any:
    """Moving average; the decay grows with the step, so that the random initialisation is soon forgotten."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    new = {"params": params, "batch_stats": batch_stats}
    return optax.incremental_update(new, state.ema, 1 - rate)
