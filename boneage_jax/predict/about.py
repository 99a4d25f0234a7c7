"""Describes the weights, their measured accuracy and the environment, for `boneage info` and the service's /info."""

import importlib.metadata
import platform
from typing import Any

import jax

from boneage_jax import cores
from boneage_jax.errors import BoneAgeError
from boneage_jax.kernels import library
from boneage_jax.predict.prediction import Provenance
from boneage_jax.released.weights import Header

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "opencv-python-headless", "pydicom", "pillow")


def describe(header: Header, provenance: Provenance) -> dict[str, Any]:
    """Describes the weights and the program as JSON types.

    Args:
        header: the header of the weights.
        provenance: the provenance that a result made now would have.

    Returns:
        "provenance" as in every result; "figures" as `boneage evaluate` measured them (months), empty if the weights
        have none; "data" with the source, terms and citation of the training images; "environment".
    """
    return {
        "provenance": provenance.to_dict(),
        "figures": header.figures,
        "data": header.data,
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Versions of Python and of the packages that affect a reading, devices, usable cores, and the CPU kernels."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "cores": cores.usable(),
        "cpu_kernels": _kernels(),
    }


def _kernels() -> str | None:
    """The name of the CPU kernel library in use; None if XLA's own operations are used."""
    try:
        return library.find().stem if library.available() else None
    except BoneAgeError:
        return None
