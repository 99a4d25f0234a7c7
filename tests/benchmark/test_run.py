"""The whole benchmark on a toy network, mapped over the fake devices with a donated state."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.benchmark import Result, floor, run

SIZE, DEVICES = 6, 4


def make_batch(count):
    rng = np.random.default_rng(count)
    return {
        "image": rng.integers(0, 256, (count, SIZE, SIZE, 1), np.uint8),
        "sex": np.zeros(count, np.int32),
        "age": np.full(count, 100, np.float32),
        "index": np.arange(count, dtype=np.int32),
        "mask": np.ones(count, bool),
    }


def months(variables, batch):
    pixels = batch["image"].astype(jnp.float32).reshape(-1, SIZE * SIZE) / 255
    return (pixels @ variables["params"]["kernel"])[:, 0] + variables["params"]["bias"]


def train_step(state, batch):
    loss = lambda params: jnp.mean((months({"params": params}, batch) - batch["age"]) ** 2)  # noqa: E731
    value, gradient = jax.lax.pmean(jax.value_and_grad(loss)(state["params"]), "data")
    params = jax.tree.map(lambda p, g: p - 1e-3 * g, state["params"], gradient)
    return {"params": params, "step": state["step"] + 1}, {"loss": value, "step": state["step"] + 1}


def split(batch):
    return {key: jnp.asarray(value).reshape(DEVICES, -1, *value.shape[1:]) for key, value in batch.items()}


class Stream:
    """Training batches that count how many were taken."""

    taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1
        return make_batch(8)


@pytest.fixture(scope="module")
def arguments():
    params = {"kernel": jnp.zeros((SIZE * SIZE, 1)), "bias": jnp.zeros(())}
    return {
        "model": "toy",
        "dtype": "float32",
        "train_step": jax.pmap(train_step, axis_name="data", in_axes=(None, 0), out_axes=None, donate_argnums=0),
        "infer": jax.jit(months),
        "variables": {"params": params},
        "make_batch": make_batch,
        "train_batch": make_batch(8),
        "split": split,
        "steps": 4,
        "warmup": 1,
    }


def state_of(variables):
    return jax.tree.map(jnp.copy, {"params": variables["params"], "step": jnp.zeros((), jnp.int32)})


@pytest.fixture(scope="module")
def result(arguments):
    return run(**arguments, state=state_of(arguments["variables"]), batches=Stream())


def test_every_measurement_is_present_and_plausible(result):
    assert (result.model, result.image_size, result.channels, result.batch_size) == ("toy", SIZE, 1, 8)
    assert result.parameters == SIZE * SIZE + 1
    assert result.gflops_per_image == 2 * SIZE * SIZE / 1e9
    for name in (
        "train_images_per_second",
        "inference_images_per_second",
        "pipeline_images_per_second",
        "train_compile_seconds",
        "inference_compile_seconds",
        "train_memory_bytes",
        "inference_memory_bytes",
    ):
        assert getattr(result, name) > 0
    assert 0 < result.latency_p50_seconds <= result.latency_p95_seconds
    assert 0 < result.train_step_p50_seconds <= result.train_step_p95_seconds
    assert 0 < result.data_wait_share < 1
    # Inference holds at least its batch and its parameters.
    assert result.inference_memory_bytes >= 8 * SIZE * SIZE + 4 * result.parameters


def test_training_and_data_loops_run_exactly_the_reported_steps(arguments):
    calls = []

    class Counted:
        """The training step, counting calls of its compiled program."""

        def lower(self, *values):
            compiled = arguments["train_step"].lower(*values).compile()

            class Lowered:
                def compile(self):
                    return self

                def memory_analysis(self):
                    return compiled.memory_analysis()

                def __call__(self, *values):
                    state, metrics = compiled(*values)
                    calls.append(int(metrics["step"]))
                    return state, metrics

            return Lowered()

    stream = Stream()
    counted = {**arguments, "train_step": Counted()}
    result = run(**counted, state=state_of(arguments["variables"]), batches=stream)
    loop = result.warmup + result.steps
    assert stream.taken == 2 * loop
    # One loop runs on a fixed batch and one on the stream; the state is carried through both.
    assert calls == list(range(1, 2 * loop + 1))


def test_without_a_stream_the_pipeline_is_not_measured(arguments):
    result = run(**arguments, state=state_of(arguments["variables"]))
    assert result.pipeline_images_per_second is None
    assert result.data_wait_share is None
    assert "not measured" in result.table()


def test_the_json_file_round_trips_every_field(result, tmp_path):
    result.write(tmp_path / "benchmark" / "toy.json")
    assert Result(**json.loads((tmp_path / "benchmark" / "toy.json").read_text())) == result


def test_the_table_shows_the_measurements(result):
    text = dataclasses.replace(
        result, train_images_per_second=12.345, latency_p50_seconds=0.0123, latency_p95_seconds=0.02
    ).table()
    assert text.startswith("toy, 6x6x1, batch 8, float32 (4 timed steps)\n")
    for expected in ("12.35 images/s", "12.3 / 20.0 ms", "37", "not counted on this device", result.hardware):
        assert expected in text


def test_hardware_and_versions_are_recorded(result):
    assert result.hardware.startswith("4 x cpu; ")
    assert result.hardware.endswith(" cores")
    assert result.versions["jax"] == jax.__version__
    assert math.isfinite(result.gflops_per_image)


def test_a_profile_reports_the_costliest_operations_and_the_floor(arguments, monkeypatch, tmp_path):
    monkeypatch.setattr(floor, "flops_per_second", lambda dtype: 1e9)
    monkeypatch.setattr(floor, "bytes_per_second", lambda: 1e9)
    found = run(**arguments, state=state_of(arguments["variables"]), profile=tmp_path / "profile")

    # 2 FLOPs per weight and image forward, as many for the weight gradient; two images per device.
    assert found.train_floor is not None
    assert found.train_floor.flops == 2 * 2 * SIZE * SIZE * 2
    assert found.train_floor.bytes > 2 * SIZE * SIZE
    assert "costliest operations" in found.table()
    assert "Floor of a training step" in found.table()
    found.write(tmp_path / "benchmark.json")
    assert json.loads((tmp_path / "benchmark.json").read_text())["train_profile"]["operations"]
