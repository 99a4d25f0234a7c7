"""Pieces that several trunks share: normalisation, 1x1 and separable convolution, stochastic depth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax import kernels
from boneage_jax.kernels.kept import NAME as KEPT
from boneage_jax.models.depthwise import DepthwiseConv
from boneage_jax.models.normalisation import BatchNorm

# `nn.Conv`, computed by own kernels where there are any; its parameters are the same.
Conv = partial(nn.Conv, conv_general_dilated=kernels.conv_general_dilated)

# Stochastic depth (Huang et al., ECCV 2016): drops a residual branch for whole images, `x + StochasticDepth(rate)(y)`.
StochasticDepth = partial(nn.Dropout, broadcast_dims=(1, 2, 3))

# A layer class with some of its settings already filled in, e.g. what `batch_norm` returns.
Layer = Callable[..., nn.Module]


def batch_norm(
    *, train: bool, momentum: float, epsilon: float, axis_name: str | None, dtype: Any
) -> partial[BatchNorm]:
    """BatchNorm with nothing left to flax's defaults, which differ from those of Keras and PyTorch.

    Args:
        train: normalise with the batch's statistics and move the running ones; else use the running ones.
        momentum: share of the old running statistics that one step keeps (PyTorch's momentum is 1 - this).
        epsilon: added to the variance.
        axis_name: mapped axis over which the statistics are averaged; None keeps them per device.
        dtype: of the output; the statistics are float32 always.
    """
    return partial(
        BatchNorm,
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
    )


def recomputed(
    block: type[nn.Module], *, train: bool, remat: bool, static_argnums: tuple[int, ...] = ()
) -> type[nn.Module]:
    """`block`, whose backward pass computes again what takes little time: all but what is `kept`.

    Kept are the results of convolutions and max pools and BatchNorm's moments.

    With `remat` it computes everything again, from the input of the block: the least memory, and another forward pass.
    Only in training; in evaluation it is the block itself.
    """
    if not train:
        return block
    policy = None if remat else jax.checkpoint_policies.save_only_these_names(KEPT)
    return nn.remat(block, policy=policy, static_argnums=static_argnums)


class Pointwise(nn.Module):
    """1x1 convolution, as a matrix product: on the CPU about five times XLA's convolution.

    The parameters are those of `nn.Conv` with a 1x1 kernel, so weights carry over as they are.
    """

    features: int
    strides: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Maps the channels of every `strides`-th pixel."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        x = x[:, :: self.strides, :: self.strides].astype(self.dtype)
        x = kernels.pointwise(x, kernel[0, 0].astype(self.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return x


class SeparableConv(nn.Module):
    """Depthwise 3x3, then pointwise convolution; nothing between them, no biases (Chollet 2017)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Keeps the height and the width."""
        x = DepthwiseConv(3, dtype=self.dtype, name="depthwise")(x)
        return Pointwise(self.features, dtype=self.dtype, name="pointwise")(x)
