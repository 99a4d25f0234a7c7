"""Pipeline throughput and the share of time that a training loop waits for data, on iterators of known speed."""

import itertools
import time

import numpy as np
import pytest

from boneage_jax.benchmark import pipeline
from boneage_jax.errors import BoneAgeError


class Clock:
    """A fake clock that advances only on `sleep`: exact, however busy the machine is."""

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


def test_throughput_equals_the_rate_of_the_iterator(clock):
    assert pipeline.images_per_second(batches(0.5, clock=clock), warmup=1, count=5) == pytest.approx(4 / 0.5)


def test_throughput_is_measured_in_real_time():
    assert 0 < pipeline.images_per_second(batches(0.02), warmup=0, count=2) <= 4 / 0.02


def test_exactly_warmup_plus_count_batches_are_consumed():
    stream = batches(0)
    pipeline.images_per_second(stream, warmup=3, count=5)
    assert next(stream)["index"] == 8


def test_startup_time_is_excluded_by_the_warmup(clock):
    def slow_start():
        clock.sleep(30)
        yield from batches(0.5, clock=clock)

    assert pipeline.images_per_second(slow_start(), warmup=1, count=5) == pytest.approx(4 / 0.5)


@pytest.mark.parametrize(("wait", "work", "share"), [(3, 1, 0.75), (1, 3, 0.25), (0, 1, 0)])
def test_share_of_time_waiting_for_data_is_measured(clock, wait, work, share):
    class Handle:
        """Work that finishes only in `block_until_ready`, as on a device."""

        def block_until_ready(self):
            clock.sleep(work)
            return self

    stream = batches(wait, clock=clock)
    assert pipeline.data_wait_share(stream, lambda _: Handle(), warmup=1, steps=6) == pytest.approx(share)


def test_a_slow_first_step_is_excluded_by_the_warmup(clock):
    work = iter([90, 1, 1, 1])

    def step(batch):
        clock.sleep(next(work))
        return batch["age"]

    share = pipeline.data_wait_share(batches(1, clock=clock), step, warmup=1, steps=3)
    assert share == pytest.approx(0.5)


def test_every_batch_is_used_once_in_order_and_blocked_on():
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


def test_an_iterator_that_ends_too_early_is_an_error():
    with pytest.raises(BoneAgeError, match="ended after 3 batches, the benchmark needs 5"):
        pipeline.images_per_second(itertools.islice(batches(0), 3), warmup=1, count=4)
