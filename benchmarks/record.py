"""Writes the JSON file of a measurement, which also records when, how, with what and on what it was measured."""

import datetime
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boneage_jax import environment
from boneage_jax.atomic_files import write_text

RESULTS = Path(__file__).parent / "results"


def circumstances(peers: Iterable[str] = ()) -> dict[str, Any]:
    """Date (UTC), command, commit, hardware and versions, those of the distributions `peers` included."""
    command = ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "command": shlex.join(command),
        "commit": environment.commit(),
        "hardware": environment.hardware(),
        "versions": environment.versions(peers),
    }


def write(path: Path, result: Mapping[str, Any], peers: Iterable[str] = ()) -> dict[str, Any]:
    """Writes the circumstances, then the result, as one JSON object, and returns it; a file is replaced atomically.

    Raises:
        BoneAgeError: the file cannot be written.
    """
    written = {**circumstances(peers), **result}
    write_text(path, json.dumps(written, indent=1) + "\n")
    return written
