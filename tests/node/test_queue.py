"""The queue keeps accepted images until they are done, even if the process ends."""

import contextlib
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.node.queue import LONGEST_PAUSE, MOST_ATTEMPTS, Queue, State


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "queue.sqlite"


@pytest.fixture
def queue(path):
    opened = Queue(path, "weights-a")
    yield opened
    opened.close()


def reopened(queue, path, weights="weights-a"):
    queue.close()
    return Queue(path, weights)


def test_an_image_goes_from_waiting_to_sent(queue):
    number = queue.accept("1.2.3", b"image")
    assert queue.counts() == {State.WAITING: 1}
    entry = queue.next_waiting()
    assert (entry.id, entry.source) == (number, b"image")
    queue.answer(number, {"report": b"sr", "capture": b"sc"})
    assert queue.next_waiting() is None
    assert queue.next_answered().files == {"report": b"sr", "capture": b"sc"}
    queue.sent(number, "capture")
    assert queue.next_answered().files == {"report": b"sr"}
    queue.sent(number, "report")
    assert queue.next_answered() is None
    assert queue.counts() == {State.SENT: 1}


def test_an_image_is_accepted_only_once_for_the_same_weights(queue, path):
    first = queue.accept("1.2.3", b"image")
    assert queue.accept("1.2.3", b"image") is None
    queue.answer(first, {"report": b"sr"})
    assert queue.accept("1.2.3", b"image") is None
    queue.sent(first, "report")
    again = reopened(queue, path)
    assert again.accept("1.2.3", b"image") is None
    other = reopened(again, path, "weights-b")
    assert other.accept("1.2.3", b"image") is not None
    other.close()


def test_a_refused_image_is_accepted_again(queue):
    number = queue.accept("1.2.3", b"no sex")
    queue.refuse(number, "the sex is not given")
    assert queue.counts() == {State.REFUSED: 1}
    assert queue.next_waiting() is None
    assert queue.accept("1.2.3", b"with sex") == number
    assert queue.next_waiting().source == b"with sex"


def test_the_queue_survives_a_restart_and_retries_failed_images(queue, path):
    waiting, answered, failed = (queue.accept(f"1.2.{i}", b"image %d" % i) for i in range(3))
    queue.answer(answered, {"report": b"sr"})
    queue.fail(failed, "ValueError")
    assert queue.next_waiting().id == waiting
    again = reopened(queue, path)
    assert again.counts() == {State.WAITING: 2, State.ANSWERED: 1}
    assert again.next_answered().files == {"report": b"sr"}
    assert {again.next_waiting().id, again.next_waiting().id} == {waiting, failed}
    again.close()


def test_an_image_already_attempted_comes_after_the_others(queue):
    first, second = queue.accept("1.2.1", b"ends the process"), queue.accept("1.2.2", b"harmless")
    assert queue.next_waiting().id == first
    assert queue.next_waiting().id == second


def test_waiting_images_are_reassigned_to_the_weights_of_a_restart(queue, path):
    queue.accept("1.2.1", b"one")
    queue.accept("1.2.2", b"two")
    other = reopened(queue, path, "weights-b")
    assert other.accept("1.2.1", b"one") is None
    assert other.counts() == {State.WAITING: 2}
    other.close()


def test_a_waiting_image_is_dropped_if_the_new_weights_have_answered_it(queue, path):
    queue.accept("1.2.1", b"one")
    number = queue.accept("1.2.2", b"two")
    queue.answer(number, {"report": b"sr"})
    other = reopened(queue, path, "weights-b")
    other.accept("1.2.2", b"two")
    back = reopened(other, path, "weights-a")
    assert back.counts() == {State.WAITING: 1, State.ANSWERED: 1}
    back.close()


