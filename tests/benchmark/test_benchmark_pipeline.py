"""The pipeline's rate and the waiting of a training loop, on iterators whose speed is known."""

import itertools
import time

import numpy as np
import pytest

from boneage_jax.benchmark import pipeline
from boneage_jax.errors import BoneAgeError


class Clock:
    """Time that passes only when a test sleeps: exact, and deaf to how busy the machine is."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pipeline, "time", clock)
    return clock


def batches(pause, images=4, clock=time):
    for step in itertools.count():
        clock.sleep(pause)
        yield {"age": np.zeros(images, np.float32), "index": step}


def test_the_rate_is_that_of_the_iterator(clock):
    assert pipeline.images_per_second(batches(0.5, clock=clock), warmup=1, count=5) == pytest.approx(4 / 0.5)


def test_the_clock_is_real_time():
    assert 0 < pipeline.images_per_second(batches(0.02), warmup=0, count=2) <= 4 / 0.02


def test_the_warmup_and_the_count_are_all_that_is_taken():
    stream = batches(0)
    pipeline.images_per_second(stream, warmup=3, count=5)
    assert next(stream)["index"] == 8


def test_a_slow_start_does_not_count(clock):
    def slow_start():
        clock.sleep(30)
        yield from batches(0.5, clock=clock)

    assert pipeline.images_per_second(slow_start(), warmup=1, count=5) == pytest.approx(4 / 0.5)


@pytest.mark.parametrize(("wait", "work", "share"), [(3, 1, 0.75), (1, 3, 0.25), (0, 1, 0)])
def test_the_share_of_waiting_is_measured(clock, wait, work, share):
    class Handle:
        """The work is done only when it is waited for, as on a device."""

        def block_until_ready(self):
            clock.sleep(work)
            return self

    stream = batches(wait, clock=clock)
    assert pipeline.data_wait_share(stream, lambda _: Handle(), warmup=1, steps=6) == pytest.approx(share)


def test_a_slow_first_step_does_not_count(clock):
    work = iter([90, 1, 1, 1])

    def step(batch):
        clock.sleep(next(work))
        return batch["age"]

    share = pipeline.data_wait_share(batches(1, clock=clock), step, warmup=1, steps=3)
    assert share == pytest.approx(0.5)


def test_every_batch_is_used_once_in_order_and_waited_for():
    seen: list[int] = []
    waited: list[int] = []

    class Handle:
        def block_until_ready(self):
            waited.append(len(seen))
            return self

    def step(batch):
        seen.append(batch["index"])
        return Handle()

    pipeline.data_wait_share(batches(0), step, warmup=2, steps=3)
    assert seen == [0, 1, 2, 3, 4]
    assert waited == [1, 2, 3, 4, 5]


def test_data_that_end_too_early_are_an_error():
    with pytest.raises(BoneAgeError, match="ended after 3 batches, the benchmark needs 5"):
        pipeline.images_per_second(itertools.islice(batches(0), 3), warmup=1, count=4)
