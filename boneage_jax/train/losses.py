"""Losses on z-scores of the age, one value per image."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from boneage_jax.errors import BoneAgeError
from boneage_jax.models import Estimate

Loss = Callable[[Estimate, jax.Array], jax.Array]

_ON_Z_SCORES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "mse": lambda z, target: (z - target) ** 2,
    "mae": lambda z, target: jnp.abs(z - target),
    "huber": lambda z, target: optax.losses.huber_loss(z, target, delta=1.0),
}


def create(name: str, *, label_mean: float, label_std: float) -> Loss:
    """A loss `(estimate, age in months [B]) -> [B]`, in z-scores of the training labels.

    Raises:
        BoneAgeError: there is no loss of that name.
    """
    if name not in _ON_Z_SCORES:
        raise BoneAgeError(f"train.loss is {name!r}, expected one of {', '.join(_ON_Z_SCORES)}")
    distance = _ON_Z_SCORES[name]
    return lambda estimate, age: distance((estimate.months - label_mean) / label_std, (age - label_mean) / label_std)
