"""Bone age from hand radiographs: networks, data pipeline, training, evaluation and prediction in JAX."""

from typing import TYPE_CHECKING

from boneage_jax.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from boneage_jax.predict.predictor import Predictor

__all__ = ["__version__", "load"]


def load(name_or_path: "str | Path") -> "Predictor":
    """Loads trained weights, by their name in the package or from a file, as a `predict.predictor.Predictor`.

        boneage_jax.load("hand.safetensors").predict("hand.png", sex="F").months

    Raises:
        BoneAgeError: there are none of that name, or the file is damaged or of a later version.
    """
    from boneage_jax.predict import predictor  # jax takes seconds to import

    return predictor.load(name_or_path)
