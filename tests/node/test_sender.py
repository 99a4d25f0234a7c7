"""Results are sent until the destination has them; rejected results wait without blocking the others."""

import contextlib
import itertools
import threading
import time
from collections import Counter

import pytest

from boneage_jax.dicom_results import objects
from boneage_jax.node.destinations import RejectedError, Service, UnconfirmedError, UnreachableError
from boneage_jax.node.queue import Queue, State
from boneage_jax.node.sender import Sender
from tests.dicom_results import radiographs


class Destination:
    """Accepts a result unless `refuse` returns an error for it; the connections with the numbers in `down` fail."""

    def __init__(self, down=(), refuse=lambda content: None):
        self.down, self.refuse, self.has, self.attempts = down, refuse, [], 0

    @contextlib.contextmanager
    def connect(self):
        self.attempts += 1
        if self.attempts in self.down:
            raise UnreachableError("it does not answer")
        yield self._send

    def _send(self, content):
        if error := self.refuse(content):
            raise error
        self.has.append(content)


def unconfirmed(times):
    """For `refuse`: the connection is lost on the first `times[content]` attempts to send a result."""
    left = Counter(times)

    def refuse(content):
        left[content] -= 1
        return UnconfirmedError("it ended the association") if left[content] >= 0 else None

    return refuse


class Pauses(threading.Event):
    """A stop event that records the requested pauses without waiting."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def wait(self, timeout=None):
        self.asked.append(timeout)
        return self.is_set()


@pytest.fixture
def queue(tmp_path):
    opened = Queue(tmp_path / "queue.sqlite", "weights")
    yield opened
    opened.close()


def answered(queue, count):
    numbers = [queue.accept(f"1.2.{i}", b"") for i in range(count)]
    for number in numbers:
        queue.answer(number, {"capture": b"sc %d" % number, "report": b"sr %d" % number})
    return numbers


def run(queue, destination, until):
    """Runs a sender until the condition holds; returns the pauses it requested."""
    stop = Pauses()
    thread = threading.Thread(target=Sender(destination).run, args=(queue, stop))
    thread.start()
    deadline = time.monotonic() + 10
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join()
    assert until()
    return stop.asked


def test_both_results_of_each_image_are_sent_in_order(queue):
    numbers = answered(queue, 3)
    destination = Destination()
    run(queue, destination, lambda: queue.counts() == {State.SENT: 3})
    assert destination.has == [b"%s %d" % (kind, number) for number in numbers for kind in (b"sc", b"sr")]


def test_an_unreachable_destination_is_retried_after_growing_pauses(queue, caplog):
    answered(queue, 2)
    destination = Destination(down=range(1, 13))
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 2})
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert len(destination.has) == 4
    assert "is unavailable (it does not answer); next attempt in 1 s" in caplog.text


def test_the_pause_is_reset_after_success(queue):
    answered(queue, 2)
    destination = Destination(down=(1, 2, 3, 5, 6))
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 2})
    assert pauses == [1, 2, 4, 1, 2]
    assert len(destination.has) == 4


def test_a_rejected_result_does_not_hold_up_the_others(queue, caplog):
    first, second = answered(queue, 2)
    refuse = {b"sr %d" % first: RejectedError("it answers with status 0xA900")}.get
    destination = Destination(refuse=refuse)
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 1, State.ANSWERED: 1})
    assert destination.has == [b"sc %d" % first, b"sc %d" % second, b"sr %d" % second]
    assert pauses == []
    assert "rejects a result (it answers with status 0xA900); next attempt in 2 s" in caplog.text


def test_only_missing_results_are_sent_again(queue, monkeypatch):
    clock = itertools.count(0.0, 10.0)  # a postponed result is due at once
    monkeypatch.setattr(time, "time", lambda: next(clock))
    (number,) = answered(queue, 1)
    destination = Destination(refuse=unconfirmed({b"sr %d" % number: 1}))
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 1})
    assert (pauses, destination.attempts) == ([], 2)
    assert destination.has == [b"sc %d" % number, b"sr %d" % number]


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (UnconfirmedError("it answers with status 500"), "has not stored a result (it answers with status 500)"),
        (TypeError("Doe^Jane"), "has not stored a result (TypeError at "),
    ],
)
def test_a_result_that_can_never_be_sent_does_not_hold_up_the_others(error, logged, queue, caplog):
    first, second = answered(queue, 2)
    destination = Destination(refuse={b"sc %d" % first: error}.get)
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 1, State.ANSWERED: 1})
    assert destination.has == [b"sc %d" % second, b"sr %d" % second]
    assert pauses == []
    assert f"image {first}: " in caplog.text
    assert logged in caplog.text
    assert "Doe" not in caplog.text


def test_a_service_that_refuses_connections_is_retried_after_growing_pauses(queue, caplog):
    files = objects.make(radiographs.file("CR"), "hand.dcm", radiographs.result(), radiographs.overlay)
    for i in range(9):
        queue.answer(queue.accept(f"1.2.{i}", b""), {"report": files.report})
    destination = Service("http://127.0.0.1:9/dicom-web")
    pauses = run(queue, destination, lambda: caplog.text.count("is unavailable (it does not answer)") >= 6)
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert "has not stored" not in caplog.text


def test_a_result_that_breaks_every_connection_does_not_hold_up_the_others(queue):
    first, second = answered(queue, 2)
    destination = Destination(refuse={b"sc %d" % first: UnreachableError("it does not answer")}.get)
    pauses = run(queue, destination, lambda: queue.counts() == {State.SENT: 1, State.ANSWERED: 1})
    assert destination.has == [b"sc %d" % second, b"sr %d" % second]
    assert pauses == [1]
