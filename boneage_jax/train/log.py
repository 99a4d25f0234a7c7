"""Records of a run: metrics.jsonl, TensorBoard events, the configuration, versions and the commit."""

import contextlib
import json
import platform
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from boneage_jax import config as configuration
from boneage_jax import cores, environment
from boneage_jax.atomic_files import storage_errors, write_text
from boneage_jax.version import __version__

_FLUSH_SECONDS = 60.0


class MetricsLog:
    """One line of JSON per record, and the same as TensorBoard events; only the first process writes.

    A full disk raises BoneAgeError in every method, including `close`. `SummaryWriter` is not used because it writes in
    its own thread: a full disk would end that thread with a traceback, and training would continue without events.
    """

    def __init__(self, workdir: Path, *, after_step: int):
        """Continues after `after_step`: lines of later steps, left by a run that was killed, are dropped."""
        self._writes = jax.process_index() == 0
        if not self._writes:
            return
        self._workdir = workdir
        path = workdir / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= after_step]
        write_text(path, "".join(f"{line}\n" for line in kept))
        with storage_errors(workdir):
            self._file = path.open("a", buffering=1)
            (workdir / "tensorboard").mkdir(exist_ok=True)
            self._events = EventsWriter(str(workdir / "tensorboard" / "events"))
            self._write_event(after_step + 1, session_log=SessionLog(status=SessionLog.START))  # hides later events
            self._flush()

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Writes one record; `kind` is "train" or the name of a split."""
        if not self._writes:
            return
        with storage_errors(self._workdir):
            self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            for key, value in values.items():
                self._write_event(step, summary=scalar(f"{kind}/{key}", value))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._flush()

    def close(self) -> None:
        """Flushes the JSON lines and the TensorBoard events to disk."""
        if self._writes:
            with storage_errors(self._workdir), contextlib.closing(self._file):
                self._events.close()

    def _write_event(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))

    def _flush(self) -> None:
        self._events.flush()
        self._flushed = time.monotonic()


def describe_run(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json, without the checkpoint to start from, and run.json (versions, commit, hardware)."""
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        lasting = config.copy_and_resolve_references().unlock()
        lasting.checkpoint.step = -1  # otherwise every later start would go back to that checkpoint
        write_text(workdir / "config.json", configuration.to_json(lasting))
        write_text(workdir / "run.json", json.dumps(_environment(), indent=2) + "\n")


def _environment() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "boneage_jax": __version__,
        "commit": environment.commit(),
        "python": platform.python_version(),
        "packages": environment.packages(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu": environment.processor(),
        "cpu_cores": cores.usable(),
    }


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a line that is damaged, or was truncated when the process was killed
