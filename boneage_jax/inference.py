"""From prepared images to estimates, as shared by training, prediction and export."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from boneage_jax.data import Preprocessing
from boneage_jax.models import Estimate, Network

Batch = Mapping[str, Any]  # arrays, and under "inputs" arrays by name


def make_estimate(network: Network, preprocessing: Preprocessing, views: str) -> Callable[[Any, Batch], Estimate]:
    """The function to compile: `(variables, {"image", "sex", "inputs"}) -> Estimate`, one row per image.

    Args:
        network: from `Description.network`.
        preprocessing: cuts the views and scales them.
        views: the views to average over, see `Preprocessing.views`.
    """

    def estimate(variables: Any, batch: Batch) -> Estimate:
        image = preprocessing.views(batch["image"], views)  # [V, B, s, s, C]
        count = image.shape[0]

        def repeated(x: jax.Array) -> jax.Array:
            return jnp.concatenate(list(preprocessing.views(x, views)) if x.ndim == 4 else [x] * count)

        inputs = further_inputs(jax.tree.map(repeated, batch.get("inputs", {})))
        scaled = preprocessing.scale(image.reshape(-1, *image.shape[2:]))
        found = cast(Estimate, network.apply(variables, scaled, repeated(batch["sex"]), inputs, train=False))
        return _mean_estimate(found, count)

    return estimate


def further_inputs(inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The network's inputs besides image and sex: heat maps come as uint8 and are scaled to 0..1."""
    return {name: x.astype(jnp.float32) / 255 if x.ndim == 4 else x for name, x in inputs.items()}


def _mean_estimate(estimate: Estimate, views: int) -> Estimate:
    """Averages the distributions [V * B] over the views to [B]; the variance is that within plus between the views."""
    if views == 1:
        return estimate
    months = estimate.months.reshape(views, -1)
    std, logits, parts = estimate.std, estimate.logits, estimate.parts
    if std is not None:
        std = jnp.sqrt((std.reshape(views, -1) ** 2).mean(axis=0) + months.var(axis=0))
    if logits is not None:
        log_shares = jax.nn.log_softmax(logits).reshape(views, -1, logits.shape[-1])
        logits = jax.nn.logsumexp(log_shares, axis=0)
    if parts is not None:
        parts = parts.reshape(views, -1, parts.shape[-1]).mean(axis=0)
    return Estimate(months=months.mean(axis=0), std=std, logits=logits, parts=parts)
