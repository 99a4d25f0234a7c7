"""`benchmarks/compare.py`: which contestants ran, and how failures are reported."""

import json
import subprocess
import sys

import pytest

from benchmarks import compare
from benchmarks.contestants import NETWORKS


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the command and returns its exit status; contestants not in `running` give no result."""

    def command(*flags: str, running: tuple[str, ...]) -> int:
        def rows(task, names, rounds, seconds):
            return [
                {**task, "contestant": who, "images_per_second": 1.0, "first_step_seconds": 1.0}
                for who in names
                if who in running
            ]

        monkeypatch.setattr(compare, "compare", rows)
        monkeypatch.setattr(sys, "argv", ["compare.py", f"--out={tmp_path / 'latest.json'}", *flags])
        return compare.main()

    return command


def test_a_named_contestant_that_does_not_run_is_an_error(command, tmp_path, capsys):
    flags = ("--tasks", "xception-training", "convmixer-inference", "--contestants", "ours", "torch", "keras on jax")
    assert command(*flags, running=("ours", "torch")) == 1
    assert "error: did not run: keras on jax (xception-training)\n" in capsys.readouterr().err
    # Results of the other contestants are still written.
    assert len(json.loads((tmp_path / "latest.json").read_text())["rows"]) == 4


def test_a_named_contestant_without_a_network_for_any_task_is_an_error(command, capsys):
    assert command("--tasks", "convmixer-training", "--contestants", "ours", "keras on jax", running=("ours",)) == 1
    assert "keras on jax (no network for any of the tasks)" in capsys.readouterr().err


def test_contestants_that_are_not_named_may_be_missing(command):
    assert command("--tasks", "xception-training", running=("ours",)) == 0


def test_named_contestants_that_all_run_give_exit_status_zero(command):
    named = ("--contestants", "ours", "torch")
    assert command("--tasks", "efficientnet_lite0-training", *named, running=("ours", "torch")) == 0


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ("", "no reason given"),
        ("Traceback\n  ...\nValueError: no\n\n", "ValueError: no"),
        (
            "I0000 started\nF1126 18:50:01 conv.cc:7] Check failed: ok\n*** Check failure stack trace: ***\n @ 0x1\n",
            "F1126 18:50:01 conv.cc:7] Check failed: ok",
        ),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n @ 0x1 main\n", "terminate called after "),
    ],
)
def test_crash_reason_is_the_error_message_not_the_end_of_the_stack(printed, why):
    assert compare.reason(printed).startswith(why)


def test_every_compared_network_is_defined_for_the_contestants():
    assert set(compare.SIZES) <= set(NETWORKS)


def test_a_contestant_that_ends_while_it_is_measured_gives_its_reason(monkeypatch, tmp_path, capsys):
    ready = json.dumps({"first_step_seconds": 1.0})
    program = f"import sys; print({ready!r}, flush=True); sys.stdin.readline(); sys.exit('no memory')"
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda _, **settings: start([sys.executable, "-c", program], **settings))
    flags = ["--tasks", "xception-training", "convmixer-training", f"--out={tmp_path / 'latest.json'}"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags, "--contestants", "ours"])
    assert compare.main() == 1
    printed = capsys.readouterr().err
    for task in ("xception-training", "convmixer-training"):
        assert f"error: {task} is not measured: ours has ended: no memory" in printed
