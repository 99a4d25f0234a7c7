"""Fused convolution, bias and ReLU6 against the separate operations in float64."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax.kernels import library, pointwise, pointwise_relu6, relu6
from boneage_jax.models.depthwise import depthwise_conv, depthwise_conv_relu6
from tests.kernels.machine import needs_kernels


def numbers(*shapes: tuple[int, ...]) -> list[jax.Array]:
    """Normally distributed arrays, the same for the same shapes."""
    rng = np.random.default_rng([size for shape in shapes for size in shape])
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def check(op: Callable[..., jax.Array], plain: Callable[..., jax.Array], *inputs: jax.Array) -> None:
    """Compares value and gradients; ReLU6 clips some values at 0 and some at 6."""
    value, pull = jax.vjp(jax.jit(op), *inputs)
    (g,) = numbers(value.shape)
    with jax.enable_x64(True):
        exact, exact_pull = jax.vjp(plain, *(jnp.asarray(x, jnp.float64) for x in inputs))
        expected = [np.asarray(x) for x in (exact, *exact_pull(jnp.asarray(g, jnp.float64)))]
    if value.size > 1000:
        assert 0.05 < np.mean(expected[0] == 0) < 0.95
        assert np.mean(expected[0] == 6) > 0.01
    for found, true in zip((value, *pull(g)), expected, strict=True):
        assert found.dtype == jnp.float32
        assert found.shape == true.shape
        # A value within rounding of 0 or 6 may be clipped differently: a few elements may differ slightly more.
        error = np.abs(np.asarray(found, np.float64) - true) / max(np.abs(true).max(), 1e-6)
        assert np.quantile(error, 0.99) < 3e-6
        assert error.max() < 1e-3


@pytest.mark.parametrize(
    "shape",
    [
        (2, 5, 6, 32, 16),
        (3, 7, 9, 91, 45),  # sizes that do not fill whole registers
        (1, 1, 1, 1, 1),
        (1, 70, 71, 24, 144),  # pixels split into shares, all gradients in one pass
        (1, 70, 71, 150, 300),  # channels also split into strips, processed in turn
        (4, 4, 4, 320, 1280),
    ],
    ids=str,
)
def test_fused_pointwise_convolution_matches_separate_operations(shape: tuple[int, ...]) -> None:
    batch, height, width, channels, features = shape
    x, kernel, bias = numbers((batch, height, width, channels), (channels, features), (features,))
    kernel *= 4 / np.sqrt(channels)
    check(
        pointwise_relu6, lambda x, kernel, bias: jax.nn.relu6(x @ kernel + bias.reshape(1, 1, 1, -1)), x, kernel, bias
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize("shape", [(2, 9, 10, 32), (9, 8, 7, 19), (1, 65, 66, 144), (1, 3, 2, 1)], ids=str)
def test_fused_depthwise_convolution_matches_separate_operations(shape: tuple[int, ...], k: int, stride: int) -> None:
    x, kernel, bias = numbers(shape, (k, k, shape[-1]), shape[-1:])

    def plain(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=shape[-1],
        )
        return jax.nn.relu6(y + bias.reshape(1, 1, 1, -1))

    check(partial(depthwise_conv_relu6, stride=stride), plain, x, kernel * 4 / k, bias)


@needs_kernels
@pytest.mark.parametrize(("op", "count"), [(depthwise_conv, 2), (depthwise_conv_relu6, 3)])
def test_an_image_smaller_than_the_filters_has_gradients_of_zero(op: Callable[..., jax.Array], count: int) -> None:
    inputs = [jnp.ones((2, 2, 2, 16)), jnp.ones((3, 3, 16)), jnp.ones(16)][:count]
    value, pull = jax.vjp(jax.jit(partial(op, padding="VALID")), *inputs)
    assert value.shape == (2, 0, 0, 16)
    for gradient, each in zip(pull(value), inputs, strict=True):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(each))


def test_relu6_passes_gradients_only_between_its_limits() -> None:
    x = jnp.asarray([-1.0, 0.0, 3.0, 6.0, 7.0])
    value, pull = jax.vjp(relu6, x)
    np.testing.assert_array_equal(value, [0, 0, 3, 6, 6])
    np.testing.assert_array_equal(pull(jnp.ones(5))[0], [0, 0, 1, 0, 0])


Shapes = tuple[tuple[int, ...], ...]
Op = Callable[..., jax.Array]
HALVES: list[tuple[Op, Op, Shapes]] = [
    (pointwise_relu6, pointwise, ((1, 6, 6, 16), (16, 16), (16,))),
    (pointwise_relu6, pointwise, ((3, 7, 9, 91), (91, 45), (45,))),  # sizes that do not fill whole tiles
    (pointwise_relu6, pointwise, ((1, 95, 97, 40), (40, 70), (70,))),  # pixels split into shares
    (pointwise_relu6, pointwise, ((1, 1, 1, 1), (1, 1), (1,))),
    (depthwise_conv_relu6, depthwise_conv, ((2, 9, 10, 32), (3, 3, 32), (32,))),
    (partial(depthwise_conv_relu6, stride=2), partial(depthwise_conv, stride=2), ((3, 8, 7, 19), (5, 5, 19), (19,))),
]


@pytest.mark.parametrize(("op", "linear", "shapes"), HALVES, ids=[str(shapes) for *_, shapes in HALVES])
@pytest.mark.parametrize("tiles", [True, False])
def test_bfloat16_matches_float32_within_rounding(
    op: Op, linear: Op, shapes: Shapes, tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not tiles:
        monkeypatch.setattr(library, "has_tiles", lambda: False)
    x, kernel, bias = numbers(*shapes)
    kernel *= 2 / np.sqrt(kernel.size / kernel.shape[-1])
    half, half_kernel = (a.astype(jnp.bfloat16) for a in (x, kernel))
    y, pull = jax.vjp(jax.jit(lambda *sides: op(*sides)), half, half_kernel, bias)
    g = numbers(y.shape)[0].astype(jnp.bfloat16)
    assert y.dtype == jnp.bfloat16

    total, linear_pull = jax.vjp(linear, *(a.astype(jnp.float32) for a in (half, half_kernel)))
    clipped = jnp.clip(total + bias.reshape(1, 1, 1, -1), 0, 6).astype(jnp.bfloat16)
    through = jnp.where((clipped > 0) & (clipped < 6), g.astype(jnp.float32), 0)
    for found, true in zip((y, *pull(g)), (clipped, *linear_pull(through), through.sum((0, 1, 2))), strict=True):
        assert found.shape == true.shape
        error = np.abs(np.asarray(found, np.float64) - np.asarray(true)) / max(np.abs(true).max(), 1e-6)
        # A value within rounding of 0 or 6 may be clipped differently; separate operations round twice.
        bound = 2**-7 if library.has_tiles() else 2**-5
        assert np.quantile(error, 0.99) < bound
        assert error.mean() < bound / 2


def test_nan_stays_nan() -> None:
    x, kernel, bias = numbers((1, 4, 4, 32), (32, 16), (16,))
    found = pointwise_relu6(x.at[0, 1, 2, 3].set(jnp.nan), kernel, bias)
    assert np.isnan(found[0, 1, 2]).all()
    assert np.isnan(found).sum() == 16
    (taps,) = numbers((3, 3, 32))
    found = depthwise_conv_relu6(x.at[0, 1, 2, 3].set(jnp.nan), taps, jnp.zeros(32))
    assert np.isnan(found).sum() == 9
