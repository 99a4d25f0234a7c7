"""Sends the results in the queue to their destination and retries until it has them."""

import logging
import threading

from boneage_jax.node.destinations import Destination, RejectedError, UnreachableError
from boneage_jax.node.queue import LONGEST_PAUSE, Entry, Queue

_log = logging.getLogger(__name__)


class Sender:
    """Sends results to one destination.

    If the destination cannot be reached, the next attempts follow after 1, 2, 4 and so on seconds, up to
    `LONGEST_PAUSE`. A result that it rejects is retried after the pauses of `Queue.postpone`, while others are sent.
    """

    def __init__(self, destination: Destination):
        self._destination = destination
        self._pause = 1.0

    def run(self, queue: Queue, stop: threading.Event) -> None:
        """Sends waiting and new results until `stop` is set."""
        while not stop.is_set():
            entry = queue.next_answered()
            if entry is None:
                queue.wait(1.0)
            elif not self._send(queue, entry):
                stop.wait(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _send(self, queue: Queue, entry: Entry) -> bool:
        """Sends the results of one image; returns whether the destination could be reached."""
        try:
            with self._destination.connect() as send:
                for role, content in entry.files.items():
                    send(content)
                    queue.sent(entry.id, role)
        except UnreachableError as error:
            _log.warning("%s cannot be reached (%s); next attempt in %.0f s", self._destination, error, self._pause)
            return False
        except RejectedError as error:
            pause = queue.postpone(entry.id, str(error))
            _log.warning(
                "image %d: %s rejects a result (%s); next attempt in %.0f s", entry.id, self._destination, error, pause
            )
        else:
            _log.info("image %d: results sent", entry.id)
        self._pause = 1.0
        return True
