"""Builds the CPU kernels, shared libraries for Linux on x86-64; everything else is in pyproject.toml.

If they cannot be built (another processor, no C++ compiler), the package installs without them and uses XLA's own code
instead.
"""

import importlib.util
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

KERNELS = Path("boneage_jax/kernels")
SOURCES = KERNELS / "cpu"
COMMON_FLAGS = ["-O3", "-g0", "-std=c++17", "-Wall", "-Wextra"]
# The instruction sets of each library; `boneage_jax.kernels.library.VARIANTS` chooses one for the processor.
AVX2 = ["-mavx", "-mavx2", "-mbmi", "-mbmi2", "-mf16c", "-mfma", "-mlzcnt", "-mpopcnt"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16"]
VARIANTS = {"avx2": AVX2, "avx512": AVX512}
# GCC 12 takes the undefined operands in its own AVX-512 intrinsics for variables that are not initialised.
OTHER_FLAGS = {"avx512": ["-mprefer-vector-width=512", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]}


def extensions() -> list[Extension]:
    """Returns one library for each instruction set; none for other systems."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return []
    jaxlib = importlib.util.find_spec("jaxlib")  # contains the headers of XLA's foreign function interface
    if jaxlib is None or jaxlib.origin is None:
        raise ModuleNotFoundError("jaxlib is needed to build the CPU kernels: pip install jaxlib")
    include = str(Path(jaxlib.origin).parent / "include")
    return [
        Extension(
            f"boneage_jax.kernels.cpu_{name}",
            sources=[str(SOURCES / f"{name}.cc")],
            depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
            language="c++",
            extra_compile_args=[*COMMON_FLAGS, "-isystem", include, *flags, *OTHER_FLAGS.get(name, [])],
            extra_link_args=["-s"],
            optional=True,
        )
        for name, flags in VARIANTS.items()
    ]


class BuildLibraries(build_ext):
    """Builds plain shared libraries, which are loaded by their path and not imported."""

    def initialize_options(self) -> None:
        """Compiles both libraries at once."""
        super().initialize_options()
        self.parallel = len(VARIANTS)

    def get_ext_filename(self, fullname: str) -> str:
        """Returns a path without the Python version."""
        return f"{fullname.replace('.', '/')}.so"


class AnyPythonWheel(bdist_wheel):
    """A wheel for one platform and any version of Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Returns the tag: the libraries do not use Python's own interface."""
        _, _, system = super().get_tag()
        return "py3", "none", system


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildLibraries, "bdist_wheel": AnyPythonWheel})
