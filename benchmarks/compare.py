"""Compares our networks with those of PyTorch and Keras on this machine, alternately in one session.

    pip install -e . -r benchmarks/requirements.txt
    python -m benchmarks.compare                              # all tasks, everybody
    python -m benchmarks.compare --tasks xception-training --contestants ours torch --rounds 3

Every contestant runs in its own process and waits while another one runs. After warm-up they take turns; the ratio of
our rate to theirs is computed for each round, so that other load on the machine affects both. The command prints the
median rate and the median ratio with its minimum and maximum over the rounds; the output file also holds all step
times, versions and the hardware. The exit status is 1 if one of the `--contestants` did not run or if a contestant
ended while a task was measured; without that flag, contestants that are not installed are left out.
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.contestants import CONTESTANTS, NETWORKS
from boneage_jax.atomic_files import write_text

ROOT = Path(__file__).parents[1]
SIZES = {  # pixels, batch
    "xception": (299, 8),
    "convmixer": (128, 4),
    "efficientnet_b0": (224, 8),
    "efficientnet_lite0": (192, 32),
    "efficientnet_lite2": (256, 32),
    "convnextv2_atto": (224, 8),
    "resnet50": (224, 8),
    "inception_v3": (299, 8),
}
PEERS = ("torch", "timm", "keras")
# How the frameworks' native code and Python itself begin a fatal error message; the stack trace follows it.
_CRASH = re.compile(r"F\d{4} |Fatal Python error|\*\*\* SIG|terminate called")


class Contestant:
    """A process that prepares a task and runs steps of it."""

    def __init__(self, name: str, task: dict[str, Any]):
        self.name = name
        command = [sys.executable, "-m", "benchmarks.contestants", name, json.dumps(task)]
        # A file, because an unread pipe would fill up; it stays open as long as the process runs.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def ready(self) -> dict[str, float] | None:
        """Waits until it is prepared and returns its report; prints the reason and returns None if it fails."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        print(f"  {self.name} does not run: {self._reason()}", file=sys.stderr)
        return None

    def run(self, steps: int) -> list[float]:
        """Runs `steps` steps and returns the seconds of each.

        Raises:
            RuntimeError: the process has ended; with the line that says why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended, so there is no line to read either
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        if line := self._process.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"{self.name} has ended: {self._reason()}")

    def _reason(self) -> str:
        """Why the process has ended."""
        self._process.wait()
        self._errors.seek(0)
        return reason(self._errors.read())

    def end(self) -> None:
        """Kills the process, even while another thread waits for its output."""
        self._process.kill()

    def close(self) -> None:
        """Kills the process and discards its error output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.end()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # a request that was never read
            self._process.stdin.close()
        self._process.stdout.close()
        self._errors.close()


def reason(printed: str) -> str:
    """The line that explains why a program ended: the first line of a native crash, otherwise the last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    crashes = [line for line in lines if _CRASH.match(line)]
    return (crashes or lines[-1:] or ["no reason given"])[0]


Prepared = list[tuple[Contestant, dict[str, float]]]


def compare(task: dict[str, Any], names: list[str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One row for each contestant that can do the task; ours is the first.

    Contestants compile one after the other, because compilation takes all cores. None is measured before all are
    prepared.
    """
    return measure(task, prepare(Contestant(name, task) for name in names), rounds, seconds)


def prepare(started: Iterable[Contestant]) -> Prepared:
    """The contestants that are ready to run, with their reports; the others are closed."""
    present = []
    for contestant in started:
        if (said := contestant.ready()) is not None:
            present.append((contestant, said))
        else:
            contestant.close()
    return present


def measure(task: dict[str, Any], present: Prepared, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Runs the contestants of a task in turns and closes them; returns one row for each."""
    try:
        steps = {c.name: max(1, round(seconds / max(statistics.median(c.run(2)), 1e-4))) for c, _ in present}
        times: dict[str, list[list[float]]] = {c.name: [] for c, _ in present}
        for _ in range(rounds):
            for contestant, _ in present:
                times[contestant.name].append(contestant.run(steps[contestant.name]))
    finally:
        for contestant, _ in present:
            contestant.close()
    return [_row(task, c.name, times, said["first_step_seconds"]) for c, said in present]


def _row(task: dict[str, Any], name: str, times: dict[str, list[list[float]]], first: float) -> dict[str, Any]:
    medians = {key: [statistics.median(found) for found in rounds] for key, rounds in times.items()}
    row = {
        **task,
        "contestant": name,
        "images_per_second": task["batch"] / statistics.median(medians[name]),
        "first_step_seconds": first,
        "seconds": times[name],
    }
    if name != "ours" and "ours" in medians:
        ratios = [theirs / mine for theirs, mine in zip(medians[name], medians["ours"], strict=True)]
        row["ours_is_faster_by"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | work | pixels | batch | precision | who | images/s | ours is faster by | first step, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row.get("ours_is_faster_by")
        spread = f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})" if ratio else ""
        cells = (
            row["network"],
            row["work"],
            row["size"],
            row["batch"],
            row["dtype"],
            row["contestant"],
            f"{row['images_per_second']:.2f}",
            spread,
            f"{row['first_step_seconds']:.1f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def absent(rows: list[dict[str, Any]], tasks: list[str], named: list[str]) -> list[str]:
    """Named contestants, as "who (task)", that did not run a task they have a network for, or have no network."""
    ran = {(row["contestant"], f"{row['network']}-{row['work']}") for row in rows}
    expected = {who: [task for task in tasks if who in able(task, named)] for who in named}
    missing = [f"{who} ({task})" for who, own in expected.items() for task in own if (who, task) not in ran]
    return missing + [f"{who} (no network for any of the tasks)" for who, own in expected.items() if not own]


def able(task: str, names: list[str]) -> list[str]:
    """The contestants that have a network for the task, such as "xception-training"."""
    return [who for who in names if who.split()[0] in NETWORKS[task.rpartition("-")[0]]]


def main() -> int:
    """Runs the tasks selected by the flags; returns the exit status."""
    works = [f"{network}-{work}" for network in SIZES for work in ("training", "inference")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=works, choices=works)
    parser.add_argument(
        "--contestants", nargs="+", choices=list(CONTESTANTS), help="all that are installed if left out"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each contestant in each round")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "latest.json")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    failed = False
    for name in flags.tasks:
        network, work = name.rsplit("-", 1)
        size, batch = SIZES[network]
        task = {"network": network, "work": work, "size": size, "batch": batch, "dtype": flags.dtype}
        present = able(name, flags.contestants or list(CONTESTANTS))
        print(f"{name}: {', '.join(present)}", file=sys.stderr, flush=True)
        try:
            rows += compare(task, present, flags.rounds, flags.seconds)
        except RuntimeError as error:
            print(f"error: {name} is not measured: {error}", file=sys.stderr)
            failed = True
        record.write(flags.out, {"rows": rows}, PEERS)
        write_text(flags.out.with_suffix(".md"), table(rows) + "\n")
    print(table(rows))
    if missing := absent(rows, flags.tasks, flags.contestants or []):
        print(f"error: did not run: {', '.join(missing)}", file=sys.stderr)
    return int(failed or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
