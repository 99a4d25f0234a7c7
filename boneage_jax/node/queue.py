"""The node's queue in one SQLite file; accepted images survive even if the process is killed at any moment."""

import contextlib
import enum
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boneage_jax.errors import BoneAgeError

_VERSION = 2  # version of the tables
_TABLES = """
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    weights TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (uid, weights)
);
CREATE TABLE file (
    image INTEGER NOT NULL REFERENCES image,
    role TEXT NOT NULL,
    padding BLOB NOT NULL DEFAULT (zeroblob(4096)),
    content BLOB NOT NULL,
    PRIMARY KEY (image, role)
);
"""
# The padding keeps contents out of the pages that rows share: SQLite moves rows between these without overwriting the
# old copies. Pages that belong to one row are overwritten when they are freed.
_INSERT = "INSERT OR REPLACE INTO file (image, role, content) VALUES (?, ?, ?)"
_SOURCE = "source"  # role of a received image

MOST_ATTEMPTS = 5
"""Attempts to read an image after which it stays in the state FAILED until another copy of it arrives."""

LONGEST_PAUSE = 300.0
"""Longest pause between two attempts to send a result, in seconds."""


class State(enum.StrEnum):
    """The state of an image in the queue."""

    WAITING = "waiting"  # to be read
    ANSWERED = "answered"  # read; its results are yet to be sent
    SENT = "sent"
    REFUSED = "refused"  # it cannot be read; another copy of it is accepted again
    FAILED = "failed"  # reading it failed unexpectedly; it is kept for the next start, and another copy is accepted


class Entry(NamedTuple):
    """An image in the queue.

    Attributes:
        id: its number in this queue, used in the log.
        files: bytes by role: the image file, or those of its results that have not been sent.
    """

    id: int
    files: dict[str, bytes]

    @property
    def source(self) -> bytes:
        """The file of an image that is waiting to be read."""
        return self.files[_SOURCE]


