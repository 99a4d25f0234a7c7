"""Bone age from hand radiographs: networks, data pipeline, training, evaluation and prediction in JAX.

    predictor = boneage_jax.load("accurate")
    predictor.predict("hand.png", sex="F").months

`Predictor`, `Item`, `Prediction`, `RefusedImageError` and `Maps` are imported at their first use, because JAX takes
seconds to import.
"""

import importlib
from typing import TYPE_CHECKING, Any

from boneage_jax.errors import BoneAgeError
from boneage_jax.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from boneage_jax.predict.heatmap import Maps
    from boneage_jax.predict.items import Item
    from boneage_jax.predict.prediction import Prediction, RefusedImageError
    from boneage_jax.predict.predictor import Predictor

__all__ = ["BoneAgeError", "Item", "Maps", "Prediction", "Predictor", "RefusedImageError", "__version__", "load"]

_MODULES = {
    "Item": "boneage_jax.predict.items",
    "Maps": "boneage_jax.predict.heatmap",
    "Prediction": "boneage_jax.predict.prediction",
    "Predictor": "boneage_jax.predict.predictor",
    "RefusedImageError": "boneage_jax.predict.prediction",
}


def load(name_or_path: "str | Path") -> "Predictor":
    """Loads trained weights, by their name in the package or from a file, as a `Predictor`.

    Raises:
        BoneAgeError: there are none of that name, or the file is damaged or of a later version.
    """
    from boneage_jax.predict import predictor  # jax takes seconds to import

    return predictor.load(name_or_path)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
