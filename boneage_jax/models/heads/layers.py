"""Functions that several heads share; the layers they make belong to the calling head."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.inputs import Input, encode


def check_dropout(head: str, dropout: float, hidden: Sequence[int]) -> None:
    """Raises BoneAgeError for a dropout outside [0, 1) or without hidden layers to act on."""
    if not 0 <= dropout < 1:
        raise BoneAgeError(f"dropout of the {head} head is {dropout}, expected 0 to below 1")
    if dropout and not hidden:
        raise BoneAgeError(
            f"dropout of the {head} head is {dropout}, but it acts on hidden layers and there are none; set `hidden`"
        )


def pool(features: Float[Array, "B h w c"], dtype: Any) -> Float[Array, "B c"]:
    """Global average pool, summed in float32."""
    return jnp.mean(features, axis=(1, 2), dtype=jnp.float32).astype(dtype)


def beside_image(
    sex: Int[Array, " B"], specs: Iterable[Input], values: Mapping[str, Array]
) -> dict[str, Float[Array, "B _"]]:
    """Sex (0 or 1) as "sex" and the further inputs, encoded, as "input_<name>"."""
    further = {f"input_{spec.name}": encode(spec, values[spec.name]) for spec in specs}
    return {"sex": sex[:, None].astype(jnp.float32), **further}


def branches(values: Mapping[str, Float[Array, "B _"]], units: int, dtype: Any) -> list[Float[Array, "B units"]]:
    """Passes each value through its own dense layer, which has the value's name, and ReLU."""
    return [nn.relu(nn.Dense(units, dtype=dtype, name=name)(value.astype(dtype))) for name, value in values.items()]


def hidden_layers(
    x: Float[Array, "*B c"], hidden: Sequence[int], dropout: float, *, train: bool, dtype: Any
) -> Float[Array, "*B d"]:
    """Dense layers "hidden1", "hidden2", ..., each with ReLU and dropout."""
    for i, units in enumerate(hidden, start=1):
        x = nn.relu(nn.Dense(units, dtype=dtype, name=f"hidden{i}")(x))
        x = nn.Dropout(dropout, deterministic=not train, name=f"dropout{i}")(x)
    return x
