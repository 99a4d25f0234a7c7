"""Further inputs besides the image and the sex: their names, their kinds and their encoding for a head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from boneage_jax.errors import BoneAgeError

KINDS = ("number", "category", "heatmap")


@dataclass(frozen=True)
class Input:
    """A further input of a network.

        Input("chronological_age", "number", mean=127.0, std=41.0)
        Input("ethnicity", "category", categories=("asian", "black", "unknown", "white"))

    Missing values need a category of their own, such as "unknown", that the network has been trained with.

    Args:
        name: name of the column and of the layer that reads it, a Python identifier: letters, digits and _.
        kind: "number" (float32 [B]), "category" (int32 [B], an index into `categories`) or "heatmap"
            (float32 [B, H, W, 1] in 0 to 1, of the image's size; it goes to the trunk).
        categories: for the kind "category", in the order of their indices.
        mean: for the kind "number", mean of the training split, in the unit of the input.
        std: for the kind "number", standard deviation of the training split, in the unit of the input.

    Raises:
        BoneAgeError: a field is invalid, or the fields contradict each other.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in ("image", "sex"):
            raise BoneAgeError(
                f"{self.name!r} cannot name a further input: use letters, digits and _, and neither image nor sex"
            )
        if self.kind not in KINDS:
            raise BoneAgeError(f"kind of the input {self.name!r} is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.kind != "category" and self.categories:
            raise BoneAgeError(
                f"the input {self.name!r} of kind {self.kind!r} has the categories {self.categories!r}, expected none"
            )
        if self.kind == "category" and (len(self.categories) < 2 or len(set(self.categories)) < len(self.categories)):
            raise BoneAgeError(
                f"categories of the input {self.name!r} are {self.categories!r}, expected two or more different ones"
            )
        if not self.std > 0:
            raise BoneAgeError(f"std of the input {self.name!r} is {self.std}, expected a standard deviation above 0")

    def example(self, image: Float[Array, "B H W C"]) -> Array:
        """Zeros with the shape and type of this input for a batch of images."""
        batch, height, width, _ = image.shape
        if self.kind == "heatmap":
            return jnp.zeros((batch, height, width, 1), jnp.float32)
        return jnp.zeros(batch, jnp.int32 if self.kind == "category" else jnp.float32)


def encode(spec: Input, value: Num[Array, " B"]) -> Float[Array, "B K"]:
    """A number as its z-score [B, 1], a category one-hot [B, len(categories)]; float32.

    An index outside the categories becomes NaN, so that no prediction is made from it.

    Raises:
        BoneAgeError: the input is a heat map, which only the trunk reads.
    """
    if spec.kind == "number":
        return ((value.astype(jnp.float32) - spec.mean) / spec.std)[:, None]
    if spec.kind == "category":
        exists = (value >= 0) & (value < len(spec.categories))
        return jnp.where(exists[:, None], jax.nn.one_hot(value, len(spec.categories), dtype=jnp.float32), jnp.nan)
    raise BoneAgeError(f"the input {spec.name!r} is a heat map, which only a trunk reads; give it to the trunk")


def check_inputs(specs: Iterable[Input], given: Mapping[str, Any]) -> None:
    """Checks that every configured input is given, and nothing else.

    Raises:
        BoneAgeError: inputs are missing or unknown; the message names them.
    """
    configured = {spec.name: spec.kind for spec in specs}
    if missing := [f"{name} ({kind})" for name, kind in configured.items() if name not in given]:
        raise BoneAgeError(f"the network's further inputs lack {', '.join(missing)}; {_both(configured, given)}")
    if unknown := [name for name in given if name not in configured]:
        raise BoneAgeError(
            f"the network has no further input {', '.join(unknown)}; {_both(configured, given)}: leave it out, "
            "or configure it and train with it"
        )


def _both(configured: Iterable[str], given: Iterable[str]) -> str:
    return f"configured: {', '.join(configured) or 'none'}; given: {', '.join(given) or 'none'}"
