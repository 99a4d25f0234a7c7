"""`benchmarks/gpu.py`: every part is measured or listed as missing with a reason."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import compare, gpu

ROOT = Path(__file__).parents[2]


def command(out, *flags):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", f"--out={out}", *flags],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_the_whole_command_runs_at_tiny_size(tmp_path):
    done = command(tmp_path / "gpu.json")
    found = json.loads((tmp_path / "gpu.json").read_text())

    assert done.returncode == 0, done.stderr
    assert found["missing"] == {}
    assert set(found["found"]["steps"]) == {"tiny, host", "tiny, device"}
    assert {"tiny training", "tiny inference"} == set(found["found"]["torch"])
    assert "passed" in found["found"]["tests"]["tests"]
    assert "| tiny, device |" in (tmp_path / "gpu.md").read_text()


def measured(monkeypatch, tmp_path, *parts):
    """Exit status and JSON of the command with these parts: (section, name, function)."""
    monkeypatch.setattr(gpu, "parts", lambda plan, clock: list(parts))
    monkeypatch.setattr(sys, "argv", ["gpu.py", f"--out={tmp_path / 'gpu.json'}"])
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    return stopped.value.code, json.loads((tmp_path / "gpu.json").read_text())


def fail():
    raise RuntimeError("no kernel for this card")


def late():
    raise gpu.OutOfTimeError


def test_a_failed_part_is_reported_and_the_rest_is_still_measured(monkeypatch, tmp_path):
    code, found = measured(monkeypatch, tmp_path, ("depthwise", "shapes", fail), ("tests", "tests", lambda: "3 passed"))

    assert code == 1
    assert found["missing"] == {"depthwise: shapes": "no kernel for this card"}
    assert found["found"] == {"tests": {"tests": "3 passed"}}
    assert "- not measured: depthwise: shapes (no kernel for this card)" in (tmp_path / "gpu.md").read_text()


def test_parts_that_no_longer_fit_the_time_limit_are_skipped(monkeypatch, tmp_path):
    code, found = measured(monkeypatch, tmp_path, ("tests", "tests", late))
    assert (code, found["missing"]) == (0, {"tests: tests": "no time left"})


class Sleeper:
    """A contestant that is never ready."""

    def __init__(self, who, task):
        self.process = subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, text=True)

    def ready(self):
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == ""

    def end(self):
        self.process.kill()

    def close(self):
        self.end()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def test_contestants_that_are_not_ready_in_time_are_killed(monkeypatch):
    sleepers = []

    def start(who, task):
        sleepers.append(Sleeper(who, task))
        return sleepers[-1]

    monkeypatch.setattr(compare, "Contestant", start)
    against = gpu.AgainstTorch(["xception"], gpu.FULL, Clock(seconds=0.3))  # PyTorch's contestants start first
    started = time.monotonic()
    for _, _, measure in against.parts():
        with pytest.raises(gpu.OutOfTimeError):
            measure()
    assert time.monotonic() - started < 30  # each contestant would sleep for a minute
    assert sleepers
    for sleeper in sleepers:
        with sleeper.process as process:
            assert process.wait(timeout=10) == -signal.SIGKILL


class Clock(gpu.Clock):
    """A clock that grants any request until its end."""

    def __init__(self, seconds):
        super().__init__(seconds / 60)

    def left(self, needed=0.0):
        if (seconds := self._end - time.monotonic()) <= 0:
            raise gpu.OutOfTimeError
        return seconds


def test_a_failed_program_reports_its_last_line_of_output():
    with pytest.raises(RuntimeError, match=r"^out of paper$"):
        gpu.run(["-c", "import sys; sys.exit('first\\nout of paper')"], gpu.Clock(1), needed=1)


def test_a_program_that_exceeds_the_time_left_is_stopped():
    with pytest.raises(gpu.OutOfTimeError):
        gpu.run(["-c", "import time; time.sleep(60)"], gpu.Clock(1.2 / 60), needed=1)


def test_asking_for_more_time_than_is_left_raises():
    with pytest.raises(gpu.OutOfTimeError):
        gpu.Clock(1).left(needed=61)
