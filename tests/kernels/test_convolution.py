"""The CPU convolution kernel against XLA in float64."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_jax.kernels import conv_general_dilated
from tests.kernels.machine import needs_kernels

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Relative to the largest value: float32 sums in another order; one rounding to bfloat16's 8 bits.
TOLERANCE = {"float32": 3e-6, "bfloat16": 2**-8}


def arrays(shape, dtype, pads="SAME"):
    """Image, kernel and output gradient: float64 values that `dtype` represents exactly."""
    batch, height, width, channels, features, k = shape
    rng = np.random.default_rng(shape)
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads((height, width), (k, k), (1, 1), pads)
    out = [n + low + high - k + 1 for n, (low, high) in zip((height, width), pads, strict=True)]
    sizes = ((batch, height, width, channels), (k, k, channels, features), (batch, *out, features))
    return [np.asarray(jnp.asarray(rng.normal(size=size), dtype), np.float64) for size in sizes]


def exact(x, kernel, g, pads):
    def plain(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)

    with jax.enable_x64(True):
        out, pull = jax.vjp(plain, jnp.asarray(x), jnp.asarray(kernel))
        return [np.asarray(a) for a in (out, *pull(jnp.asarray(g)))]


def found(x, kernel, g, dtype, pads="SAME"):
    def ours(x, kernel):
        return conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=LAYOUT)

    @jax.jit
    def run(x, kernel, g):
        out, pull = jax.vjp(ours, x, kernel)
        return (out, *pull(g))

    return run(*(jnp.asarray(a, dtype) for a in (x, kernel, g)))


def check(shape, dtype, pads="SAME"):
    x, kernel, g = arrays(shape, dtype, pads)
    results = found(x, kernel, g, dtype, pads), exact(x, kernel, g, pads)
    for name, ours, true in zip(("value", "image", "kernel"), *results, strict=True):
        assert ours.dtype == jnp.dtype(dtype)
        error = np.abs(np.asarray(ours, np.float64) - true).max() / np.abs(true).max()
        assert error < TOLERANCE[dtype], f"{name}: {error:.2e}"


def calls(shape, dtype, **settings):
    x, kernel, _ = arrays(shape, dtype)
    arguments = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT, **settings}
    x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)
    return str(jax.make_jaxpr(lambda x, kernel: conv_general_dilated(x, kernel, **arguments))(x, kernel))


@needs_kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "shape",
    [
        (2, 7, 9, 4, 16, 3),  # 4 channels: XLA computes the image gradient
        (5, 13, 6, 32, 48, 3),
        (1, 40, 70, 16, 32, 3),  # rows in five pieces, one image split over several tasks
        (9, 4, 4, 20, 32, 1),
        (3, 8, 8, 64, 16, 5),
        (1, 1, 1, 16, 16, 3),
        (2, 3, 5, 80, 96, 3),  # more channels than one block holds, odd sides
        (33, 6, 6, 16, 112, 3),  # more Winograd squares of small images than one block holds
    ],
    ids=str,
)
def test_value_and_both_gradients_match_float64(shape, dtype):
    check(shape, dtype)


@needs_kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("pads", ["VALID", ((0, 1), (1, 0)), ((1, 1), (0, 0))], ids=str)
def test_any_padding_and_even_kernel_sizes_match_float64(pads, k, dtype):
    check((3, 9, 12, 16, 16, k), dtype, pads)


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 10),
    height=st.integers(1, 20),
    width=st.integers(1, 33),
    channels=st.sampled_from([4, 8, 12, 16, 32]),
    features=st.sampled_from([16, 32, 48]),
    k=st.sampled_from([1, 3, 5]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_any_small_shape_matches_float64(batch, height, width, channels, features, k, dtype):
    check((batch, height, width, channels, features, k), dtype)


@needs_kernels
def test_results_are_bitwise_reproducible():
    x, kernel, g = arrays((6, 24, 24, 32, 32, 3), "bfloat16")
    first, second = (found(x, kernel, g, "bfloat16") for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


@needs_kernels
def test_a_supported_convolution_uses_the_kernel():
    assert "BoneageConvolution" in calls((2, 8, 8, 16, 16, 3), "bfloat16")


@needs_kernels  # without them, everything is left to XLA
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((2, 8, 8, 16, 16, 3), {"window_strides": (2, 2)}),
        ((2, 8, 8, 16, 16, 3), {"rhs_dilation": (2, 2)}),
        ((2, 8, 8, 16, 16, 3), {"precision": jax.lax.Precision.HIGHEST}),
        ((2, 8, 8, 3, 16, 3), {}),
        ((2, 8, 8, 16, 10, 3), {}),
        ((2, 8, 8, 16, 16, 3), {"padding": ((3, 0), (0, 0))}),
    ],
    ids=["stride", "dilation", "precision", "channels", "features", "wide padding"],
)
def test_unsupported_convolutions_are_left_to_xla(shape, settings):
    text = calls(shape, "float32", **settings)
    assert "Boneage" not in text
    assert "conv_general_dilated" in text


def test_flax_conv_gives_the_same_output_with_the_same_parameters():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 10, 12, 16)), jnp.float32)
    plain = nn.Conv(32, (3, 3), use_bias=False)
    variables = plain.init(jax.random.key(0), x)
    ours = nn.Conv(32, (3, 3), use_bias=False, conv_general_dilated=conv_general_dilated)
    found: Any = ours.apply(variables, x)
    expected: Any = plain.apply(variables, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
