"""Inception-v3 (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, table 1).

Blocks are numbered as in `keras.applications.InceptionV3`; branches are named as in torchvision's `inception_v3`.
"""

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
    """Differences between the published implementations, and therefore between their ImageNet weights."""

    scale: bool  # BatchNorm has a learned scale in addition to the offset
    momentum: float  # of BatchNorm's running statistics
    count_padding: bool  # average pools include the zero padding in the mean


FRAMEWORKS = {
    "keras": Framework(scale=False, momentum=0.99, count_padding=False),
    "torch": Framework(scale=True, momentum=0.9, count_padding=True),
}


class ConvUnit(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    features: int
    kernel_size: tuple[int, int]
    norm: Layer
    strides: int = 1
    padding: str = "SAME"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Keeps height and width with stride 1 and SAME padding."""
        if self.kernel_size == (1, 1):
            x = Pointwise(self.features, strides=self.strides, dtype=self.dtype, name="conv")(x)
        else:
            strides = (self.strides, self.strides)
            settings = {"padding": self.padding, "use_bias": False, "dtype": self.dtype}
            x = Conv(self.features, self.kernel_size, strides, **settings, name="conv")(x)
        return nn.relu(self.norm(name="bn")(x))


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """3x3 max pool with stride 2: halves height and width."""
    return kernels.max_pool(x, 3, stride=2)


def average_pool(x: Float[Array, "B H W C"], *, count_padding: bool) -> Float[Array, "B H W C"]:
    """3x3 average pool; pixels beyond the edge count as zeros with `count_padding`, otherwise they are excluded."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=count_padding)


class Stem(nn.Module):
    """Five convolutions and two max pools: 299 x 299 pixels become a map of 35 x 35."""

    norm: Layer
    dtype: Any

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"]) -> Float[Array, "B h w 192"]:
        """Takes any number of channels."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        x = image.astype(self.dtype)
        x = unit(32, (3, 3), strides=2, padding="VALID", name="conv1a_3x3")(x)  # [B, H/2, W/2, 32]
        x = unit(32, (3, 3), padding="VALID", name="conv2a_3x3")(x)
        x = unit(64, (3, 3), name="conv2b_3x3")(x)
        x = max_pool(x)  # [B, H/4, W/4, 64]
        x = unit(80, (1, 1), name="conv3b_1x1")(x)
        x = unit(192, (3, 3), padding="VALID", name="conv4a_3x3")(x)
        return max_pool(x)  # [B, H/8, W/8, 192]


class Mixed(nn.Module):
    """Base class of the mixed blocks, which concatenate the channels of parallel branches over the same map."""

    norm: Layer
    count_padding: bool  # in the average pool
    dtype: Any


class MixedA(Mixed):
    """A 5x5 branch and one of two 3x3 convolutions (figure 5); mixed0 to mixed2."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w D"]:
        """Returns 224 + `pool_features` channels."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        single = unit(64, (1, 1), name="branch1x1")(x)

        five = unit(48, (1, 1), name="branch5x5_1")(x)
        five = unit(64, (5, 5), name="branch5x5_2")(five)

        double = unit(64, (1, 1), name="branch3x3dbl_1")(x)
        double = unit(96, (3, 3), name="branch3x3dbl_2")(double)
        double = unit(96, (3, 3), name="branch3x3dbl_3")(double)

        pool = unit(self.pool_features, (1, 1), name="branch_pool")(average_pool(x, count_padding=self.count_padding))
        return jnp.concatenate([single, five, double, pool], axis=-1)


class MixedB(Mixed):
    """Halves height and width with 3x3 convolutions beside a max pool (figure 10); mixed3."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Adds 480 channels to those of `x`."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        single = unit(384, (3, 3), strides=2, padding="VALID", name="branch3x3")(x)

        double = unit(64, (1, 1), name="branch3x3dbl_1")(x)
        double = unit(96, (3, 3), name="branch3x3dbl_2")(double)
        double = unit(96, (3, 3), strides=2, padding="VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([single, double, max_pool(x)], axis=-1)


class MixedC(Mixed):
    """7x7 convolutions, factorised into 1x7 and 7x1 (figure 6); mixed4 to mixed7."""

    features: int  # within the branches

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w 768"]:
        """Returns 192 channels from each of four branches."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        single = unit(192, (1, 1), name="branch1x1")(x)

        seven = unit(self.features, (1, 1), name="branch7x7_1")(x)
        seven = unit(self.features, (1, 7), name="branch7x7_2")(seven)
        seven = unit(192, (7, 1), name="branch7x7_3")(seven)

        double = unit(self.features, (1, 1), name="branch7x7dbl_1")(x)
        double = unit(self.features, (7, 1), name="branch7x7dbl_2")(double)
        double = unit(self.features, (1, 7), name="branch7x7dbl_3")(double)
        double = unit(self.features, (7, 1), name="branch7x7dbl_4")(double)
        double = unit(192, (1, 7), name="branch7x7dbl_5")(double)

        pool = unit(192, (1, 1), name="branch_pool")(average_pool(x, count_padding=self.count_padding))
        return jnp.concatenate([single, seven, double, pool], axis=-1)


class MixedD(Mixed):
    """Halves height and width after a 1x1 or a factorised 7x7 convolution, beside a max pool; mixed8."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Adds 512 channels to those of `x`."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        three = unit(192, (1, 1), name="branch3x3_1")(x)
        three = unit(320, (3, 3), strides=2, padding="VALID", name="branch3x3_2")(three)

        seven = unit(192, (1, 1), name="branch7x7x3_1")(x)
        seven = unit(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = unit(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = unit(192, (3, 3), strides=2, padding="VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, max_pool(x)], axis=-1)


class MixedE(Mixed):
    """Branches that fan out into a 1x3 and a 3x1 convolution side by side (figure 7); mixed9 and mixed10."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w 2048"]:
        """Returns 320 + 2 * 384 + 2 * 384 + 192 channels."""
        unit = partial(ConvUnit, norm=self.norm, dtype=self.dtype)
        single = unit(320, (1, 1), name="branch1x1")(x)

        three = unit(384, (1, 1), name="branch3x3_1")(x)
        three_wide = unit(384, (1, 3), name="branch3x3_2a")(three)
        three_high = unit(384, (3, 1), name="branch3x3_2b")(three)

        double = unit(448, (1, 1), name="branch3x3dbl_1")(x)
        double = unit(384, (3, 3), name="branch3x3dbl_2")(double)
        double_wide = unit(384, (1, 3), name="branch3x3dbl_3a")(double)
        double_high = unit(384, (3, 1), name="branch3x3dbl_3b")(double)

        pool = unit(192, (1, 1), name="branch_pool")(average_pool(x, count_padding=self.count_padding))
        return jnp.concatenate([single, three_wide, three_high, double_wide, double_high, pool], axis=-1)


class InceptionV3(nn.Module):
    """Stem and eleven mixed blocks: [B, H, W, C] to [B, about H / 32, about W / 32, 2048].

    21,802,784 parameters for three input channels, counted as in Keras (with BatchNorm's running statistics).
    Published input: 299 x 299, scaled to [-1, 1]; the smallest is 75 x 75.

    The framework "torch" is torchvision's and timm's `inception_v3`, which differs from "keras" in two points that
    the weights depend on (see `Framework`): BatchNorm has a scale (17,216 parameters more), and average pools
    count the padding. Weights trained in one give wrong features in the other.
    """

    framework: str = "keras"
    axis_name: str | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Rejects an unknown framework."""
        if self.framework not in FRAMEWORKS:
            known = ", ".join(FRAMEWORKS)
            raise BoneAgeError(f"unknown framework {self.framework!r} of {type(self).__name__}; known: {known}")
        super().__post_init__()

    @nn.compact
    def __call__(self, image: Float[Array, "B H W C"], *, train: bool) -> Float[Array, "B h w 2048"]:
        """Returns the channels of the last mixed block, before pooling."""
        norm = self.norm(train)
        return self.mixed_flow(self.stem_layer("stem", norm, train=train)(image), norm, train=train)

    def norm(self, train: bool) -> Layer:
        """BatchNorm with the framework's settings."""
        framework = FRAMEWORKS[self.framework]
        norm = batch_norm(
            train=train, momentum=framework.momentum, epsilon=1e-3, axis_name=self.axis_name, dtype=self.dtype
        )
        return partial(norm, use_scale=framework.scale)

    def stem_layer(self, name: str, norm: Layer, *, train: bool) -> nn.Module:
        """Makes a stem with the given name."""
        stem = recomputed(Stem, train=train, remat=self.remat)
        return stem(norm=norm, dtype=self.dtype, name=name)

    def mixed_flow(self, x: Float[Array, "B h w 192"], norm: Layer, *, train: bool) -> Float[Array, "B h2 w2 2048"]:
        """Applies the mixed blocks, at 1/8, 1/16 and 1/32 of the image's height and width."""
        mixed = partial(self._mixed, norm=norm, train=train)
        for i, pool_features in enumerate((32, 64, 64)):
            x = mixed(MixedA, i, pool_features=pool_features)(x)  # [B, H/8, W/8, 256 or 288]
        x = mixed(MixedB, 3)(x)  # [B, H/16, W/16, 768]
        for i, features in enumerate((128, 160, 160, 192), start=4):
            x = mixed(MixedC, i, features=features)(x)
        x = mixed(MixedD, 8)(x)  # [B, H/32, W/32, 1280]
        for i in (9, 10):
            x = mixed(MixedE, i)(x)
        return x  # [B, H/32, W/32, 2048]

    def _mixed(self, kind: type[Mixed], number: int, *, norm: Layer, train: bool, **settings: Any) -> nn.Module:
        block = recomputed(kind, train=train, remat=self.remat)
        count_padding = FRAMEWORKS[self.framework].count_padding
        return block(norm=norm, count_padding=count_padding, dtype=self.dtype, name=f"mixed{number}", **settings)
