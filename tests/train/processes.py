"""Starts programs in processes of their own, with one CPU device each."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(workdir: Path, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """`launch.py` on the tiny run."""
    return python(
        "launch.py",
        "--config=tests/train/tiny_run.py",
        f"--config.data.cache={cache}",
        f"--workdir={workdir}",
        *arguments,
    )


def python(*arguments: str) -> subprocess.Popen[str]:
    """Python in the repository's root."""
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
    """Waits for a process that must end well; its output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def free_port() -> int:
    """A port at which the first of several processes may wait for the others."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
