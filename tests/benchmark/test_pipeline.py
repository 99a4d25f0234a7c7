"""The pipeline's rate and the waiting of a training loop, on iterators whose speed is known."""

import itertools
import time

import numpy as np
import pytest

from boneage_jax.benchmark import pipeline
from boneage_jax.errors import BoneAgeError


def batches(pause, images=4):
    for step in itertools.count():
        time.sleep(pause)
        yield {"image": np.zeros((images, 2, 2, 1), np.uint8), "index": step}


def test_the_rate_is_that_of_the_iterator():
    rate = pipeline.images_per_second(batches(0.02), warmup=1, count=5)
    assert 4 / 0.02 * 0.6 < rate <= 4 / 0.02


def test_the_warmup_and_the_count_are_all_that_is_taken():
    stream = batches(0)
    pipeline.images_per_second(stream, warmup=3, count=5)
    assert next(stream)["index"] == 8


def test_a_slow_start_does_not_count():
    def slow_start():
        time.sleep(0.3)
        yield from batches(0)

    assert pipeline.images_per_second(slow_start(), warmup=1, count=5) > 5 * 4 / 0.1


@pytest.mark.parametrize(("wait", "work", "share"), [(0.03, 0.01, 0.75), (0.01, 0.03, 0.25)])
def test_the_share_of_waiting_is_measured(wait, work, share):
    def step(batch):
        time.sleep(work)
        return batch["image"]

    assert pipeline.data_wait_share(batches(wait), step, warmup=1, steps=6) == pytest.approx(share, abs=0.1)


def test_every_batch_is_used_once_in_order_and_waited_for():
    seen, waited = [], []

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
