"""EfficientNet (Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019).

EfficientNet-Lite (Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020) is the same
network with ReLU6 in place of swish and without squeeze-and-excitation.

Layers are named after their function, blocks as in `keras.applications`: stage 1 to 7, then a letter.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.kernels import relu6
from boneage_jax.models.depthwise import DepthwiseConv, Padding
from boneage_jax.models.layers import Activation, Layer, Pointwise, StochasticDepth, batch_norm, convolved, recomputed


class Stage(NamedTuple):
    """A row of the paper's table 1: blocks of one kind, the first with the given stride."""

    expansion: int
    features: int
    blocks: int
    strides: int
    kernel_size: int


STAGES = (
    Stage(expansion=1, features=16, blocks=1, strides=1, kernel_size=3),
    Stage(expansion=6, features=24, blocks=2, strides=2, kernel_size=3),
    Stage(expansion=6, features=40, blocks=2, strides=2, kernel_size=5),
    Stage(expansion=6, features=80, blocks=3, strides=2, kernel_size=3),
    Stage(expansion=6, features=112, blocks=3, strides=1, kernel_size=5),
    Stage(expansion=6, features=192, blocks=4, strides=2, kernel_size=5),
    Stage(expansion=6, features=320, blocks=1, strides=1, kernel_size=3),
)


class Variant(NamedTuple):
    """A size of the network: the factors by which B0's channels (`width`) and blocks (`depth`) are multiplied.

    With `lite`, the channels of the stem and the last convolution and the number of blocks in the first and the last
    stage are those of B0, the activation is ReLU6, and there is no squeeze-and-excitation.
    """

    width: float
    depth: float
    lite: bool = False


VARIANTS = {
    "b0": Variant(width=1.0, depth=1.0),
    "b4": Variant(width=1.4, depth=1.8),
    "lite0": Variant(width=1.0, depth=1.0, lite=True),
    "lite1": Variant(width=1.0, depth=1.1, lite=True),
    "lite2": Variant(width=1.1, depth=1.2, lite=True),
    "lite3": Variant(width=1.2, depth=1.4, lite=True),
    "lite4": Variant(width=1.4, depth=1.8, lite=True),
    "tiny": Variant(width=0.25, depth=0.5),  # not published, for tests
    "tiny_lite": Variant(width=0.25, depth=0.5, lite=True),  # not published, for tests
}


class Framework(NamedTuple):
    """Differences between the implementations with published weights, besides the padding."""

    momentum: float  # of BatchNorm
    epsilon: float  # of BatchNorm


FRAMEWORKS = {
    # keras.applications and its ports (timm's tf_efficientnet, efficientnet_pytorch): the authors' values.
    "keras": Framework(momentum=0.99, epsilon=1e-3),
    # timm's efficientnet and torchvision.
    "torch": Framework(momentum=0.9, epsilon=1e-5),
}

