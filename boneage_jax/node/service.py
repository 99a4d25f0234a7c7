"""The complete node: receiver, reader and sender around one queue."""

import dataclasses
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from boneage_jax.errors import where
from boneage_jax.node import receiver
from boneage_jax.node.destinations import Destination
from boneage_jax.node.queue import MOST_ATTEMPTS, Queue, State
from boneage_jax.node.reader import Reader
from boneage_jax.node.sender import Sender
from boneage_jax.predict.predictor import Predictor

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a node.

    Attributes:
        title: AE title of the node.
        host: address to bind to.
        port: port to listen on; 0 for any free port.
        callers: AE titles that may connect; empty for all.
        queue: file of the queue.
    """

    title: str
    host: str
    port: int
    callers: tuple[str, ...]
    queue: Path


def run(settings: Settings, predictor: Predictor, destination: Destination, stop: threading.Event) -> None:
    """Runs the node until `stop` is set, then finishes the current image and result.

    Raises:
        BoneAgeError: the weights do not fit a node, the queue cannot be opened, or the address cannot be bound.
    """
    reader, sender = Reader(predictor), Sender(destination)
    queue = Queue(settings.queue, predictor.weights.sha256 or predictor.header.name)
    if failed := queue.counts()[State.FAILED]:
        _log.warning("%d images stay set aside after %d attempts to read them", failed, MOST_ATTEMPTS)
    server = receiver.start(settings.title, settings.host, settings.port, settings.callers, queue)
    threads = [
        threading.Thread(target=_keep_running, args=(work, queue, stop), name=name)
        for name, work in (("reader", reader.run), ("sender", sender.run))
    ]
    for thread in threads:
        thread.start()
    _log.info("listening as %s on %s:%d; results go to %s", settings.title, *server.server_address[:2], destination)
    stop.wait()
    server.ae.shutdown()
    queue.wake()
    for thread in threads:
        thread.join()
    queue.close()


def _keep_running(work: Callable[[Queue, threading.Event], None], queue: Queue, stop: threading.Event) -> None:
    """Restarts the work after an error, such as a queue that cannot be written because the disk is full."""
    while not stop.is_set():
        try:
            work(queue, stop)
        except sqlite3.Error as error:
            _log.error("the queue cannot be used: %s; next attempt in 10 s", error)
            stop.wait(10)
        except Exception as error:
            _log.error("internal error: %s; next attempt in 10 s", where(error))
            stop.wait(10)
