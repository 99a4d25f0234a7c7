"""Compares killed, doubled and out-of-disk runs with an undisturbed run; for `reliability.py`."""

import contextlib
import io
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from boneage_jax.commands.main import main as boneage
from boneage_jax.errors import BoneAgeError
from boneage_jax.train.checkpoint import digest
from tests.train import processes
from tests.train.runs import newest

EPOCHS = 6
_LONG = f"--config.train.epochs={EPOCHS}"
_SECONDS = 300  # after which a run counts as hanging
_FREE = (8, 176, 400)  # KiB free on the disk when a run starts
_MIB = 20

Outcome = tuple[str, str]


class Finished(NamedTuple):
    """An undisturbed run, its prepared data, its weights, the digest of its last state, and how long it took."""

    workdir: pathlib.Path
    cache: pathlib.Path
    weights: pathlib.Path
    bits: str
    seconds: float


def finished(folder: pathlib.Path) -> Finished:
    """Trains the tests' tiny network and exports it."""
    workdir, cache, weights = folder / "undisturbed", folder / "cache", folder / "tiny.safetensors"
    started = time.monotonic()
    processes.finish(_start(workdir, cache))
    seconds = time.monotonic() - started
    with contextlib.redirect_stdout(io.StringIO()):
        status = boneage(
            ["export-weights", f"--workdir={workdir}", f"--out={weights}", "--checks=0", "--no-calibration"]
        )
    if status:
        raise SystemExit("the weights of the undisturbed run could not be exported")
    return Finished(workdir, cache, weights, _bits(workdir), seconds)


def killed(folder: pathlib.Path, run: Finished, count: int) -> Iterator[Outcome]:
    """Kills runs `count` times, every third time by SIGTERM, and restarts them until they finish."""
    rng, done, chain = np.random.default_rng(2018), 0, 0
    while done < count:
        chain += 1
        workdir, cache, pending = folder / f"killed{chain}", folder / f"killed_cache{chain}", list[str]()
        while True:
            process = _start(workdir, cache)
            number = signal.SIGTERM if done % 3 == 2 else signal.SIGKILL
            if done < count:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0, run.seconds))
                if process.poll() is None:
                    process.send_signal(number)
            output, hangs = _output(process)
            if hangs or process.returncode not in (0, -number, 128 + number) or "Traceback" in output:
                print(f"status {process.returncode}: {output[-2000:]}", file=sys.stderr)
                yield "killed run", "hang" if hangs else "traceback"
                done += 1  # otherwise a fault at every start would never end
                break
            if process.returncode == 0:
                break
            done += 1
            pending.append("terminated run" if number == signal.SIGTERM else "killed run")
        outcome = _outcome(workdir, run)
        yield from ((kind, outcome) for kind in pending)
        for place in (workdir, cache):
            shutil.rmtree(place, ignore_errors=True)


def together(folder: pathlib.Path, run: Finished, count: int) -> Iterator[Outcome]:
    """Starts two runs at once: in one work directory, where one is refused, or sharing only the cache."""
    for number in range(max(1, count // 20)):
        place = folder / f"together{number}"
        pair = [_start(place / "one", place / "cache") for _ in range(2)]
        ends = [(*_output(process), process.returncode) for process in pair]
        refused = [output for output, _, status in ends if status]
        if any(hangs for _, hangs, _ in ends):
            yield "two in one work directory, run", "hang"
        elif len(refused) > 1 or any("is in use by process" not in output for output in refused):
            yield "two in one work directory, run", "traceback"
        else:
            yield "two in one work directory, run", _outcome(place / "one", run)
        shutil.rmtree(place, ignore_errors=True)
        pair = [_start(place / name, place / "cache") for name in ("one", "two")]
        for name, process in zip(("one", "two"), pair, strict=True):
            output, hangs = _output(process)
            bad = "hang" if hangs else "traceback" if process.returncode or "Traceback" in output else ""
            yield "two with one cache, run", bad or _outcome(place / name, run)
        shutil.rmtree(place, ignore_errors=True)


def disk(folder: pathlib.Path, run: Finished, _: int) -> Iterator[Outcome]:
    """Runs on a 20 MB disk that is nearly full, and again after space is freed."""
    mounted = folder / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_MIB}m", "tmpfs", str(mounted)]
    if subprocess.run(mount, capture_output=True).returncode:
        print(f"note: no disk of {_MIB} MB can be mounted here; the part is left out", file=sys.stderr)
        return
    try:
        for free in _FREE:
            for kind, cache in (("work directory", run.cache), ("cache and work directory", mounted / "cache")):
                (mounted / "filling").write_bytes(bytes(_MIB * 2**20 - free * 1024))
                yield f"{kind} on a full disk, run", _ended(_start(mounted / "run", cache), mounted / "run", run)
                (mounted / "filling").unlink()
                process = _start(mounted / "run", cache)
                yield f"{kind} with room again, run", _ended(process, mounted / "run", run)
                for place in (mounted / "run", mounted / "cache"):
                    shutil.rmtree(place, ignore_errors=True)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


PARTS: dict[str, Callable[[pathlib.Path, Finished, int], Iterator[Outcome]]] = {
    "kills": killed,
    "together": together,
    "disk": disk,
}


def _start(workdir: pathlib.Path, cache: pathlib.Path) -> "subprocess.Popen[str]":
    return processes.start(workdir, cache, _LONG)


def _output(process: "subprocess.Popen[str]") -> tuple[str, bool]:
    """Waits for the process to end; returns its output and whether it had to be killed as hanging."""
    try:
        return process.communicate(timeout=_SECONDS)[0], False
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0], True


def _ended(process: "subprocess.Popen[str]", workdir: pathlib.Path, run: Finished) -> str:
    output, hangs = _output(process)
    if hangs:
        return "hang"
    errors = [line for line in output.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    if "Traceback" in output or (process.returncode, len(errors)) not in ((0, 0), (1, 1)):
        print(f"status {process.returncode}: {output[-2000:]}", file=sys.stderr)
        return "traceback"
    return "clear error" if process.returncode else _outcome(workdir, run)


def _bits(workdir: pathlib.Path) -> str:
    return digest(newest(workdir).state)


def _outcome(workdir: pathlib.Path, run: Finished) -> str:
    """Whether a run has the bits of the undisturbed one: "answered", or else "silent", also without a checkpoint."""
    try:
        return "answered" if _bits(workdir) == run.bits else "silent"
    except BoneAgeError as error:
        print(f"{workdir}: {error}", file=sys.stderr)
        return "silent"
