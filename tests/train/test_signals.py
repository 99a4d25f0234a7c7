"""Real signals to a real process: SIGKILL at an arbitrary moment, and SIGTERM."""

import re
import signal
import time

import pytest

from tests.train import processes
from tests.train.runs import assert_same_to_the_bit, newest
from tests.train.tiny_run import STEPS_PER_EPOCH

EPOCHS = 40
LONG = f"--config.train.epochs={EPOCHS}"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(cache, tmp_path_factory):
    """The newest checkpoint of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    processes.finish(processes.start(workdir, cache, LONG))
    return newest(workdir)


def signalled(number, workdir, cache) -> tuple[int, str]:
    """Starts a run, sends the signal after the first checkpoint, and returns the exit status and the output."""
    process = processes.start(workdir, cache, LONG)
    deadline = time.monotonic() + 120
    while not (workdir / f"checkpoints/latest/{2 * STEPS_PER_EPOCH}").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output
    return process.returncode, output


def test_a_killed_run_resumes_bit_for_bit(uninterrupted, cache, tmp_path):
    status, _ = signalled(signal.SIGKILL, tmp_path, cache)
    assert status == -signal.SIGKILL
    assert newest(tmp_path).step < EPOCHS * STEPS_PER_EPOCH

    processes.finish(processes.start(tmp_path, cache, LONG, "--config.data.workers=1"))
    assert_same_to_the_bit(newest(tmp_path), uninterrupted)


def test_a_terminated_run_exits_with_143_and_resumes_bit_for_bit(uninterrupted, cache, tmp_path):
    status, output = signalled(signal.SIGTERM, tmp_path, cache)
    assert status == 143
    stopped = re.search(r"stopped by SIGTERM at step (\d+), which is saved", output)
    assert stopped is not None, output
    assert newest(tmp_path).step == int(stopped[1]) < EPOCHS * STEPS_PER_EPOCH

    processes.finish(processes.start(tmp_path, cache, LONG))
    assert_same_to_the_bit(newest(tmp_path), uninterrupted)