# The authors' variance is 2 / fan-out. A depthwise filter's fan-out is its window, which flax counts as its fan-in.
CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
DEPTHWISE_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def scaled_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 that is at most a tenth below it."""
    exact = channels * width
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


def scaled_blocks(blocks: int, depth: float) -> int:
    """`blocks` times `depth`, rounded up."""
    return math.ceil(blocks * depth)


def scaled_stages(variant: str) -> tuple[Stage, ...]:
    """The rows of table 1 with the channels and blocks of a variant."""
    width, depth, lite = VARIANTS[variant]
    kept = (0, len(STAGES) - 1) if lite else ()
    return tuple(
        stage._replace(
            features=scaled_channels(stage.features, width),
            blocks=stage.blocks if i in kept else scaled_blocks(stage.blocks, depth),
        )
        for i, stage in enumerate(STAGES)
    )


def scaled_ends(variant: str) -> tuple[int, int]:
    """Channels of the stem and of the last convolution of a variant."""
    width, _, lite = VARIANTS[variant]
    return (32, 1280) if lite else (scaled_channels(32, width), scaled_channels(1280, width))


def activation(*, lite: bool) -> Activation:
    """The activation function: ReLU6 for Lite, swish for the others."""
    return relu6 if lite else nn.swish


def pad_before_halving(x: Float[Array, "B H W C"], kernel_size: int, framework: str) -> Float[Array, "B h w C"]:
    """Zero-pads a map for a convolution with stride 2.

    PyTorch pads all sides equally. Keras (TensorFlow's "SAME") pads one pixel fewer at the top or left of an axis of
    even length, so its filters are shifted by one pixel against PyTorch's.
    """
    half = kernel_size // 2
    fewer = [int(framework == "keras" and size % 2 == 0) for size in x.shape[1:3]]
    return jnp.pad(x, ((0, 0), (half - fewer[0], half), (half - fewer[1], half), (0, 0)))


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scales the channels by weights from their global averages (Hu et al., CVPR 2018)."""

    features: int  # of the bottleneck
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Keeps the shape."""
        pooled = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=jnp.float32)  # [B, 1, 1, C]
        dense = partial(Pointwise, use_bias=True, kernel_init=CONV_INIT, dtype=self.dtype)
        weight = nn.swish(dense(self.features, name="reduce")(pooled))  # [B, 1, 1, features]
        return x * nn.sigmoid(dense(x.shape[-1], name="expand")(weight))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze-and-excitation, projection; a shortcut where the shape is kept.

    A `lite` block has no squeeze-and-excitation.
    """

    features: int
    expansion: int
    kernel_size: int
    strides: int
    drop_rate: float
    framework: str
    norm: Layer
    train: bool
    lite: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Divides height and width by `strides`, rounding up."""
        block_input, channels = x, x.shape[-1]
        activate = activation(lite=self.lite)
        pointwise = partial(Pointwise, kernel_init=CONV_INIT, dtype=self.dtype)
        depthwise = partial(DepthwiseConv, kernel_init=DEPTHWISE_INIT, dtype=self.dtype)
        if self.expansion > 1:
            expand = pointwise(channels * self.expansion, name="expand")
            x = convolved(expand, self.norm(name="expand_bn"), x, activate)  # [B, H, W, expansion * C]
        padding: Padding = "SAME"  # for stride 2, this is Keras' padding
        if self.strides > 1 and self.framework != "keras":
            x, padding = pad_before_halving(x, self.kernel_size, self.framework), "VALID"
        filters = depthwise(self.kernel_size, self.strides, padding, name="depthwise")
        x = convolved(filters, self.norm(name="depthwise_bn"), x, activate)  # [B, h, w, expansion * C]
        if not self.lite:
            x = SqueezeExcite(channels // 4, dtype=self.dtype, name="squeeze_excite")(x)
        x = convolved(pointwise(self.features, name="project"), self.norm(name="project_bn"), x)  # [B, h, w, D]
        if self.strides > 1 or self.features != channels:
            return x
        return block_input + StochasticDepth(self.drop_rate, deterministic=not self.train, name="drop_path")(x)


class EfficientNet(nn.Module):
    """Stem, seven stages of inverted residuals, a last 1x1 convolution: [B, H, W, C] to [B, H / 32, W / 32, D].

    Parameters for three input channels: B0 4,007,548 (D 1280), B4 17,548,616 (D 1792). Keras counts 4,049,571
    and 17,673,823 without top: it includes BatchNorm's running statistics (42,016 and 125,200) and the 7 values
    of its input normalisation layer (mean and variance of three channels, and a count). Here the preprocessing
    normalises the input. Published input: 224 x 224 (B0), 380 x 380 (B4), standardised per channel.

    Lite0 to Lite4 (D 1280) have 3,371,008, 4,135,680, 4,811,072, 6,916,096 and 11,725,568 parameters; the
    1,000-class classifier adds 1,281,000. Published input: 224, 240, 260, 280 and 300 pixels, 8-bit intensities x
    scaled to (x - 127) / 128; the preprocessing's scaling "symmetric" differs from that by at most 0.008.
    """

    variant: str = "b0"
    framework: str = "keras"
    drop_path: float = 0.2  # rate of stochastic depth; rises linearly from 0 in the first block
    frozen_statistics: bool = False  # BatchNorm uses its running statistics in training too: for fine-tuning
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects an unknown variant or framework and a `drop_path` outside [0, 1)."""
        for key, known in (("variant", VARIANTS), ("framework", FRAMEWORKS)):
            if getattr(self, key) not in known:
                raise BoneAgeError(f"unknown {key} {getattr(self, key)!r} of EfficientNet; known: {', '.join(known)}")
        if not 0 <= self.drop_path < 1:
            raise BoneAgeError(f"drop_path of EfficientNet is {self.drop_path}, expected 0 to below 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Needs a "dropout" key when it trains with `drop_path` above 0."""
        momentum, epsilon = FRAMEWORKS[self.framework]
        norm = batch_norm(
            train=train,
            momentum=momentum,
            epsilon=epsilon,
            axis_name=self.axis_name,
            dtype=self.dtype,
            folded=self.frozen_statistics,
        )
        activate = activation(lite=VARIANTS[self.variant].lite)
        _, top_features = scaled_ends(self.variant)
        x = self.stages(image, norm, train=train)[-1]  # [B, H/32, W/32, 320 width]
        top = Pointwise(top_features, kernel_init=CONV_INIT, dtype=self.dtype, name="top_conv")
        return convolved(top, norm(name="top_bn"), x, activate)  # [B, H/32, W/32, D]

    def stages(
        self, image: Float[Array, "B H W C"], norm: Layer, *, train: bool, last: int = len(STAGES)
    ) -> list[Float[Array, "B h w D"]]:
        """Runs the stem and stages 1 to `last` and returns each stage's output; later blocks have higher drop rates."""
        lite = VARIANTS[self.variant].lite
        # Folded Lite blocks have nothing that is cheaper to recompute than to read from memory.
        again = train and (self.remat or not (self.frozen_statistics and lite))
        block = recomputed(InvertedResidual, train=again, remat=self.remat)
        x = pad_before_halving(image.astype(self.dtype), 3, self.framework)
        settings = {"use_bias": False, "kernel_init": CONV_INIT, "dtype": self.dtype}
        stem_features, _ = scaled_ends(self.variant)
        stem = nn.Conv(stem_features, (3, 3), 2, padding="VALID", **settings, name="stem_conv")
        x = convolved(stem, norm(name="stem_bn"), x, activation(lite=lite))  # [B, H/2, W/2, 32 width]
        outputs = []
        stages = scaled_stages(self.variant)
        total = sum(stage.blocks for stage in stages)
        done = 0
        for i, stage in enumerate(stages[:last], start=1):
            for j in range(stage.blocks):
                x = block(
                    features=stage.features,
                    expansion=stage.expansion,
                    kernel_size=stage.kernel_size,
                    strides=stage.strides if j == 0 else 1,
                    drop_rate=self.drop_path * done / total,
                    framework=self.framework,
                    norm=norm,
                    train=train,
                    lite=lite,
                    dtype=self.dtype,
                    name=f"block{i}{chr(ord('a') + j)}",
                )(x)
                done += 1
            outputs.append(x)
        return outputs
