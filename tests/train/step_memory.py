"""Prints the temporary memory of a deep network's training step, in bytes, as XLA plans it for one of two processes.

    python -m tests.train.step_memory COORDINATOR PROCESSES PROCESS

Two numbers: without and with `remat`. The processes share a batch of eight images.
"""

import sys

import jax

from boneage_jax.train import parallel
from tests.train.test_step import DEEP, batch, parts


def temporary_bytes(*, remat: bool) -> int:
    fresh, function = parts(**DEEP, remat=remat)
    share = {name: values[: 8 // jax.process_count()] for name, values in batch(0).items()}
    lowered = parallel.compile_step(function).lower(parallel.replicate(fresh), parallel.split(share))
    return int(lowered.compile().memory_analysis().temp_size_in_bytes)


if __name__ == "__main__":
    coordinator, processes, process = sys.argv[1:]
    parallel.connect(coordinator, int(processes), int(process))
    print(temporary_bytes(remat=False), temporary_bytes(remat=True))
