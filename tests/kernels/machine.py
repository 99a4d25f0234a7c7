"""Which machines must be able to build the kernels: there a failed build is a failed test, not a skipped one."""

import shutil
from pathlib import Path

import pytest

from boneage_jax.kernels import build

_CPU = Path("/proc/cpuinfo")
_FLAGS = set(_CPU.read_text().split()) if _CPU.exists() else set()
CAPABLE = {"avx2", "fma"} <= _FLAGS and any(shutil.which(name) for name in build.COMPILERS)

needs_kernels = pytest.mark.skipif(not CAPABLE, reason="no compiler, or no AVX2 with FMA")
