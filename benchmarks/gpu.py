"""Runs all measurements that need a GPU, in one command of at most ten minutes.

    pip install -e ".[cuda,test]" -r benchmarks/requirements.txt
    python -m benchmarks.gpu            # writes benchmarks/results/gpu.json and gpu.md
    python -m benchmarks.gpu --tiny     # a miniature run, also on a CPU, to check that the command works

Parts, the most informative first: our step with the images on the host and on the device (rate, share of the matrix
rate, waiting for data, memory), ours against compiled PyTorch in bfloat16, the depthwise shapes, the tests. A
measurement that fails is recorded with its reason, one that no longer fits into the time limit as left out, and the
others still run; `--parts torch depthwise` measures these two parts in a separate run.
"""

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import compare, depthwise, record
from benchmarks.contestants import NETWORKS
from boneage_jax.atomic_files import write_text

ROOT = Path(__file__).parents[1]
RSNA_IMAGES = 12_611
PARTS = ("steps", "torch", "depthwise", "tests")
BFLOAT16 = "--config.model.dtype=bfloat16"
_XCEPTION_299 = (
    "--config=configs/xception.py",
    "--config.preprocess.size=299",
    "--config.train.batch_size=64",
    BFLOAT16,
)
_TINY = ("--config=tests/train/tiny_run.py", "--config.benchmark.steps=3", "--config.benchmark.warmup=1")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The measurements of a run, and the time and rounds of each comparison."""

    launches: dict[str, tuple[str, ...]]  # "name, placement of the images" to flags of launch.py
    networks: dict[str, tuple[int, int]]  # pixels, batch
    depthwise: tuple[str, ...]  # flags of depthwise.py
    tests: tuple[str, ...]
    seconds: float  # of each contestant in each round
    rounds: int


FULL = Plan(
    launches={
        "Xception 299, device": _XCEPTION_299,
        "Xception 299, host": _XCEPTION_299,
        "Xception 500, device": ("--config=configs/xception.py", "--config.train.batch_size=32", BFLOAT16),
        "ConvMixer 256, device": ("--config=configs/convmixer.py", "--config.train.batch_size=64", BFLOAT16),
    },
    networks={
        "efficientnet_lite2": (256, 64),
        "xception": (500, 32),
        "convmixer": (256, 64),
        "inception_v3": (500, 32),
        "efficientnet_b0": (512, 32),
        "convnextv2_atto": (512, 64),
        "resnet50": (224, 128),
    },
    depthwise=(),
    tests=("tests/models/test_depthwise.py", "tests/models/test_golden.py", "tests/models/test_models.py"),
    seconds=3.0,
    rounds=3,
)
TINY = Plan(
    launches={"tiny, host": _TINY, "tiny, device": _TINY},
    networks={"tiny": (32, 8)},
    depthwise=("--tiny", "--steps=2", "--batch=2"),
    tests=("tests/models/test_layers.py",),
    seconds=0.2,
    rounds=2,
)


class OutOfTimeError(Exception):
    """The time limit of the command has been reached."""


class Clock:
    """The time left for the whole command."""

    def __init__(self, minutes: float):
        self._end = time.monotonic() + 60 * minutes

    def left(self, needed: float = 0.0) -> float:
        """Seconds until the end.

        Raises:
            OutOfTimeError: fewer than `needed`.
        """
        seconds = self._end - time.monotonic()
        if seconds < max(needed, 1.0):
            raise OutOfTimeError
        return seconds


def run(command: list[str], clock: Clock, needed: float, **environment: str) -> str:
    """Runs a Python program and returns its output; it is stopped when the command's time is over.

    Raises:
        OutOfTimeError: there is not enough time left, or it took longer.
        RuntimeError: it failed; with the line that says why.
    """
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=clock.left(needed),
        )
    except subprocess.TimeoutExpired:
        raise OutOfTimeError from None
    if done.returncode:
        raise RuntimeError(compare.reason(done.stderr.strip() or done.stdout))
    return done.stdout


def launch(flags: tuple[str, ...], placement: str, clock: Clock) -> dict[str, Any]:
    """The benchmark of `launch.py` with its profile, the images on the host or on the device."""
    with tempfile.TemporaryDirectory() as workdir:
        command = ["launch.py", "--mode=benchmark", *flags, f"--workdir={workdir}", "--config.benchmark.profile=True"]
        run([*command, f"--config.data.placement={placement}"], clock, needed=60)
        found = json.loads(Path(workdir, "benchmark.json").read_text())
    found["train_profile"]["operations"] = found["train_profile"]["operations"][:10]
    floor = found["train_floor"]
    done = floor["flops"] / found["train_step_p50_seconds"]
    return {**found, "placement": placement, "share_of_matrix_rate": done / floor["flops_per_second"]}


class AgainstTorch:
    """Measures ours and compiled PyTorch in turns, in bfloat16.

    The PyTorch networks all compile at once on the first measurement, which takes many CPU cores and hardly any GPU
    time; ours compile one after the other, because XLA chooses its algorithms by timing them. All processes are ended
    when the command's time is over.
    """

    def __init__(self, networks: list[str], plan: Plan, clock: Clock):
        self._plan, self._clock = plan, clock
        self._tasks: dict[str, dict[str, Any]] = {
            f"{network} {work}": {"network": network, "work": work, "size": size, "batch": batch, "dtype": "bfloat16"}
            for network in networks
            for size, batch in [plan.networks[network]]
            for work in ("training", "inference")
        }
        self._prepared: dict[str, compare.Prepared] = {}
        self._running: list[compare.Contestant] = []

    def parts(self) -> list[tuple[str, str, Callable[[], Any]]]:
        """One measurement for each network and work."""
        return [("torch", name, functools.partial(self._measured, name)) for name in self._tasks]

    def _measured(self, name: str) -> list[dict[str, Any]]:
        try:
            if not self._prepared:
                self._prepare()
            if not self._prepared.get(name):
                raise RuntimeError("no contestant could run it; the reasons are printed above")
            return compare.measure(self._tasks[name], self._prepared[name], self._plan.rounds, self._plan.seconds)
        except (RuntimeError, ValueError, OSError):
            self._clock.left()  # a failure after the time limit counts as out of time
            raise

    def _prepare(self) -> None:
        timer = threading.Timer(self._clock.left(needed=120), self._end)
        timer.daemon = True
        timer.start()
        peers = [n for n, task in self._tasks.items() if "torch" in NETWORKS[task["network"]]]
        started = {n: self._start("torch compiled", n) for n in peers}
        for n in self._tasks:
            own = compare.prepare([self._start("ours", n)])
            self._prepared[n] = own + (compare.prepare([started[n]]) if n in started else [])

    def _start(self, who: str, name: str) -> compare.Contestant:
        self._clock.left()  # a process started after the time limit would never be ended
        contestant = compare.Contestant(who, self._tasks[name])
        self._running.append(contestant)
        return contestant

    def _end(self) -> None:
        for contestant in self._running:
            contestant.end()


def tests(plan: Plan, clock: Clock) -> str:
    """Runs pytest on the default device with full matrix-product precision; returns its last line."""
    command = ["-m", "pytest", "-p", "no:cacheprovider", *plan.tests]
    platforms = os.environ.get("JAX_PLATFORMS", "")
    out = run(command, clock, needed=30, BONEAGE_TEST_PLATFORMS=platforms, JAX_DEFAULT_MATMUL_PRECISION="highest")
    return out.strip().splitlines()[-1]


def parts(plan: Plan, clock: Clock) -> list[tuple[str, str, Callable[[], Any]]]:
    """Section, name and function of each measurement, in order."""
    steps: list[tuple[str, str, Callable[[], Any]]] = []
    for name, flags in plan.launches.items():
        placement = name.rpartition(", ")[2]
        steps.append(("steps", name, functools.partial(launch, flags, placement, clock)))
    shapes = ["-m", "benchmarks.depthwise", "--json", *plan.depthwise]
    first, second = list(plan.networks)[:2], list(plan.networks)[2:]
    return [
        *steps,
        *AgainstTorch(first, plan, clock).parts(),
        ("depthwise", "shapes", lambda: json.loads(run(shapes, clock, needed=60))),
        ("tests", "tests", lambda: tests(plan, clock)),
        *AgainstTorch(second, plan, clock).parts(),
    ]


def markdown(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    found, lines = result["found"], [f"`{result['command']}`, {result['date']}"]
    if steps := found.get("steps"):
        first = next(iter(steps.values()))
        lines += ["", f"{first['hardware']}; {', '.join(f'{k} {v}' for k, v in first['versions'].items())}", ""]
        lines += [
            "| step, images on | images/s | epoch of RSNA, s | of the matrix rate | over its floor | waiting for data "
            "| memory, MB |",
            "|---|---|---|---|---|---|---|",
            *(_step_row(name, step) for name, step in steps.items()),
        ]
        for name, step in steps.items():
            lines += ["", f"Costliest operations, {name}:", ""]
            lines += [f"- {o['share']:.1%} {o['name']} {o['source']}" for o in step["train_profile"]["operations"]]
    if rows := [row for part in found.get("torch", {}).values() for row in part]:
        lines += ["", compare.table(rows)]
    if shapes := found.get("depthwise"):
        lines += ["", "Microseconds forward + both gradients:", "", depthwise.table(shapes["shapes"])]
    if outcome := found.get("tests"):
        lines += ["", f"Tests: {outcome['tests']}"]
    lines += ["", *(f"- not measured: {name} ({why})" for name, why in result["missing"].items())]
    return "\n".join(lines).rstrip() + "\n"


def _step_row(name: str, step: dict[str, Any]) -> str:
    floor, seconds = step["train_floor"], step["train_step_p50_seconds"]
    least = max(floor["flops"] / floor["flops_per_second"], floor["bytes"] / floor["bytes_per_second"])
    cells = (
        name,
        f"{step['train_images_per_second']:.1f}",
        f"{RSNA_IMAGES / step['train_images_per_second']:.1f}",
        f"{step['share_of_matrix_rate']:.1%}",
        f"{seconds / least:.1f} x",
        f"{step['data_wait_share']:.1%}",
        f"{(step['train_device_peak_bytes'] or step['train_memory_bytes']) / 1e6:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Runs the measurements one by one and writes the result after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="in miniature: does the command work?")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "gpu.json")
    flags = parser.parse_args()
    # Several processes share the GPU, so none may preallocate its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    written = record.write(flags.out, {"found": found, "missing": missing}, compare.PEERS)
    for section, name, measure in parts(TINY if flags.tiny else FULL, Clock(flags.minutes)):
        if section not in flags.parts:
            continue
        print(f"{section}: {name}", file=sys.stderr, flush=True)
        try:
            done = measure()
        except OutOfTimeError:
            missing[f"{section}: {name}"] = "no time left"
        except Exception as error:
            missing[f"{section}: {name}"] = str(error)
        else:
            found.setdefault(section, {})[name] = done
        written = record.write(flags.out, {"found": found, "missing": missing}, compare.PEERS)
        write_text(flags.out.with_suffix(".md"), markdown(written))
    print(markdown(written))
    sys.exit(1 if any(why != "no time left" for why in missing.values()) else 0)


if __name__ == "__main__":
    main()
