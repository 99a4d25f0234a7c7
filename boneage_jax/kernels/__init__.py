"""C++ kernels for operations that XLA runs slowly on CPUs, behind functions that run on every platform."""

from boneage_jax.kernels.activation import relu6, shifted
from boneage_jax.kernels.convolution import conv_general_dilated
from boneage_jax.kernels.pooling import max_pool
from boneage_jax.kernels.product import pointwise, pointwise_relu6
from boneage_jax.kernels.sums import channel_sums

__all__ = ["channel_sums", "conv_general_dilated", "max_pool", "pointwise", "pointwise_relu6", "relu6", "shifted"]
