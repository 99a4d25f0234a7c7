"""The environment of a run, a reading or a measurement: package versions, commit and hardware."""

import contextlib
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import jax

from boneage_jax import cores
from boneage_jax.version import __version__

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pydicom",
)
"""Distributions that decide the results or the speed of training, reading and measuring."""

_CPU_INFO = Path("/proc/cpuinfo")


def packages(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of these distributions by name; those that are not installed are left out."""
    installed = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def versions(peers: Iterable[str] = ()) -> dict[str, str]:
    """Versions of this package, of Python, of `PACKAGES` and of `peers`, as far as they are installed."""
    return {"boneage_jax": __version__, "python": platform.python_version(), **packages((*PACKAGES, *peers))}


def commit() -> str | None:
    """The commit of this checkout, with "-dirty" if it has changes; None outside a checkout or without git."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # fails in a repository around the package
        return _git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def processor() -> str:
    """The model of the processor, such as "AMD EPYC 9R14"; its architecture where the system names no model."""
    if _CPU_INFO.exists():  # on Linux, where `platform.processor` is often empty
        for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware() -> str:
    """JAX's devices, the processor and its usable cores, such as "1 x cpu; AMD EPYC 9R14, 2 cores"."""
    devices = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    return f"{len(devices)} x {kinds}; {processor()}, {cores.usable()} cores"
