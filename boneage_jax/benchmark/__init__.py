"""Benchmarks of a model: speed, latency, memory, arithmetic, and whether the data pipeline keeps up."""

from boneage_jax.benchmark.report import Result
from boneage_jax.benchmark.run import run

__all__ = ["Result", "run"]
