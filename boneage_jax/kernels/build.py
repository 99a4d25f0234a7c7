"""Compiles the C++ kernels with the system's compiler on first use, and keeps the result in the user's cache.

The name of the library has its SHA-256: a damaged one is compiled again instead of being loaded, and one that others
could have written is refused.

They are for x86 processors with AVX2, better with AVX-512 and bfloat16 products (AMD since Zen 4, Intel since Cooper
Lake). Where there is no such processor or no compiler, everything runs as XLA compiles it, and one line of the log
says so.
BONEAGE_JAX_KERNELS=off switches them off.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
from absl import logging

from boneage_jax import cache
from boneage_jax.errors import BoneAgeError

SOURCES = Path(__file__).with_name("cpu")
TARGETS = (
    "BoneageChannelSums",
    "BoneageConvolution",
    "BoneageDepthwise",
    "BoneageDepthwiseKernelGradient",
    "BoneageKernelGradient",
    "BoneageMaxPool",
    "BoneageMaxPoolGradient",
    "BoneageMaxPoolWinner",
    "BoneageProduct",
    "BoneageProductKernelGradient",
)
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
SWITCH = "BONEAGE_JAX_KERNELS"


@functools.cache
def available() -> bool:
    """Whether the kernels can be called; the first call compiles (half a minute) or finds and registers them."""
    if os.environ.get(SWITCH, "on") == "off" or jax.default_backend() != "cpu":
        return False
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError, BoneAgeError) as error:
        logging.warning("The CPU kernels are not used, networks run slower: %s", _reason(error))
        return False
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return True


def _compiled() -> Path:
    """The shared library for this source, compiler and processor."""
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise BoneAgeError(f"there is no C++ compiler ({', '.join(COMPILERS)})")
    # Names the compiler's version and every instruction set of the processor.
    macros = subprocess.run(
        [compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull], check=True, capture_output=True, timeout=60
    ).stdout
    sources = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    key = hashlib.sha256(b"\0".join([*sources, macros, jax.__version__.encode(), *map(str.encode, FLAGS)]))
    folder = cache.folder() / "kernels"
    name = key.hexdigest()[:32]
    cache.make_private(folder)
    cache.check_own(folder)
    for library in folder.glob(f"{name}-*.so"):
        if library.name == _named(name, library):
            return library
        logging.warning("%s is damaged; the CPU kernels are compiled again.", library)
        library.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch, "made.so")
        command = [compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCES / "calls.cc"), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=1200)
        return made.replace(folder / _named(name, made))


def _named(name: str, library: Path) -> str:
    """The file name of a library that is intact."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()}.so"


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").splitlines()
        return next((line for line in lines if "error" in line), str(error))
    return str(error)
