"""Exact FLOP counts of products in every transformation, and memory use of compiled programs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from boneage_jax import kernels
from boneage_jax.benchmark import cost
from boneage_jax.models.depthwise import depthwise_conv
from tests.kernels.machine import needs_kernels

A, B = np.ones((3, 5), np.float32), np.ones((5, 7), np.float32)
PRODUCT = 2 * 3 * 5 * 7


def test_a_matrix_product_counts_two_flops_per_multiply_add():
    assert cost.count_flops(jnp.dot, A, B) == PRODUCT


def test_a_batched_product_counts_every_matrix():
    left, right = np.ones((4, 3, 5)), np.ones((4, 5, 7))
    assert cost.count_flops(jnp.matmul, left, right) == 4 * PRODUCT


def test_a_convolution_counts_kernel_and_channels_at_every_output_pixel():
    layer = nn.Conv(16, (3, 3), strides=2, padding="SAME")
    image = jnp.ones((2, 9, 9, 4))
    variables = layer.init(jax.random.key(0), image)
    assert cost.count_flops(layer.apply, variables, image) == 2 * (2 * 5 * 5 * 16) * (3 * 3 * 4)


def test_a_grouped_convolution_counts_only_the_channels_of_its_group():
    layer = nn.Conv(8, (3, 3), feature_group_count=4)
    image = jnp.ones((1, 6, 6, 8))
    variables = layer.init(jax.random.key(0), image)
    assert cost.count_flops(layer.apply, variables, image) == 2 * (6 * 6 * 8) * (3 * 3 * 2)


def test_flops_of_a_depthwise_convolution_are_exact():
    image, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 4))
    assert cost.count_flops(jax.jit(depthwise_conv), image, kernel) == 2 * (8 * 8 * 4) * 9


@pytest.mark.parametrize("layer", ["depthwise", "pointwise", "dense"])
def test_gradients_of_a_convolution_add_twice_its_forward_flops(layer):
    image = jnp.ones((1, 8, 8, 16))
    kernels_of = {"depthwise": jnp.ones((3, 3, 16)), "pointwise": jnp.ones((16, 16)), "dense": jnp.ones((3, 3, 16, 16))}
    convolve = {
        "depthwise": depthwise_conv,
        "pointwise": kernels.pointwise,
        "dense": lambda x, k: kernels.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
    }[layer]
    once = cost.count_flops(convolve, image, kernels_of[layer])
    gradient = jax.grad(lambda x, k: convolve(x, k).sum(), argnums=(0, 1))
    assert cost.count_flops(gradient, image, kernels_of[layer]) == 3 * once


@needs_kernels
def test_custom_kernel_bytes_are_those_of_arguments_and_result():
    image, kernel = jnp.ones((1, 8, 8, 16)), jnp.ones((16, 32))
    assert cost.count_kernel_bytes(kernels.pointwise, image, kernel) == 4 * (8 * 8 * 16 + 16 * 32 + 8 * 8 * 32)
    assert cost.count_kernel_bytes(jnp.dot, A, B) == 0


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        lambda f: jax.jit(jax.checkpoint(jax.jit(f))),
        lambda f: lambda a, b: jax.lax.cond(a[0, 0] > 0, f, lambda a, b: jnp.zeros((3, 7)), a, b),
    ],
    ids=["jit", "remat", "nested", "cond"],
)
def test_products_inside_transformations_are_counted_once(wrap):
    assert cost.count_flops(wrap(jnp.dot), A, B) == PRODUCT


def test_products_inside_custom_derivatives_are_counted_once():
    product = jax.custom_vjp(jnp.dot)
    product.defvjp(lambda a, b: (jnp.dot(a, b), (a, b)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
    assert cost.count_flops(product, A, B) == PRODUCT
    gradient = jax.grad(lambda a, b: product(a, b).sum(), argnums=(0, 1))
    assert cost.count_flops(gradient, A, B) == 3 * PRODUCT


def test_a_scan_counts_every_iteration():
    square = np.ones((4, 4), np.float32)
    turns = lambda x: jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=6)[0]  # noqa: E731
    assert cost.count_flops(turns, square) == 6 * 2 * 4**3


def test_a_mapped_function_counts_every_device():
    mapped = jax.pmap(jnp.dot, in_axes=(0, None))
    assert cost.count_flops(mapped, np.ones((4, 3, 5), np.float32), B) == 4 * PRODUCT


def test_a_loop_of_unknown_length_is_refused():
    square = np.ones((4, 4), np.float32)
    loop = lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ x, x)  # noqa: E731
    with pytest.raises(ValueError, match="while"):
        cost.count_flops(loop, square)


def test_a_program_is_compiled_once_and_reports_its_memory():
    traced = []

    @jax.jit
    def square(x):
        traced.append(x)
        return x @ x

    x = np.ones((64, 64), np.float32)
    program = cost.compile_program(square, x)
    np.testing.assert_array_equal(program.call(x), np.full((64, 64), 64.0))
    program.call(x)
    assert len(traced) == 1
    assert program.compile_seconds > 0
    assert (program.argument_bytes, program.output_bytes) == (64 * 64 * 4, 64 * 64 * 4)
    assert program.memory_bytes >= 2 * 64 * 64 * 4


def test_donated_memory_is_counted_once():
    update = lambda x: x + 1  # noqa: E731
    x = np.ones((64, 64), np.float32)
    kept = cost.compile_program(jax.jit(update), x)
    donated = cost.compile_program(jax.jit(update, donate_argnums=0), x)
    assert kept.memory_bytes - donated.memory_bytes == x.nbytes


def test_parameters_are_counted_over_the_whole_tree():
    tree = {"dense": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}, "scale": np.ones(())}
    assert cost.count_parameters(tree) == 17


def test_device_peak_memory_is_none_on_cpu():
    assert cost.device_peak_bytes() is None


def test_device_peak_memory_is_the_maximum_over_devices(monkeypatch):
    class Device:
        def __init__(self, statistics):
            self.memory_stats = lambda: statistics

    devices = [
        Device({"peak_bytes_in_use": 5}),
        Device({"peak_bytes_in_use": 9}),
        Device({"bytes_in_use": 99}),
    ]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert cost.device_peak_bytes() == 9
