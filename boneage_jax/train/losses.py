"""Losses, one value per image: distances between z-scores of the age, or cross-entropy of a distribution."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Estimate

Loss = Callable[[Estimate, jax.Array], jax.Array]

_ON_Z_SCORES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "mse": lambda z, target: (z - target) ** 2,
    "mae": lambda z, target: jnp.abs(z - target),
    "huber": lambda z, target: optax.losses.huber_loss(z, target, delta=1.0),
}
_NAMES = (*_ON_Z_SCORES, "cross_entropy")


def create(name: str, *, label_mean: float, label_std: float, label_sigma: float = 0.0) -> Loss:
    """A loss `(estimate, age in months [B]) -> [B]`.

    Args:
        name: "mse", "mae" or "huber", on z-scores of the training labels, for every head; if the head also estimates
            the age of parts of the hand, their mean loss makes up half of the loss. "cross_entropy", in nats, for heads
            that predict a distribution over months.
        label_mean: of the training labels, months.
        label_std: of the training labels, months.
        label_sigma: of the Gaussian that replaces a label in the cross-entropy, months; 0 for the month itself.

    Raises:
        BoneAgeError: there is no loss of that name, `label_sigma` is not a valid standard deviation, or (when the loss
            is called) the head predicts no distribution.
    """
    if name not in _NAMES:
        raise BoneAgeError(f"train.loss is {name!r}, expected one of {', '.join(_NAMES)}")
    if not 0 <= label_sigma < float("inf"):
        raise BoneAgeError(f"train.label_sigma is {label_sigma}, expected 0 (the month itself) or more months")
    if name == "cross_entropy":
        return lambda estimate, age: _cross_entropy(estimate, age, label_sigma)
    distance = _ON_Z_SCORES[name]

    def loss(estimate: Estimate, age: jax.Array) -> jax.Array:
        target = (age - label_mean) / label_std
        whole = distance((estimate.months - label_mean) / label_std, target)
        if estimate.parts is None:
            return whole
        return (whole + _of_parts(distance, (estimate.parts - label_mean) / label_std, target)) / 2

    return loss


def soft_label(age: Float[Array, " B"], sigma: float, classes: int) -> Float[Array, "B classes"]:
    """A Gaussian of `sigma` months around the age, on the grid 0, 1, ... classes - 1 months, normalised to sum to 1.

    A `sigma` of 0 gives a one-hot vector at the nearest month. Ages beyond the grid count as its last month, like
    adults: the grid ends at 239 months, when the bones have fused and no longer change, but labels of 240 are accepted.
    """
    grid = jnp.arange(classes, dtype=jnp.float32)
    age = jnp.clip(age, 0.0, classes - 1.0)
    if sigma == 0:
        return jax.nn.one_hot(jnp.rint(age).astype(jnp.int32), classes)
    return jax.nn.softmax(-0.5 * ((grid[None] - age[:, None]) / sigma) ** 2)


def _of_parts(
    distance: Callable[[jax.Array, jax.Array], jax.Array], z: Float[Array, "B R"], target: Float[Array, " B"]
) -> Float[Array, " B"]:
    """The mean over the parts that are present (not NaN); 0 if there are none."""
    there = ~jnp.isnan(z)
    target = target[:, None]
    each = distance(jnp.where(there, z, target), target)  # no NaN enters the gradient
    return each.sum(axis=1) / jnp.maximum(there.sum(axis=1), 1)


def _cross_entropy(estimate: Estimate, age: jax.Array, sigma: float) -> jax.Array:
    if estimate.logits is None:
        raise BoneAgeError(
            'train.loss is "cross_entropy", but the head gives no distribution over months; set model.head to '
            '"distribution" or "sex_split_distribution", or train.loss to "mae"'
        )
    return optax.losses.softmax_cross_entropy(estimate.logits, soft_label(age, sigma, estimate.logits.shape[-1]))
