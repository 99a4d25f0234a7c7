"""Describes the weights, their measured accuracy and the environment, for `boneage info` and the service's /info."""

import platform
from typing import Any

import jax

from boneage_jax import cores, environment
from boneage_jax.errors import BoneAgeError
from boneage_jax.kernels import library
from boneage_jax.predict.prediction import Provenance
from boneage_jax.released.weights import Header


def describe(header: Header, provenance: Provenance) -> dict[str, Any]:
    """Describes the weights and the program as JSON types.

    Args:
        header: the header of the weights.
        provenance: the provenance that a result made now would have.

    Returns:
        "provenance" as in every result; "figures" as `boneage evaluate` measured them (months), empty if the weights
        have none; "data" with the source, terms and citation of the training images; "environment" with versions,
        devices, usable cores and the CPU kernels (None: XLA's own operations).
    """
    return {
        "provenance": provenance.to_dict(),
        "figures": header.figures,
        "data": header.data,
        "environment": _environment(),
    }


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": environment.packages(),
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
