"""A lower bound on the time of a step on this machine, from its operations and bytes at the measured rates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from boneage_jax.benchmark import throughput

# Sides of the square matrices that are multiplied, large enough to keep every unit of a device busy.
_SIDE = {"cpu": 2048, "other": 8192}
_NUMBERS = 2**26  # float32 values that are read and written once: 512 MiB of traffic, beyond any cache


@dataclasses.dataclass(frozen=True)
class Floor:
    """The operations and bytes of one step on one device, and the device's highest measured rates."""

    flops: float  # of convolutions and matrix products
    bytes: float  # read and written, by XLA's analysis and the buffer sizes of this package's kernels
    flops_per_second: float  # of a large matrix product in the step's precision
    bytes_per_second: float  # of a large array read and written once

    @property
    def arithmetic_seconds(self) -> float:
        """The step's operations at the rate of the matrix product."""
        return self.flops / self.flops_per_second

    @property
    def memory_seconds(self) -> float:
        """The step's bytes at the measured bandwidth."""
        return self.bytes / self.bytes_per_second

    @property
    def seconds(self) -> float:
        """The larger of the two. Only fewer operations, such as Winograd's for 3x3 kernels, can make a step faster."""
        return max(self.arithmetic_seconds, self.memory_seconds)

    def table(self, step_seconds: float) -> str:
        """Both floors, and the ratio of `step_seconds` to each of them."""
        rows = (
            ("arithmetic", self.flops / 1e9, "GFLOP", self.flops_per_second / 1e9, "GFLOP/s", self.arithmetic_seconds),
            ("memory", self.bytes / 1e9, "GB", self.bytes_per_second / 1e9, "GB/s", self.memory_seconds),
        )
        lines = [
            f"  {name:<12}{amount:10.1f} {unit:<6} at {rate:10.1f} {per_second:<8} {1000 * seconds:10.2f} ms, "
            f"the step takes {step_seconds / seconds:.1f} times that"
            for name, amount, unit, rate, per_second, seconds in rows
        ]
        return "\n".join(["Floor of a training step, per device", "", *lines])


def measure(dtype: str, *, flops: float, traffic: float) -> Floor:
    """The floor of a step with `flops` operations and `traffic` bytes, at the rates of the first device."""
    return Floor(flops, traffic, flops_per_second(dtype), bytes_per_second())


@functools.cache
def flops_per_second(dtype: str) -> float:
    """Rate of the product of two large square matrices of this type, a multiply-add counted as 2."""
    side = _SIDE.get(jax.devices()[0].platform, _SIDE["other"])
    matrix = jnp.full((side, side), 0.5, dtype)
    product = jax.jit(lambda a: a @ a)
    return 2 * side**3 / min(throughput.measure(lambda: product(matrix), warmup=2, steps=5, ahead=1).seconds)


@functools.cache
def bytes_per_second() -> float:
    """Rate at which a large array is read and written."""
    numbers = jnp.zeros(_NUMBERS, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * numbers.nbytes / min(throughput.measure(lambda: add(numbers), warmup=2, steps=5, ahead=1).seconds)
