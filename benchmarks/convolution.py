"""Times the CPU kernels against XLA and, if installed, PyTorch: the fastest of several sequential runs.

python -m benchmarks.convolution

Prints GFLOP/s of 3x3 and 1x1 convolutions: forward / gradient of the image / gradient of the kernel.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from boneage_jax.kernels import conv_general_dilated, library, pointwise

Shape = tuple[int, int, int, int, int]  # batch, pixels, kernel size, input and output channels
SHAPES: tuple[Shape, ...] = (
    (64, 64, 3, 32, 32),
    (64, 32, 3, 64, 64),
    (64, 16, 3, 128, 128),
    (64, 8, 3, 256, 256),
    (32, 64, 1, 96, 24),  # EfficientNet-Lite0 at 256 pixels
    (32, 64, 1, 24, 144),
    (16, 8, 1, 728, 728),  # Xception at 128 pixels
    (8, 36, 1, 768, 768),  # ConvMixer-768/32 at 256 pixels
)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def best(call: Callable[[], Any], runs: int = 7) -> float:
    """Seconds of the fastest run, after one warm-up run."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def arrays(batch: int, pixels: int, size: int, channels: int, features: int) -> list[np.ndarray]:
    """Image, kernel and gradient of the output."""
    rng = np.random.default_rng(0)
    sizes = (batch, pixels, pixels, channels), (size, size, channels, features), (batch, pixels, pixels, features)
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


def ours(x: jax.Array, kernel: jax.Array, *settings: Any, **named: Any) -> jax.Array:
    """The convolution that the zoo's layers call."""
    if kernel.shape[:2] == (1, 1):
        return pointwise(x, kernel[0, 0])
    return conv_general_dilated(x, kernel, *settings, **named)


def in_jax(convolve: Callable[..., jax.Array], shape: Shape, dtype: Any) -> list[float]:
    """Seconds of the forward pass, the image gradient and the kernel gradient."""
    x, kernel, gradient = (jnp.asarray(a, dtype) for a in arrays(*shape))

    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return convolve(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    def pull(which: int, x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(run, x, kernel)[1](gradient)[which]

    calls = jax.jit(run), jax.jit(partial(pull, 0)), jax.jit(partial(pull, 1))
    operands = (x, kernel), (x, kernel, gradient), (x, kernel, gradient)

    def wait(call: Callable[..., jax.Array], given: tuple[jax.Array, ...]) -> None:
        jax.block_until_ready(call(*given))

    return [best(partial(wait, call, given)) for call, given in zip(calls, operands, strict=True)]


def in_torch(shape: Shape, name: str) -> list[float]:
    """The same times in PyTorch, in its channels-last layout."""
    import torch

    dtype, last, pads = getattr(torch, name), torch.channels_last, [shape[2] // 2] * 2
    x, kernel, gradient = (torch.from_numpy(a).to(dtype) for a in arrays(*shape))
    x, gradient = (a.permute(0, 3, 1, 2).contiguous(memory_format=last) for a in (x, gradient))
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=last)

    def pull(which: int) -> Any:
        wanted = [which == 0, which == 1, False]
        backward = torch.ops.aten.convolution_backward
        return backward(gradient, x, kernel, None, [1, 1], pads, [1, 1], False, [0, 0], 1, wanted)

    calls = partial(torch.nn.functional.conv2d, x, kernel, padding=pads), partial(pull, 0), partial(pull, 1)
    return [best(call) for call in calls]


def main() -> None:
    """Measures all shapes and prints a Markdown table."""
    if not library.available():
        raise SystemExit("the kernels cannot be used here; see the log for the reason")
    contestants: dict[str, Callable[[Shape], list[float]]] = {
        "XLA float32": lambda shape: in_jax(lax.conv_general_dilated, shape, jnp.float32),
        "ours float32": lambda shape: in_jax(ours, shape, jnp.float32),
        "ours bfloat16": lambda shape: in_jax(ours, shape, jnp.bfloat16),
    }
    try:
        import torch
    except ModuleNotFoundError:
        pass
    else:
        contestants |= {
            f"PyTorch {torch.__version__} {dtype}": partial(in_torch, name=dtype) for dtype in ("float32", "bfloat16")
        }
    print(f"| batch, pixels, kernel, channels | {' | '.join(contestants)} |\n|{'---|' * (len(contestants) + 1)}")
    for shape in SHAPES:
        batch, pixels, size, channels, features = shape
        work = 2 * batch * pixels**2 * size**2 * channels * features / 1e9
        cells = [" / ".join(f"{work / s:.0f}" for s in measure(shape)) for measure in contestants.values()]
        print(f"| {batch}, {pixels}, {size}x{size}, {channels} to {features} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
