"""Runs the commands of a document to check that they work: python -m tools.readme_commands README.md.

The lines of its sh blocks run one after the other in a clone of the checkout, which also holds the files that they
name, with drawn hands in place of radiographs. Lines that install packages are left out, REDUCTIONS shortens commands
that would take long, and a server stays up until all commands have run. The first command that fails ends the run, and
its output is printed.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tools import readme_inputs

# Beginning of a command: the flags to add. The first match applies.
REDUCTIONS = {
    "python launch.py --mode=benchmark --config=configs/convmixer.py": "--config.model.options.dim=64 "
    "--config.model.options.depth=2 --config.benchmark.steps=2 --config.benchmark.warmup=1 "
    "--config.train.batch_size=2 --config.preprocess.size=64 --config.data.limit=8",
    "python launch.py --mode=evaluate": "",
    "python launch.py --config=configs/quickstart.py": "--config.train.epochs=1 --config.data.limit=64",
    "python launch.py --config=": "--config.train.epochs=1 --config.train.batch_size=4 --config.preprocess.size=96 "
    "--config.data.limit=8",
    "boneage export-weights": "--checks=0",
    # A server needs some seconds to load its weights; an HTTP status above 399 is a failure.
    "curl": "--silent --show-error --fail --retry 30 --retry-delay 1 --retry-connrefused",
}
LEFT_OUT = ("pip install",)
# Compilation takes most of the time of a reduced training; skipping LLVM's expensive passes halves it.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
SERVERS = ("boneage serve", "boneage listen")
LIMIT = 900  # seconds for one command, and for the start of a server


def main(document: Path, root: Path = Path()) -> int:
    """Runs the commands of the document; returns 0, or prints the first that fails with its output and returns 1."""
    found = commands(document.read_text())
    if not found:
        print(f"{document} has no ```sh block with a command", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        clone = clone_checkout(root, Path(folder) / "checkout")
        readme_inputs.make(clone)
        environment = os.environ | {"PYTHONPATH": str(clone), "XLA_FLAGS": XLA_FLAGS}
        environment.setdefault("XDG_CACHE_HOME", f"{folder}/cache")
        try:
            run_all(found, clone, environment)
        except CommandError as error:
            print(error, file=sys.stderr)
            return 1
    print(f"{len(found)} commands of {document} ran")
    return 0


class CommandError(Exception):
    """A command that failed, with its output."""


def commands(text: str) -> list[str]:
    """The commands in a document's sh blocks, in order, without comments and package installations.

    A line that ends in a backslash continues on the next one. Commands joined by && stay joined.
    """
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            parts = (" ".join(part.split()) for part in re.sub(r"(^|\s)#.*", "", line).split("&&"))
            if kept := [part for part in parts if part and not part.startswith(LEFT_OUT)]:
                found.append(" && ".join(kept))
    return found


def reduced(command: str) -> str:
    """The command with the flags from REDUCTIONS, inserted before its redirections and pipes."""
    added = next((flags for beginning, flags in REDUCTIONS.items() if command.startswith(beginning)), "")
    words = re.split(r"\s*[<>|]", command, maxsplit=1)[0]
    return f"{words} {added}".rstrip() + command[len(words) :]


def clone_checkout(root: Path, target: Path) -> Path:
    """Clones the last commit and copies the built kernels into the clone."""
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{root.absolute()}", str(target)], check=True)
    kernels = Path("boneage_jax/kernels")
    for library in (root / kernels).glob("*.so"):
        shutil.copy(library, target / kernels)
    return target


def run_all(found: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    """Runs the commands in the folder; servers keep running alongside the commands that follow.

    Raises:
        CommandError: the first command that fails, or a server that ends or does not listen.
    """
    with contextlib.ExitStack() as servers:
        running: list[tuple[str, subprocess.Popen[Any], Path]] = []
        for number, command in enumerate(map(reduced, found)):
            print(f"$ {command}", flush=True)
            began = time.monotonic()
            output = folder.parent / f"output{number}"
            if command.startswith(SERVERS):
                server = servers.enter_context(started(command, folder, environment, output))
                running.append((command, server, output))
                wait_for_port(command, server, output)
            else:
                run(command, folder, environment, output)
            print(f"  {time.monotonic() - began:.1f} s", flush=True)
            for name, server, log in running:
                if server.poll() is not None:
                    raise _failed(name, f"ended with status {server.returncode} while the others ran", log)


def run(command: str, folder: Path, environment: dict[str, str], output: Path) -> None:
    """Runs one command to its end.

    Raises:
        CommandError: another status than 0, or no end within LIMIT.
    """
    with started(command, folder, environment, output) as process:
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise _failed(command, f"did not end within {LIMIT} s", output) from None
    if status:
        raise _failed(command, f"ended with status {status}", output)


@contextlib.contextmanager
def started(command: str, folder: Path, environment: dict[str, str], output: Path) -> Iterator[subprocess.Popen[Any]]:
    """Starts the command; it and its child processes are stopped when the context ends."""
    with output.open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


def wait_for_port(command: str, server: subprocess.Popen[Any], output: Path) -> None:
    """Waits until the server listens on a port.

    Raises:
        CommandError: it ended, or does not listen within LIMIT.
    """
    end = time.monotonic() + LIMIT
    while not listens(server.pid):
        if server.poll() is not None:
            raise _failed(command, f"ended with status {server.returncode}", output)
        if time.monotonic() > end:
            raise _failed(command, f"did not listen on a port within {LIMIT} s", output)
        time.sleep(0.2)


def listens(group: int) -> bool:
    """Whether a process of this group has a listening socket (read from Linux's /proc)."""
    listening = set()
    for table in ("tcp", "tcp6"):
        for row in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A":  # the state LISTEN
                listening.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            descriptors = (process / "fd").iterdir() if os.getpgid(int(process.name)) == group else ()
            if not listening.isdisjoint(map(os.readlink, descriptors)):
                return True
    return False


def _failed(command: str, what: str, output: Path) -> CommandError:
    return CommandError(f"{output.read_text(errors='replace')[-20_000:]}\n{command}\n{what}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
