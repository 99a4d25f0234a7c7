"""The depthwise convolution against XLA's grouped convolution in float64."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boneage_jax.kernels import library
from boneage_jax.models.depthwise import DepthwiseConv, depthwise_conv, depthwise_conv_relu6


def reference(x, kernel, *, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def arrays(shape, k, stride, padding):
    """Input, kernel and output gradient: float64 values that float32 represents exactly."""
    rng = np.random.default_rng([*shape, k, stride])
    h, w = (-(-n // stride) if padding == "SAME" else (n - k) // stride + 1 for n in shape[1:3])
    sizes = (shape, (k, k, shape[-1]), (shape[0], h, w, shape[-1]))
    return [rng.normal(size=s).astype(np.float32).astype(np.float64) for s in sizes]


def value_and_gradients(convolve, x, kernel, g):
    out, pull = jax.vjp(convolve, x, kernel)
    return (out, *pull(g))


def check(shape, k, stride, padding):
    x, kernel, g = arrays(shape, k, stride, padding)
    options = {"stride": stride, "padding": padding}
    with jax.enable_x64(True):
        expected = jax.tree.map(np.asarray, value_and_gradients(partial(reference, **options), x, kernel, g))
    single = [jnp.asarray(a, jnp.float32) for a in (x, kernel, g)]
    run = jax.jit(partial(value_and_gradients, partial(depthwise_conv, **options)))
    for name, found, exact in zip(("value", "input", "kernel"), run(*single), expected, strict=True):
        assert exact.dtype == np.float64
        assert found.dtype == jnp.float32
        scale = np.abs(exact).max()
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5, 7, 9])
def test_value_and_both_gradients_match_the_grouped_convolution(k, stride, padding):
    check((2, 11, 14, 3), k, stride, padding)


def test_kernel_gradient_over_several_blocks_of_rows():
    check((2, 37, 5, 2), 3, 1, "SAME")
    check((1, 70, 4, 1), 3, 2, "VALID")


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    batch=st.integers(1, 2),
    k=st.sampled_from([3, 5]),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]),
)
def test_any_small_image_matches_the_grouped_convolution(height, width, channels, batch, k, stride, padding):
    if padding == "VALID":
        height, width = height + k - 1, width + k - 1
    check((batch, height, width, channels), k, stride, padding)


@pytest.mark.parametrize("kernels_used", [True, False])
@pytest.mark.parametrize(("convolve", "count"), [(depthwise_conv, 2), (depthwise_conv_relu6, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("side", "k"), [(1, 2), (1, 3), (1, 7), (2, 3), (6, 7)])
def test_an_image_smaller_than_the_filters_has_no_output_and_gradients_of_zero(
    side, k, stride, convolve, count, kernels_used, monkeypatch
):
    if not kernels_used:
        monkeypatch.setattr(library, "available", lambda: False)
    operands = [jnp.ones((2, side, 9, 4)), jnp.ones((k, k, 4)), jnp.ones(4)][:count]
    options = {"stride": stride, "padding": "VALID"}
    found, pull = jax.vjp(jax.jit(partial(convolve, **options)), *operands)
    assert found.shape == reference(*operands[:2], **options).shape
    assert found.shape[1] == 0
    for gradient, operand in zip(pull(found), operands, strict=True):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(operand))


def test_even_and_non_square_kernels_match_the_grouped_convolution():
    for kh, kw in ((2, 2), (4, 4), (1, 5)):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 7, 8, 2)), jnp.float32)
        kernel = jnp.asarray(np.random.default_rng(1).normal(size=(kh, kw, 2)), jnp.float32)
        for stride in (1, 2):
            found = depthwise_conv(x, kernel, stride=stride)
            expected = reference(x, kernel, stride=stride, padding="SAME")
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_its_dtype_and_stays_accurate():
    x, kernel, g = arrays((2, 13, 10, 4), 7, 1, "SAME")
    with jax.enable_x64(True):
        exact = value_and_gradients(partial(reference, stride=1, padding="SAME"), x, kernel, g)
        exact = jax.tree.map(np.asarray, exact)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, g)]
    for found, expected in zip(value_and_gradients(depthwise_conv, *half), exact, strict=True):
        assert found.dtype == jnp.bfloat16
        error = np.abs(np.asarray(found, np.float64) - expected).max()
        assert error <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("use_bias", [False, True])
def test_the_layer_equals_flaxs_grouped_conv_with_the_same_parameters(use_bias):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 6)), jnp.float32)
    grouped = nn.Conv(6, (5, 5), (2, 2), feature_group_count=6, use_bias=use_bias)
    ours = DepthwiseConv(5, strides=2, use_bias=use_bias)
    params = grouped.init(jax.random.key(0), x)
    params = jax.tree.map(lambda p: p + 0.1, params)  # a zero bias would hide errors

    own = jax.eval_shape(ours.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, params)
    found: Any = ours.apply(params, x)
    expected: Any = grouped.apply(params, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_layer_computes_in_its_dtype_with_float32_parameters():
    layer = DepthwiseConv(3, dtype=jnp.bfloat16)
    out, variables = layer.init_with_output(jax.random.key(0), jnp.ones((1, 4, 4, 2)))
    assert out.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
