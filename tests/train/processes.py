"""Starts programs in separate processes with one CPU device each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(workdir: Path, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts `launch.py` on the tiny run."""
    return python(
        "launch.py",
        "--config=tests/train/tiny_run.py",
        f"--config.data.cache={cache}",
        f"--workdir={workdir}",
        *arguments,
    )


def python(*arguments: str) -> subprocess.Popen[str]:
    """Starts Python in the repository root."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Waits for a process, asserts that it succeeds, and returns its output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def free_port() -> int:
    """A free port for the coordinator of several processes."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
