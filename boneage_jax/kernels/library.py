"""Loads the C++ kernels that were built when the package was installed (`setup.py`).

They need an x86-64 processor with AVX2. They are faster with AVX-512 and bfloat16 products (AMD since Zen 4, Intel
since Cooper Lake) and, for bfloat16, fastest with tile registers (Intel's AMX, since Sapphire Rapids). Without such a
processor, or if the kernels were not built, XLA compiles everything and one log line gives the reason.
BONEAGE_JAX_KERNELS=off switches the kernels off, and avx2 takes those for AVX2 on any processor.
"""

import ctypes
import functools
import os
from pathlib import Path

import jax
from absl import logging

from boneage_jax.errors import BoneAgeError

FOLDER = Path(__file__).parent
CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that each library needs, as Linux names them; the first library that fits is loaded.
_AVX2 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "popcnt"})
VARIANTS = {
    "cpu_avx512": _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"},
    "cpu_avx2": _AVX2,
}
TARGETS = (
    "BoneageChannelSums",
    "BoneageConvolution",
    "BoneageDepthwise",
    "BoneageDepthwiseKernelGradient",
    "BoneageDepthwiseRelu6",
    "BoneageDepthwiseRelu6Gradients",
    "BoneageKernelGradient",
    "BoneageMaxPool",
    "BoneageMaxPoolGradient",
    "BoneageMaxPoolWinner",
    "BoneageProduct",
    "BoneageProductKernelGradient",
    "BoneageProductRelu6",
    "BoneageProductRelu6Gradients",
)
SWITCH = "BONEAGE_JAX_KERNELS"


def available() -> bool:
    """Whether the kernels can be called."""
    return loaded() is not None


def has_tiles() -> bool:
    """Whether the kernels multiply bfloat16 matrices in tile registers (AMX): processor and system must support it."""
    library = loaded()
    return library is not None and bool(library.BoneageTilesUsable())


@functools.cache
def loaded() -> ctypes.CDLL | None:
    """The library for this processor with its kernels registered, or None; the first call loads it."""
    if _switch() == "off" or jax.default_backend() != "cpu":
        return None
    try:
        library = ctypes.CDLL(str(find()))
    except (OSError, BoneAgeError) as error:
        logging.warning("The CPU kernels are not used, so networks run slower: %s", error)
        return None
    try:
        functions = {target: getattr(library, target) for target in TARGETS}
        library.BoneageTilesUsable.restype = ctypes.c_bool
        for target, function in functions.items():
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(function), platform="cpu")
    except (AttributeError, RuntimeError) as error:
        logging.warning(
            "The CPU kernels are not used, so networks run slower: they were built for another version of boneage_jax "
            "or jaxlib (%s); install the package again (in a checkout: pip install -e .)",
            str(error).partition("\n")[0],
        )
        return None
    return library


def find() -> Path:
    """Returns the path of the library for this processor.

    Raises:
        BoneAgeError: the processor has none of the instruction sets, or the library was not built.
    """
    flags = processor_flags()
    variants = {"cpu_avx2": _AVX2} if _switch() == "avx2" else VARIANTS
    fitting = [FOLDER / f"{name}.so" for name, needed in variants.items() if needed <= flags]
    if not fitting:
        raise BoneAgeError("they are for x86-64 processors with AVX2, under Linux")
    for path in fitting:
        if path.exists():
            return path
    raise BoneAgeError(
        "they were not built when boneage_jax was installed; install a C++ compiler and then the package again "
        "(in a checkout: pip install -e .)"
    )


def _switch() -> str:
    """The value of `SWITCH`.

    Raises:
        BoneAgeError: an unknown value.
    """
    value = os.environ.get(SWITCH, "on")
    if value not in ("on", "off", "avx2"):
        raise BoneAgeError(f"{SWITCH} is {value!r}, expected on, off or avx2")
    return value


def processor_flags() -> frozenset[str]:
    """Returns the instruction sets of this processor as Linux names them; empty on other systems."""
    if not CPU_INFO.exists():
        return frozenset()
    lines = CPU_INFO.read_text().splitlines()
    return frozenset(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())