def test_retry_pauses_double_up_to_the_longest_pause(queue, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    number = queue.accept("1.2.3", b"image")
    queue.answer(number, {"report": b"sr"})
    pauses = []
    for _ in range(10):
        pauses.append(queue.postpone(number, "status 0xA700"))
        assert queue.next_answered() is None
        now[0] += pauses[-1]
        assert queue.next_answered().id == number
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_postponed_result_is_due_at_once_if_the_clock_is_set_back(queue, monkeypatch):
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    number = queue.accept("1.2.3", b"image")
    queue.answer(number, {"report": b"sr"})
    queue.postpone(number, "status 0xA700")
    now[0] -= 86400
    assert queue.next_answered().id == number
    queue.postpone(number, "status 0xA700")
    assert queue.next_answered() is None


def test_a_queue_file_in_use_is_rejected(queue, path):
    with pytest.raises(BoneAgeError, match="another node uses it; choose another with --queue"):
        Queue(path, "weights-a")


def test_the_queue_file_is_accessible_only_to_its_owner(queue, path):
    queue.accept("1.2.3", b"image")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_no_bytes_of_a_delivered_image_remain_in_the_file(queue, path):
    number = queue.accept("1.2.3", b"Doe^Jane" * 10000)
    assert b"Doe^Jane" in path.read_bytes()
    queue.answer(number, {"report": b"Doe^Jane"})
    queue.sent(number, "report")
    queue.close()
    assert b"Doe^Jane" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_a_queue_of_a_later_version_is_rejected(queue, path):
    queue.close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 9")
    file.close()
    with pytest.raises(BoneAgeError, match="has version 9, but this program reads version 2; finish it with"):
        Queue(path, "weights-a")


def test_a_file_that_is_not_a_queue_is_rejected(tmp_path):
    (tmp_path / "q").write_bytes(b"something else" * 100)
    with pytest.raises(BoneAgeError, match=r"the queue .*q cannot be opened: file is not a database"):
        Queue(tmp_path / "q", "weights-a")


def test_a_result_postponed_thousands_of_times_waits_the_longest_pause(queue, path):
    number = queue.accept("1.2.3", b"image")
    queue.answer(number, {"report": b"sr"})
    queue.close()
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE image SET attempts = 5000")
    again = Queue(path, "weights-a")
    assert again.postpone(number, "rejected") == LONGEST_PAUSE
    again.close()


def test_an_accepted_image_replaces_one_that_the_new_weights_had_refused(queue, path):
    queue.refuse(queue.accept("1.2.1", b"no sex"), "the sex is not given")
    other = reopened(queue, path, "weights-b")
    assert other.accept("1.2.1", b"with sex") is not None
    back = reopened(other, path, "weights-a")
    assert back.counts() == {State.WAITING: 1}
    assert back.next_waiting().source == b"with sex"
    back.close()


def contents(path):
    """The bytes of every file in the queue's folder."""
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def test_no_bytes_of_a_delivered_image_remain_while_the_queue_is_open(queue, path):
    number = queue.accept("1.2.3", b"Doe^Jane" * 10000)
    assert b"Doe^Jane" in contents(path)
    queue.answer(number, {"report": b"Doe^Jane"})
    queue.sent(number, "report")
    assert b"Doe^Jane" not in contents(path)


def test_no_bytes_remain_of_small_files_that_shared_pages(queue, path):
    rng = random.Random(33)  # without the padding, step 25 leaves bytes
    numbers: dict[bytes, int] = {}
    for step in range(40):
        mark = b"<%04d>" % step
        if rng.random() < len(numbers) / 60:
            number = numbers.pop(rng.choice(sorted(numbers)))
            queue.sent(number, "capture")
            queue.sent(number, "report")
        else:
            numbers[mark] = queue.accept(f"1.2.{step}", mark * rng.choice((1, 5, 20, 60, 100)))
            files = {role: mark * rng.choice((1, 5, 20, 60, 100)) for role in ("capture", "report")}
            queue.answer(numbers[mark], files)
        assert set(re.findall(rb"<\d{4}>", contents(path))) == set(numbers)


KILLED = """
import os, signal, sys
from pathlib import Path
from boneage_jax.node.queue import Queue

queue = Queue(Path(sys.argv[1]), "weights-a")
number = queue.accept("1.2.3", b"Doe^Jane" * 10000)
queue._erase_journal = lambda: os.kill(os.getpid(), signal.SIGKILL)
queue.refuse(number, "the sex is not given")
"""


def test_the_next_start_erases_what_a_killed_process_left_in_the_journal(path):
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert b"Doe^Jane" in contents(path)
    again = Queue(path, "weights-a")
    assert again.counts() == {State.REFUSED: 1}
    assert b"Doe^Jane" not in contents(path)
    again.close()


def test_an_image_is_set_aside_after_several_attempts_until_another_copy_arrives(queue, path):
    number = queue.accept("1.2.3", b"crashes the process")
    for _ in range(MOST_ATTEMPTS):
        assert queue.next_waiting().id == number
        queue = reopened(queue, path)
    assert queue.next_waiting() is None
    queue = reopened(queue, path, "weights-b")
    assert queue.counts() == {State.FAILED: 1}
    assert queue.accept("1.2.3", b"harmless") == number
    assert queue.next_waiting().source == b"harmless"
    queue.close()


def test_no_bytes_of_a_delivered_image_remain_if_the_queue_file_is_a_symbolic_link(path, tmp_path):
    path.parent.mkdir()
    link = tmp_path / "queue.sqlite"
    link.symlink_to(path)
    queue = Queue(link, "weights-a")
    number = queue.accept("1.2.3", b"Doe^Jane" * 10000)
    assert number is not None
    queue.refuse(number, "the sex is not given")
    assert b"Doe^Jane" not in contents(path)
    queue.close()


def test_an_idle_queue_writes_nothing(queue, path):
    queue.refuse(queue.accept("1.2.3", b"image"), "the sex is not given")
    before = {file: file.stat().st_mtime_ns for file in path.parent.iterdir()}
    time.sleep(0.02)  # the time stamps of a file system may be several milliseconds apart
    assert queue.next_waiting() is None
    assert queue.next_answered() is None
    assert {file: file.stat().st_mtime_ns for file in path.parent.iterdir()} == before


def test_an_empty_journal_is_not_written(queue, path):
    journal = path.with_name(f"{path.name}-journal")
    queue.accept("1.2.3", b"image")
    before = journal.stat().st_mtime_ns
    time.sleep(0.02)
    assert queue.accept("1.2.3", b"image") is None
    assert journal.stat().st_mtime_ns == before


def test_pages_are_as_large_as_the_padding_whatever_the_default(path, monkeypatch):
    connect = sqlite3.connect

    def with_larger_pages(*args, **options):
        file = connect(*args, **options)
        file.execute("PRAGMA page_size = 16384")
        return file

    monkeypatch.setattr(sqlite3, "connect", with_larger_pages)
    Queue(path, "weights-a").close()
    monkeypatch.undo()
    with contextlib.closing(connect(path)) as file:
        assert file.execute("PRAGMA page_size").fetchone() == (4096,)


def fill(queue):
    """Lets the queue's file grow no further, as on a full disk."""
    (pages,) = queue._file.execute("PRAGMA page_count").fetchone()
    queue._file.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk_is_reported_and_leaves_the_queue_as_it_was(queue):
    number = queue.accept("1.2.3", b"image")
    fill(queue)
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        queue.accept("1.2.4", bytes(100_000))
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        queue.answer(number, {"report": bytes(100_000)})
    queue._file.execute("PRAGMA max_page_count = 1000")
    assert queue.accept("1.2.4", bytes(100_000)) is not None
    assert queue.next_waiting().source == b"image"


def test_a_failed_commit_leaves_no_transaction_open(queue):
    queue._file.execute("PRAGMA foreign_keys = ON")

    def add_result_without_image():
        with queue._transaction():
            queue._file.execute("PRAGMA defer_foreign_keys = ON")
            queue._file.execute("INSERT INTO file (image, role, content) VALUES (7, 'report', 'sr')")

    with pytest.raises(sqlite3.IntegrityError):
        add_result_without_image()
    assert queue.accept("1.2.3", b"image") is not None


def test_a_full_disk_at_the_start_is_a_clear_error(queue, path, monkeypatch):
    queue.close()
    connect = sqlite3.connect

    def without_space(*args, **options):
        file = connect(*args, **options)
        file.execute("PRAGMA max_page_count = 1")
        return file

    path.unlink()
    monkeypatch.setattr(sqlite3, "connect", without_space)
    with pytest.raises(BoneAgeError, match=r"queue\.sqlite cannot be opened: database or disk is full; choose another"):
        Queue(path, "weights-a")


def test_a_damaged_queue_is_a_clear_error(queue, path):
    for number in range(100):
        queue.accept(f"1.2.{number}", b"image")
    queue.close()
    with path.open("r+b") as file:
        file.seek(4096)  # the first page after the schema
        file.write(b"\xff" * 4096)
    with pytest.raises(BoneAgeError, match=r"the queue .*queue\.sqlite cannot be opened: .*malformed; choose another"):
        Queue(path, "weights-a")


@pytest.mark.parametrize("version", [0, 2])
def test_the_database_of_another_program_is_left_alone(version, tmp_path):
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("CREATE TABLE other (id INTEGER)")
        file.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(BoneAgeError, match="is the database of another program"):
        Queue(path, "weights-a")
    assert path.read_bytes() == before


def test_an_attempt_is_not_counted_for_a_journal_that_cannot_be_erased(queue, monkeypatch):
    def fail():
        raise sqlite3.OperationalError("its journal cannot be overwritten: No space left on device")

    number = queue.accept("1.2.3", b"image")
    monkeypatch.setattr(queue, "_erase_journal", fail)
    assert queue.next_waiting().id == number
    with pytest.raises(sqlite3.OperationalError, match="journal"):
        queue.take_back_attempt(number)
    assert queue._file.execute("SELECT attempts FROM image").fetchone() == (0,)


def test_an_attempt_is_taken_back_only_while_the_image_waits(queue):
    number = queue.accept("1.2.3", b"image")
    queue.take_back_attempt(number)
    queue.next_waiting()
    queue.take_back_attempt(number)
    assert queue._file.execute("SELECT attempts FROM image").fetchone() == (0,)
    queue.next_waiting()
    queue.fail(number, "ValueError")
    queue.take_back_attempt(number)
    assert queue._file.execute("SELECT attempts FROM image").fetchone() == (1,)
