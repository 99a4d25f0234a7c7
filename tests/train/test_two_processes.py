import json
import socket

import jax
import numpy as np
import processes
import pytest
from runs import newest, records

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_two_processes_train_to_the_same_parameters_as_one(cache, tmp_path):
    once = "--config.train.epochs=1"
    processes.finish(processes.start(tmp_path / "one", cache, once))
    together = [
        processes.start(
            tmp_path / "two",
            cache,
            once,
            f"--config.distributed.coordinator=localhost:{port}",
            "--config.distributed.processes=2",
            f"--config.distributed.process={index}",
        )
        for port in [free_port()]
        for index in range(2)
    ]
    for process in together:
        processes.finish(process)

    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert one.step == two.step == 3
    assert json.loads((tmp_path / "two/run.json").read_text())["devices"] == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        [two.state.params, two.state.batch_stats],
        [one.state.params, one.state.batch_stats],
    )
    assert [line["step"] for line in records(tmp_path / "two", "train")] == [2, 3]  # one process writes
