"""The weights, their measured figures and the environment: what `boneage info` and the service's /info give."""

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
    """Describes weights and program, in JSON types.

    Args:
        header: of the weights.
        provenance: of a result that would be made now.

    Returns:
        "provenance" as in every result; "figures" as `boneage evaluate` measured them (months), empty for weights
        without; "data" with the source, terms and citation of the training images; "environment".
    """
    return {
        "provenance": provenance.to_dict(),
        "figures": header.figures,
        "data": header.data,
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Versions of Python and of the packages that decide on a reading, devices, usable cores, and the CPU kernels."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": [str(device) for device in jax.devices()],
        "cores": cores.usable(),
        "cpu_kernels": _kernels(),
    }


def _kernels() -> str | None:
    """The name of the library of CPU kernels in use; None where XLA's own operations are used."""
    try:
        return library.find().stem if library.available() else None
    except BoneAgeError:
        return None
