"""ConvNeXt V2 (Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023)."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.depthwise import DepthwiseConv
from boneage_jax.models.layers import Layer, Pointwise, StochasticDepth, recomputed


class Size(NamedTuple):
    """Depth and width of a variant."""

    depths: tuple[int, ...]  # blocks of each stage
    dims: tuple[int, ...]  # channels of each stage


VARIANTS = {
    "atto": Size(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)),
    "femto": Size(depths=(2, 2, 6, 2), dims=(48, 96, 192, 384)),
    "pico": Size(depths=(2, 2, 6, 2), dims=(64, 128, 256, 512)),
    "nano": Size(depths=(2, 2, 8, 2), dims=(80, 160, 320, 640)),
    "tiny": Size(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
    "micro": Size(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),  # not published; for tests
}
EPSILON = 1e-6  # of every normalisation
# The paper's truncated normal: the original code truncates it at -2 and 2, which no sample reaches.
INITIALISER = nn.initializers.normal(0.02)


class GlobalResponseNorm(nn.Module):
    """Makes the channels compete: scales each by its norm over the map relative to the mean norm of all channels.

    `x (1 + gamma n) + beta` with `n = |x| / mean over the channels of |x|`, and `|x|` the L2 norm of a channel's map
    (section 3.3). Computed in float32 whatever `dtype` is, because it sums squares over all pixels.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Keeps the shape."""
        gamma, beta = (
            self.param(name, nn.initializers.zeros_init(), (x.shape[-1],)).reshape(1, 1, 1, -1)
            for name in ("gamma", "beta")
        )
        x = x.astype(jnp.float32)
        square = jnp.sum(x * x, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        # The gradient of the square root is infinite at 0: without the floor, an all-zero channel would give NaN.
        norm = jnp.sqrt(jnp.maximum(square, 1e-30))
        relative = norm / (norm.mean(axis=-1, keepdims=True) + EPSILON)
        return (x * (1 + gamma * relative) + beta).astype(self.dtype)


class Block(nn.Module):
    """Depthwise convolution, then a pointwise MLP of four times the width, with a residual shortcut around both."""

    drop_rate: float  # of stochastic depth, in training
    norm: Layer
    train: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Keeps the shape."""
        channels, shortcut = x.shape[-1], x
        x = DepthwiseConv(7, use_bias=True, dtype=self.dtype, kernel_init=INITIALISER, name="depthwise")(x)
        x = self.norm(name="norm")(x)
        pointwise = partial(Pointwise, use_bias=True, dtype=self.dtype, kernel_init=INITIALISER)
        x = nn.gelu(pointwise(4 * channels, name="expand")(x), approximate=False)  # [B, h, w, 4 C]
        x = GlobalResponseNorm(dtype=self.dtype, name="grn")(x)
        x = pointwise(channels, name="project")(x)
        return shortcut + StochasticDepth(self.drop_rate, deterministic=not self.train, name="drop_path")(x)


class ConvNeXtV2(nn.Module):
    """4x4 patch embedding, then four stages of blocks: [B, H, W, C] to [B, H / 32, W / 32, D], rounded down.

    Parameters for three input channels, and D: atto 3,386,760 (320), femto 4,847,472 (384), pico 8,552,256 (512),
    nano 14,981,520 (640), tiny 27,864,960 (768). The published counts also include the 1,000-class
    classifier and the LayerNorm before it. That LayerNorm comes after the global pool, so it is not part of the trunk.
    Published input: 224 x 224, standardised per channel.
    """

    variant: str = "atto"
    drop_path: float = 0.0  # rate of stochastic depth in the last block; it rises linearly from 0 in the first
    axis_name: str | None = None  # every trunk takes it; unused here, as nothing depends on the other images of a batch
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects an unknown variant and a `drop_path` outside [0, 1)."""
        if self.variant not in VARIANTS:
            raise BoneAgeError(f"unknown variant {self.variant!r} of ConvNeXt V2; known: {', '.join(VARIANTS)}")
        if not 0 <= self.drop_path < 1:
            raise BoneAgeError(f"drop_path of ConvNeXt V2 is {self.drop_path}, expected 0 to below 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Returns the output of the last block, before pooling."""
        depths, dims = VARIANTS[self.variant]
        # The one-pass variance, E[x^2] - E[x]^2, loses most of its float32 precision where the mean is large.
        norm = partial(nn.LayerNorm, epsilon=EPSILON, dtype=self.dtype, use_fast_variance=False)
        block = partial(recomputed(Block, train=train, remat=self.remat), norm=norm, train=train, dtype=self.dtype)
        blocks = sum(depths)
        rates = (self.drop_path * i / (blocks - 1) for i in range(blocks))

        x = self._patches(image.astype(self.dtype), dims[0], 4, "stem")
        x = norm(name="stem_norm")(x)  # [B, H/4, W/4, dims[0]]
        for stage, (depth, channels) in enumerate(zip(depths, dims, strict=True), start=1):
            if stage > 1:
                x = norm(name=f"downsample{stage}_norm")(x)
                x = self._patches(x, channels, 2, f"downsample{stage}")  # half the height and width, rounded down
            for i in range(depth):
                x = block(next(rates), name=f"stage{stage}_block{i + 1}")(x)
        return x  # [B, H/32, W/32, dims[3]]

    def _patches(self, x: Float[Array, "B H W C"], features: int, size: int, name: str) -> Float[Array, "B h w D"]:
        """Convolution over non-overlapping patches; trailing pixels that do not fill a patch are dropped."""
        patch = (size, size)
        conv = nn.Conv(features, patch, patch, "VALID", kernel_init=INITIALISER, dtype=self.dtype, name=name)
        return conv(x)
