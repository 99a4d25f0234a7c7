"""Reliable step times: measured after a warm-up, and each until the result of the step is ready."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of each timed step; their sum is the time that the loop took."""

    seconds: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of timed steps, all of which ran to their end."""
        return len(self.seconds)

    @property
    def p50(self) -> float:
        """Median seconds of a step."""
        return float(np.percentile(self.seconds, 50))

    @property
    def p95(self) -> float:
        """Seconds that 95 % of the steps stay under, interpolated between steps."""
        return float(np.percentile(self.seconds, 95))

    def images_per_second(self, images_per_step: int) -> float:
        """Mean rate over the whole loop: slow steps count too."""
        return images_per_step * self.steps / sum(self.seconds)


def measure(step: Callable[[], Any], *, warmup: int, steps: int, ahead: int = 0) -> Timing:
    """Times `steps` calls of `step`, each until its result is ready, after `warmup` untimed calls.

    Args:
        step: runs one step and returns arrays that are ready only when the step is done, and that no later
            step donates (the metrics of a training step, not its state).
        warmup: untimed calls before the first timed one: compilation, caches, allocation.
        steps: timed calls, at least one.
        ahead: how many steps may be in flight when the next one is issued. 0 measures latency;
            1 measures throughput as in a training loop, where the device never waits for Python.
    """
    if steps < 1 or warmup < 0 or ahead < 0:
        raise ValueError(f"expected steps >= 1, warmup >= 0, ahead >= 0, got {steps}, {warmup}, {ahead}")
    for _ in range(warmup):
        jax.block_until_ready(step())
    seconds: list[float] = []
    under_way: deque[Any] = deque()
    last = time.perf_counter()
    for issued in range(1, steps + 1):
        under_way.append(step())
        while under_way and (len(under_way) > ahead or issued == steps):
            jax.block_until_ready(under_way.popleft())
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
    return Timing(tuple(seconds))
