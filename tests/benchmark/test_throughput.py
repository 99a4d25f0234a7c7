"""Timed loops: exactly the reported steps run, each is blocked on, and the warm-up is not timed."""

import time

import jax
import numpy as np
import pytest

from boneage_jax.benchmark.throughput import Timing, measure


class Handle:
    """A result that takes `seconds` to become ready, like one on a device."""

    def __init__(self, seconds=0.0):
        self.seconds, self.waited = seconds, False

    def block_until_ready(self):
        time.sleep(self.seconds)
        self.waited = True
        return self


@pytest.mark.parametrize("ahead", [0, 1, 3, 10])
@pytest.mark.parametrize("warmup", [0, 2])
def test_the_loop_runs_exactly_the_steps_it_reports(warmup, ahead):
    handles = []

    def step():
        handles.append(Handle())
        return handles[-1]

    timing = measure(step, warmup=warmup, steps=5, ahead=ahead)
    assert timing.steps == len(timing.seconds) == 5
    assert len(handles) == warmup + 5
    assert all(handle.waited for handle in handles)


def test_step_times_include_waiting_for_results():
    timing = measure(lambda: {"months": Handle(0.02)}, warmup=1, steps=4)
    assert min(timing.seconds) >= 0.02
    assert timing.images_per_second(8) <= 8 / 0.02


def test_the_warmup_is_not_timed():
    pauses = iter([0.5, 0.0, 0.0, 0.0])
    assert sum(measure(lambda: Handle(next(pauses)), warmup=1, steps=3).seconds) < 0.5


@pytest.mark.parametrize(("ahead", "most"), [(0, 1), (1, 2), (2, 3)])
def test_steps_in_flight_reach_but_never_exceed_the_limit(ahead, most):
    handles, under_way = [], []

    def step():
        handles.append(Handle())
        under_way.append(sum(not handle.waited for handle in handles))
        return handles[-1]

    measure(step, warmup=1, steps=6, ahead=ahead)
    assert max(under_way) == most


def test_the_sum_of_step_times_lies_within_the_loop_time():
    start = time.perf_counter()
    timing = measure(lambda: Handle(0.005), warmup=0, steps=6, ahead=1)
    elapsed = time.perf_counter() - start
    assert 0.03 <= sum(timing.seconds) <= elapsed


def test_a_jitted_step_with_a_donated_state_can_be_timed():
    step = jax.jit(lambda state: (state + 1, state.sum()), donate_argnums=0)
    state = jax.numpy.zeros(8)

    def advance():
        nonlocal state
        state, metric = step(state)
        return metric

    measure(advance, warmup=2, steps=3, ahead=1)
    np.testing.assert_array_equal(state, np.full(8, 5.0))


def test_percentiles_and_rate_follow_from_the_step_times():
    timing = Timing((1.0, 2.0, 3.0, 4.0, 10.0))
    assert timing.p50 == 3
    assert timing.p95 == pytest.approx(8.8)
    assert timing.images_per_second(8) == 8 * 5 / 20


@pytest.mark.parametrize("bad", [{"steps": 0}, {"warmup": -1}, {"ahead": -1}])
def test_invalid_counts_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        measure(Handle, **{"warmup": 0, "steps": 1, "ahead": 0, **bad})
