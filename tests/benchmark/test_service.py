"""`benchmarks/service.py`: the service that it measures always ends."""

import subprocess
import sys
import time

import pytest

from benchmarks import service


@pytest.fixture
def program(monkeypatch):
    """Starts this program in place of the service; returns the processes that were started."""
    started = []
    start = subprocess.Popen

    def program(text):
        def popen(command, **settings):
            started.append(start([sys.executable, "-c", text], **settings))
            return started[-1]

        monkeypatch.setattr(subprocess, "Popen", popen)
        return started

    yield program
    for process in started:
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


def test_the_service_ends_after_a_request_that_fails(program):
    serving = "import sys, time; print('serving http://127.0.0.1:8123/', file=sys.stderr, flush=True); time.sleep(60)"
    started, before = program(serving), time.monotonic()

    def fail():
        with service.service("tiny") as port:
            assert port == 8123
            raise SystemExit("the service answered 500")

    with pytest.raises(SystemExit, match="answered 500"):
        fail()
    assert started[0].wait(10) != 0
    assert time.monotonic() - before < 30


def test_a_service_that_does_not_start_gives_its_reason(program):
    program("import sys; print('loading', file=sys.stderr); sys.exit('error: no such weights')")
    with pytest.raises(SystemExit, match="the service did not start: error: no such weights"), service.service("tiny"):
        pass
