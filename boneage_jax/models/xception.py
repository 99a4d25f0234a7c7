"""Xception (Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, figure 5).

Layers are named as in `keras.applications.Xception`; `shortcut` is the 1x1 convolution around a block.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax import kernels
from boneage_jax.models.layers import Conv, Layer, Pointwise, SeparableConv, batch_norm, recomputed


class ResidualBlock(nn.Module):
    """Separable convolutions, each followed by BatchNorm, with a residual shortcut.

    A downsampling block ends in a 3x3 max pool with stride 2; its shortcut is a 1x1 convolution with stride 2.
    """

    features: tuple[int, ...]  # of each separable convolution
    norm: Layer
    downsample: bool = True
    leading_relu: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Halves height and width (rounding up) if it downsamples."""
        shortcut = x
        for i, features in enumerate(self.features, start=1):
            if i > 1 or self.leading_relu:
                x = nn.relu(x)
            x = SeparableConv(features, dtype=self.dtype, name=f"sepconv{i}")(x)
            x = self.norm(name=f"sepconv{i}_bn")(x)
        if self.downsample:
            x = kernels.max_pool(x, 3, stride=2, padding="SAME")
            shortcut = Pointwise(self.features[-1], strides=2, dtype=self.dtype, name="shortcut")(shortcut)
            shortcut = self.norm(name="shortcut_bn")(shortcut)
        return x + shortcut


class Xception(nn.Module):
    """Entry, middle and exit flow: [B, H, W, C] to [B, about H / 32, about W / 32, 2048].

    20,861,480 parameters for three input channels, counted as in Keras (with BatchNorm's running statistics).
    Published input: 299 x 299, scaled to [-1, 1].
    """

    middle_blocks: int = 8
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w 2048"]:
        """Returns the activations of the last layer, before pooling."""
        norm = batch_norm(train=train, momentum=0.99, epsilon=1e-3, axis_name=self.axis_name, dtype=self.dtype)
        kind = recomputed(ResidualBlock, train=train, remat=self.remat)
        block = partial(kind, norm=norm, dtype=self.dtype)
        x = self.entry_flow(image.astype(self.dtype), norm, block)
        x = self.middle_flow(x, block)
        return self.exit_flow(x, norm, block)

    def entry_flow(self, x: Float[Array, "B H W C"], norm: Layer, block: Layer) -> Float[Array, "B h w 728"]:
        """Two plain convolutions, three downsampling blocks: one sixteenth of the height and width."""
        x = self._plain(x, 32, 2, norm, "block1_conv1")  # [B, H/2, W/2, 32]
        x = self._plain(x, 64, 1, norm, "block1_conv2")
        x = block((128, 128), leading_relu=False, name="block2")(x)  # [B, H/4, W/4, 128]
        x = block((256, 256), name="block3")(x)  # [B, H/8, W/8, 256]
        return block((728, 728), name="block4")(x)  # [B, H/16, W/16, 728]

    def middle_flow(self, x: Float[Array, "B h w 728"], block: Layer) -> Float[Array, "B h w 728"]:
        """Repeated blocks of three separable convolutions with an identity shortcut."""
        for i in range(self.middle_blocks):
            x = block((728, 728, 728), downsample=False, name=f"block{5 + i}")(x)
        return x

    def exit_flow(self, x: Float[Array, "B h w 728"], norm: Layer, block: Layer) -> Float[Array, "B h2 w2 2048"]:
        """A last downsampling block, two wide separable convolutions."""
        last = 5 + self.middle_blocks
        x = block((728, 1024), name=f"block{last}")(x)  # [B, H/32, W/32, 1024]
        for i, features in enumerate((1536, 2048), start=1):
            name = f"block{last + 1}_sepconv{i}"
            x = SeparableConv(features, dtype=self.dtype, name=name)(x)
            x = nn.relu(norm(name=f"{name}_bn")(x))
        return x  # [B, H/32, W/32, 2048]

    def _plain(
        self, x: Float[Array, "B H W C"], features: int, stride: int, norm: Layer, name: str
    ) -> Float[Array, "B h w D"]:
        conv = Conv(features, (3, 3), stride, padding="VALID", use_bias=False, dtype=self.dtype, name=name)
        return nn.relu(norm(name=f"{name}_bn")(conv(x)))
