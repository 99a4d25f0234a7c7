"""Suppresses Python warnings in blocks that several threads may run at once."""

import contextlib
import threading
import warnings
from collections.abc import Iterator


class _Suppression:
    """Counts the blocks in progress; the first replaces the warning filters, and the last one restores them.

    With `warnings.catch_warnings` alone, the filters that ignore everything would stay if blocks of two threads
    overlapped: the second thread would restore what the first one had set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._saved: warnings.catch_warnings[None] = warnings.catch_warnings()

    def begin(self) -> None:
        with self._lock:
            if self._blocks == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._blocks += 1

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._saved.__exit__(None, None, None)


_SUPPRESSION = _Suppression()


@contextlib.contextmanager
def suppressed() -> Iterator[None]:
    """Ignores all warnings within the block, and those of other threads meanwhile."""
    _SUPPRESSION.begin()
    try:
        yield
    finally:
        _SUPPRESSION.end()
