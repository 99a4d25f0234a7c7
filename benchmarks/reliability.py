"""Damages every kind of file that the commands read, kills and doubles runs, fills the disk and counts outcomes.

    python -m benchmarks.reliability [--count 1000] [--parts images tables ...] [--out FILE.json]

Seeds are fixed. `--count` is the number of damaged files; a tenth as many runs are killed. Outcomes:

    answered     the same answer as without the damage
    clear error  a one-sentence error and no answer
    warned       another answer, with a warning or a note
    silent       another answer without a warning: a fault if the format has a checksum
    traceback, hang, memory   always a fault

The exit status is 1 after a fault. A disturbed run is "answered" if it ends with the same bits as an undisturbed one.
The 20 MB disk needs permission to mount a file system; without it, that part is left out with a note.
"""

import argparse
import contextlib
import faulthandler
import functools
import io
import json
import logging
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks import disturbed_runs, mutations, record
from boneage_jax.atomic_files import write_text
from boneage_jax.commands.main import main as boneage
from boneage_jax.errors import BoneAgeError
from boneage_jax.pretrained import formats
from boneage_jax.train import evaluation, parallel
from boneage_jax.train.checkpoint import digest
from boneage_jax.train.experiment import load_data
from tests.train.tiny_run import get_config

OUTCOMES = ("answered", "clear error", "warned", "silent", "traceback", "hang", "memory")
FAULTS = OUTCOMES[4:]
SECONDS = 60  # after which a command counts as hanging
GROWTH = 2**30  # most bytes of memory that one damaged file may take
# Formats where everything that determines the answer has a checksum, from the format itself or from the project.
CHECKED = ("png", "zip", "xlsx", "zip.pth", "keras", "safetensors", "checkpoint", "cache", "run")
SHARES = {"images": 0.4, "tables": 0.15, "archives": 0.1, "weights": 0.15, "checkpoints": 0.1, "caches": 0.1}


class Answer(NamedTuple):
    """A command's answer: the value, with its warnings and notes."""

    value: Any
    words: Any = ()


class _Traces(logging.Handler):
    """Counts log records and exceptions in threads with a traceback, which users see beside the error."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += bool(record.exc_info)

    def report(self, *_: object) -> None:
        self.count += 1


class HangError(BaseException):
    """The time limit for one file has been reached."""


class Case(NamedTuple):
    """A file, or a folder in which one file is damaged, and the function that reads it."""

    name: str  # format
    ask: Callable[[pathlib.Path], Answer]
    path: pathlib.Path


def judge(ask: Callable[[], Answer], expected: Answer, seconds: float = SECONDS, growth: int = GROWTH) -> str:
    """Calls `ask` and classifies the outcome.

    A command that does not return to Python within four times `seconds` ends this program with a traceback.
    """

    def stop(*_: object) -> None:
        raise HangError

    before, peak, logged = signal.signal(signal.SIGALRM, stop), _peak_memory(forget=True), _Traces()
    hooks = sys.unraisablehook, threading.excepthook
    sys.unraisablehook, threading.excepthook = logged.report, logged.report
    logging.getLogger().addHandler(logged)
    faulthandler.dump_traceback_later(4 * seconds, exit=True, file=sys.__stderr__ or 2)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = ask()
        outcome = "answered" if found.value == expected.value else "silent"
        if outcome == "silent" and found.words != expected.words:
            outcome = "warned"
    except BoneAgeError as error:
        outcome = "traceback" if "Traceback" in str(error) else "clear error"
    except HangError:
        outcome = "hang"
    except Exception:
        traceback.print_exc()
        outcome = "traceback"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()
        logging.getLogger().removeHandler(logged)
        sys.unraisablehook, threading.excepthook = hooks
    outcome = "traceback" if logged.count else outcome
    return "memory" if _peak_memory() - peak > growth else outcome


def _peak_memory(*, forget: bool = False) -> int:
    """Peak memory of this process in bytes; `forget` first resets the peak to the current usage."""
    if forget:
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def predicted(*arguments: str) -> Answer:
    """The results that `boneage predict` prints, with their warnings and notes."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = boneage(["predict", *arguments, "--format=json", "--accept-warnings"])
    if status:
        raise BoneAgeError(err.getvalue())
    found = json.loads(out.getvalue())
    keys = ("months", "std", "sex", "age", "by_sex")
    return Answer(
        [{key: one[key] for key in keys} for one in found], [[*one["warnings"], *one["notes"]] for one in found]
    )


def _restored(workdir: pathlib.Path) -> Answer:
    experiment, state = evaluation.restore_best(workdir)
    return Answer((digest(parallel.to_host(state)), json.dumps(experiment.about(), sort_keys=True, default=str)))


def _prepared(cache: pathlib.Path) -> Answer:
    config = get_config()
    config.data.cache = str(cache)
    splits = load_data(config)
    read = {name: [split[place]["image"].tobytes() for place in range(len(split))] for name, split in splits.items()}
    return Answer((read, {name: (split.ids, split.age.tolist(), split.sex.tolist()) for name, split in splits.items()}))


def _arrays(path: pathlib.Path) -> Answer:
    source, found = formats.read(path)
    return Answer((source, {key: (value.shape, value.tobytes()) for key, value in found.items()}))