class Queue:
    """The queue of one node; safe to use from several threads.

    An image is identified by its SOP Instance UID and the checksum of the weights. Every change is one transaction,
    which is on disk when the method returns. Contents that are no longer needed are overwritten with zeros, in the file
    and in its rollback journal (after a kill: when the queue is opened again). UIDs and states are kept, so that an
    image that arrives again is not processed again.

    Args:
        path: the file of the queue; created with access for its owner only if it is missing.
        weights: checksum of the weights that read the images.

    Raises:
        BoneAgeError: another process uses the file, it cannot be read or written, it belongs to another program, or its
            tables have another version.
    """

    def __init__(self, path: Path, weights: str):
        self._weights = weights
        self._changed = threading.Condition()
        path = Path(os.path.realpath(path))  # SQLite keeps the journal beside the file that a link points to
        self._journal = Path(f"{path}-journal")
        with _explained(path), contextlib.ExitStack() as failed:
            self._file = _connect(path)
            failed.callback(self._file.close)
            _set_up(self._file, path)
            self._resume()
            failed.pop_all()

    def close(self) -> None:
        """Closes the connection to the database file."""
        with self._changed:
            self._file.close()

    def accept(self, uid: str, content: bytes) -> int | None:
        """Stores an image until its results replace it.

        Returns:
            Its number, or None if it is already in the queue or has been processed with these weights. A copy of an
            image in the state REFUSED or FAILED replaces it.
        """
        with self._transaction():
            row = self._file.execute(
                "INSERT INTO image (uid, weights, state) VALUES (?, ?, ?) ON CONFLICT (uid, weights) DO UPDATE "
                "SET state = excluded.state, attempts = 0, due = 0, reason = '' WHERE state IN (?, ?) RETURNING id",
                (uid, self._weights, State.WAITING, State.REFUSED, State.FAILED),
            ).fetchone()
            if row is None:
                return None
            self._file.execute(_INSERT, (row[0], _SOURCE, content))
        return row[0]

    def next_waiting(self) -> Entry | None:
        """The next image to read, the one with the fewest attempts first; each call counts as an attempt.

        So an image that crashes the process while it is read does not block the others when the node restarts. After
        `MOST_ATTEMPTS`, the next start sets it aside.
        """
        with self._changed:
            row = self._file.execute(
                "SELECT id FROM image WHERE state = ? ORDER BY attempts, id LIMIT 1", (State.WAITING,)
            ).fetchone()
            if row is None:
                return None
            with self._transaction(erase=False):  # no contents change, and an error would leave the attempt counted
                self._file.execute("UPDATE image SET attempts = attempts + 1 WHERE id = ?", row)
            return self._entry(row[0])

    def answer(self, number: int, files: dict[str, bytes]) -> None:
        """Replaces the image with its results, given by role."""
        with self._transaction():
            self._file.execute("DELETE FROM file WHERE image = ?", (number,))
            self._file.executemany(_INSERT, [(number, role, content) for role, content in files.items()])
            self._file.execute("UPDATE image SET attempts = 0 WHERE id = ?", (number,))
            self._set(number, State.ANSWERED)

    def refuse(self, number: int, reason: str) -> None:
        """Drops an image that cannot be read."""
        with self._transaction():
            self._file.execute("DELETE FROM file WHERE image = ?", (number,))
            self._set(number, State.REFUSED, reason)

    def fail(self, number: int, reason: str) -> None:
        """Sets an image aside until the node restarts."""
        with self._transaction():
            self._set(number, State.FAILED, reason)

    def take_back_attempt(self, number: int) -> None:
        """Takes back the attempt that `next_waiting` counted, if the image is still waiting."""
        with self._transaction():
            self._file.execute(
                "UPDATE image SET attempts = max(attempts - 1, 0) WHERE id = ? AND state = ?", (number, State.WAITING)
            )

    def next_answered(self) -> Entry | None:
        """The next results to send, the longest due first; None if none are due."""
        with self._changed:
            now = time.time()
            row = self._file.execute(  # no pause is longer than the longest, unless the clock has been set back
                "SELECT id FROM image WHERE state = ? AND (due <= ? OR due > ?) ORDER BY due, id LIMIT 1",
                (State.ANSWERED, now, now + LONGEST_PAUSE),
            ).fetchone()
        return None if row is None else self._entry(row[0])

    def sent(self, number: int, role: str) -> None:
        """Drops a result that the destination has received; after its last result, the image is in the state SENT."""
        with self._transaction():
            self._file.execute("DELETE FROM file WHERE image = ? AND role = ?", (number, role))
            if self._file.execute("SELECT 1 FROM file WHERE image = ?", (number,)).fetchone() is None:
                self._set(number, State.SENT)

    def postpone(self, number: int, reason: str) -> float:
        """Keeps results for another attempt.

        Returns:
            The pause before the next attempt in seconds: 2, 4, 8 and so on, up to `LONGEST_PAUSE`.
        """
        with self._transaction():
            (attempts,) = self._file.execute(
                "UPDATE image SET attempts = attempts + 1 WHERE id = ? RETURNING attempts", (number,)
            ).fetchone()
            pause = min(2.0 ** min(attempts, 10), LONGEST_PAUSE)  # a larger exponent could overflow
            self._set(number, State.ANSWERED, reason, due=time.time() + pause)
        return pause

    def counts(self) -> Counter[State]:
        """How many images are in each state."""
        with self._changed:
            rows = self._file.execute("SELECT state, count(*) FROM image GROUP BY state").fetchall()
        return Counter({State(state): count for state, count in rows})

    def wait(self, seconds: float) -> None:
        """Waits until the queue changes, at most for this time."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """Ends every `wait`."""
        with self._changed:
            self._changed.notify_all()

    def _resume(self) -> None:
        """Prepares the images of earlier runs: failed ones wait again, except after too many attempts."""
        with self._transaction():
            self._file.execute("UPDATE image SET state = ? WHERE state = ?", (State.WAITING, State.FAILED))
            self._take_over()
            self._file.execute(
                "UPDATE image SET state = ?, reason = iif(reason = '', 'the program ended while reading it', reason) "
                "WHERE state = ? AND attempts >= ?",
                (State.FAILED, State.WAITING, MOST_ATTEMPTS),
            )

    def _take_over(self) -> None:
        """Reassigns images waiting for other weights to these weights; drops those that these weights already have.

        A refused image is accepted again, so it gives way to a waiting one.
        """
        self._file.execute(
            "DELETE FROM image WHERE state = ? AND weights = ? AND uid IN (SELECT uid FROM image WHERE state = ?)",
            (State.REFUSED, self._weights, State.WAITING),
        )
        self._file.execute("UPDATE OR IGNORE image SET weights = ? WHERE state = ?", (self._weights, State.WAITING))
        left = "FROM image WHERE state = ? AND weights != ?"
        self._file.execute(f"DELETE FROM file WHERE image IN (SELECT id {left})", (State.WAITING, self._weights))
        self._file.execute(f"DELETE {left}", (State.WAITING, self._weights))

    def _entry(self, number: int) -> Entry:
        with self._changed:
            rows = self._file.execute("SELECT role, content FROM file WHERE image = ? ORDER BY role", (number,))
            return Entry(number, dict(rows.fetchall()))

    def _set(self, number: int, state: State, reason: str = "", due: float = 0.0) -> None:
        self._file.execute("UPDATE image SET state = ?, reason = ?, due = ? WHERE id = ?", (state, reason, due, number))

    @contextlib.contextmanager
    def _transaction(self, *, erase: bool = True) -> Iterator[None]:
        with self._changed:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:  # SQLite itself rolls back after some errors, such as a full disk
                    self._file.execute("ROLLBACK")
                raise
            self._changed.notify_all()
            if erase:
                self._erase_journal()  # only after a commit: SQLite may still need the journal of a failed transaction

    def _erase_journal(self) -> None:
        """Overwrites the rollback journal, which has copies of the changed pages, with zeros and truncates it."""
        try:
            with self._journal.open("r+b", buffering=0) as journal:
                left = journal.seek(0, os.SEEK_END)
                if left == 0:
                    return
                journal.seek(0)
                while left > 0:
                    left -= journal.write(bytes(min(left, 2**20)))
                os.fsync(journal.fileno())
                journal.truncate(0)
        except FileNotFoundError:  # SQLite makes it before the first change
            return
        except OSError as error:
            raise sqlite3.OperationalError(f"its journal cannot be overwritten: {error.strerror}") from error


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns errors of the file system and of SQLite into a BoneAgeError."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
        reason = "another node uses it" if busy else str(error)
        raise BoneAgeError(f"the queue {path} cannot be opened: {reason}; choose another with --queue") from error


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _set_up(file: sqlite3.Connection, path: Path) -> None:
    """Sets the options of the connection, and makes the tables in a new file."""
    _check_owner(file, path)
    file.execute("PRAGMA page_size = 4096")  # of a new file; the padding fills a page
    file.execute("PRAGMA locking_mode = EXCLUSIVE")
    file.execute("PRAGMA journal_mode = PERSIST")  # so that `Queue` can overwrite the journal
    file.execute("PRAGMA temp_store = MEMORY")
    file.execute("PRAGMA synchronous = FULL")
    file.execute("PRAGMA secure_delete = ON")
    file.execute("BEGIN EXCLUSIVE")
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _TABLES.split(";"):
            file.execute(statement)
        file.execute(f"PRAGMA user_version = {_VERSION}")
    file.execute("COMMIT")


def _check_owner(file: sqlite3.Connection, path: Path) -> None:
    """Raises BoneAgeError, without a change, unless the file is new or a queue of this version."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    names = {name for (name,) in file.execute("SELECT name FROM sqlite_master")}
    if names and (version == 0 or "image" not in names):
        raise BoneAgeError(f"the queue {path} is the database of another program; choose another with --queue")
    if version not in (0, _VERSION):
        raise BoneAgeError(
            f"the queue {path} has version {version}, but this program reads version {_VERSION}; finish it with the "
            "program that created it, or choose another with --queue"
        )
