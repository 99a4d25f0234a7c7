"""The node and the programs around it as processes, all on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.dicom_results import programs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/orthanc"
PATIENCE = 900.0  # seconds for one step; on a busy machine without the CPU kernels, starting and reading take minutes


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition):
    """Waits until a condition holds, and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.1)
    return found


def answers(port):
    """Whether a process listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """A program that runs until it is stopped; its output goes to a file."""

    def __init__(self, folder, *command, **environment):
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, cwd=folder, env=os.environ | environment
            )

    @property
    def log(self):
        return self._log.read_text()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def end(self):
        """Sends SIGTERM and returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.kill()


class Node(Process):
    """`boneage listen`, with its queue and caches in a folder."""

    def __init__(self, folder, port, weights, *flags):
        super().__init__(
            folder,
            *(sys.executable, "-m", "boneage_jax", "listen", f"--port={port}", f"--weights={weights}"),
            *(f"--queue={folder / 'queue.sqlite'}", *flags),
            PYTHONPATH=str(ROOT),
            XDG_CACHE_HOME=str(folder / "cache"),
            JAX_ENABLE_COMPILATION_CACHE="true",
            XLA_FLAGS="",
        )
        self.port = port

    def wait(self):
        """Waits until the node is listening."""
        wait_for(lambda: answers(self.port) or self._process.poll() is not None)
        assert self._process.poll() is None, self.log
        return self


class Store(Process):
    """dcmtk's storescp, which writes what it receives into a folder."""

    def __init__(self, folder, port):
        self._received = folder / "received"
        self._received.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, programs.find("storescp"), "-aet", "ARCHIVE", "-od", self._received, port)
        wait_for(lambda: answers(port))

    def files(self):
        return sorted(self._received.iterdir())

    def wait(self, count):
        """Waits until this many files have arrived, however long that takes while more of them keep arriving."""
        while (found := len(self.files())) < count:
            wait_for(lambda found=found: len(self.files()) > found)


class Orthanc(Process):
    """Orthanc with the configuration of docs/orthanc, on free ports."""

    def __init__(self, folder, node_port):
        folder.mkdir()
        settings = json.loads((DOCS / "orthanc.json").read_text())
        self.dicom_port, self.http_port = free_port(), free_port()
        settings |= {"DicomPort": self.dicom_port, "HttpPort": self.http_port}
        settings["DicomModalities"]["boneage"][2] = node_port
        (folder / "orthanc.json").write_text(json.dumps(settings))
        (folder / "route.lua").write_text((DOCS / "route.lua").read_text())
        super().__init__(folder, "Orthanc", "orthanc.json")
        wait_for(lambda: answers(self.dicom_port) and answers(self.http_port))

    def get(self, path):
        """The JSON of its REST interface."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return json.load(answer)

    def file(self, instance):
        """The DICOM file of an instance."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.http_port}/instances/{instance}/file", timeout=30
        ) as answer:
            return answer.read()

    def tags(self):
        """The tags of all its instances."""
        return [self.get(f"/instances/{one}/simplified-tags") | {"id": one} for one in self.get("/instances")]
