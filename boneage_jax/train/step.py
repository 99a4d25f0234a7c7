"""The training step and the inference function: pure functions of (state, batch) and (variables, batch)."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from boneage_jax.data import Preprocessing
from boneage_jax.models import Estimate, Network
from boneage_jax.train.losses import Loss
from boneage_jax.train.parallel import AXIS
from boneage_jax.train.state import TrainState

Batch = Mapping[str, Any]  # arrays, and under "inputs" arrays by name


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

    A state whose loss or gradient is not finite is not taken over: parameters stay as they were, and
    the metrics say so.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), jax.lax.axis_index(AXIS))
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
        value, mae, grads, batch_stats = jax.lax.pmean((value, mae, grads, batch_stats), AXIS)
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
        network: from `models.create`.
        preprocessing: cuts the views and scales them.
        loss: of one image.
        views: whose estimates are averaged, see `Preprocessing.views`.

    Returns:
        A function `(variables, batch) -> {"months" [B], "loss" [B], "std" [B] if the head knows it}`.
    """

    def infer(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        image = preprocessing.views(batch["image"], views)  # [V, B, s, s, C]
        count = image.shape[0]

        def repeated(x: jax.Array) -> jax.Array:
            return jnp.concatenate(list(preprocessing.views(x, views)) if x.ndim == 4 else [x] * count)

        inputs = further_inputs(jax.tree.map(repeated, batch.get("inputs", {})))
        scaled = preprocessing.scale(image.reshape(-1, *image.shape[2:]))
        estimate = cast(Estimate, network.apply(variables, scaled, repeated(batch["sex"]), inputs, train=False))
        estimate = _mean_estimate(estimate, count)
        found = {"months": estimate.months, "loss": loss(estimate, batch["age"])}
        return found if estimate.std is None else {**found, "std": estimate.std}

    return infer


def further_inputs(inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What the network takes beside image and sex: heat maps come as bytes and are scaled to 0..1."""
    return {name: x.astype(jnp.float32) / 255 if x.ndim == 4 else x for name, x in inputs.items()}


def _mean_estimate(estimate: Estimate, views: int) -> Estimate:
    """[V * B] to [B]: the mean of the distributions, whose variance is that within and between the views."""
    if views == 1:
        return estimate
    months = estimate.months.reshape(views, -1)
    std, logits = estimate.std, estimate.logits
    if std is not None:
        std = jnp.sqrt((std.reshape(views, -1) ** 2).mean(axis=0) + months.var(axis=0))
    if logits is not None:
        log_shares = jax.nn.log_softmax(logits).reshape(views, -1, logits.shape[-1])
        logits = jax.nn.logsumexp(log_shares, axis=0)
    return Estimate(months=months.mean(axis=0), std=std, logits=logits)


def _averaged(state: TrainState, params: Any, batch_stats: Any, decay: float) -> Any:
    """Moving average; the decay grows with the step, so that the random start is soon forgotten."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    new = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda mean, x: mean * rate + x * (1 - rate), state.ema, new)
