"""Sends the results in the queue to their destination and retries until it has them."""

import logging
import threading
from collections.abc import Callable

from boneage_jax.errors import where
from boneage_jax.node.destinations import Destination, RejectedError, UnconfirmedError, UnreachableError
from boneage_jax.node.queue import LONGEST_PAUSE, Entry, Queue

_log = logging.getLogger(__name__)


class Sender:
    """Sends results to one destination.

    While the destination cannot be reached, one result is tried after 1, 2, 4 and so on seconds, up to `LONGEST_PAUSE`.
    A result whose transfer fails for any reason is retried after the pauses of `Queue.postpone`; others go first.
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
                self._send_files(queue, entry, send)
        except UnreachableError as error:
            _log.warning("%s is unavailable (%s); next attempt in %.0f s", self._destination, error, self._pause)
            return False
        self._pause = 1.0
        return True

    def _send_files(self, queue: Queue, entry: Entry, send: Callable[[bytes], None]) -> None:
        """Sends the results of one image up to the first failure, which postpones the rest.

        Raises:
            UnreachableError: the destination cannot be reached.
        """
        for role, content in entry.files.items():
            try:
                send(content)
            except UnreachableError as error:
                queue.postpone(entry.id, str(error))  # this result alone may break the connection: others go first
                raise
            except Exception as error:  # of any type, because an error must not hold up the other results
                self._postpone(queue, entry, error)
                return
            queue.sent(entry.id, role)
        _log.info("image %d: results sent", entry.id)

    def _postpone(self, queue: Queue, entry: Entry, error: Exception) -> None:
        expected = isinstance(error, (UnconfirmedError, RejectedError))
        reason = str(error) if expected else where(error)  # other messages may quote a header
        pause = queue.postpone(entry.id, reason)
        done = "rejects" if isinstance(error, RejectedError) else "has not stored"
        _log.warning(
            "image %d: %s %s a result (%s); next attempt in %.0f s", entry.id, self._destination, done, reason, pause
        )
