"""What a run writes down: metrics.jsonl, TensorBoard events, the configuration, versions and the commit."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from boneage_jax import config as configuration
from boneage_jax import cores
from boneage_jax.atomic_files import write_text
from boneage_jax.version import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "orbax-checkpoint", "tensorflow-datasets", "numpy")


class MetricsLog:
    """One line of JSON per record, and the same as TensorBoard events; only the first process writes."""

    def __init__(self, workdir: Path, *, after_step: int):
        """Goes on after `after_step`: lines of later steps, from a run that was killed, are dropped."""
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        path = workdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= after_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a", buffering=1)
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=after_step + 1)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one record; `kind` is "train" or the name of a split."""
        if self._writes:
            self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            for key, value in values.items():
                self._events.add_scalar(f"{kind}/{key}", value, step)

    def close(self) -> None:
        """Flushes both."""
        if self._writes:
            self._file.close()
            self._events.close()


def describe_run(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json and run.json (versions, commit, hardware)."""
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / "config.json", configuration.to_json(config))
        write_text(workdir / "run.json", json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions, commit and hardware of this process."""
    device = jax.devices()[0]
    return {
        "boneage_jax": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu": platform.processor() or platform.machine(),
        "cpu_cores": cores.usable(),
    }


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that a kill cut off


def _commit() -> str | None:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
