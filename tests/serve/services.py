"""Services with small random weights, in this process and as subprocesses."""

import contextlib
import os
import re
import subprocess
import sys
import time

import cv2
from fastapi.testclient import TestClient

from boneage_jax.serve import app
from boneage_jax.serve.reading import Reading
from tests.predict import random_weights

TOKEN = "0123456789abcdef-token"


@contextlib.contextmanager
def client(predictor=None, *, token=None, queue=64):
    """A client of an application in this process; exceptions become HTTP responses, as in the real service."""
    reading = Reading(predictor or random_weights.predictor(calibration=random_weights.CALIBRATION), queue)
    with (
        contextlib.closing(reading),
        TestClient(app.make(reading, token), raise_server_exceptions=False) as found,
    ):
        yield found


def environment(folder):
    """The environment of a command that imports this checkout and keeps its temporary files in the folder."""
    return os.environ | {"PYTHONPATH": os.getcwd(), "TMPDIR": str(folder)}


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def process(weights, folder, *arguments):
    """Runs `boneage serve` as a subprocess in an empty folder; see `started`."""
    command = [sys.executable, "-m", "boneage_jax", "serve", "--port=0", f"--weights={weights}", *arguments]
    return started(command, folder, environment(folder))


@contextlib.contextmanager
def started(command, folder, environment):
    """Runs a service for the `with` block; yields its address and its log file."""
    log = folder / "serve.log"
    with log.open("w") as stream:
        running = subprocess.Popen(command, cwd=folder, env=environment, stderr=stream)
    try:
        yield _address(running, log), log
    finally:
        running.terminate()
        running.wait(30)


def _address(running, log):
    end = time.monotonic() + 120
    while time.monotonic() < end and running.poll() is None:
        if found := re.search(r"serving (http://\S+/) ", log.read_text()):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"the service did not start: {log.read_text()}")
