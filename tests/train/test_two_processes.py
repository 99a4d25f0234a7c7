import json

import jax
import numpy as np
import pytest

from tests.train import processes
from tests.train.runs import newest, records

pytestmark = pytest.mark.slow


def test_two_processes_train_to_the_same_parameters_as_one(cache, tmp_path):
    once = "--config.train.epochs=1"
    processes.finish(processes.start(tmp_path / "one", cache, once))
    coordinator = f"localhost:{processes.free_port()}"
    together = [
        processes.start(
            tmp_path / "two",
            cache,
            once,
            f"--config.distributed.coordinator={coordinator}",
            "--config.distributed.processes=2",
            f"--config.distributed.process={index}",
        )
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
    assert [line["step"] for line in records(tmp_path / "two", "train")] == [2, 3]  # only one process writes


def test_rematerialisation_saves_memory_in_each_of_two_processes():
    coordinator = f"localhost:{processes.free_port()}"
    together = [processes.python("-m", "tests.train.step_memory", coordinator, "2", str(i)) for i in range(2)]
    image_and_convolutions = 24 * 3 * (4 * 16 * 16 * 32 * 4)  # of each block, for four images, float32
    for output in map(processes.finish, together):
        kept, rematerialised = map(int, output.split()[-2:])
        assert kept < 1.5 * image_and_convolutions
        assert rematerialised < kept / 2
