"""Captures messages that native libraries write directly to stderr; some report damaged files only in this way."""

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
    """Collects the lines on stderr that match the pattern; the list is complete after the block.

    The other lines are written to stderr after the block. As a process has only one stderr, one thread at a time
    runs such a block, and the output of other threads is delayed until it ends.
    """
    found: list[str] = []
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            before = os.dup(_STDERR)
        except (OSError, ValueError):  # there is no stderr
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
