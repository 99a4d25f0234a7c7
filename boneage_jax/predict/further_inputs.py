"""The inputs of a predictor's network besides image and sex, as far as a program can provide them."""

from collections.abc import Container
from typing import Any

from boneage_jax.data.inputs import CHRONOLOGICAL_AGE
from boneage_jax.errors import BoneAgeError
from boneage_jax.predict.predictor import Predictor


def refuse_others(predictor: Predictor, provided: Container[str], reason: str) -> None:
    """Refuses weights with inputs that the program does not provide.

    Args:
        predictor: the predictor.
        provided: the names of the inputs besides image and sex that the program provides.
        reason: the end of the error's sentence, after the names of the other inputs.

    Raises:
        BoneAgeError: the network has other inputs.
    """
    if others := [spec.name for spec in predictor.network.inputs if spec.name not in provided]:
        raise BoneAgeError(f"the weights {predictor.header.name!r} also read {', '.join(others)}, {reason}")


def reads_age(predictor: Predictor) -> bool:
    """Whether the chronological age is an input of the network."""
    return any(spec.name == CHRONOLOGICAL_AGE for spec in predictor.network.inputs)


def from_age(predictor: Predictor, age: float | None) -> dict[str, Any]:
    """The inputs by name for a child of this age in months; empty if it is unknown or the network does not read it."""
    return {CHRONOLOGICAL_AGE: age} if age is not None and reads_age(predictor) else {}
