"""The CPU matrix product, which computes 1x1 convolutions, against numpy in float64."""

import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_jax.kernels import library, pointwise
from tests.kernels.machine import needs_kernels

# Relative to the largest value: float32 sums in another order; one rounding to bfloat16's 8 bits.
TOLERANCE = {"float32": 3e-6, "bfloat16": 2**-8}


def check(shape, dtype):
    batch, height, width, channels, features = shape
    rng = np.random.default_rng(shape)
    sizes = (batch, height, width, channels), (channels, features), (batch, height, width, features)
    x, kernel, g = (jnp.asarray(rng.normal(size=size), dtype) for size in sizes)
    value, pull = jax.vjp(jax.jit(pointwise), x, kernel)
    wide = [np.asarray(a, np.float64) for a in (x, kernel, g)]
    exact = {
        "value": wide[0] @ wide[1],
        "image": wide[2] @ wide[1].T,
        "kernel": np.einsum("bhwc,bhwd->cd", wide[0], wide[2]),
    }
    for (name, true), found in zip(exact.items(), (value, *pull(g)), strict=True):
        assert found.dtype == jnp.dtype(dtype)
        error = np.abs(np.asarray(found, np.float64) - true).max() / np.abs(true).max()
        assert error < TOLERANCE[dtype], f"{name}: {error:.2e}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 5, 6, 32, 16),
        (3, 7, 9, 91, 45),  # sizes that do not fill whole registers
        (1, 19, 19, 200, 728),  # more channels and pixels than one block holds
        (1, 1, 1, 1, 1),
        (5, 11, 13, 4, 3),
        (1, 70, 71, 150, 300),  # the kernel gradient is split over pixels and channels
    ],
    ids=str,
)
def test_value_and_both_gradients_match_float64(shape, dtype):
    check(shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_output_channels_the_gradient_of_the_image_is_zero(dtype):
    value, pull = jax.vjp(jax.jit(pointwise), jnp.ones((2, 3, 3, 8), dtype), jnp.ones((8, 0)))
    assert value.shape == (2, 3, 3, 0)
    np.testing.assert_array_equal(np.asarray(pull(value)[0], np.float32), np.zeros((2, 3, 3, 8)))


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.integers(1, 40),
    features=st.integers(1, 70),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_any_small_shape_matches_float64(batch, height, width, channels, features, dtype):
    check((batch, height, width, channels, features), dtype)


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "channels", "tiles", "called"),
    [
        ("float32", 30, True, "BoneageProduct"),
        ("bfloat16", 32, False, "BoneageConvolution"),
        ("bfloat16", 30, False, "BoneageProduct"),
        ("bfloat16", 32, True, "BoneageProduct"),
    ],
)
def test_each_dtype_uses_its_kernel(dtype, channels, tiles, called, monkeypatch):
    monkeypatch.setattr(library, "has_tiles", lambda: tiles)
    x, kernel = jnp.ones((2, 5, 6, channels), dtype), jnp.ones((channels, 16), dtype)
    assert f"target_name={called}" in str(jax.make_jaxpr(lambda *sides: pointwise(*sides))(x, kernel))


@pytest.mark.parametrize("shape", [(2, 5, 6, 32, 16), (3, 7, 9, 91, 45)], ids=str)
def test_bfloat16_without_amx_tiles_is_as_accurate(shape, monkeypatch):
    monkeypatch.setattr(library, "has_tiles", lambda: False)
    check(shape, "bfloat16")


def test_the_gradient_of_a_float32_kernel_is_not_rounded_to_bfloat16():
    rng = np.random.default_rng(0)
    x, g = (jnp.asarray(rng.normal(size=(1, 40, 40, n)), jnp.bfloat16) for n in (24, 48))
    _, pull = jax.vjp(jax.jit(pointwise), x, jnp.ones((24, 48)))
    found = pull(g)[1]
    assert found.dtype == jnp.float32
    exact = np.einsum("bhwc,bhwd->cd", np.asarray(x, np.float64), np.asarray(g, np.float64))
    precision = 1e-5 if library.has_tiles() else TOLERANCE["bfloat16"]  # without AMX tiles, it is rounded after the sum
    assert np.abs(found - exact).max() < precision * np.abs(exact).max()


@needs_kernels
def test_amx_tiles_need_support_by_processor_and_operating_system():
    listed = {"amx_tile", "amx_bf16"} <= library.processor_flags()
    if not listed or library.find().stem != "cpu_avx512":
        assert not library.has_tiles()
    elif tuple(map(int, platform.release().split(".")[:2])) >= (5, 16):  # Linux grants access to AMX since 5.16
        assert library.has_tiles()


@needs_kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_are_bitwise_reproducible(dtype):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in ((3, 60, 60, 50), (50, 70)))

    def gradients():
        value, pull = jax.vjp(jax.jit(pointwise), x, kernel)
        return value, *pull(value)

    for a, b in zip(gradients(), gradients(), strict=True):
        np.testing.assert_array_equal(a, b)
