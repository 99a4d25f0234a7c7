"""The loop neither recompiles nor waits for the device unnecessarily."""

import jax
import jax.numpy as jnp
import pytest

from boneage_jax.train import loop, parallel
from boneage_jax.train.experiment import Experiment
from boneage_jax.train.log import MetricsLog
from tests.train.tiny_run import STEPS_PER_EPOCH


def test_nothing_is_compiled_after_the_first_step_and_evaluation(config, tmp_path, monkeypatch):
    config.train.log_every = 1
    history: list[tuple[str, int] | str] = []
    write = MetricsLog.write

    def note(log, step, kind, values):
        history.append((kind, step))
        write(log, step, kind, values)

    def listen(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            history.append("compiled")

    monkeypatch.setattr(MetricsLog, "write", note)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        loop.train_and_evaluate(config, tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

    def between(first, last):
        return history[history.index(first) + 1 : history.index(last)]

    steps = range(1, 2 * STEPS_PER_EPOCH + 1)
    assert "compiled" in history[: history.index(("train", 1))]
    assert between(("train", 1), ("train", STEPS_PER_EPOCH)) == [("train", step) for step in steps[1:2]]
    assert "compiled" in between(("train", STEPS_PER_EPOCH), ("validation", STEPS_PER_EPOCH))
    second_epoch = between(("validation", STEPS_PER_EPOCH), ("validation", 2 * STEPS_PER_EPOCH))
    assert second_epoch == [("train", step) for step in steps[STEPS_PER_EPOCH:]]


class EndOfEpochError(Exception):
    """Ends the run where it would evaluate."""


def test_nothing_is_fetched_from_the_device_between_log_lines(config, tmp_path, monkeypatch):
    config.train.log_every = 3
    config.data.options.count.train = 7 * config.train.batch_size
    done, fetched = [], []

    def train_step(state, batch):
        done.append(batch)
        return None, {"loss": jnp.float32(len(done)), "gradient_norm": jnp.float32(1)}  # no state to look at

    def to_host(tree):
        if "gradient_norm" in tree:
            fetched.append((len(done), int(tree["loss"])))
        return original(tree)

    def evaluate(*_):
        raise EndOfEpochError

    original = parallel.to_host
    monkeypatch.setattr(parallel, "to_host", to_host)
    monkeypatch.setattr(Experiment, "compile_train_step", lambda *_: train_step)
    monkeypatch.setattr(loop, "_evaluate", evaluate)
    with pytest.raises(EndOfEpochError):
        loop.train_and_evaluate(config, tmp_path)

    assert {now: {step for at, step in fetched if at == now} for now, _ in fetched} == {
        3: {1, 2, 3},
        6: {4, 5, 6},
        7: {7},
    }
