"""Whether the data pipeline keeps up: its images per second, and the share of time that training waits for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from boneage_jax.errors import BoneAgeError

Batch = Mapping[str, Any]


def images_per_second(batches: Iterator[Batch], *, warmup: int, count: int) -> float:
    """Images per second of the pipeline alone, over `count` batches taken as fast as they come.

    `warmup` batches are taken first, untimed, because workers start up with the first one. Batches that they
    prefetch meanwhile inflate the rate, so `count` should be large compared with the prefetch depth.

    Raises:
        BoneAgeError: if the stream ends early.
    """
    for taken in range(warmup):
        _next(batches, taken, warmup + count)
    images = 0
    start = time.perf_counter()
    for taken in range(warmup, warmup + count):
        images += len(_next(batches, taken, warmup + count)["age"])
    return images / (time.perf_counter() - start)


def data_wait_share(batches: Iterator[Batch], step: Callable[[Batch], Any], *, warmup: int, steps: int) -> float:
    """Share (0 to 1) of a training loop's time that it spends waiting for the next batch.

    Args:
        batches: the training stream; `warmup + steps` batches are taken.
        step: one training step on one batch; returns arrays that are ready when it is done.
        warmup: untimed steps.
        steps: timed steps. Each one finishes before the next batch is requested, so that only the waits of an
            idle device are counted.

    Raises:
        BoneAgeError: if the stream ends early.
    """
    waits, totals = np.zeros(steps), np.zeros(steps)
    for taken in range(warmup + steps):
        start = time.perf_counter()
        batch = _next(batches, taken, warmup + steps)
        arrived = time.perf_counter()
        jax.block_until_ready(step(batch))
        if taken >= warmup:
            waits[taken - warmup] = arrived - start
            totals[taken - warmup] = time.perf_counter() - start
    return float(waits.sum() / totals.sum())


def _next(batches: Iterator[Batch], taken: int, wanted: int) -> Batch:
    try:
        return next(batches)
    except StopIteration:
        raise BoneAgeError(
            f"the data ended after {taken} batches, the benchmark needs {wanted}; give it fewer steps or more images"
        ) from None
