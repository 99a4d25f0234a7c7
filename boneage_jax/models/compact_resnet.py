"""A residual network for small images and little compute: basic blocks, joined by patch merging.

After ResNet (He et al., CVPR 2016), with the space-to-depth stem of TResNet (Ridnik et al., WACV 2021), the 2x2 patch
merging of Swin (Liu et al., ICCV 2021) and zero-initialised last normalisations (Goyal et al., 2017). All 3x3
convolutions have stride 1, the fastest form on every platform.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from boneage_jax.errors import BoneAgeError
from boneage_jax.models.layers import Conv, Layer, Pointwise, StochasticDepth, batch_norm, recomputed

HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv3x3(nn.Module):
    """3x3 convolution (no bias), normalisation and, with `activate`, ReLU."""

    features: int
    norm: Layer
    activate: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Keeps the height and the width."""
        settings = {"use_bias": False, "kernel_init": HE_NORMAL, "dtype": self.dtype}
        x = Conv(self.features, (3, 3), padding="SAME", **settings, name="conv")(x)
        x = self.norm(name="norm")(x)
        return nn.relu(x) if self.activate else x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual shortcut."""

    norm: Layer
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        """Keeps the shape."""
        last_norm = partial(self.norm, scale_init=nn.initializers.zeros_init())
        y = Conv3x3(x.shape[-1], self.norm, dtype=self.dtype, name="conv1")(x)
        y = Conv3x3(x.shape[-1], last_norm, activate=False, dtype=self.dtype, name="conv2")(y)
        return nn.relu(x + StochasticDepth(self.drop_path, deterministic=not train, name="drop_path")(y))


class CompactResNet(nn.Module):
    """Stem and stages of basic blocks: [B, H, W, C] to [B, H / 2^n, W / 2^n, D] for n stages, rounded up.

    The stem and every stage after the first halve the height and width; `widths` are the channels of the stages.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (1, 2, 3, 2)
    drop_path: float = 0.0  # rate of stochastic depth in the last block; rises linearly from 0 in the first
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects different numbers of widths and stages, and a `drop_path` outside [0, 1)."""
        if len(self.widths) != len(self.blocks):
            raise BoneAgeError(f"CompactResNet has {len(self.widths)} widths for {len(self.blocks)} stages of blocks")
        if not 0 <= self.drop_path < 1:
            raise BoneAgeError(f"drop_path of CompactResNet is {self.drop_path}, expected 0 to below 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Returns the output of the last block, before pooling."""
        norm = batch_norm(train=train, momentum=0.9, epsilon=1e-5, axis_name=self.axis_name, dtype=self.dtype)
        block = recomputed(BasicBlock, train=train, remat=self.remat, static_argnums=(2,))
        rates = iter(np.linspace(0, self.drop_path, sum(self.blocks)).tolist())
        x = space_to_depth(image.astype(self.dtype))  # [B, H/2, W/2, 4 C]
        x = Conv3x3(self.widths[0], norm, dtype=self.dtype, name="stem")(x)
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), start=1):
            if i > 1:
                x = Pointwise(width, dtype=self.dtype, name=f"merge{i}")(space_to_depth(x))
                x = norm(name=f"merge{i}_norm")(x)
            for j in range(1, blocks + 1):
                name = f"stage{i}_block{j}"
                x = block(norm, drop_path=next(rates), dtype=self.dtype, name=name)(x, train)
        return x  # [B, H/2^n, W/2^n, D]


def space_to_depth(x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    """Moves each 2x2 square of pixels to the channels: [B, H, W, C] to [B, H/2, W/2, 4 C], odd sides padded with 0."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)
