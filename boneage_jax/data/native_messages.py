"""What native libraries write to the process's stderr, past Python: for some, their only word about damaged files."""

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_STDERR = 2
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def collected(pattern: re.Pattern[str]) -> Iterator[list[str]]:
    """Collects the lines on stderr in which the pattern is found; the list is complete after the block.

    The others are written to stderr then. The whole process has one stderr, so that threads wait for each other here,
    and the lines of threads that do something else come late.
    """
    found: list[str] = []
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            before = os.dup(_STDERR)
        except (OSError, ValueError):  # there is none
            before = -1
        if before < 0:
            yield found
            return
        stack.callback(os.close, before)
        file = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(file.fileno(), _STDERR)
        try:
            yield found
        finally:
            os.dup2(before, _STDERR)
            file.seek(0)
            for line in file:
                text = line.decode(errors="replace")
                if pattern.search(text):
                    found.append(text.strip())
                else:
                    with contextlib.suppress(OSError):
                        os.write(_STDERR, line)
