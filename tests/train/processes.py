"""Starts the command line in processes of their own, with one CPU device each."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(workdir: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "launch.py",
        "--config=tests/train/tiny_run.py",
        f"--config.data.cache={cache}",
        f"--workdir={workdir}",
        *arguments,
    ]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    """Waits for a process that must end well; its output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output