def cases(part: str, folder: pathlib.Path, run: disturbed_runs.Finished) -> list[Case]:
    """The undamaged files of a part, written into the folder."""
    weights, hand = f"--weights={run.weights}", folder / mutations.HAND
    asks: dict[str, tuple[Callable[[pathlib.Path], dict[str, bytes]], Callable[[pathlib.Path], Answer]]] = {
        "images": (mutations.images, lambda path: predicted(str(path), "--sex=F", weights)),
        "tables": (mutations.tables, lambda path: predicted(str(hand), f"--labels={path}", weights)),
        "archives": (mutations.archives, lambda path: predicted(str(path), "--sex=F", weights)),
        "weights": (mutations.foreign_weights, _arrays),
    }
    if part == "checkpoints":
        return [Case("checkpoint", _restored, run.workdir)]
    if part == "caches":
        return [Case("cache", _prepared, run.cache)]
    make, ask = asks[part]
    (made := folder / "made").mkdir()
    files = make(made)
    if part == "tables":
        hand.write_bytes(mutations.images(made)["hand.png"])
    found = []
    for name, content in files.items():
        (path := folder / f"whole_{name}").write_bytes(content)
        found.append(Case(pathlib.Path(name).name if part != "images" else _form(name), ask, path))
    if part == "weights":
        picture = folder / "picture.png"
        picture.write_bytes(mutations.images(made)["hand.png"])
        found.append(
            Case("safetensors", lambda path: predicted(str(picture), "--sex=F", f"--weights={path}"), run.weights)
        )
    return found


def _form(name: str) -> str:
    return name if name.endswith(".dcm") else pathlib.Path(name).suffix[1:]


def damage(case: Case, place: pathlib.Path, rng: np.random.Generator) -> pathlib.Path:
    """A damaged copy of the case's file, or of its folder with one file damaged."""
    if case.path.is_file():
        copy = place / case.path.name.removeprefix("whole_")
        copy.write_bytes(mutations.damaged(case.path.read_bytes(), rng))
        return copy
    copy = shutil.copytree(case.path, place / "copy")
    files = sorted(file for file in copy.rglob("*") if file.is_file() and file.stat().st_size)
    if case.name == "checkpoint":
        files = [file for file in files if "best" in file.parts]
    file = files[rng.integers(len(files))]
    file.write_bytes(mutations.damaged(file.read_bytes(), rng))
    return copy


def damaged_files(part: str, count: int, run: disturbed_runs.Finished) -> Iterator[tuple[str, str]]:
    """Format name and outcome of each of `count` damaged files of a part."""
    with tempfile.TemporaryDirectory() as folder:
        found = cases(part, pathlib.Path(folder), run)
        whole = [case.ask(case.path) for case in found]
        for number in range(count):
            case, expected = found[number % len(found)], whole[number % len(found)]
            rng = np.random.default_rng([2018, list(SHARES).index(part), number])
            with tempfile.TemporaryDirectory() as place:
                copy = damage(case, pathlib.Path(place), rng)
                outcome = judge(functools.partial(case.ask, copy), expected)
            if outcome in FAULTS or (outcome == "silent" and is_checked(case.name)):
                print(f"fault: {part}, {case.name}, number {number}: {outcome}", file=sys.stderr, flush=True)
            yield case.name, outcome


def is_checked(name: str) -> bool:
    """Whether a silently changed answer is a fault for this kind."""
    return name.endswith(CHECKED)


def table(rows: list[dict[str, Any]]) -> str:
    """The counts as Markdown."""
    lines = [f"| part | kind | cases | {' | '.join(OUTCOMES)} |", "|---|---|---|" + "---|" * len(OUTCOMES)]
    for row in rows:
        cells = (row["part"], row["kind"], row["cases"], *(row[outcome] for outcome in OUTCOMES))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def rows_of(part: str, outcomes: Iterator[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row for each kind of a part."""
    counts: dict[str, Counter[str]] = {}
    for name, outcome in outcomes:
        counts.setdefault(name, Counter())[outcome] += 1
    return [
        {"part": part, "kind": name, "cases": sum(found.values()), **{one: found[one] for one in OUTCOMES}}
        for name, found in counts.items()
    ]


def faults(rows: list[dict[str, Any]]) -> int:
    """The number of outcomes that are faults."""
    return sum(sum(row[one] for one in FAULTS) + (row["silent"] if is_checked(row["kind"]) else 0) for row in rows)


def store(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes the rows, and when and on what each part was measured; other parts already in the file are kept."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"measured": {}, "rows": []}
    parts = sorted({row["part"] for row in rows})
    kept = [row for row in stored["rows"] if row["part"] not in parts]
    measured = stored["measured"] | dict.fromkeys(parts, record.circumstances())
    write_text(path, json.dumps({"measured": measured, "rows": kept + rows}, indent=1) + "\n")


def main() -> int:
    """Runs the parts selected by the flags; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = (*SHARES, *disturbed_runs.PARTS)
    parser.add_argument("--count", type=int, default=1000, help="damaged files in all (1000)")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=pathlib.Path, help="JSON for the counts; other parts in it stay")
    flags = parser.parse_args()
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = disturbed_runs.finished(pathlib.Path(folder))
        for part in flags.parts:
            count = max(1, round(flags.count * SHARES.get(part, 0.1)))
            if part in SHARES:
                outcomes = damaged_files(part, count, run)
            else:
                outcomes = disturbed_runs.PARTS[part](pathlib.Path(folder), run, count)
            rows += (measured := rows_of(part, outcomes))
            print(f"{part}: done after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            if flags.out:
                store(flags.out, measured)
    print(table(rows))
    if wrong := faults(rows):
        print(f"error: {wrong} faults", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
