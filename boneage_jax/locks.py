"""Locks that processes hold on folders; the system releases them however a process ends."""

import contextlib
import datetime
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def hold(path: Path, when_held: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock file `path` during the block; the file stays afterwards and names its last holder.

    Args:
        path: in a folder that exists.
        when_held: called with the name of the process that holds it ("process 71 on node4, since 2026-11-25 09:30").
            If it returns, this process waits for the other one.

    Raises:
        OSError: the system refuses access to the file.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        when_held(path.read_text(encoding="utf-8", errors="replace").strip() or "another process")
        lock.acquire()
    try:
        since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n", encoding="utf-8")
        yield
    finally:
        lock.release()
