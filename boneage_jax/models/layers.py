"""Layers that several trunks share: normalisation, 1x1 and separable convolution, stochastic depth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from boneage_jax import kernels
from boneage_jax.kernels import relu6, shifted
from boneage_jax.kernels.kept import NAME as KEPT
from boneage_jax.models.depthwise import DepthwiseConv
from boneage_jax.models.normalisation import BatchNorm, FoldedBatchNorm, affine

# `nn.Conv` with the same parameters, computed by this package's kernels where they support it.
Conv = partial(nn.Conv, conv_general_dilated=kernels.conv_general_dilated)

# Stochastic depth (Huang et al., ECCV 2016): drops a residual branch for whole images, `x + StochasticDepth(rate)(y)`.
StochasticDepth = partial(nn.Dropout, broadcast_dims=(1, 2, 3))

# A layer class with some of its settings already filled in, e.g. the result of `batch_norm`.
Layer = Callable[..., nn.Module]

Activation = Callable[[Array], Array]


def batch_norm(
    *, train: bool, momentum: float, epsilon: float, axis_name: str | None, dtype: Any, folded: bool = False
) -> Layer:
    """BatchNorm with every setting explicit, because flax's defaults differ from those of Keras and PyTorch.

    Args:
        train: normalise with the batch's statistics and update the running ones; else use the running ones.
        momentum: share of the old running statistics that one step keeps (PyTorch's momentum is 1 - this).
        epsilon: added to the variance.
        axis_name: mapped axis over which the statistics are averaged; None keeps them per device.
        dtype: of the output; the statistics are always float32.
        folded: always normalise by the running statistics, folded into the preceding layer; for `convolved`.
    """
    return partial(
        FoldedBatchNorm if folded else BatchNorm,
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        axis_name=axis_name,
        dtype=dtype,
    )


def convolved(
    layer: nn.Module, norm: nn.Module, x: Float[Array, "B H W C"], activate: Activation | None = None
) -> Float[Array, "B h w D"]:
    """Applies `layer`, `norm` and `activate` to x, in this order.

    A folded norm scales the kernel of a pointwise or depthwise layer and adds a bias, which avoids a pass over the
    pixels; with ReLU6 as `activate`, all three are one operation.
    """
    if not isinstance(norm, FoldedBatchNorm):
        x = norm(layer(x))
    elif isinstance(layer, Pointwise | DepthwiseConv):
        factor, bias = norm(layer.features if isinstance(layer, Pointwise) else x.shape[-1])
        if activate is relu6:
            return layer(x, factor, bias)
        x = shifted(layer(x, factor), bias)
    else:
        x = layer(x)
        factor, bias = norm(x.shape[-1])
        x = affine(x, jnp.zeros_like(bias), factor, bias)
    return x if activate is None else activate(x)


def recomputed(
    block: type[nn.Module], *, train: bool, remat: bool, static_argnums: tuple[int, ...] = ()
) -> type[nn.Module]:
    """Wraps `block` so that the backward pass recomputes everything that is cheap: all results not marked as `kept`.

    The kept results are those of convolutions and max pools, and BatchNorm's moments.

    With `remat`, everything is recomputed from the input of the block: the least memory, at the cost of another forward
    pass. Without `train`, `block` is returned unchanged.
    """
    if not train:
        return block
    policy = None if remat else jax.checkpoint_policies.save_only_these_names(KEPT)
    return nn.remat(block, policy=policy, static_argnums=static_argnums)


class Pointwise(nn.Module):
    """1x1 convolution as a matrix product: on the CPU about five times as fast as XLA's convolution.

    The parameters are those of `nn.Conv` with a 1x1 kernel, so weights carry over unchanged.
    """

    features: int
    strides: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        factor: Float[Array, "D"] | None = None,
        relu6_bias: Float[Array, "D"] | None = None,
    ) -> Float[Array, "B h w D"]:
        """Maps the channels of every `strides`-th pixel.

        `factor` multiplies the kernel. With `relu6_bias`, the bias is added to the result and ReLU6 applied.
        """
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        if factor is not None:
            kernel = kernel * factor.reshape(1, 1, 1, -1)
        x = x[:, :: self.strides, :: self.strides].astype(self.dtype)
        if relu6_bias is not None:
            return kernels.pointwise_relu6(x, kernel[0, 0], relu6_bias)
        x = kernels.pointwise(x, kernel[0, 0])
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            x = shifted(x, bias)
        return x


class SeparableConv(nn.Module):
    """Depthwise 3x3, then pointwise convolution, with no activation between them and no biases (Chollet 2017)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        """Keeps the height and the width."""
        x = DepthwiseConv(3, dtype=self.dtype, name="depthwise")(x)
        return Pointwise(self.features, dtype=self.dtype, name="pointwise")(x)
