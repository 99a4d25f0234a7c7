"""Settings of libraries that hold for the whole process: changed while batches need them, then restored."""

import contextlib
import threading
from collections.abc import Callable, Iterator

import cv2
from absl import flags


class SharedSetting(contextlib.AbstractContextManager[None]):
    """A context that several users hold at once: entered with the first, left with the last, whoever that is."""

    def __init__(self, context: Callable[[], contextlib.AbstractContextManager[None]]):
        self._context = context
        self._lock = threading.Lock()
        self._users = 0
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._entered.enter_context(self._context())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._entered.close()


@contextlib.contextmanager
def _opencv_in_one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextlib.contextmanager
def _parsed_flags() -> Iterator[None]:
    if flags.FLAGS.is_parsed():
        yield
        return
    flags.FLAGS.mark_as_parsed()
    try:
        yield
    finally:
        flags.FLAGS.unparse_flags()


OPENCV_IN_ONE_THREAD = SharedSetting(_opencv_in_one_thread)
"""OpenCV computes in the calling thread: its own threads would compete with those of XLA for the same cores."""

PARSED_FLAGS = SharedSetting(_parsed_flags)
"""absl's flags count as parsed, at their defaults: grain reads them when it starts its worker processes.

Nobody parses them in a notebook or a plain script.
"""
