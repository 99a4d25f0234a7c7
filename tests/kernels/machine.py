"""Machines that must have the kernels: there, missing kernels fail tests instead of skipping them."""

import shutil

import pytest

from boneage_jax.kernels import library

CAPABLE = library.VARIANTS["cpu_avx2"] <= library.processor_flags() and any(map(shutil.which, ("c++", "g++")))

needs_kernels = pytest.mark.skipif(not CAPABLE, reason="no C++ compiler when installed, or no AVX2")
