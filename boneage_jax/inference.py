"""From a description to a network, and from prepared images to estimates: what training and prediction share."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from boneage_jax import models
from boneage_jax.data import Preprocessing
from boneage_jax.models import Estimate, Network

LARGEST_MONTHS = 600.0
"""Estimates beyond it, either way, are no bone ages: those end at about 20 years."""

Batch = Mapping[str, Any]  # arrays, and under "inputs" arrays by name


@dataclasses.dataclass(frozen=True)
class Description:
    """What makes a network: the arguments of `models.create` that decide what it computes."""

    name: str
    options: Mapping[str, Any]
    head: str
    head_options: Mapping[str, Any]
    dtype: str
    input_channels: str
    inputs: tuple[models.Input, ...]
    label_mean: float  # months
    label_std: float  # months

    def network(self, *, axis_name: str | None = None, remat: bool = False) -> Network:
        """Makes the network; the arguments decide only how it is trained.

        Raises:
            BoneAgeError: parts that do not exist or do not fit together.
        """
        return models.create(
            self.name,
            head=self.head,
            head_options=self.head_options,
            dtype=self.dtype,
            label_mean=self.label_mean,
            label_std=self.label_std,
            axis_name=axis_name,
            remat=remat,
            input_channels=self.input_channels,
            inputs=self.inputs,
            **self.options,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, to be stored beside weights."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Description":
        """The inverse of `to_dict`; `models.create` makes tuples of lists again.

        Raises:
            ValueError, TypeError, KeyError, BoneAgeError: fields that are missing, unknown or of another type, and
                label statistics that no training split has.
        """
        inputs = (models.Input(**{**spec, "categories": tuple(spec["categories"])}) for spec in fields["inputs"])
        description = cls(**{**fields, "inputs": tuple(inputs)})
        mean, std = float(description.label_mean), float(description.label_std)
        if not (0 <= mean <= LARGEST_MONTHS and 0 < std <= LARGEST_MONTHS):
            raise ValueError(f"labels with the mean {mean:g} and the standard deviation {std:g} months")
        return description


def make_estimate(network: Network, preprocessing: Preprocessing, views: str) -> Callable[[Any, Batch], Estimate]:
    """The function to compile: `(variables, {"image", "sex", "inputs"}) -> Estimate`, one row per image.

    Args:
        network: from `models.create`.
        preprocessing: cuts the views and scales them.
        views: whose estimates are averaged, see `Preprocessing.views`.
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
