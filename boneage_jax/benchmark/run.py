"""The whole benchmark of one model, from functions passed in: independent of training loop and configuration."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from boneage_jax import environment
from boneage_jax.benchmark import cost, floor, pipeline, report, throughput
from boneage_jax.benchmark.pipeline import Batch
from boneage_jax.benchmark.profile import record


def run(
    *,
    model: str,
    dtype: str,
    train_step: Any,
    state: Any,
    infer: Any,
    variables: Mapping[str, Any],
    make_batch: Callable[[int], Batch],
    train_batch: Batch,
    split: Callable[[Batch], Any],
    steps: int,
    warmup: int = 2,
    batches: Iterator[Batch] | None = None,
    profile: Path | None = None,
) -> report.Result:
    """Measures training, inference, memory and data of one model.

    Training speed is that of the step alone, on one batch that is already on the devices; `data_wait_share`
    gives the additional cost of the data. Inference starts from host arrays. `variables` are not used once
    training starts, so they may share memory with a state that the step donates.

    Args:
        model: its name, for the table.
        dtype: of the computation, for the table.
        train_step: `(state, split batch) -> (state, metrics)`, made by `jax.pmap` or `jax.jit`; it may donate
            the state.
        state: the initial training state; invalid afterwards if the step donates it.
        infer: `(variables, batch) -> months`, made by `jax.jit`.
        variables: of the network, with the key "params".
        make_batch: creates an inference batch of a given number of images, as host arrays.
        train_batch: a training batch, as host arrays; inference is measured with as many images.
        split: distributes a batch over the devices for `train_step`.
        steps: timed steps of each loop.
        warmup: untimed steps before each loop.
        batches: the training stream, of which `2 * (warmup + steps)` batches are taken; None leaves the
            pipeline unmeasured.
        profile: folder for a trace of the training step, which is then summarised; the step's floor is measured too.
    """
    batch_size = len(train_batch["age"])
    batch = make_batch(batch_size)
    parameters = cost.count_parameters(variables["params"])
    # Inference first: the device's peak counter never decreases, so training would hide the peak of inference.
    inference = _inference(infer, variables, batch, make_batch(1), warmup=warmup, steps=steps)
    training = _training(
        train_step, state, train_batch, split, batches, warmup=warmup, steps=steps, dtype=dtype, profile=profile
    )
    return report.Result(
        model=model,
        image_size=batch["image"].shape[1],
        channels=batch["image"].shape[3],
        batch_size=batch_size,
        dtype=dtype,
        parameters=parameters,
        **inference,
        **training,
        warmup=warmup,
        steps=steps,
        hardware=environment.hardware(),
        versions=environment.versions(),
    )


def _inference(
    infer: Any, variables: Mapping[str, Any], batch: Batch, one: Batch, *, warmup: int, steps: int
) -> dict[str, Any]:
    """The result fields that depend on the network alone, from a full batch and from `one` image."""
    full, single = (cost.compile_program(infer, variables, images) for images in (batch, one))
    rate = throughput.measure(lambda: full.call(variables, batch), warmup=warmup, steps=steps, ahead=1)
    latency = throughput.measure(lambda: single.call(variables, one), warmup=warmup, steps=steps)
    return {
        "gflops_per_image": cost.count_flops(infer, variables, one) / 1e9,
        "inference_images_per_second": rate.images_per_second(len(batch["image"])),
        "latency_p50_seconds": latency.p50,
        "latency_p95_seconds": latency.p95,
        "inference_compile_seconds": full.compile_seconds,
        "inference_memory_bytes": full.memory_bytes,
        "inference_device_peak_bytes": cost.device_peak_bytes(),
    }


def _training(
    train_step: Any,
    state: Any,
    batch: Batch,
    split: Callable[[Batch], Any],
    batches: Iterator[Batch] | None,
    *,
    warmup: int,
    steps: int,
    dtype: str,
    profile: Path | None,
) -> dict[str, Any]:
    """The result fields that depend on training and its data."""
    on_devices = jax.block_until_ready(split(batch))
    program = cost.compile_program(train_step, state, on_devices)

    def advance(split_batch: Any) -> Any:
        # The state is passed on because the step may donate it; the metrics are ready when the step is done.
        nonlocal state
        state, metrics = program.call(state, split_batch)
        return metrics

    timing = throughput.measure(lambda: advance(on_devices), warmup=warmup, steps=steps, ahead=1)
    rate = share = None
    if batches is not None:
        rate = pipeline.images_per_second(batches, warmup=warmup, count=steps)
        share = pipeline.data_wait_share(batches, lambda fresh: advance(split(fresh)), warmup=warmup, steps=steps)
    needs: dict[str, Any] = {}
    if profile is not None:
        counted = (train_step, state, on_devices)
        flops, traffic = (
            count(*counted) / jax.local_device_count() for count in (cost.count_flops, cost.count_kernel_bytes)
        )
        traffic += cost.bytes_accessed(program)
        needs["train_floor"] = floor.measure(dtype, flops=flops, traffic=traffic)
        text = program.call.as_text()
        needs["train_profile"] = record(lambda: advance(on_devices), profile, steps=min(steps, 5), program_text=text)
    return {
        **needs,
        "train_images_per_second": timing.images_per_second(len(batch["age"])),
        "train_step_p50_seconds": timing.p50,
        "train_step_p95_seconds": timing.p95,
        "train_compile_seconds": program.compile_seconds,
        "train_memory_bytes": program.memory_bytes,
        "train_device_peak_bytes": cost.device_peak_bytes(),
        "pipeline_images_per_second": rate,
        "data_wait_share": share,
    }
