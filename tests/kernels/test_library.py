"""The right library is loaded; without one, everything still runs, and the log gives the reason."""

import ctypes
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.kernels import channel_sums, conv_general_dilated, library
from tests.kernels.machine import needs_kernels

AVX2 = library.VARIANTS["cpu_avx2"]
AVX512 = library.VARIANTS["cpu_avx512"]


@needs_kernels
def test_kernels_are_available_with_a_compiler_and_avx2():
    assert library.available()


@pytest.fixture
def fresh(monkeypatch):
    """Clears the cached choice of library before and after the test."""
    monkeypatch.setenv(library.SWITCH, "on")
    library.loaded.cache_clear()
    yield
    library.loaded.cache_clear()


@pytest.fixture
def built(fresh, monkeypatch, tmp_path):
    """A folder with both libraries; the fixture is called with the flags of a fake processor."""
    for name in library.VARIANTS:
        (tmp_path / f"{name}.so").touch()
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.setattr(library, "CPU_INFO", tmp_path / "cpuinfo")
    return lambda flags: (tmp_path / "cpuinfo").write_text(
        f"processor\t: 0\nmodel name\t: any\nflags\t\t: fpu sse2 {' '.join(sorted(flags))}\nbugs\t\t: none\n"
    )


@pytest.mark.parametrize(
    ("flags", "name"),
    [(AVX2, "cpu_avx2"), (AVX512, "cpu_avx512"), (AVX512 - {"avx512_bf16"}, "cpu_avx2")],
    ids=["AVX2", "AVX-512 with bfloat16", "AVX-512 without bfloat16"],
)
def test_the_processor_decides_which_library_is_loaded(built, tmp_path, flags, name):
    built(flags)
    assert library.find() == tmp_path / f"{name}.so"


def test_without_the_avx512_library_the_avx2_one_is_loaded(built, tmp_path):
    built(AVX512)
    (tmp_path / "cpu_avx512.so").unlink()
    assert library.find() == tmp_path / "cpu_avx2.so"


@pytest.mark.parametrize("flags", [AVX2 - {"fma"}, set()])
def test_kernels_are_unavailable_on_other_processors(built, flags, caplog):
    built(flags)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not library.available()
    assert "they are for x86-64 processors with AVX2" in caplog.text


def test_without_kernels_xla_computes_and_the_reason_is_logged(built, tmp_path, caplog):
    built(AVX2)
    for path in tmp_path.glob("*.so"):
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not library.available()
    assert "not built when boneage_jax was installed; install a C++ compiler" in caplog.text
    x, kernel = jnp.ones((1, 4, 4, 16)), jnp.ones((3, 3, 16, 16))
    convolved = conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert convolved[0, 1, 1, 0] == 144
    np.testing.assert_array_equal(channel_sums(x, x, jnp.ones(16))[0], np.full(16, 16))


def test_a_damaged_library_is_not_used(built, tmp_path, caplog):
    built(AVX2)
    (tmp_path / "cpu_avx2.so").write_bytes(b"\x7fELF, but cut off")
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert not library.available()
    assert "networks run slower" in caplog.text


@needs_kernels
def test_a_library_of_another_version_is_not_used(fresh, monkeypatch, caplog):
    monkeypatch.setattr(library, "TARGETS", (*library.TARGETS, "BoneageLater"))
    with caplog.at_level(logging.WARNING):
        assert not library.available()
    assert "built for another version" in caplog.text


@needs_kernels
def test_a_library_for_another_version_of_jaxlib_is_not_used(fresh, monkeypatch, caplog):
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: handler's API version (0.4) is incompatible\nmore")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    with caplog.at_level(logging.WARNING):
        assert not library.available()
    assert "or jaxlib (INVALID_ARGUMENT: handler's API version (0.4) is incompatible); install" in caplog.text


def test_the_kernels_for_avx2_can_be_chosen(built, monkeypatch, tmp_path):
    built(library.VARIANTS["cpu_avx512"])
    monkeypatch.setenv(library.SWITCH, "avx2")
    assert library.find() == tmp_path / "cpu_avx2.so"


def test_an_unknown_choice_of_kernels_is_refused(fresh, monkeypatch):
    monkeypatch.setenv(library.SWITCH, "OFF")
    with pytest.raises(BoneAgeError, match="BONEAGE_JAX_KERNELS is 'OFF', expected on, off or avx2"):
        library.available()


def test_kernels_can_be_switched_off(fresh, monkeypatch):
    monkeypatch.setenv(library.SWITCH, "off")
    monkeypatch.setattr(ctypes, "CDLL", pytest.fail)
    assert not library.available()


def test_kernels_are_not_loaded_on_other_platforms(fresh, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(ctypes, "CDLL", pytest.fail)
    assert not library.available()
