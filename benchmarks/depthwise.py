"""Times the zoo's depthwise convolutions one by one, in three implementations, on this device.

    python -m benchmarks.depthwise                     # a table
    python -m benchmarks.depthwise --json --dtype=float32

"library" is `jax.lax.conv_general_dilated` (cuDNN on a GPU), "shifted adds" is a sum of shifted products that XLA
fuses, and "ours" is the implementation that the networks use.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from boneage_jax.benchmark import throughput
from boneage_jax.models.depthwise import depthwise_conv

Convolution = Callable[[jax.Array, jax.Array, int], jax.Array]

# (network and pixels of its input, pixels, channels, kernel, stride)
SHAPES = (
    ("Xception 500", 247, 64, 3, 1),
    ("Xception 500", 124, 128, 3, 1),
    ("Xception 500", 62, 256, 3, 1),
    ("Xception 500", 31, 728, 3, 1),
    ("Xception 500", 16, 1536, 3, 1),
    ("ConvMixer 256", 36, 768, 7, 1),
    ("EfficientNet-B0 512", 256, 96, 3, 2),
    ("EfficientNet-B0 512", 64, 240, 3, 2),
    ("EfficientNet-B0 512", 32, 480, 5, 1),
    ("EfficientNet-B0 512", 16, 1152, 5, 1),
    ("ConvNeXt V2 atto 512", 128, 40, 7, 1),
    ("ConvNeXt V2 atto 512", 32, 160, 7, 1),
)
TINY = (("tiny", 8, 4, 3, 1),)


def library(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's own grouped convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        window_strides=(stride, stride),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted_adds(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A sum of one product per filter tap; gradients come from automatic differentiation."""
    rows, columns, _ = kernel.shape
    pads = jax.lax.padtype_to_pads(x.shape[1:3], (rows, columns), (stride, stride), "SAME")
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0))).astype(jnp.float32)
    height, width = (-(-side // stride) for side in x.shape[1:3])
    total = jnp.zeros((x.shape[0], height, width, x.shape[3]), jnp.float32)
    for i in range(rows):
        for j in range(columns):
            window = padded[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            total += window * kernel[i, j].astype(jnp.float32)[None, None, None, :]
    return total.astype(x.dtype)


def ours(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The implementation that the networks use on this platform."""
    return depthwise_conv(x, kernel, stride=stride)


FORMS: dict[str, Convolution] = {"ours": ours, "library": library, "shifted adds": shifted_adds}


def rows(
    shapes: tuple[tuple[str, int, int, int, int], ...], batch: int, dtype: str, steps: int
) -> list[dict[str, Any]]:
    """Microseconds of every shape and form: forward, and both gradients."""
    found = []
    for network, side, channels, size, stride in shapes:
        keys = jax.random.split(jax.random.key(0))
        x = jax.random.normal(keys[0], (batch, side, side, channels)).astype(dtype)
        kernel = jax.random.normal(keys[1], (size, size, channels)).astype(dtype)
        row = {"network": network, "side": side, "channels": channels, "kernel": size, "stride": stride}
        for name, form in FORMS.items():
            row[name] = _microseconds(form, x, kernel, stride, steps)
        found.append(row)
    return found


def _microseconds(form: Convolution, x: jax.Array, kernel: jax.Array, stride: int, steps: int) -> dict[str, float]:
    forward = jax.jit(lambda x, kernel: form(x, kernel, stride))
    output = forward(x, kernel)
    gradients = jax.jit(lambda x, kernel, g: jax.vjp(lambda x, kernel: form(x, kernel, stride), x, kernel)[1](g))

    def mean(call: Callable[[], object]) -> float:
        timing = throughput.measure(call, warmup=3, steps=steps, ahead=8)
        return 1e6 * sum(timing.seconds) / timing.steps

    return {"forward": mean(lambda: forward(x, kernel)), "gradients": mean(lambda: gradients(x, kernel, output))}


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    names = list(FORMS)
    head = ["network", "pixels", "channels", "kernel", "stride", *(f"{name}, µs" for name in names)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in found:
        times = [f"{row[name]['forward']:.0f} + {row[name]['gradients']:.0f}" for name in names]
        cells = [row["network"], row["side"], row["channels"], row["kernel"], row["stride"], *times]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Times all shapes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tiny", action="store_true", help="one small shape")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    found = rows(TINY if flags.tiny else SHAPES, flags.batch, flags.dtype, flags.steps)
    print(json.dumps(found) if flags.json else table(found))


if __name__ == "__main__":
    main()
