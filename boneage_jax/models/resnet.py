"""ResNet-50 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1 and figure 5)."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax import kernels
from boneage_jax.errors import BoneAgeError
from boneage_jax.models.layers import Conv, Layer, Pointwise, batch_norm, recomputed


@dataclasses.dataclass(frozen=True)
class Framework:
    """Differences between the two ResNet-50s with published weights."""

    halving: int  # which of a block's three convolutions halves height and width
    use_bias: bool  # in every convolution, although BatchNorm follows
    momentum: float  # of BatchNorm
    epsilon: float  # of BatchNorm


FRAMEWORKS = {
    # torchvision and timm: "v1.5", which halves in the 3x3 convolution and so uses every pixel.
    "torch": Framework(halving=2, use_bias=False, momentum=0.9, epsilon=1e-5),
    # keras.applications: as in the paper.
    "keras": Framework(halving=1, use_bias=True, momentum=0.99, epsilon=1.001e-5),
}

# He et al., "Delving Deep into Rectifiers" (ICCV 2015), as in torchvision.
HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, the last four times as wide as the others, with a residual shortcut.

    The shortcut is a 1x1 convolution in the first block of a stage and the identity in the others.
    """

    features: int
    framework: Framework
    norm: Layer
    strides: int = 1
    project: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Divides height and width by `strides`, rounding up."""
        settings = {"use_bias": self.framework.use_bias, "kernel_init": HE_NORMAL, "dtype": self.dtype}
        strides1, strides2 = (self.strides, 1) if self.framework.halving == 1 else (1, self.strides)
        shortcut = x
        if self.project:
            shortcut = Pointwise(4 * self.features, strides=self.strides, **settings, name="shortcut")(x)
            shortcut = self.norm(name="shortcut_bn")(shortcut)
        x = Pointwise(self.features, strides=strides1, **settings, name="conv1")(x)
        x = nn.relu(self.norm(name="conv1_bn")(x))
        x = Conv(self.features, (3, 3), strides2, padding=1, **settings, name="conv2")(x)
        x = nn.relu(self.norm(name="conv2_bn")(x))
        x = Pointwise(4 * self.features, **settings, name="conv3")(x)
        x = self.norm(name="conv3_bn")(x)
        return nn.relu(x + shortcut)


class ResNet50(nn.Module):
    """Stem and four stages of bottleneck blocks: [B, H, W, C] to [B, H / 32, W / 32, 32 width], rounded up.

    For three input channels, "torch" has 23,508,032 parameters and "keras" 23,587,712, as each framework
    counts: Keras includes BatchNorm's 53,120 running statistics. Published input: 224 x 224; for "torch"
    standardised per channel, for "keras" intensities (0 to 255) with the channels in the order blue, green, red
    and ImageNet's mean subtracted.
    """

    framework: str = "torch"
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # of each stage
    width: int = 64  # of the stem and the first stage; every further stage doubles it
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects an unknown framework."""
        if self.framework not in FRAMEWORKS:
            raise BoneAgeError(f"unknown framework {self.framework!r} of ResNet50; known: {', '.join(FRAMEWORKS)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w D"]:
        """Returns the output of the last block, before pooling."""
        framework = FRAMEWORKS[self.framework]
        norm = batch_norm(
            train=train,
            momentum=framework.momentum,
            epsilon=framework.epsilon,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = self.stem(image.astype(self.dtype), norm)  # [B, H/4, W/4, width]
        block = recomputed(Bottleneck, train=train, remat=self.remat)
        bottleneck = partial(block, framework=framework, norm=norm, dtype=self.dtype)
        for i, blocks in enumerate(self.blocks):
            features = self.width * 2**i
            strides = 1 if i == 0 else 2
            x = bottleneck(features, strides=strides, project=True, name=f"stage{i + 1}_block1")(x)
            for j in range(2, blocks + 1):
                x = bottleneck(features, name=f"stage{i + 1}_block{j}")(x)
        return x  # [B, H/32, W/32, 32 width]

    def stem(self, x: Float[Array, "B H W C"], norm: Layer) -> Float[Array, "B h w D"]:
        """7x7 convolution and 3x3 max pool, both of stride 2: a quarter of the height and width."""
        settings = {"use_bias": FRAMEWORKS[self.framework].use_bias, "kernel_init": HE_NORMAL, "dtype": self.dtype}
        x = nn.Conv(self.width, (7, 7), 2, padding=3, **settings, name="conv1")(x)
        x = nn.relu(norm(name="conv1_bn")(x))
        # Keras pads with zeros, PyTorch with minus infinity: the same after a ReLU.
        return kernels.max_pool(x, 3, stride=2, padding=((1, 1), (1, 1)))
