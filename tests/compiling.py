"""Compiler options for tests."""

import os

# XLA options for CPUs; `benchmarks/gpu.py` runs some tests on other platforms.
QUICK = (
    {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    if os.environ["JAX_PLATFORMS"] == "cpu"
    else {}
)
"""`compiler_options` that halve the time to compile, which is most of what tests of whole networks take."""
